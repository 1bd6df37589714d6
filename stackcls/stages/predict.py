"""`stackcls predict`: a model and images in, labels and probabilities out."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackcls import modelfile, rejecting, shards, sources
from stackcls.errors import SourceError, SourceMissing
from stackcls.extraction import ImageInput, as_input
from stackcls.listener import Listener, Silent
from stackcls.model import StackModel
from stackcls.rejecting import UNKNOWN
from stackcls.report import tables
from stackcls.settings import FeatureSettings, Limits
from stackcls.store import Store
from stackcls.urls import Place, Url, is_url, place


@dataclass(frozen=True)
class Guess:
    """One label and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Row:
    """What was predicted for one input.

    Attributes
    ----------
    path : str
        As the user named it, or as it was found in a folder that the user named.
    label : str or None
        `unknown` where it is rejected; None for an image that could not be read.
    probability : float or None
        The stack's, of the most probable class.
    top : list of Guess
        The most probable labels, the predicted one first.
    error : str or None
        A sentence, for an image that could not be read.
    """

    path: str
    label: str | None
    probability: float | None
    top: list[Guess]
    error: str | None


def run(
    inputs: Sequence[str],
    model_path: Path,
    *,
    top: int = 5,
    reject: float | None = None,
    features: FeatureSettings | None = None,
    standard_input: Iterable[str] = (),
    listener: Listener | None = None,
) -> Iterator[Row]:
    """Predict images, folders of images, or the rows of a feature file.

    Parameters
    ----------
    inputs : sequence of str
        Image files, folders (searched through), tar files of samples, one feature file (`.h5`), URLs of images or of
        folders, or `-` for paths on standard input.
    model_path : Path
        `model.safetensors` or `model.joblib`.
    top : int
        How many labels to name for each image.
    reject : float, optional
        Images whose label is right with a lower probability than this are labelled `unknown`.
    features : FeatureSettings, optional
        Engine and batch size, where they name one, instead of those at fitting, and what one image may cost; all else
        is the model's own.
    standard_input : iterable of str
        Where `-` reads from: one path per line.
    listener : Listener, optional

    Yields
    ------
    Row
        One per image, in order; a bad image, or a folder that cannot be listed, has a row of its own.
    """
    listener = listener or Silent()
    fitted = modelfile.load(model_path, listener)
    rejecting.check(fitted.familiarity, fitted.classes_, reject)
    if said := rejecting.unmeasured(fitted.familiarity, reject):
        listener.warn(said)
    fitted.run_as(features, listener)
    limits = features.limits if features else None
    if len(inputs) == 1 and inputs[0].endswith(".h5"):
        yield from _predict_store(fitted, Path(inputs[0]), top, reject)
        return
    unlisted: dict[str, str] = {}
    given = list(_expand(inputs, standard_input, unlisted, limits or Limits()))
    paths = [item.name for item in given]
    if not paths and list(inputs) == ["-"]:
        raise SourceError("no paths on standard input; give one per line")
    if not paths:
        raise SourceError(f"no images in {', '.join(inputs)}; looked for {', '.join(sorted(sources.SUFFIXES))}")
    found = fitted.iterate(given, listener, limits, certain=reject is not None)
    with listener.track("predict", len(paths), "image") as advance:
        for path, prediction in zip(paths, found, strict=True):
            advance(1)
            if prediction.probabilities is None:
                reason = prediction.error.reason if prediction.error else "unreadable"
                yield Row(path, None, None, [], unlisted.get(path, reason))
            else:
                yield _row(fitted, path, prediction.probabilities, top, _below(prediction.certainty, reject))


def _predict_store(fitted: StackModel, given: Path, top: int, reject: float | None) -> Iterator[Row]:
    with Store(given) as store:
        fitted.check_identities({name: info.identity for name, info in store.matrices.items()}, str(given))
        names = [item.backbone.name for item in fitted.backbones]
        for parts in zip(*map(store.chunks, names), strict=True):
            start = parts[0][0]
            features = {name: rows for name, (_, rows) in zip(names, parts, strict=True)}
            shares = fitted.predict_proba_features(features)
            sure = [None] * len(shares) if reject is None else fitted.certainty_features(features, shares)
            for path, row, certainty in zip(store.table.paths[start : start + len(shares)], shares, sure, strict=True):
                yield _row(fitted, path, row, top, _below(certainty, reject))


