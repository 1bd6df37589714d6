"""`stackcls similar`: images in, the most similar ones of `features.h5` out."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from stackcls import sources, thumbnails
from stackcls.errors import ConfigError
from stackcls.extraction import as_input
from stackcls.files import replacing
from stackcls.images import Stored
from stackcls.listener import Listener, Silent
from stackcls.lookup import Found, Neighbours
from stackcls.report import pictures, tables
from stackcls.report.pictures import Cell
from stackcls.settings import Settings
from stackcls.sources import Source

THUMBNAIL = 160


def run(
    inputs: Sequence[str],
    settings: Settings,
    *,
    backbone: str | None = None,
    stack: bool = False,
    exact: bool = False,
    k: int = 10,
    sheet: Path | None = None,
    matrix: Path | None = None,
    listener: Listener | None = None,
) -> list[Found]:
    """Find the most similar images by cosine similarity.

    An image whose content is in the feature file has its features there; of others they are computed, in the way that
    the file says.

    Parameters
    ----------
    inputs : sequence of str
        Image files.
    settings : Settings
    backbone : str, optional
        Whose features to compare; by default the mean of the similarities by all.
    stack : bool
        Compare the stack's probabilities instead (as log-ratios): of images that it learned from out-of-fold ones, of
        all others the final model's. They know the classes, and little else.
    exact : bool
        Compare with all images, also where there are more than 100,000 and an approximate index could be asked.
    k : int
        How many images to find for each.
    sheet : Path, optional
        Also draw every image beside its neighbours into this `.png` file; images that are not there any more are blank.
    matrix : Path, optional
        Also write the similarities of all images to all to this `.npy` file, float32, shape (n, n), rows as in the
        feature file; it must not be there yet.
    listener : Listener, optional

    Raises
    ------
    ConfigError
        If the feature file has no such backbone, or one is named beside `stack`; or a file to write has another suffix,
        or is there and no contact sheet; or an input is a folder.
    IdentityMismatch
        If features of a new image would be made otherwise, since other weights lie in the place of the old ones.
    ModelError
        If there is no stack, or it or what it predicted is not of this feature file.
    SourceError
        If the images of the feature file, which a sheet shows, are not where the settings say.
    StoreError, WeightsError
        If the feature file, or a network's weights, cannot be used.
    """
    listener = listener or Silent()
    for given in inputs:
        if os.path.isdir(given):  # noqa: PTH112  (Path.is_dir may raise)
            raise ConfigError(f"{given}: is a folder; name image files, for instance {os.path.join(given, '*.jpg')}")
    source = None
    if sheet is not None:
        pictures.check_sheet("--sheet", sheet)
        source = sources.scan(
            settings.images, settings.features.limits
        )  # which fails before the work, and not after it
    if matrix is not None:
        _check_matrix(matrix)
    with Neighbours(settings, backbone=backbone, stack=stack, exact=exact, hold=False, listener=listener) as loaded:
        if matrix is not None:
            _write_matrix(loaded, matrix, listener)
        result = loaded.find(inputs, k)
    if sheet is not None and source is not None:
        _save_sheet(inputs, result, settings, source, sheet)
    return result


def _check_matrix(path: Path) -> None:
    """Refuse a file that is there: what made an array cannot be told from it, and it may be hours of work."""
    if path.suffix != ".npy":
        raise ConfigError(f"--matrix: {path} is no .npy file; give a name that ends so")
    if os.path.lexists(path):
        raise ConfigError(f"--matrix: {path} is there already; give another name, or delete it")


def _write_matrix(loaded: Neighbours, path: Path, listener: Listener) -> None:
    """Write all similarities block by block; only one block of rows and columns is in memory."""
    size = len(loaded.store.table.paths)
    with replacing(path) as temporary, listener.track("similar", size, "image") as advance:
        whole = np.lib.format.open_memmap(temporary, "w+", np.float32, (size, size))
        for start, rows in loaded.chunks():
            for other, columns in loaded.chunks(start):
                block = np.clip(rows @ columns.T, -1, 1)
                whole[start : start + len(rows), other : other + len(columns)] = block
                whole[other : other + len(columns), start : start + len(rows)] = block.T
            advance(len(rows))
        whole.flush()


def _save_sheet(inputs: Sequence[str], found: Sequence[Found], settings: Settings, source: Source, path: Path) -> None:
    shown = [(given, item) for given, item in zip(inputs, found, strict=True) if item.error is None]
    files: list[Path | Stored] = []
    for given, item in shown:
        asked = as_input(given).content
        assert not isinstance(asked, np.ndarray)
        files += [asked, *(source.content(one.path) for one in item.neighbours)]
    drawn = iter(thumbnails.pixels(files, settings.features.limits, THUMBNAIL))
    rows = []
    for _, item in shown:
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
    return tables.table(["image", "place", "similar", "label", "similarity"], rows) + "\n"


def to_json(found: Sequence[Found]) -> str:
    """A list with one mapping per image, in input order."""
    return json.dumps([asdict(item) for item in found], ensure_ascii=False, indent=2) + "\n"


WRITERS = {"table": to_table, "json": to_json}
