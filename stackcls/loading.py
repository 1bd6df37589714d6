"""From backbones as configured to extractors ready to run: weights found, identities known, graphs compiled."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from stackcls import weightfiles
from stackcls.backbones import Backbone, Identity, architectures
from stackcls.engines import Engine, Extractor
from stackcls.errors import WeightsError
from stackcls.files import digest_file
from stackcls.listener import Listener
from stackcls.settings import Settings, WeightSettings
from stackcls.weightfiles import Download


@dataclass(frozen=True)
class Located:
    """A backbone whose weights have been found.

    Attributes
    ----------
    backbone : Backbone
    weights : Path or None
        None for random weights.
    identity : Identity
    """

    backbone: Backbone
    weights: Path | None
    identity: Identity


def download_for(backbone: Backbone) -> Download | None:
    """The published file that a backbone needs, or None if it needs none.

    Only what the table of architectures does not answer (other arguments, a named layer) is asked of Keras, since
    that takes importing it.
    """
    if backbone.weights != "imagenet":
        return None
    if backbone.layer is None and not backbone.arguments:
        for known in architectures().values():
            if known.architecture == backbone.architecture and known.input_size == backbone.input_size:
                return Download(known.weights_url.rsplit("/", 1)[1], known.weights_url, known.weights_md5)
    from stackcls.engines import keras_models

    published = keras_models.published_file(backbone)
    return Download(published.name, published.origin, published.md5)


def locate(backbones: Sequence[Backbone], settings: Settings, offline: bool, listener: Listener) -> tuple[Located, ...]:
    """Find the weights of all backbones, and fetch published ones that are not in Keras's cache.

    Raises
    ------
    WeightsError
        If a file is missing, damaged or cannot be had.
    """
    found: dict[str, Path | None] = {}
    wanted: dict[str, Download] = {}
    for backbone in backbones:
        if backbone.file is not None:
            if not backbone.file.is_file():
                raise WeightsError(f"features.backbones: {backbone.name!r}: weights {backbone.file} do not exist")
            found[backbone.name] = backbone.file
        elif (download := download_for(backbone)) is None:
            found[backbone.name] = None
        elif (cached := weightfiles.verify(download)) is not None:
            found[backbone.name] = cached
        elif offline:
            raise weightfiles.missing(download)
        else:
            wanted[backbone.name] = download
    if wanted:
        found |= fetch_all(wanted, settings.weights, listener)
    return tuple(_located(backbone, found[backbone.name], settings.features.precision) for backbone in backbones)


def fetch_all(wanted: Mapping[str, Download], settings: WeightSettings, listener: Listener) -> dict[str, Path | None]:
    """Fetch published weights, saying what and how much before each file."""
    fetched: dict[str, Path | None] = {}
    listener.say(f"fetching ImageNet weights of {', '.join(wanted)} to {weightfiles.keras_cache()}")
    for name, download in wanted.items():
        with ExitStack() as bars:

            def started(url: str, size: int, bars: ExitStack = bars) -> Callable[[int], None]:
                listener.say(f"fetching {url} ({size / 1e6:.1f} MB)")
                return bars.enter_context(listener.track(url.rsplit("/", 1)[1], size, "B"))

            fetched[name] = weightfiles.fetch(download, settings.base_url, settings.timeout, started)
    return fetched


def _located(backbone: Backbone, weights: Path | None, precision: str) -> Located:
    digest = f"random:{backbone.seed}" if weights is None else digest_file(weights)
    return Located(backbone, weights, backbone.identity(digest, precision))


def prepare(located: Sequence[Located], engine: Engine, batch_size: int, listener: Listener) -> dict[str, Extractor]:
    """Build and compile all backbones."""
    extractors = {}
    with listener.track("build", len(located), "backbone") as advance:
        for item in located:
            extractors[item.backbone.name] = engine.prepare(item.backbone, item.weights, batch_size)
            advance(1)
    return extractors
