"""`stackcls duplicates`: `features.h5` in, groups of images that are the same, or nearly, out."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from stackcls import grouping, runtables, sources, thumbnails
from stackcls.grouping import Duplicate
from stackcls.listener import Listener, Silent
from stackcls.report import pictures, tables
from stackcls.report.pictures import Cell
from stackcls.settings import Settings
from stackcls.store import Store

THUMBNAIL = 160
MOST_GROUPS, MOST_IMAGES = 50, 8  # of a sheet that can be looked at

Groups = Sequence[Sequence[Duplicate]]


def run(
    settings: Settings, *, sheet: Path | None = None, listener: Listener | None = None
) -> Sequence[Sequence[Duplicate]]:
    """Find groups of duplicates among all images of the feature file, labelled or not.

    Parameters
    ----------
    settings : Settings
    sheet : Path, optional
        Also draw them into this `.png` file, a row per group; images that are not there any more are blank.
    listener : Listener, optional

    Returns
    -------
    sequence of groups of Duplicate
        Those with different labels first, then the most similar.

    Raises
    ------
    ConfigError
        If the file to write has another suffix, or is there and something else.
    SourceError
        If the images, which a sheet shows, are not where the settings say.
    StoreError
        If the feature file cannot be used.
    """
    listener = listener or Silent()
    if sheet is not None:
        pictures.check_sheet("--sheet", sheet)
        sources.scan(
            settings.images, settings.features.limits
        )  # which says now, and not after minutes, that there are no images to draw
    with Store(settings.files.features) as store:
        table = store.table
        found, note = grouping.look(store, tuple(store.matrices))
    if note:
        listener.warn(note)
    labels = [table.class_names[label] if label >= 0 else None for label in table.labels.tolist()]
    groups = grouping.listed(found, table.paths, labels)
    if sheet is not None:
        _save_sheet(groups, settings, sheet, listener)
    return groups


def _save_sheet(groups: Groups, settings: Settings, path: Path, listener: Listener) -> None:
    source = sources.scan(settings.images, settings.features.limits)
    shown = [group[:MOST_IMAGES] for group in groups[:MOST_GROUPS]]
    if len(groups) > MOST_GROUPS:
        listener.warn(f"--sheet: shows the first {MOST_GROUPS} of {len(groups)} groups")
    files = [source.content(one.path) for group in shown for one in group]
    drawn = iter(thumbnails.pixels(files, settings.features.limits, THUMBNAIL))
    rows = [[Cell(next(drawn), one.label or one.path, _said(one)) for one in group] for group in shown]
    pictures.save_sheet(rows, path)


def _said(one: Duplicate) -> str:
    return one.kind if one.kind == "exact" else f"{one.similarity:.3f}"


def to_table(groups: Groups) -> str:
    """Markdown, a row per image."""
    rows = [
        [number, one.path, one.label or "", one.kind, f"{one.similarity:.4f}"]
        for number, group in enumerate(groups, 1)
        for one in group
    ]
    return tables.table(runtables.DUPLICATES, rows) + "\n"


def to_json(groups: Groups) -> str:
    """A list of groups, each a list with one mapping per image."""
    return json.dumps([[asdict(one) for one in group] for group in groups], ensure_ascii=False, indent=2) + "\n"


WRITERS = {"table": to_table, "csv": grouping.to_csv, "json": to_json}
