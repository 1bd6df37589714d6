"""A report as one page for a browser: nothing is loaded, nothing is computed anew, and no name can act in it."""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stackcls.printable import printable
from stackcls.report import sections, tables, text
from stackcls.report.charts import Axis, axis
from stackcls.report.content import Page
from stackcls.report.results import STACK, Report

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

GENERATOR = "stackcls"
FOLDER = Path(__file__).with_name("page")
CLASSES_AT_FIRST, CLASSES_IN_MATRIX, CLASSES_IN_TABLE = 30, (10, 20, 30, 50, 100, 200), 2000
SHADES = 4

T = TypeVar("T")


def render(page: Page) -> str:
    """Write a page as HTML; names are escaped, marks in them that turn text around are written out."""
    report = page.report
    style, script = ((FOLDER / name).read_text("utf-8") for name in ("style.css", "script.js"))
    environment = _environment()
    ordered = [*report.singles.items(), (STACK, report.scores[STACK])]
    hardest = sorted(report.per_class, key=lambda name: (report.per_class[name].f1, name))[:CLASSES_IN_TABLE]
    made = [("recipe", report.recipe), ("folds", report.folds), ("seed", report.seed), *report.settings.items()]
    made += [("seconds", f"{report.seconds:.1f}"), *report.created_with.items()]
    counts = np.array(report.confusion, dtype=np.int64) if report.confusion else None
    return environment.get_template("report.html").render(
        page=page,
        generator=GENERATOR,
        style=_as_is(style),
        script=_as_is(script),
        style_hash=_digest(style),
        script_hash=_digest(script),
        sections=_titles(report),
        ordered=ordered,
        errors=None if counts is None else int(counts.sum() - counts.trace()),
        worst=None if counts is None else _worst(report, counts),
        gain_sentence=text.gain_sentence(report),
        tuning=sections.tuning_parts(report),
        hardest=[(name, report.per_class[name]) for name in hardest],
        largest_bin=max((item.count for item in report.calibration.bins), default=1),
        axes=_axes(page),
        curves=_curves(report),
        matrix=None if counts is None else _matrix(page, counts),
        made=[(what, str(value)) for what, value in made],
    )


def is_page(path: Path) -> bool:
    """Whether a file is a page that `render` wrote."""
    try:
        with open(path, "rb") as file:
            return f'<meta name="generator" content="{GENERATOR}">'.encode() in file.read(2048)
    except OSError:
        return False


def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "name": _name,
        "whole": _whole,
        "plain": printable,
        "count": "{:,}".format,
        "images": _images,
        "share": _share,
        "percent": tables.percent,
        "points": _points,
        "pairs": _pairs,
    }
    return environment


def _as_is(content: str) -> "Markup":
    """A file of the package, which is no name that somebody gave."""
    from markupsafe import Markup

    return Markup(content)  # noqa: S704


def _whole(given: str) -> "Markup":
    """A name, kept apart from the direction of the text around it."""
    from markupsafe import Markup

    return Markup("<bdi>{}</bdi>").format(printable(given))


def _name(given: str) -> "Markup":
    """The same, and it may break after what parts its words."""
    whole = str(_whole(given))  # plain, since what joins parts of markup would escape the breaks
    return _as_is(re.sub("([_/])(?!bdi>)", r"\1<wbr>", whole))


def _images(number: int) -> str:
    return f"{number:,} image{'s' if number != 1 else ''}"


def _share(value: float, decimals: int = 1) -> str:
    return f"{100 * value:.{decimals}f}\N{NO-BREAK SPACE}%"


def _points(value: float, sign: bool = True) -> str:
    return f"{100 * value:{'+' if sign else ''}.2f}"


def _pairs(points: Sequence[T]) -> list[tuple[T, T]]:
    return list(zip(points, points[1:], strict=False))


def _digest(content: str) -> str:
    return base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode()


def _titles(report: Report) -> list[tuple[str, str]]:
    titles = [
        ("summary", "In short", True),
        ("scores", "Singles and stack", True),
        ("gain", "Gain", True),
        ("tuning", "Tuning", report.tuning is not None),
        ("contributions", "Contributions", bool(report.contributions)),
        ("confusion", "Confusion", True),
        ("classes", "Classes", True),
        ("calibration", "Probabilities", True),
        ("mistakes", "Mistakes", True),
        ("suspects", "Labels", report.suspects is not None),
        ("duplicates", "Duplicates", report.duplicates is not None),
        ("unknown", "Unknown", report.unknown is not None),
        ("holdout", "Hold-out", report.holdout is not None),
        ("made", "How it was made", True),
    ]
    return [(name, title) for name, title, there in titles if there]


