"""A look into a model's networks: what a layer gives for an image, and what it responds to most."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stackcls import extraction, images, modelfile
from stackcls.backbones import Located
from stackcls.errors import ConfigError, UnreadableImage, WriteError
from stackcls.extraction import Loaded
from stackcls.listener import Listener, Silent
from stackcls.printable import printable
from stackcls.report import overlays, pictures, tables
from stackcls.report.pictures import Cell
from stackcls.settings import FeatureSettings, Limits
from stackcls.views import Frame

if TYPE_CHECKING:
    from stackcls.engines.visualising import Network

CHANNELS, COLUMNS = 64, 8
INCHES = 1.2


@dataclass(frozen=True)
class Drawn:
    """A picture of one layer.

    Attributes
    ----------
    path : str or None
        The image that it was made from; None for one that was made from noise.
    backbone, layer : str
    picture : str or None
        The file that was written.
    error : str or None
        A sentence, for an image that could not be read, or a picture that could not be written.
    unwritten : bool
        Whether it is the latter.
    """

    path: str | None
    backbone: str
    layer: str
    picture: str | None
    error: str | None
    unwritten: bool = False


def feature_maps(
    inputs: Sequence[str],
    model_path: Path,
    output: Path,
    layer: str,
    *,
    backbone: str | None = None,
    features: FeatureSettings | None = None,
    listener: Listener | None = None,
) -> list[Drawn]:
    """Draw what a layer gives for each image, as a contact sheet of the channels that respond most.

    Parameters
    ----------
    inputs : sequence of str
        Image files.
    model_path : Path
        `model.safetensors` or `model.joblib`.
    output : Path
        The folder for the pictures, one `.png` per image and backbone.
    layer : str
    backbone : str, optional
        By default every backbone that has such a layer; once, however many matrices are made of its maps.
    features : FeatureSettings, optional
        What one image may cost.
    listener : Listener, optional

    Raises
    ------
    ConfigError
        If there is no such backbone or layer, or a file to be written is there and not from this command.
    ModelError, WeightsError
        If the model, or a network's weights, cannot be used.
    """
    listener = listener or Silent()
    networks = _networks(model_path, layer, backbone, "--layer")
    names = [extraction.as_input(path).name for path in inputs]
    stems = [f"{overlays.short(Path(name).stem)}-{net.name}-{layer}" for name in names for net in networks]
    targets = iter(overlays.targets(stems, output))
    result = []
    with listener.track("explain", len(inputs), "image") as advance:
        for path, loaded in zip(names, _loaded(inputs, networks, features), strict=True):
            for network in networks:
                target = next(targets)
                if isinstance(loaded, UnreadableImage):
                    result.append(Drawn(path, network.name, layer, None, loaded.reason))
                    continue
                pixels = loaded[Frame(network.input_size)]
                save = partial(_save_maps, pixels, network.feature_maps(layer, pixels), f"{network.name}: {layer}")
                result.append(_drawn(Drawn(path, network.name, layer, str(target), None), save))
            advance(1)
    return result


def dream(
    inputs: Sequence[str],
    model_path: Path,
    output: Path,
    wanted: str,
    *,
    backbone: str | None = None,
    seed: int = 0,
    features: FeatureSettings | None = None,
    listener: Listener | None = None,
) -> list[Drawn]:
    """Draw what a layer, or one unit of it, responds to most: out of noise, or out of each image.

    Parameters are those of `feature_maps`, and:

    wanted : str
        `LAYER` or `LAYER:UNIT`.
    seed : int
        Of the noise and of the small shifts.
    """
    from stackcls.engines import visualising

    listener = listener or Silent()
    layer, unit = _layer_and_unit(wanted)
    networks = _networks(model_path, layer, backbone, "--dream")
    starts: list[str | None] = [*(extraction.as_input(path).name for path in inputs)] or [None]
    suffix = layer if unit is None else f"{layer}-{unit}"
    stems = [
        "-".join([*([overlays.short(Path(start).stem)] if start else []), "dream", net.name, suffix])
        for start in starts
        for net in networks
    ]
    targets = iter(overlays.targets(stems, output))
    result = []
    steps = visualising.dream_steps() * len(starts) * len(networks)
    with listener.track("explain", steps, "step") as advance:
        loads = _loaded(inputs, networks, features) if inputs else iter([None])
        for path, loaded in zip(starts, loads, strict=True):
            for network in networks:
                target = next(targets)
                if isinstance(loaded, UnreadableImage):
                    result.append(Drawn(path, network.name, wanted, None, loaded.reason))
                    continue
                start = loaded[Frame(network.input_size)] if loaded else None
                save = partial(overlays.save_png, network.dream(layer, unit, start, seed, advance), mark=overlays.MARK)
                result.append(_drawn(Drawn(path, network.name, wanted, str(target), None), save))
    return result


def _drawn(picture: Drawn, save: Callable[[Path], None]) -> Drawn:
    try:
        save(Path(picture.picture or ""))
    except WriteError as error:  # the other pictures are not to be lost
        return replace(picture, picture=None, error=str(error), unwritten=True)
    return picture


def _layer_and_unit(wanted: str) -> tuple[str, int | None]:
    layer, colon, unit = wanted.rpartition(":")
    if not colon:
        return wanted, None
    if not unit.isdecimal() or not layer:
        raise ConfigError(f"--dream: {wanted!r} is not LAYER or LAYER:UNIT, where a unit is a number from 0")
    return layer, int(unit)


def _networks(model_path: Path, layer: str, backbone: str | None, option: str) -> "list[Network]":
    """The model's backbones that have a layer, as Keras models."""
    from stackcls.engines.visualising import Network

    located = modelfile.load(model_path).located()
    names = [item.backbone.name for item in located]
    if backbone is not None and backbone not in names:
        raise ConfigError(f"--backbone: {backbone!r} is not in {model_path}; it has {', '.join(names)}")
    built = [Network(item) for item in _different([item for item in located if backbone in (None, item.backbone.name)])]
    if having := [network for network in built if layer in network]:
        return having
    raise ConfigError(f"{option}: no layer {layer!r}; {'; '.join(network.unknown(layer) for network in built)}")


