"""From backbones as configured to extractors ready to run: weights found, identities known, graphs compiled."""

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

from stackcls import engines, seen, weightfiles
from stackcls.backbones import SAVED, Backbone, Identity, Located, architectures, bundled_file
from stackcls.bases import RANGES
from stackcls.engines import Engine, Extractor, cache
from stackcls.errors import EngineError, WeightsError
from stackcls.files import digest_file
from stackcls.listener import Listener
from stackcls.matrices import Matrix, matrix
from stackcls.settings import Settings, WeightSettings
from stackcls.weightfiles import Download


@dataclass(frozen=True)
class Prepared:
    """Backbones ready to run.

    Attributes
    ----------
    extractors : mapping of str to Matrix
        By the backbone's name, in order.
    batch_size : int
    made_by : mapping of str to mapping
        Each engine's provenance, by the backbone's name.
    """

    extractors: Mapping[str, Matrix]
    batch_size: int
    made_by: Mapping[str, Mapping[str, str]]


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
    files = [find(backbone) for backbone in backbones]
    different = [file for file in dict.fromkeys(files) if file is not None]
    with ThreadPoolExecutor() as pool:  # hashing hundreds of megabytes, at a core's speed each
        digests = dict(zip(different, pool.map(digest_file, different), strict=True))
    # Now, before hours of work, since a file that has lost its record is refused; the digest must be of the same bytes.
    records = {file: seen.read(file) for file in different}
    for file, record in records.items():
        if record is not None:
            check_unchanged(file, digests[file])
    precision = settings.features.precision
    return tuple(
        Located(
            backbone,
            file,
            backbone.identity(digests[file] if file else f"random:{backbone.seed}", precision),
            seen=records[file] if file else None,
        )
        for backbone, file in zip(backbones, files, strict=True)
    )


def check_unchanged(file: Path, digest: str) -> None:
    """Refuse, with `WeightsError`, a file that another one took the place of since it was hashed."""
    if not file.is_file() or digest_file(file) != digest:
        raise WeightsError(
            f"{file}: was replaced while it was used, so that what was computed would be said of another network; "
            "run the same command again when nothing writes it any more"
        )


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


def find_recorded(name: str, identity: Identity, hints: Sequence[str], folder: Path) -> Path | None:
    """Find the weights of a model's backbone by their content; None for random ones.

    A model from elsewhere says its hints itself: what they name is opened only where it can be weights, and never on
    a network share, which would learn who asks. A saved model, which is more than weights, must be a `.keras` file.

    Parameters
    ----------
    name : str
        The backbone's.
    identity : Identity
        Whose `weights` is the SHA-256 of the file, or `random:` and the seed.
    hints : sequence of str
        Where the file lay at fitting: relative to the model's folder, then absolute.
    folder : Path
        The model's; it is searched too, and Keras's cache.

    Raises
    ------
    WeightsError
        If no such file is there; it says where another one lies in its place.
    """
    if identity.weights.startswith("random:"):
        return None
    suffixes = frozenset({".keras"}) if identity.architecture == SAVED else weightfiles.SUFFIXES
    places = [folder / hint for hint in hints if not PureWindowsPath(hint).drive.startswith("\\\\")]
    folders = [folder, weightfiles.keras_cache(), bundled_file("mini_vgg").parent]
    if found := weightfiles.find_by_hash(identity.weights, places, folders, suffixes):
        return found
    was = f", at fitting {places[-1].name}" if places else ""
    others = [path for path in places if weightfiles.may_be_weights(path, suffixes)]
    raise WeightsError(
        f"the model's backbone {name!r} needs the weights with SHA-256 {identity.weights}{was}; looked in "
        f"{', '.join(map(str, dict.fromkeys([*places, *folders])))} for files with {' or '.join(sorted(suffixes))}"
        f"{''.join(f'; {path} is another file, or may not be read' for path in others)}: copy that file beside the "
        "model (`stackcls weights` fetches published ones)"
    )


def prepare(
    located: Sequence[Located], engine: str, batch_size: int | None, n_images: int, listener: Listener, announce: bool
) -> Prepared:
    """Make all backbones ready, each on the engine that suits its precision; one network for all its poolings.

    Parameters
    ----------
    located : sequence of Located
    engine : str
        As configured; `auto` may take another one for a network that the fastest cannot run.
    batch_size : int or None
        None for what is fastest on the engine.
    n_images : int
        A batch is not larger than this.
    listener : Listener
    announce : bool
        Whether to say which engine was taken, though it is a good one.
    """
    chosen: dict[str, Engine] = {}
    for precision in dict.fromkeys(item.identity.precision for item in located):
        choice = engines.choose(engine, precision)
        chosen[precision] = choice.engine
        if choice.makeshift:
            listener.warn(choice.why)
        elif announce:
            listener.say(choice.why)
    batch_size = batch_size or max((item.batch_size for item in chosen.values()), default=1)
    batch_size = max(1, min(batch_size, n_images))

    def prepare_one(item: Located) -> tuple[Extractor, Mapping[str, str]]:
        runs = chosen[item.identity.precision]
        try:
            return _unchanged(item, runs.prepare(item, batch_size)), runs.provenance()
        except EngineError as error:
            if engine != "auto" or item.identity.precision == "int8":
                raise
            runs = engines.choose("tensorflow", item.identity.precision).engine
            listener.warn(f"{error}; {item.backbone.name} runs on tensorflow")
            return _unchanged(item, runs.prepare(item, batch_size)), runs.provenance()

    networks: dict[object, Located] = {}
    for item in located:
        networks.setdefault(_network(item), item)
    made: dict[object, tuple[Extractor, Mapping[str, str]]] = {}
    with listener.track("build", len(networks), "backbone") as advance, ThreadPoolExecutor() as pool:
        for key, found in zip(networks, pool.map(prepare_one, networks.values()), strict=True):
            made[key] = found
            advance(1)
    if why := cache.complaint():
        listener.warn(
            f"the cache of compiled models, {why}: networks are built anew in every run; "
            f"let {cache.VARIABLE} name another folder"
        )
    ready = {item.backbone.name: (item, *made[_network(item)]) for item in located}
    return Prepared(
        {name: matrix(item, extractor) for name, (item, extractor, _) in ready.items()},
        batch_size,
        {name: provenance for name, (*_, provenance) in ready.items()},
    )


def _unchanged(item: Located, extractor: Extractor) -> Extractor:
    """What was made of a fine-tuned network, if its file is still the one whose record was read."""
    if item.seen is not None and item.weights is not None:
        check_unchanged(item.weights, item.identity.weights)
    return extractor


def _network(item: Located) -> object:
    """What decides what a backbone's network computes: all but what comes before and after it."""
    ranges = item.basis.part(RANGES) if item.basis else None
    bare = replace(item.identity, pooling="", views="", basis=ranges.digest if ranges else "")
    return bare, item.backbone.weights == "imagenet"


def folder_being_loaded() -> Path | None:
    """Folder of the file that joblib is reading just now.

    Weights may lie beside the model, and unpickling has no other way to learn where that is than to look at the
    caller, `joblib.load(filename)`.
    """
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        if frame.f_globals.get("__name__") == "joblib.numpy_pickle" and isinstance(
            frame.f_locals.get("filename"), str | Path
        ):
            return Path(frame.f_locals["filename"]).absolute().parent
    return None