def _axes(page: Page) -> dict[str, Axis]:
    report = page.report
    scores = [value for score in report.scores.values() for value in (score.mean, *score.folds)]
    scores += [value for interval in page.intervals.values() for value in interval or ()]
    added = [value for item in report.contributions.values() for value in (item.adds, *(item.interval or ()))]
    trades = report.unknown.trades if report.unknown else []
    measured = [value for item in trades for value in (item.accuracy, item.unknown_rejected) if value is not None]
    gains = [0.0, *report.gain.folds, *(report.gain.interval or ())]
    return {
        "scores": axis(scores, 0, 1),
        "gain": axis(gains),
        "contributions": axis([0.0, *added]),
        "unit": Axis(0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), 0.2),
        "coverage": axis([item.coverage for item in trades] or [1.0], 0, 1),
        "trades": axis(measured or [1.0], 0, 1),
    }


def _curves(report: Report) -> list[tuple[str, list[tuple[float, float]]]]:
    """Points of the trade-off: coverage, and accuracy or the share of unknown images rejected."""
    trades = report.unknown.trades if report.unknown else []
    curves = [
        ("", [(item.coverage, item.accuracy) for item in trades if item.accuracy is not None]),
        ("second", [(item.coverage, item.unknown_rejected) for item in trades if item.unknown_rejected is not None]),
    ]
    return [(kind, points) for kind, points in curves if points]


@dataclass(frozen=True)
class _Cell:
    given: int
    predicted: int
    count: int
    shade: str
    linked: bool
    label: str


@dataclass(frozen=True)
class _Row:
    name: str
    cells: list[_Cell | None]


@dataclass(frozen=True)
class _Matrix:
    """The confusion matrix as shown at first, the numbers of classes to choose from, and all of it for the script."""

    rows: list[_Row]
    numbers: list[int]
    data: dict[str, Any]


def _matrix(page: Page, counts: NDArray[np.int64]) -> _Matrix:
    names = [printable(name) for name in page.report.classes]
    linked = {(cell.given, cell.predicted) for cell in page.cells}
    by_errors = page.orders.get("errors", list(range(len(names))))
    numbers = [number for number in CLASSES_IN_MATRIX if number < len(names)]
    if len(names) <= CLASSES_IN_MATRIX[-1]:
        numbers.append(len(names))
    first = len(names) if len(names) <= CLASSES_AT_FIRST + 10 else CLASSES_AT_FIRST
    shown = sorted(by_errors[:first])
    totals = counts.sum(axis=1)
    cells: dict[tuple[int, int], _Cell] = {}
    for given, predicted in np.argwhere(counts).tolist():
        count = int(counts[given, predicted])
        what = "recognised" if given == predicted else f"taken for {names[predicted]}"
        label = f"{names[given]} {what}: {_images(count)}"
        shade = _shade(count / int(totals[given]), given == predicted)
        cells[given, predicted] = _Cell(given, predicted, count, shade, (given, predicted) in linked, label)
    rows = [_Row(page.report.classes[row], [cells.get((row, column)) for column in shown]) for row in shown]
    data = {
        "classes": names,
        "orders": {key: page.orders.get(key, list(range(len(names)))) for key in ("name", "errors", "similarity")},
        "errors": by_errors,
        "cells": [[cell.given, cell.predicted, cell.count, cell.shade] for cell in cells.values()],
    }
    return _Matrix(rows, numbers, data)


def _worst(report: Report, counts: NDArray[np.int64]) -> tuple[str, str, int] | None:
    """The most frequent confusion: given class, predicted class, images."""
    wrong = counts - np.diag(counts.diagonal())
    given, predicted = divmod(int(wrong.argmax()), len(wrong))
    count = int(wrong[given, predicted])
    return (report.classes[given], report.classes[predicted], count) if count else None


def _shade(share: float, right: bool) -> str:
    """Class of a cell by its share of the row; a few mistakes are to be seen already."""
    level = share if right else share**0.5
    return f"{'d' if right else 'e'}{min(SHADES, 1 + int(SHADES * level))}"