def _different(located: Sequence[Located]) -> list[Located]:
    """One matrix of each network; rather one that is pooled by a layer of Keras's, which can be looked at too."""
    found: dict[object, Located] = {}
    for item in located:
        # Looked into is a network in float32, and before what a matrix makes of it.
        bare = replace(item.identity, pooling="", views="", precision="", basis="")
        key = bare, item.backbone.weights == "imagenet"  # which Keras builds otherwise than from a file
        if key not in found or found[key].backbone.pooling == "covariance":
            found[key] = item
    return list(found.values())


def _loaded(
    inputs: Sequence[str], networks: "Sequence[Network]", features: FeatureSettings | None
) -> Iterator[Loaded | UnreadableImage]:
    """Each image, decoded once, in every size that a network takes."""
    frames = sorted({Frame(network.input_size) for network in networks})
    limits = features.limits if features else Limits()
    return extraction.load(map(extraction.as_input, inputs), frames, 1, limits)


def _save_maps(image: images.Pixels, maps: NDArray[np.float32], name: str, target: Path) -> None:
    """Draw the image and the channels that respond most anywhere, each from its own least to its own most."""
    peaks = maps.max(axis=(0, 1))
    cells = [Cell(image, "", "")]
    for channel in np.argsort(-peaks, kind="stable")[: CHANNELS - 1]:
        values = maps[:, :, channel]
        spread = float(values.max() - values.min()) or 1.0
        grey = np.rint(255 * (values - values.min()) / spread).astype(np.uint8)
        cells.append(Cell(np.repeat(grey[..., None], 3, axis=2), str(channel), f"{peaks[channel]:.3g}"))
    rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
    heading = f"{name}, {len(cells) - 1} of {maps.shape[2]} channels, the strongest first"
    pictures.save_sheet(rows, target, heading=printable(heading), inches=INCHES, mark=overlays.MARK)


def to_table(found: Sequence[Drawn]) -> str:
    """Markdown, a row per picture."""
    rows = [[item.path or "noise", item.backbone, item.layer, item.picture or f"error: {item.error}"] for item in found]
    return tables.table(["image", "backbone", "layer", "picture"], rows) + "\n"


def to_json(found: Sequence[Drawn]) -> str:
    """A list with one mapping per picture, in input order."""
    return json.dumps([asdict(item) for item in found], ensure_ascii=False, indent=2) + "\n"


WRITERS = {"table": to_table, "json": to_json}
