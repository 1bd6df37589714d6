"""The names of known backbones: what `keras.applications` offers, and the small models of the package."""

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from stackcls.errors import ConfigError

BUNDLED = ("mini_vgg", "mini_resnet", "mini_inception", "mini_xception")
BUNDLED_SIZE = 32


@dataclass(frozen=True)
class Architecture:
    """One model of `keras.applications`, as `architectures.csv` describes it.

    Attributes
    ----------
    name, architecture : str
        The name for `backbones:`, and the function in `keras.applications`.
    input_size, width, parameters : int
        Side length in pixels, number of pooled features, number of weights without the top.
    weights_url, weights_md5 : str
        Address and MD5 sum of the published ImageNet weights without classification layers, as Keras names them.
    """

    name: str
    architecture: str
    input_size: int
    width: int
    parameters: int
    weights_url: str
    weights_md5: str


@cache
def architectures() -> Mapping[str, Architecture]:
    """All known architectures by name."""
    text = resources.files("stackcls").joinpath("data/architectures.csv").read_text("utf-8")
    known = [
        Architecture(name, function, int(size), int(width), int(parameters), url, md5)
        for name, function, size, width, parameters, url, md5 in list(csv.reader(text.splitlines()))[1:]
    ]
    return {item.name: item for item in known}


def bundled_file(name: str) -> Path:
    """Path of one of the four small models that are part of the package."""
    return Path(str(resources.files("stackcls").joinpath(f"data/{name}.keras")))


def find_architecture(wanted: str, where: str) -> Architecture:
    """Find one by either of its names; raise `ConfigError`, beginning with `where`, if there is none."""
    for item in architectures().values():
        if wanted in (item.name, item.architecture):
            return item
    names = [*architectures(), *(item.architecture for item in architectures().values()), *BUNDLED]
    close = difflib.get_close_matches(wanted, names, 3, 0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise ConfigError(f"{where}: {wanted!r} is not a known architecture; {hint}`stackcls backbones` lists them")
