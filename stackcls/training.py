"""What is learned from, and whether its labels and groups allow the folds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stackcls import stack
from stackcls.errors import TrainingError
from stackcls.printable import counted
from stackcls.settings import Settings
from stackcls.shipping import Shipping
from stackcls.streaming import Streamed

NAMED = 5

Ints = NDArray[np.int64]


class Blocks(Protocol):
    """Feature matrices that are fetched when they are needed."""

    def block(self, number: int, rows: Ints) -> NDArray[np.float32]:
        """Features by the backbone of that number, shape (rows, width); the rows ascend."""


class Streams(Blocks, Protocol):
    """Feature matrices that need not be fetched whole."""

    def stream(self, number: int, rows: Ints) -> Streamed:
        """The same rows, read whenever they are gone through."""


@dataclass(frozen=True)
class TrainingSet:
    """Labelled rows.

    Attributes
    ----------
    X : ndarray of float32, shape (n, sum of widths), or Blocks
        The feature matrices side by side, or where to fetch them.
    names, widths : tuple
        Of the backbones, in the order of the columns.
    y : ndarray of int64, shape (n,)
        Labels as indices of `class_names`; every class occurs.
    class_names : tuple of str
    groups : ndarray of int64, shape (n,), or None
        Rows with the same number stay in one fold.
    memory : float
        Bytes that may be taken.
    streamed : frozenset of int
        Backbones, by number, whose matrices do not fit into that; `X` can stream them.
    workers : Shipping, optional
        Where base learners are fitted; here, if it is None.
    """

    X: NDArray[np.float32] | Blocks | Streams
    names: tuple[str, ...]
    widths: tuple[int, ...]
    y: Ints
    class_names: tuple[str, ...]
    groups: Ints | None
    memory: float = math.inf
    streamed: frozenset[int] = frozenset()
    workers: Shipping | None = None

    def block(self, number: int, rows: Ints) -> NDArray[np.float32]:
        """Features of some rows, which ascend, by the backbone of that number, shape (rows, width)."""
        if isinstance(self.X, np.ndarray):
            start = sum(self.widths[:number])
            return self.X[rows, start : start + self.widths[number]]
        return self.X.block(number, rows)

    def matrix(self, number: int, rows: Ints) -> NDArray[np.float32] | Streamed:
        """As `block` where that fits into memory, else what reads the rows whenever they are gone through."""
        if number not in self.streamed:
            return self.block(number, rows)
        source: Streams = self.X  # type: ignore[assignment]
        return source.stream(number, rows)


def check_classes(data: TrainingSet, settings: Settings) -> None:
    """Raise `TrainingError` before any work if the labels do not allow the folds."""
    if len(data.class_names) < 2:
        found = ", ".join(map(repr, data.class_names)) or "none"
        raise TrainingError(f"a classifier needs images of at least two classes; found {found}")
    counts = class_counts(data.y, data.groups, len(data.class_names))
    need = images_needed(settings)
    if too_rare := [(name, int(count)) for name, count in zip(data.class_names, counts, strict=True) if count < need]:
        unit = "images" if data.groups is None else "groups"
        if settings.cv.groups == "duplicates":
            unit = "images or groups of duplicates"
        listed = ", ".join(f"{name!r} has {count}" for name, count in too_rare[:NAMED])
        more = f" and {counted(len(too_rare) - NAMED, 'more class', 'more classes')}" if len(too_rare) > NAMED else ""
        parts = f"{settings.cv.folds} folds"
        if need > settings.cv.folds:
            parts += f", and {settings.stack.inner_folds} inner ones of each training part (stack.inner_folds),"
        raise TrainingError(
            f"{parts} need at least {need} {unit} of each class, but {listed}{more}: add images, "
            "use fewer folds (--cv), or leave such classes out (--set cv.rare=drop)"
        )


def class_counts(y: Ints, groups: Ints | None, n_classes: int) -> Ints:
    """Images of each class, or groups where there are groups."""
    if groups is not None:
        y = np.unique(np.stack([y, groups]), axis=1)[0]
    return np.bincount(y, minlength=n_classes)


def splits_again(settings: Settings) -> bool:
    """Whether inner folds are made of each training part."""
    return settings.stack.recipe == "out-of-fold" or settings.stack.tune is not None


def images_needed(settings: Settings) -> int:
    """Images (or groups) of a class that the folds need, so that each training part can be split again if it must."""
    folds = settings.cv.folds
    if not splits_again(settings):
        return folds
    inner = settings.stack.inner_folds
    return next(count for count in range(folds, 2 * folds * inner) if count - -(-count // folds) >= inner)


def check_folds(
    data: TrainingSet, folds: Sequence[tuple[Ints, Ints]], settings: Settings, every: Ints | None = None
) -> None:
    """Look for training parts without a class, which groups can leave although there are enough of them.

    `every` are the rows that the last model is fitted on, by default all.
    """
    if data.groups is None:
        return
    parts = [train for train, _ in folds]
    if splits_again(settings):
        inner = stack.splitter(settings.stack.inner_folds, settings.cv.seed, data.groups)
        for rows in [np.arange(len(data.y)) if every is None else every, *parts]:
            parts += [rows[train] for train, _ in inner.split(rows, data.y[rows], data.groups[rows])]
    for train in parts:
        missing = np.setdiff1d(np.arange(len(data.class_names)), data.y[train])
        if missing.size:
            raise TrainingError(
                f"with these groups, a training part has no image of {data.class_names[missing[0]]!r}: use another "
                "seed (--set cv.seed=1) or fewer folds (--cv), or add images from other groups"
            )
