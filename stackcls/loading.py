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
    wanted = absent(backbones)
    if wanted and offline:
        raise weightfiles.missing(next(iter(wanted.values())))
    if wanted:
        fetch_all(wanted, settings.weights, listener)
    return tuple(_located(backbone, find(backbone), settings.features.precision) for backbone in backbones)


def absent(backbones: Sequence[Backbone]) -> dict[str, Download]:
    """Published files that are not in Keras's cache, or not whole there, by backbone."""
    downloads = {backbone.name: download_for(backbone) for backbone in backbones}
    return {name: item for name, item in downloads.items() if item is not None and weightfiles.verify(item) is None}


def find(backbone: Backbone, must_exist: bool = True) -> Path | None:
    """Weights of a backbone where they lie now; None for random ones.

    Raises
    ------
    WeightsError
        If a file that the configuration names does not exist, and it must.
    """
    if must_exist and backbone.file is not None and not backbone.file.is_file():
        raise WeightsError(f"features.backbones: {backbone.name!r}: weights {backbone.file} do not exist")
    download = download_for(backbone)
    return backbone.file if download is None else download.target


def fetch_all(wanted: Mapping[str, Download], settings: WeightSettings, listener: Listener) -> None:
    """Fetch published weights, each file once, saying what and how much before each file."""
    if wanted:
        listener.say(f"fetching ImageNet weights of {', '.join(wanted)} to {weightfiles.keras_cache()}")
    for download in dict.fromkeys(wanted.values()):
        with ExitStack() as bars:

            def started(url: str, size: int, bars: ExitStack = bars) -> Callable[[int], None]:
                listener.say(f"fetching {url} ({size / 1e6:.1f} MB)")
                return bars.enter_context(listener.track(url.rsplit("/", 1)[1], size, "B"))

            weightfiles.fetch(download, settings.base_url, settings.timeout, started)


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
