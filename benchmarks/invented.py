"""`features` on images that do not exist: everything that stackcls does for an image but reading and looking at it.

A manifest names them, a hash of the name stands for their content, and features come from nowhere. What is listed,
hashed, kept, sent, written and read is as ever, so that time and memory are those of so many images.
"""

import functools
import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stackcls import backbones, computation, config, images, remotely, worker  # noqa: E402
from stackcls.extraction import Extracted, ImageInput  # noqa: E402
from stackcls.settings import Settings  # noqa: E402
from stackcls.tasks import Computed  # noqa: E402

MOBILENETS, ARTICLE = (1024, 768, 512, 1280), (512, 2048, 2048, 2048)  # numbers per image
SECONDS, LOG = "INVENTED_SECONDS", "INVENTED_LOG"  # of a block on a worker, and where each is noted
BATCH = 128
CLASSES = 100


def settings(folder: Path, count: int, widths: Sequence[int]) -> Settings:
    """Write a manifest of so many images; settings of as many backbones as there are widths."""
    with open(folder / "manifest.csv", "w") as file:
        file.write("path,label\n")
        for number in range(count):
            file.write(f"class {number % CLASSES:03d}/{number:010d}.jpg,class {number % CLASSES:03d}\n")
    named = [
        {
            "name": f"{number}_{width}",
            "architecture": "MobileNet",
            "input_size": 32,
            "weights": "random",
            "seed": number,
        }
        for number, width in enumerate(widths)
    ]
    raw = {
        "images": str(folder / "manifest.csv"),
        "artifacts": str(folder / "artifacts"),
        "features": {"backbones": named},
    }
    return config.build(raw)


def known(given: Settings) -> Sequence[backbones.Backbone]:
    """The backbones of such settings."""
    return backbones.resolve(given.features)


@functools.cache
def features(name: str, rows: int) -> NDArray[np.float32]:
    """Numbers in the features' place, which no compression makes smaller; a name ends in its width."""
    return np.random.default_rng(0).random((rows, int(name.rpartition("_")[2])), np.float32)


class Runner:
    """Gives features at once; stands in `Inference`'s place."""

    def __init__(self, *_: Any) -> None: ...

    def pieces(self, names: Sequence[str], inputs: Sequence[ImageInput]) -> Iterator[tuple[Extracted, Any]]:
        """Yield batch by batch."""
        for start in range(0, len(inputs), BATCH):
            some = range(start, min(start + BATCH, len(inputs)))
            yield Extracted(tuple(some), {name: features(name, len(some)) for name in names}, {}), made_by(names)

    def seconds(self) -> dict[Any, Any]:
        """Nothing was measured."""
        return {}

    def close(self) -> None:
        """Let nothing go."""


def made_by(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """What all features are said to be made by."""
    return {name: {"engine": "none"} for name in names}


def hash_name(_: object, name: str, *__: object) -> str:
    """In the place of a content hash."""
    return hashlib.sha256(name.encode()).hexdigest()


def hashed(items: Sequence[ImageInput], _: object) -> tuple[str, list[str]]:
    """On a worker: hashes of a block."""
    return worker.here(), [hash_name(None, item.name) for item in items]


def compute(_: bytes, __: str, names: Sequence[str], inputs: Sequence[ImageInput]) -> Computed:
    """On a worker: sleep as long as the networks would compute."""
    time.sleep(float(os.environ[SECONDS]))
    if log := os.environ.get(LOG):
        with open(log, "a") as file:
            file.write(".")
    found = Extracted(tuple(range(len(inputs))), {name: features(name, len(inputs)) for name in names}, {})
    return Computed(worker.here(), found, made_by(names), (), {})


def install() -> None:
    """Put all this in the place of what looks at images."""
    sys.modules.setdefault("invented", sys.modules[__name__])
    replaced: list[tuple[Any, str, Any]] = [
        (images, "hash_file", hash_name),
        (computation, "reject_unreadable", lambda *_: None),
        (computation, "Inference", Runner),
        (remotely, "compute", compute),
        (remotely, "hashed", hashed),
    ]
    for module, name, stand_in in replaced:
        setattr(module, name, stand_in)
