"""`stackcls similar`: images in, the most similar ones of `features.h5` out."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackcls import extraction, images, loading, sources, thumbnails
from stackcls.backbones import Backbone, Located
from stackcls.errors import ConfigError, IdentityMismatch, UnreadableImage
from stackcls.extraction import ImageInput
from stackcls.files import replacing
from stackcls.inspect import neighbours
from stackcls.listener import Listener, Silent
from stackcls.report import pictures, text
from stackcls.report.pictures import Cell
from stackcls.settings import Settings
from stackcls.store import Store

ROWS = 1024
THUMBNAIL = 160

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Neighbour:
    """One of the images of the feature file, and how similar it is (-1 to 1)."""

    path: str
    label: str | None
    similarity: float


@dataclass(frozen=True)
class Found:
    """What is similar to one image.

    Attributes
    ----------
    path : str
        As the user named it.
    neighbours : list of Neighbour
        The most similar first; never the image itself.
    error : str or None
        A sentence, for an image that could not be read.
    """

    path: str
    neighbours: list[Neighbour]
    error: str | None


def run(
    inputs: Sequence[str],
    settings: Settings,
    *,
    backbone: str | None = None,
    k: int = 10,
    sheet: Path | None = None,
    matrix: Path | None = None,
    listener: Listener | None = None,
) -> list[Found]:
    """Find the most similar images by cosine similarity of features.

    An image whose content is in the feature file has its features there; of others they are computed, in the way that
    the file says.

    Parameters
    ----------
    inputs : sequence of str
        Image files.
    settings : Settings
    backbone : str, optional
        Whose features to compare; by default the mean of the similarities by all.
    k : int
        How many images to find for each.
    sheet : Path, optional
        Also draw every image beside its neighbours into this `.png` file; images that are not there any more are blank.
    matrix : Path, optional
        Also write the similarities of all images to all to this `.npy` file, float32, shape (n, n), rows as in the
        feature file.
    listener : Listener, optional

    Raises
    ------
    ConfigError
        If the feature file has no such backbone, or a file to write has another suffix, or is there and something else.
    IdentityMismatch
        If features of a new image would be made otherwise, since other weights lie in the place of the old ones.
    SourceError
        If the images of the feature file, which a sheet shows, are not where the settings say.
    StoreError, WeightsError
        If the feature file, or a network's weights, cannot be used.
    """
    listener = listener or Silent()
    _check_output("--sheet", sheet, ".png", pictures.is_sheet)
    _check_output("--matrix", matrix, ".npy", _is_matrix)
    with Store(settings.files.features) as store:
        if backbone is not None and backbone not in store.matrices:
            raise ConfigError(f"--backbone: {backbone!r} is not in {store.path}; it has {', '.join(store.matrices)}")
        names = tuple(store.matrices) if backbone is None else (backbone,)
        if matrix is not None:
            _write_matrix(store, names, matrix, listener)
        queries, own, failures = _queries(inputs, store, names, settings, listener)
        rows, similarities = neighbours.nearest(queries, _chunks(store, names), k + 1)
        result = []
        for number, path in enumerate(inputs):
            if number in failures:
                result.append(Found(path, [], failures[number].reason))
                continue
            itself = _itself(store, path, own[number])
            result.append(Found(path, _named(store, rows[number], similarities[number], itself, k), None))
    if sheet is not None:
        _save_sheet(result, settings, sheet)
    return result


def _check_output(option: str, path: Path | None, suffix: str, is_ours: Callable[[Path], bool]) -> None:
    """Refuse a file that is there and is not what this command wrote: it may be a photo, or hours of work."""
    if path is None:
        return
    if path.suffix != suffix:
        raise ConfigError(f"{option}: {path} is no {suffix} file; give a name that ends so")
    if path.exists() and not is_ours(path):
        raise ConfigError(f"{option}: {path} is there, and not written by this command; give another name")


def _is_matrix(path: Path) -> bool:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return bool(found.dtype == np.float32 and found.ndim == 2 and found.shape[0] == found.shape[1])


def _chunks(store: Store, names: Sequence[str], first: int = 0) -> Iterator[tuple[int, Features]]:
    for start in range(first, len(store.table.paths), ROWS):
        rows = np.arange(start, min(start + ROWS, len(store.table.paths)))
        yield start, neighbours.unit([store.read_rows(name, rows) for name in names])


def _queries(
    inputs: Sequence[str], store: Store, names: Sequence[str], settings: Settings, listener: Listener
) -> tuple[Features, list[str | None], dict[int, UnreadableImage]]:
    """Unit features of each image, its content hash, and which could not be read; their features stay zero."""
    width = sum(store.matrices[name].width for name in names)
    found, failures = np.zeros((len(inputs), width), np.float32), {}
    place = {digest: row for row, digest in enumerate(store.table.sha256)}
    own: list[str | None] = []
    missing: dict[int, ImageInput] = {}
    for number, path in enumerate(inputs):
        try:
            own.append(images.hash_file(Path(path), path, settings.features.limits))
        except UnreadableImage as error:
            own.append(None)
            failures[number] = error
            continue
        row = place.get(own[-1] or "")
        if row is None:
            missing[number] = ImageInput(path, Path(path), own[-1])
        else:
            found[number] = neighbours.unit([store.read_rows(name, np.array([row])) for name in names])[0]
    if missing:
        numbers = list(missing)
        located = [_located(store, name, settings, listener) for name in names]
        batch_size = settings.features.batch_size
        prepared = loading.prepare(
            located, settings.features.engine, batch_size, len(missing), listener, announce=False
        )
        limits = settings.features.limits
        for batch in extraction.extract(list(missing.values()), prepared.extractors, prepared.batch_size, limits):
            failures |= {numbers[position]: error for position, error in batch.failures.items()}
            if batch.positions:
                rows = [numbers[position] for position in batch.positions]
                found[rows] = neighbours.unit([batch.features[name] for name in names])
    return found, own, failures


def _located(store: Store, name: str, settings: Settings, listener: Listener) -> Located:
    """Find the network that made a matrix."""
    info = store.matrices[name]
    made = dataclasses.replace(Backbone.from_dict(info.provenance["configured"]), name=name)
    features = settings.features.model_copy(update={"precision": info.identity.precision})
    (located,) = loading.locate([made], settings.model_copy(update={"features": features}), False, listener)
    if info.basis is not None:
        located = located.with_basis(info.basis)
    if differences := info.identity.differences(located.identity):
        raise IdentityMismatch(
            f"{store.path}: features of {name!r} would be made otherwise now ({'; '.join(differences)}): bring the old "
            "weights back, or run `stackcls features --replace`"
        )
    return located


def _itself(store: Store, path: str, own: str | None) -> int | None:
    """The row of an image that is asked for; copies under other names are neighbours like any other."""
    whole = Path(path).absolute().as_posix()
    rows = enumerate(zip(store.table.paths, store.table.sha256, strict=True))
    return next((row for row, (name, digest) in rows if digest == own and whole.endswith(f"/{name}")), None)


def _named(
    store: Store, rows: NDArray[np.int64], similarities: Features, itself: int | None, k: int
) -> list[Neighbour]:
    table, found = store.table, []
    for row, similarity in zip(rows.tolist(), similarities.tolist(), strict=True):
        if row != itself:
            label = int(table.labels[row])
            name = table.class_names[label] if label >= 0 else None
            found.append(Neighbour(table.paths[row], name, float(similarity)))
    return found[:k]


def _write_matrix(store: Store, names: Sequence[str], path: Path, listener: Listener) -> None:
    """Write all similarities block by block; only one block of rows and columns is in memory."""
    size = len(store.table.paths)
    with replacing(path) as temporary, listener.track("similar", size, "image") as advance:
        whole = np.lib.format.open_memmap(temporary, "w+", np.float32, (size, size))
        for start, rows in _chunks(store, names):
            for other, columns in _chunks(store, names, start):
                block = np.clip(rows @ columns.T, -1, 1)
                whole[start : start + len(rows), other : other + len(columns)] = block
                whole[other : other + len(columns), start : start + len(rows)] = block.T
            advance(len(rows))
        whole.flush()


def _save_sheet(found: Sequence[Found], settings: Settings, path: Path) -> None:
    root = sources.scan(settings.images).root
    shown = [item for item in found if item.error is None]
    files = [file for item in shown for file in (Path(item.path), *(root / one.path for one in item.neighbours))]
    drawn = iter(thumbnails.pixels(files, settings.features.limits, THUMBNAIL))
    rows = []
    for item in shown:
        cells = [Cell(next(drawn), Path(item.path).name, "asked for")]
        cells += [Cell(next(drawn), one.label or one.path, f"{one.similarity:.3f}") for one in item.neighbours]
        rows.append(cells)
    pictures.save_sheet(rows, path)


def to_table(found: Sequence[Found]) -> str:
    """Markdown, a row per neighbour."""
    rows = [
        [item.path, place, one.path, one.label or "", f"{one.similarity:.4f}"]
        for item in found
        for place, one in enumerate(item.neighbours, 1)
    ]
    rows += [[item.path, "", f"error: {item.error}", "", ""] for item in found if item.error]
    return text.table(["image", "place", "similar", "label", "similarity"], rows) + "\n"


def to_json(found: Sequence[Found]) -> str:
    """A list with one mapping per image, in input order."""
    return json.dumps([asdict(item) for item in found], ensure_ascii=False, indent=2) + "\n"


WRITERS = {"table": to_table, "json": to_json}
