"""Tables that a run writes beside its report: read again, and checked to be of the same run."""

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
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

COLUMNS = ("path", "label", "fold", "predicted", "probability")  # then one by each backbone
HELD_OUT = ("path", "label", "predicted", "probability")  # as well
SUSPECTS = ("rank", "path", "label", "probability", "suggested", "suggested_probability", "flagged")
DUPLICATES = ("group", "path", "label", "kind", "similarity")
REMEDY = "run `stackcls fit` again, which writes them together"


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


def read(files: Artifacts, report: Report) -> Tables:
    """Read the tables that are there.

    Raises
    ------
    SourceError
        If one is there and cannot be read, or is not of the report's run.
    """
    probabilities = load(files.probabilities) if files.probabilities.exists() else None
    found = Tables(
        _text(files.predictions), probabilities, _text(files.suspects), _text(files.duplicates), _text(files.holdout)
    )
    for what, digest in digests(found).items():
        if report.tables.get(what) != digest:
            raise SourceError(f"{getattr(files, what)}: is not the one that the report was written with: {REMEDY}")
    return found


def digests(tables: Tables) -> dict[str, str]:
    """SHA-256 of the files of all tables, by name of the field, as the report keeps them."""
    texts = {name: getattr(tables, name) for name in ("predictions", "suspects", "duplicates", "holdout")}
    found = {
        name: hashlib.sha256(table.encode("utf-8")).hexdigest() for name, table in texts.items() if table is not None
    }
    if tables.probabilities is not None:
        found["probabilities"] = _digest(tables.probabilities)
    return found


def load(path: Path) -> NDArray[np.floating[Any]]:
    """Open an array, not read yet; raises `SourceError` where it is none. No archive and no pickle is opened."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"{path}: is damaged, or no array ({error}): {REMEDY}") from None


def rows(table: str, name: str, columns: Sequence[str], learners: Sequence[str] | None = ()) -> Iterator[list[str]]:
    """Rows of a table one by one, since it may have many.

    Parameters
    ----------
    table : str
        CSV.
    name : str
        Of its file, for errors.
    columns : sequence of str
        Those that it begins with.
    learners : sequence of str, optional
        Those that follow, whatever they are called; with None, any may.

    Raises
    ------
    SourceError
        If it is not such a table.
    """
    reader = csv.reader(io.StringIO(table, newline=""), strict=True)
    try:
        head = next(reader, [])
        if head[: len(columns)] != list(columns) or (learners is not None and head[len(columns) :] != list(learners)):
            wanted = ", ".join([*columns, *(learners or ())])
            raise SourceError(f"{name}: its columns are not {wanted}: {REMEDY}")
        for row in reader:
            if len(row) != len(head):
                raise SourceError(f"{name}:{reader.line_num}: has another number of values than columns: {REMEDY}")
            yield row
    except csv.Error as error:
        raise SourceError(f"{name}:{reader.line_num}: not valid CSV ({error}): {REMEDY}") from None


def begins(path: Path, columns: Sequence[str]) -> bool:
    """Whether a file is a table with these columns first."""
    line = ",".join(columns).encode()
    try:
        with open(path, "rb") as file:
            return file.read(len(line)) == line and file.read(1) in (b",", b"\n")
    except OSError:
        return False


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
    with _of_the_run(name):
        for path, label, fold, predicted, probability, *singles in rows(
            tables.predictions, name, COLUMNS, list(report.singles)
        ):
            numbers.append((places[label], places[predicted], int(fold), float(probability)))
            paths.append(path)
            right.append([said == label for said in singles])
    columns = np.array(numbers, dtype=np.float64).reshape(-1, 4).T
    given, predicted, fold = columns[:3].astype(np.int64)
    hits = np.array(right, dtype=np.bool_).reshape(-1, len(report.singles))
    return Predictions(paths, given, predicted, fold, columns[3], dict(zip(report.singles, hits.T, strict=True)))


def suspects(tables: Tables, report: Report, name: str) -> list[Suspect]:
    """Rows of `label_suspects.csv`; raises `SourceError` where they are not such."""
    if report.suspects is None or tables.suspects is None:
        return []
    with _of_the_run(name):
        return [
            Suspect(Photo(path), int(rank), label, float(own), suggested, float(share))
            for rank, path, label, own, suggested, share, _ in rows(tables.suspects, name, SUSPECTS)
        ]


def duplicates(tables: Tables, report: Report, name: str) -> list[list[Copy]]:
    """Groups of `duplicates.csv`; raises `SourceError` where they are not such."""
    if report.duplicates is None or tables.duplicates is None:
        return []
    groups: dict[str, list[Copy]] = {}
    with _of_the_run(name):
        for group, path, label, kind, similarity in rows(tables.duplicates, name, DUPLICATES):
            alike = float(similarity) if similarity else None
            groups.setdefault(group, []).append(Copy(Photo(path), label, kind, alike))
    return list(groups.values())


def held_out(tables: Tables, report: Report, name: str) -> list[Predicted]:
    """Misclassified rows of `holdout_predictions.csv`, the most confident first; raises as `suspects`."""
    if report.holdout is None or tables.holdout is None:
        return []
    learners = [learner for learner in report.holdout.scores if learner != STACK]
    wrong = []
    with _of_the_run(name):
        for path, label, predicted, probability, *singles in rows(tables.holdout, name, HELD_OUT, learners):
            if label != predicted:
                right = tuple(learner for learner, said in zip(learners, singles, strict=True) if said == label)
                wrong.append(Predicted(Photo(path), label, predicted, float(probability), right=right))
    return sorted(wrong, key=lambda item: -item.probability)


@contextmanager
def _of_the_run(name: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{name}: is not of the report's run ({error} in it): {REMEDY}") from None


def _digest(probabilities: NDArray[np.floating[Any]]) -> str:
    """Of the `.npy` file that holds them as float32, which is not made for that."""
    state = hashlib.sha256()
    np.save(_Sink(state.update), probabilities.astype(np.float32, copy=False))
    return state.hexdigest()


@dataclass(frozen=True)
class _Sink:
    """A file that only takes."""

    write: Callable[[bytes], object]


def _text(path: Path) -> str | None:
    return text(path) if path.exists() else None


def text(path: Path) -> str:
    """Text of a table; raises `SourceError` where it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read ({error}): {REMEDY}") from None