def _expand(
    inputs: Iterable[str], standard_input: Iterable[str], unlisted: dict[str, str], limits: Limits
) -> Iterator[ImageInput]:
    """Images; folders that cannot be listed are among them, and get a reason."""
    for given in inputs:
        if given == "-":
            yield from map(as_input, filter(None, (line.rstrip("\r\n") for line in standard_input)))
        elif _is_source(where := place(given)):
            yield from _listed(where, unlisted, limits)
        elif isinstance(where, Url):
            yield as_input(where)
        else:
            yield from map(as_input, _expand_path(str(where) if is_url(given) else given, unlisted))


def _is_source(where: Place) -> bool:
    """Whether a user names what has images in it: a tar file, or a URL that is not an image's own."""
    if shards.is_shard(where.name):
        return True
    if isinstance(where, Path):
        return False
    return not sources.is_image_name(where.name) and (
        not where.is_http or str(where).endswith(("/", ".csv", ".tsv", ".parquet"))
    )


def _listed(where: Place, unlisted: dict[str, str], limits: Limits) -> Iterator[ImageInput]:
    source = sources.scan(where, limits)
    base = str(source.root).rstrip("/")
    unlisted.update({f"{base}/{path}": reason for path, reason in source.rejected.items()})
    found = {f"{base}/{entry.path}": source.locate(entry) for entry in source.entries}
    found |= {name: Path(name) for name in unlisted if name.startswith(f"{base}/") and name not in found}
    yield from (ImageInput(name, content) for name, content in sorted(found.items()))


def _expand_path(given: str, unlisted: dict[str, str]) -> Iterator[str]:
    """Paths of an image, or of those in a folder."""
    if Path(given).is_dir():
        below: dict[str, str] = {}
        found = [*sources.walk(Path(given), unreadable=below), *below]
        unlisted.update({(Path(given) / name).as_posix(): reason for name, reason in below.items()})
        yield from sorted((Path(given) / name).as_posix() for name in found)
    elif not Path(given).exists() and not sources.is_image_name(Path(given).name):
        raise SourceMissing(f"{given}: no such file or folder")
    else:
        yield given


def _below(certainty: float | None, reject: float | None) -> bool:
    return certainty is not None and reject is not None and certainty < reject


def _row(fitted: StackModel, path: str, shares: NDArray[np.float64], top: int, rejected: bool) -> Row:
    order = np.argsort(-shares, kind="stable")[:top]
    guesses = [Guess(str(fitted.classes_[index]), float(shares[index])) for index in order]
    return Row(path, UNKNOWN if rejected else guesses[0].label, guesses[0].probability, guesses, None)


def as_json(rows: Iterable[Row]) -> str:
    """Write rows as a JSON list."""
    return json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False) + "\n"


def as_csv(rows: Iterable[Row]) -> str:
    """Write rows as `path,label,probability,error`."""
    cells: list[list[str]] = [["path", "label", "probability", "error"]]
    for row in rows:
        probability = "" if row.probability is None else f"{row.probability:.6f}"
        cells.append([row.path, row.label or "", probability, row.error or ""])
    return tables.comma_separated(cells)


def as_table(rows: Iterable[Row]) -> str:
    """Write rows as a table for reading."""
    cells = []
    for row in rows:
        next_ones = [guess for guess in row.top if guess.label != row.label]
        others = ", ".join(f"{guess.label} {guess.probability:.2f}" for guess in next_ones)
        probability = "" if row.probability is None else f"{row.probability:.3f}"
        cells.append([row.path, row.label or f"error: {row.error}", probability, others])
    return tables.table(["image", "label", "probability", "next"], cells) + "\n"


WRITERS: dict[str, Callable[[Iterable[Row]], str]] = {"json": as_json, "csv": as_csv, "table": as_table}
