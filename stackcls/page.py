"""From a report and the tables beside it to its page: which images are shown, and what stands beside them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stackcls import confusability, runtables, scoring, sources
from stackcls.album import Album
from stackcls.artifacts import Artifacts
from stackcls.evidence import Search
from stackcls.report import html
from stackcls.report.content import Cell, Copy, Page, Photo, Predicted, Suspect
from stackcls.report.results import Report
from stackcls.runtables import Predictions, Tables
from stackcls.settings import Settings
from stackcls.sources import Source
from stackcls.urls import Place

# How many of each are shown with pictures; of correct ones, of each class.
MISTAKES, SUSPECTS, GROUPS, COPIES, HELD_OUT, CORRECT = 60, 60, 40, 8, 60, 4
LISTED_BYTES, BYTES_PER_ROW = 1_500_000, 150

Ints = NDArray[np.int64]


def make(report: Report, tables: Tables, settings: Settings, files: Artifacts, search: Search | None = None) -> str:
    """Write a report's page as HTML.

    Parameters
    ----------
    report : Report
    tables : Tables
        What is there of the tables beside it; what needs others is left out.
    settings : Settings
        Which say where the images are; where they are not, the page has no pictures and says so.
    files : Artifacts
        The folder that the page will lie in, and the model, where that is needed.
    search : Search, optional
        How to look for what made the stack err; by default that is left out, since it takes seconds for each image.

    Raises
    ------
    SourceError
        If the tables are not the report's.
    """
    cross = report.kind == "cross-validation"
    found = runtables.predictions(tables, report, str(files.predictions)) if cross else None
    suspects = runtables.suspects(tables, report, str(files.suspects))[:SUSPECTS]
    copies = [group[:COPIES] for group in runtables.duplicates(tables, report, str(files.duplicates))[:GROUPS]]
    held_out = runtables.held_out(tables, report, str(files.holdout))[:HELD_OUT]
    mistakes, recognised = _ranked(found)
    top = [_predicted(report, found, tables, row) for row in mistakes[:MISTAKES].tolist()]
    if search is not None:
        top, held_out = _explained(search, top, held_out, report, settings, files)
    cells = _cells(report, found, tables, np.concatenate([mistakes, recognised]))

    galleries: list[Sequence[Predicted | Suspect | Copy]] = [top, suspects, *copies, held_out]
    shown = [item.photo.path for gallery in galleries for item in gallery]
    listed = [item.photo.path for cell in cells for item in cell.listed]
    wanted = [*shown, *_paths(found, mistakes), *_paths(found, recognised[: CORRECT * len(report.classes)])]
    source = sources.reachable(settings.images, settings.features.limits)
    album = Album(None, {})
    if source is not None:
        spent = sum(len(one.picture) for item in (*top, *held_out) for one in item.evidence)
        album = Album.take(wanted, Counter([*shown, *listed]), source, files.folder, settings.features.limits, spent)
    return html.render(
        Page(
            report=report,
            intervals=_intervals(report),
            cells=[Cell(c.given, c.predicted, c.count, [album.illustrate(item) for item in c.listed]) for c in cells],
            orders=confusability.orders(report, found, tables.probabilities),
            mistakes=[album.illustrate(item) for item in top],
            suspects=[album.illustrate(item) for item in suspects],
            copies=[[album.illustrate(item) for item in group] for group in copies],
            held_out=[album.illustrate(item) for item in held_out],
            held_out_intervals=_held_out_intervals(report),
            remarks=_remarks(settings.images, source, bool(wanted), album) if found or not cross else [UNKNOWN],
        )
    )


def _explained(
    search: Search,
    mistakes: list[Predicted],
    held_out: list[Predicted],
    report: Report,
    settings: Settings,
    files: Artifacts,
) -> tuple[list[Predicted], list[Predicted]]:
    evidence = search.look(mistakes, held_out, report, settings, files)
    first, second = (
        [replace(item, evidence=evidence.get(item.photo.path, ())) for item in items] for items in (mistakes, held_out)
    )
    return first, second


UNKNOWN = "The predictions of single images are not beside the report, so it shows none of them"


def _remarks(images: Place, source: Source | None, wanted: bool, album: Album) -> list[str]:
    if not wanted or album.pictures:
        return []
    where = f"not at {images}" if source is None else f"not to be read at {source.root}"
    return [
        f"The images were {where} when this was made, so it has no pictures; `stackcls report --html` makes it anew"
    ]


def _intervals(report: Report) -> dict[str, list[float] | None]:
    if report.kind == "cross-validation":
        wide = {name: scoring.interval(score.folds) for name, score in report.scores.items()}
        return {name: ends and [max(0.0, ends[0]), min(1.0, ends[1])] for name, ends in wide.items()}
    return {name: scoring.share_interval(score.mean, report.n_images) for name, score in report.scores.items()}


def _held_out_intervals(report: Report) -> dict[str, list[float]]:
    held = report.holdout
    return {} if held is None else {n: scoring.share_interval(s.mean, held.n_images) for n, s in held.scores.items()}


def _ranked(found: Predictions | None) -> tuple[Ints, Ints]:
    """Rows that are wrong, the most confident first; rows that are right, the least confident of each class first."""
    if found is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    right = found.given == found.predicted
    wrong = np.flatnonzero(~right)
    wrong = wrong[np.argsort(-found.probability[wrong], kind="stable")]
    rows = np.flatnonzero(right)
    rows = rows[np.lexsort((found.probability[rows], found.given[rows]))]
    _, first, counts = np.unique(found.given[rows], return_index=True, return_counts=True)
    rank = np.arange(len(rows)) - np.repeat(first, counts)
    return wrong, rows[np.argsort(rank, kind="stable")]


def _paths(found: Predictions | None, rows: Ints) -> list[str]:
    return [] if found is None else [found.paths[row] for row in rows.tolist()]


def _cells(report: Report, found: Predictions | None, tables: Tables, order: Ints) -> list[Cell]:
    """Cells of the confusion matrix with their images, as many in all as the page has room for."""
    if found is None or not report.confusion:
        return []
    spent = np.cumsum([BYTES_PER_ROW + 2 * len(path.encode("utf-8")) for path in _paths(found, order)])
    listed: dict[tuple[int, int], list[int]] = {}
    for row in order[: int(np.searchsorted(spent, LISTED_BYTES, side="right"))].tolist():
        listed.setdefault((int(found.given[row]), int(found.predicted[row])), []).append(row)
    return [
        Cell(given, predicted, report.confusion[given][predicted], [_predicted(report, found, tables, r) for r in rows])
        for (given, predicted), rows in sorted(listed.items())
    ]


def _predicted(report: Report, found: Predictions | None, tables: Tables, row: int) -> Predicted:
    """What was said of one image, its picture still missing."""
    assert found is not None
    given, predicted, classes = int(found.given[row]), int(found.predicted[row]), report.classes
    item = Predicted(
        photo=Photo(found.paths[row]),
        given=classes[given],
        predicted=classes[predicted],
        probability=float(found.probability[row]),
        right=tuple(name for name, hits in found.right.items() if hits[row]),
    )
    if tables.probabilities is None:
        return item
    shares = np.array(tables.probabilities[row], dtype=np.float64)
    own = float(shares[given])
    shares[predicted] = -1
    second = int(shares.argmax())
    return Predicted(
        item.photo,
        item.given,
        item.predicted,
        item.probability,
        own,
        classes[second],
        float(shares[second]),
        item.right,
    )
