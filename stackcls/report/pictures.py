"""Reports as pictures."""

import io
import typing
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stackcls.errors import ConfigError
from stackcls.files import replacing
from stackcls.report.maps import Map
from stackcls.report.results import Report

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure

SHEET = "stackcls contact sheet"
MAP = "stackcls map"
CONFUSION = "stackcls confusion matrix"
MANY_POINTS = 5000
NAMES_PER_COLUMN = 40
NUMBERS_UP_TO = 30
NAMES_UP_TO = 100
INCHES_PER_CLASS = 0.32
# Matplotlib's own font has Latin, Greek, Cyrillic, Hebrew and Arabic; these, where a system has them, have the rest.
OTHER_SCRIPTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Hiragino Sans", "PingFang SC", "Microsoft YaHei", "Yu Gothic")


def save_confusion(report: Report, path: Path) -> None:
    """Draw the confusion matrix as PNG: shade is the share of a given class, numbers are images.

    Parameters
    ----------
    report : Report
    path : Path
        Written whole, or not at all.
    """
    from matplotlib.figure import Figure

    if not report.confusion:
        figure = Figure(figsize=(8.0, 2.0))
        figure.text(0.5, 0.5, f"{len(report.classes)} classes are too many for a confusion matrix", ha="center")
        _save(figure, path, Title=CONFUSION)
        return
    counts = np.array(report.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    n_classes = len(counts)
    # Without names a class needs no line of text, and drawing takes memory by the area.
    side = min(24.0 if n_classes <= NAMES_UP_TO else 10.0, max(4.0, 2.0 + INCHES_PER_CLASS * n_classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n_classes <= NAMES_UP_TO:
        names, fonts = [_escape(name) for name in report.classes], _fonts()
        axes.set_xticks(range(n_classes), names, rotation=90, parse_math=False, fontfamily=fonts)
        axes.set_yticks(range(n_classes), names, parse_math=False, fontfamily=fonts)
    if n_classes <= NUMBERS_UP_TO:
        for given, predicted in np.argwhere(counts):
            colour = "white" if shares[given, predicted] > 0.5 else "black"
            axes.text(predicted, given, counts[given, predicted], ha="center", va="center", color=colour, size=8)
    axes.set_xlabel("predicted by the stack")
    axes.set_ylabel("given")
    _save(figure, path, Title=CONFUSION)


@dataclass(frozen=True)
class Cell:
    """One picture of a contact sheet, ndarray of uint8, shape (height, width, 3), or None; and two lines below it."""

    pixels: NDArray[np.uint8] | None
    title: str
    line: str


def save_sheet(
    rows: Sequence[Sequence[Cell]], path: Path, *, heading: str = "", inches: float = 1.6, mark: str = SHEET
) -> None:
    """Draw a contact sheet as PNG, a row of pictures after the other.

    Parameters
    ----------
    rows : sequence of sequence of Cell
    path : Path
        Written whole, or not at all.
    heading : str
        A line above all.
    inches : float
        Width of a picture; 100 pixels each.
    mark : str
        By which `is_sheet` knows it again.
    """
    from matplotlib.figure import Figure

    columns, fonts = max((len(row) for row in rows), default=1), _fonts()
    height = (inches + 0.4) * max(len(rows), 1) + (0.3 if heading else 0)
    figure = Figure(figsize=(inches * columns, height), layout="constrained")
    if heading:
        figure.suptitle(_escape(heading, round(10 * inches * columns)), size=10, fontfamily=fonts, parse_math=False)
    for number, row in enumerate(rows):
        for place, cell in enumerate(row):
            axes = figure.add_subplot(len(rows), columns, number * columns + place + 1)
            axes.set_xticks([])
            axes.set_yticks([])
            if cell.pixels is not None:
                axes.imshow(cell.pixels)
            label = f"{_escape(cell.title, 20)}\n{cell.line}"
            axes.set_xlabel(label, fontsize=8, fontfamily=fonts, parse_math=False)
    _save(figure, path, Title=mark)


def save_map(drawn: Map, path: Path) -> None:
    """Draw a map of images as PNG or SVG, as the name ends: a colour and shape per class, a ring around each mistake.

    Parameters
    ----------
    drawn : Map
    path : Path
        Written whole, or not at all.
    """
    import matplotlib
    from matplotlib.figure import Figure

    fonts, groups = _fonts(), drawn.groups
    columns = -(-len(groups) // NAMES_PER_COLUMN) if len(groups) <= NAMES_UP_TO else 0
    spread = np.ptp(drawn.places, axis=0) if len(drawn.paths) else np.zeros(2)
    height = 0.5 + 9.0 * float(np.clip(spread[1] / max(spread[0], 1e-9), 0.4, 1.4))
    names = 0.21 * min(len(groups), NAMES_PER_COLUMN) + 0.6 if columns else 0.0
    figure = Figure(figsize=(9.0 + 2.2 * columns, max(height, names)), layout="constrained")
    axes = figure.add_subplot()
    # Points of many images are smaller, and a picture in an SVG file, where each would be a line of text.
    small = float(np.clip((3000 / max(len(drawn.paths), 1)) ** 0.5, 0.15, 1))
    flat = len(drawn.paths) > MANY_POINTS
    for group in groups:
        axes.scatter(
            drawn.places[group.rows, 0],
            drawn.places[group.rows, 1],
            s=36 * small,
            c=group.colour,
            marker=group.shape.plot,
            linewidths=0.4 * small,
            edgecolors="white",
            rasterized=flat,
            label=_escape(group.name, 24),
        )
    if drawn.mistaken.any():
        axes.scatter(
            drawn.places[drawn.mistaken, 0],
            drawn.places[drawn.mistaken, 1],
            s=110 * small,
            facecolors="none",
            edgecolors="black",
            linewidths=0.9 * max(small, 0.4),
            rasterized=flat,
            label="taken for another class\nwhen held out",
        )
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_title(_escape(drawn.title, 90), fontfamily=fonts, parse_math=False)
    if columns:
        legend = figure.legend(
            loc="outside right upper", ncols=columns, frameon=False, prop={"family": fonts, "size": 9}
        )
        for entry in legend.get_texts():
            entry.set_parse_math(False)
    with matplotlib.rc_context({"svg.hashsalt": MAP}):
        _save(figure, path, Title=MAP)


def is_map(path: Path) -> bool:
    """Whether a file is a map that `save_map` drew."""
    if path.suffix != ".svg":
        return _title_of(path) == MAP
    try:
        with open(path, "rb") as file:
            return f"<dc:title>{MAP}</dc:title>".encode() in file.read(4096)
    except OSError:
        return False


def is_sheet(path: Path, mark: str = SHEET) -> bool:
    """Whether a file is a contact sheet that `save_sheet` drew with that mark."""
    return _title_of(path) == mark


def _title_of(path: Path) -> str | None:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            title: str | None = image.info.get("Title")
            return title
    except (OSError, ValueError, SyntaxError):
        return None


def check_sheet(option: str, path: Path) -> None:
    """Refuse a file that is there and is no contact sheet: it may be a photo."""
    if path.suffix != ".png":
        raise ConfigError(f"{option}: {path} is no .png file; give a name that ends so")
    if path.exists() and not is_sheet(path):
        raise ConfigError(f"{option}: {path} is there, and not written by this command; give another name")


def _save(figure: "Figure", path: Path, **said: str) -> None:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # drawn as a box; the text has it all
        unsaid = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(buffer, format=path.suffix[1:], dpi=100, metadata={**unsaid, **said})
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _fonts() -> list[str]:
    """Families to draw names with, the first that has a letter being used."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed)]


def _escape(name: str, longest: int = 30) -> str:
    """A class name that fits beside a row."""
    line = " ".join(name.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
