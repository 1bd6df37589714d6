"""`stackcls map`: `features.h5` in, a picture of all its images out, similar ones together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stackcls import album, crossvalidated, sources, spaces, thumbnails
from stackcls.artifacts import Artifacts
from stackcls.errors import ConfigError, ModelError, ModelMissing, SourceError, StoreError
from stackcls.files import check_writable, together, write_text
from stackcls.inspect import embedding
from stackcls.listener import Listener, Silent
from stackcls.printable import counted
from stackcls.report import mappage, maps, pictures
from stackcls.report.maps import Map
from stackcls.settings import Limits, Settings
from stackcls.sources import Content
from stackcls.store import ImageTable, Store

SIDES = (96, 64, 48, 32)  # of a small picture, in pixels
BUDGET = 6_000_000  # bytes of all small pictures in the page
TRIED = 32


@dataclass(frozen=True)
class MapResult:
    """The files that were written, and how many images they show."""

    files: tuple[Path, ...]
    n_images: int


def run(
    settings: Settings,
    *,
    backbone: str | None = None,
    stack: bool = False,
    output: Path | None = None,
    listener: Listener | None = None,
) -> MapResult:
    """Lay out all images of the feature file by t-SNE, labelled or not.

    Parameters
    ----------
    settings : Settings
    backbone : str, optional
        Whose features to take; by default those of all.
    stack : bool
        Take the stack's probabilities instead: of images that it learned from the out-of-fold ones.
    output : Path, optional
        Folder for `map.png`, `map.svg`, `map.html` and `map.csv`; by default that of the artifacts.
    listener : Listener, optional

    Raises
    ------
    ConfigError
        If the feature file has no such backbone, one is named beside `stack`, or a file to write is there and not of
        this command.
    StoreError, ModelError, IdentityMismatch
        If the feature file, or the stack and what it predicted, cannot be used together.
    """
    listener = listener or Silent()
    files = Artifacts(output or settings.artifacts)
    if output is not None:
        _check_output(output, settings)
    check_writable(files.folder)
    checks: dict[Path, Callable[[Path], bool]] = {
        files.map_picture: pictures.is_map,
        files.map_drawing: pictures.is_map,
        files.map_page: mappage.is_page,
        files.map_table: maps.is_csv,
    }
    for path, is_ours in checks.items():
        if path.exists() and not is_ours(path):
            raise ConfigError(f"--output: {path} is there, and not written by this command; give another folder")
    with Store(settings.files.features) as store:
        space, table = spaces.choose(store, settings, backbone, stack, listener), store.table
        count = len(table.paths)
        if not all(np.isfinite(rows).all() for _, rows in spaces.chunks(space, count)):
            raise StoreError(f"{store.path}: has features that are not finite; delete it and run `stackcls features`")
        with listener.track("map", embedding.EARLY + embedding.ITERATIONS, "step") as advance:
            places = embedding.lay_out(lambda: spaces.chunks(space, count), count, space.width, advance)
    drawn = _describe(table, places, space.name, settings.files, listener)
    links, shown = _show(table, files.folder, settings, listener)
    with together(first=files.map_picture, last=files.map_page):
        pictures.save_map(drawn, files.map_picture)
        pictures.save_map(drawn, files.map_drawing)
        write_text(files.map_table, maps.to_csv(drawn))
        mappage.save(drawn, links, shown, files.map_page)
    return MapResult(tuple(checks), count)


def _check_output(folder: Path, settings: Settings) -> None:
    """Refuse a file, and a folder among the images, where the next run of `features` would take the map for one."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output: {folder} is a file; give a folder")
    if (
        isinstance(settings.images, Path)
        and settings.images.is_dir()
        and settings.images.resolve() in (folder.resolve(), *folder.resolve().parents)
    ):
        raise ConfigError(f"--output: {folder} is among the images, and map.png would be taken for one; give another")


def _describe(table: ImageTable, places: embedding.Places, name: str, files: Artifacts, listener: Listener) -> Map:
    predicted: list[str | None] = [None] * len(table.paths)
    try:
        found = crossvalidated.predictions(files.predictions, table)
        for row, label in zip(found.rows.tolist(), found.predicted, strict=True):
            predicted[row] = label
    except ModelMissing:
        pass
    except ModelError as error:
        listener.warn(f"mistakes are not marked: {error}")
    labels = tuple(table.class_names[label] if label >= 0 else None for label in table.labels.tolist())
    classes = len(set(labels) - {None})
    what = f"{len(labels):,} images of {counted(classes, 'class', 'classes')}" if classes else f"{len(labels):,} images"
    title = f"{what}, laid out by {name} (t-SNE)"
    return Map(title, places, table.paths, labels, tuple(predicted))


def _show(
    table: ImageTable, folder: Path, settings: Settings, listener: Listener
) -> tuple[Sequence[str | None], Sequence[bytes | None]]:
    """Links to the images, and small pictures of them within the budget."""
    nothing = [None] * len(table.paths)
    try:
        source = sources.scan(settings.images, settings.features.limits)
    except SourceError as error:
        listener.warn(f"the page shows no images: {error}")
        return nothing, nothing
    files = [source.content(path) for path in table.paths]
    prefix = album.address(source, folder)
    links = [prefix and album.link(prefix, path) for path in table.paths]
    side = _side(files, settings.features.limits)
    if side is None:
        listener.say(f"{len(files)} images are too many to be part of the page, which shows the files instead")
        return links, nothing
    return links, thumbnails.thumbnails(files, settings.features.limits, side)


def _side(files: Sequence[Content], limits: Limits) -> int | None:
    """The largest side at which pictures of all files are within the budget, by some of them."""
    some = [files[row] for row in np.unique(np.linspace(0, len(files) - 1, TRIED).astype(int))]
    for side in SIDES:
        sizes = [len(item) for item in thumbnails.thumbnails(some, limits, side) if item is not None]
        if not sizes or len(files) * sum(sizes) / len(sizes) <= BUDGET:
            return side
    return None
