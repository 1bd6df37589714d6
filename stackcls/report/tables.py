"""Rows as text: Markdown tables, which read well in a terminal and in a browser, and CSV."""

import csv
import io
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from stackcls.printable import printable


def percent(value: float | None) -> str:
    """Share as a percentage with two decimals."""
    return "" if value is None else f"{100 * value:.2f}"


def comma_separated(rows: Iterable[Sequence[object]]) -> str:
    """CSV whose readers get back every cell exactly; `csv` would leave a lone carriage return unquoted."""
    buffer = io.StringIO()
    plain = csv.writer(buffer, lineterminator="\n")
    quoted = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (quoted if any("\r" in str(cell) for cell in row) else plain).writerow(row)
    return buffer.getvalue()


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown table; cells are text as given, but for what would break the table or act on a terminal."""
    safe = [[printable(str(cell)).replace("|", "\\|") for cell in row] for row in rows]
    aligned = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(
        safe,
        [printable(header) for header in headers],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=aligned if safe else None,
    )
