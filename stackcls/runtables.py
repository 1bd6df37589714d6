"""Tables that a run writes beside its report: read again, and checked to be of the same run."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackcls.artifacts import Artifacts
from stackcls.errors import SourceError
from stackcls.report.content import Copy, Photo, Predicted, Suspect
from stackcls.report.results import STACK, Report

COLUMNS = ("path", "label", "fold", "predicted", "probability")
REMEDY = "run `stackcls fit` again, which writes them together"

Row = Mapping[str, str]


@dataclass(frozen=True)
class Tables:
    """Text of the tables beside a report; None for one that is not there.

    Attributes
    ----------
    predictions, suspects, duplicates, holdout : str or None
        The CSV files of `Artifacts`.
    probabilities : ndarray, shape (n, classes), or None
        The stack's, rows as in `predictions`.
    """

    predictions: str | None = None
    probabilities: NDArray[np.floating[Any]] | None = None
    suspects: str | None = None
    duplicates: str | None = None
    holdout: str | None = None


@dataclass(frozen=True)
class Predictions:
    """`cv_predictions.csv`, by column.

    Attributes
    ----------
    paths : list of str
    given, predicted : ndarray of int, shape (n,)
        Indices of the report's classes.
    fold : ndarray of int, shape (n,)
    probability : ndarray of float, shape (n,)
        Of the predicted class.
    right : mapping of str to ndarray of bool, shape (n,)
        Whether each backbone had it right.
    """

    paths: list[str]
    given: NDArray[np.int64]
    predicted: NDArray[np.int64]
    fold: NDArray[np.int64]
    probability: NDArray[np.float64]
    right: Mapping[str, NDArray[np.bool_]]


def read(files: Artifacts) -> Tables:
    """Read the tables that are there.

    Raises
    ------
    SourceError
        If one is there and cannot be read.
    """
    probabilities = None
    if files.probabilities.exists():
        try:
            probabilities = np.load(files.probabilities, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise SourceError(f"{files.probabilities}: cannot be read ({error}): {REMEDY}") from None
    return Tables(
        _text(files.predictions), probabilities, _text(files.suspects), _text(files.duplicates), _text(files.holdout)
    )


def predictions(tables: Tables, report: Report, name: str) -> Predictions | None:
    """The predictions of single images; None where the table is not there.

    Raises
    ------
    SourceError
        If they are not the report's.
    """
    if tables.predictions is None:
        return None
    places = {label: place for place, label in enumerate(report.classes)}
    paths: list[str] = []
    numbers: list[tuple[int, int, int, float]] = []
    right: list[list[bool]] = []
    for row in _rows(tables.predictions, name, (*COLUMNS, *report.singles)):
        try:
            numbers.append(
                (places[row["label"]], places[row["predicted"]], int(row["fold"]), float(row["probability"]))
            )
        except (KeyError, ValueError) as error:
            raise SourceError(f"{name}: is not of the report's run ({error} in it): {REMEDY}") from None
        paths.append(row["path"])
        right.append([row[learner] == row["label"] for learner in report.singles])
    columns = np.array(numbers, dtype=np.float64).reshape(-1, 4).T
    given, predicted, fold = columns[:3].astype(np.int64)
    hits = np.array(right, dtype=np.bool_).reshape(-1, len(report.singles))
    made = Predictions(paths, given, predicted, fold, columns[3], dict(zip(report.singles, hits.T, strict=True)))
    _check(made, tables, report, name)
    return made


def suspects(tables: Tables, report: Report, name: str) -> list[Suspect]:
    """Rows of `label_suspects.csv`; raises `SourceError` where they are not the report's."""
    if report.suspects is None or tables.suspects is None:
        return []
    columns = ("path", "rank", "label", "probability", "suggested", "suggested_probability")
    found = list(_rows(tables.suspects, name, columns))
    _agree(name, "suspects", len(found), report.suspects.listed)
    with _numbers(name):
        return [
            Suspect(
                Photo(row["path"]),
                int(row["rank"]),
                row["label"],
                float(row["probability"]),
                row["suggested"],
                float(row["suggested_probability"]),
            )
            for row in found
        ]


def duplicates(tables: Tables, report: Report, name: str) -> list[list[Copy]]:
    """Groups of `duplicates.csv`; raises `SourceError` where they are not the report's."""
    if report.duplicates is None or tables.duplicates is None:
        return []
    groups: dict[str, list[Copy]] = {}
    with _numbers(name):
        for row in _rows(tables.duplicates, name, ("group", "path", "label", "kind", "similarity")):
            similarity = float(row["similarity"]) if row["similarity"] else None
            groups.setdefault(row["group"], []).append(Copy(Photo(row["path"]), row["label"], row["kind"], similarity))
    _agree(name, "groups", len(groups), report.duplicates.groups)
    return list(groups.values())


def held_out(tables: Tables, report: Report, name: str) -> list[Predicted]:
    """Misclassified rows of `holdout_predictions.csv`, the most confident first; raises as `suspects`."""
    if report.holdout is None or tables.holdout is None:
        return []
    learners = [learner for learner in report.holdout.scores if learner != STACK]
    found = list(_rows(tables.holdout, name, ("path", "label", "predicted", "probability", *learners)))
    _agree(name, "images", len(found), report.holdout.n_images)
    with _numbers(name):
        wrong = [
            Predicted(
                Photo(row["path"]),
                row["label"],
                row["predicted"],
                float(row["probability"]),
                right=tuple(learner for learner in learners if row[learner] == row["label"]),
            )
            for row in found
            if row["label"] != row["predicted"]
        ]
    _agree(name, "mistakes", len(wrong), report.holdout.wrong)
    return sorted(wrong, key=lambda item: -item.probability)


def _rows(table: str, name: str, columns: Sequence[str]) -> Iterator[Row]:
    """Rows one by one, since a table may have many."""
    reader = csv.DictReader(io.StringIO(table, newline=""))
    try:
        if absent := [column for column in columns if column not in (reader.fieldnames or ())]:
            raise SourceError(f"{name}: has no column {absent[0]!r}: {REMEDY}")
        for row in reader:
            if None in row or None in row.values():
                raise SourceError(f"{name}:{reader.line_num}: has another number of values than columns: {REMEDY}")
            yield row
    except csv.Error as error:
        raise SourceError(f"{name}:{reader.line_num}: not valid CSV ({error}): {REMEDY}") from None


@contextmanager
def _numbers(name: str) -> Iterator[None]:
    try:
        yield
    except SourceError:
        raise
    except ValueError as error:
        raise SourceError(f"{name}: {error}: {REMEDY}") from None


def _agree(name: str, what: str, found: int, said: int) -> None:
    if found != said:
        raise SourceError(f"{name}: has {found} {what}, the report {said}: {REMEDY}")


def _check(found: Predictions, tables: Tables, report: Report, name: str) -> None:
    correct = found.given == found.predicted
    for learner, hits in {**found.right, STACK: correct}.items():
        folds = [float(hits[found.fold == fold].mean()) for fold in np.unique(found.fold)]
        if len(folds) != report.folds or not np.allclose(folds, report.scores[learner].folds, rtol=0, atol=1e-9):
            raise SourceError(f"{name}: gives {learner} other accuracies than the report does: {REMEDY}")
    if tables.probabilities is not None and tables.probabilities.shape != (len(found.paths), len(report.classes)):
        raise SourceError(
            f"{name}: has {len(found.paths)} images of {len(report.classes)} classes, the probabilities beside it "
            f"the shape {tables.probabilities.shape}: {REMEDY}"
        )


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8") if path.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read ({error}): {REMEDY}") from None
