"""What a map of images shows, as frozen data, and how classes are told apart in it."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackcls.report import tables

# Paul Tol's "bright" scheme, which people of all kinds of colour vision tell apart; his grey is for what has no label.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")
GREY = "#999999"
UNLABELLED = "no label"
HEADER = ["path", "label", "x", "y", "predicted", "mistake"]
DIGITS = 4


@dataclass(frozen=True)
class Shape:
    """A marker, as matplotlib, Bokeh and a line of text have it."""

    plot: str
    page: str
    letter: str


SHAPES = (
    Shape("o", "circle", "●"),
    Shape("s", "square", "■"),
    Shape("^", "triangle", "▲"),
    Shape("D", "diamond", "◆"),
    Shape("v", "inverted_triangle", "▼"),
    Shape("*", "star", "★"),
    Shape("P", "plus", "✚"),
    Shape("h", "hex", "⬢"),
)


@dataclass(frozen=True)
class Group:
    """Images of one class: which, how they are drawn, and how many the stack took for another class."""

    name: str
    rows: NDArray[np.int64]
    colour: str
    shape: Shape
    mistakes: int


@dataclass(frozen=True)
class Map:
    """Images in a plane.

    Attributes
    ----------
    title : str
    places : ndarray of float32, shape (n, 2)
    paths : tuple of str
    labels, predicted : tuple of str or None
        The given label, and what the stack said of the image when it was held out; None where there is none.
    """

    title: str
    places: NDArray[np.float32]
    paths: tuple[str, ...]
    labels: tuple[str | None, ...]
    predicted: tuple[str | None, ...]

    @cached_property
    def mistaken(self) -> NDArray[np.bool_]:
        """Whether the stack took an image for another class when it was held out, shape (n,)."""
        pairs = zip(self.labels, self.predicted, strict=True)
        return np.array([None not in (given, said) and given != said for given, said in pairs], dtype=bool)

    @cached_property
    def groups(self) -> list[Group]:
        """Classes by name, images without a label last; the first six differ in colour, the next in shape too."""
        wrong = Counter(label for label, mistaken in zip(self.labels, self.mistaken, strict=True) if mistaken)
        rows: dict[str | None, list[int]] = {}
        for row, label in enumerate(self.labels):
            rows.setdefault(label, []).append(row)
        found = []
        for number, label in enumerate(sorted(rows, key=lambda label: (label is None, label or ""))):
            shape = SHAPES[number // len(COLOURS) % len(SHAPES)] if label is not None else SHAPES[0]
            colour = COLOURS[number % len(COLOURS)] if label is not None else GREY
            name = UNLABELLED if label is None else label
            found.append(Group(name, np.array(rows[label]), colour, shape, wrong[label]))
        return found


def to_csv(drawn: Map) -> str:
    """The coordinates as a table, for programs and for whoever does not see the picture."""
    columns = (
        drawn.paths,
        [label or "" for label in drawn.labels],
        *([f"{value:.{DIGITS}f}" for value in column] for column in drawn.places.T.tolist()),
        [label or "" for label in drawn.predicted],
        ["yes" if mistaken else "" for mistaken in drawn.mistaken],
    )
    return tables.comma_separated([HEADER, *zip(*columns, strict=True)])


def is_csv(path: Path) -> bool:
    """Whether a file is a table that `to_csv` wrote."""
    line = ",".join(HEADER).encode() + b"\n"
    try:
        with open(path, "rb") as file:
            return file.read(len(line)) == line
    except OSError:
        return False
