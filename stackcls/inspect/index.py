"""An approximate index of unit rows (the only importer of faiss): small, searched in milliseconds, and not exact.

Each row is kept as bytes along the leading principal components, in lists by k-means, a few of which are searched
(Jégou et al., Product quantization for nearest neighbor search, PAMI 2011; Douze et al., The Faiss library, 2024). What
it finds are candidates, to be ranked by their stored rows.
"""

import math
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackcls.inspect.directions import Chunks, Directions, principal

COLUMNS = 256  # bytes that a row takes
SAMPLED = 40  # rows per list that k-means looks at
PROBED = 96  # lists that are searched
FILES = ("rows.faiss", "axes.npy", "centre.npy")

Features = NDArray[np.float32]


def is_installed() -> bool:
    """Whether faiss is there."""
    return find_spec("faiss") is not None


def build(chunks: Callable[[], Chunks], n_rows: int, width: int, folder: Path) -> None:
    """Write an index of all rows into an empty folder.

    Parameters
    ----------
    chunks : callable
        Gives the rows, from `neighbours.unit`, anew for each pass; memory holds a chunk, a sample, and the index.
    n_rows, width : int
    folder : Path
    """
    import faiss

    n_lists = max(1, round(math.sqrt(n_rows)))
    sample = _sample(chunks, n_rows, width, SAMPLED * n_lists)
    directions = principal(lambda: _pieces(sample), width, COLUMNS)
    made = faiss.index_factory(directions.axes.shape[1], f"IVF{n_lists},SQ8")
    made.train(directions.along(sample))
    for _, rows in chunks():
        made.add(directions.along(rows))
    rows_file, axes, centre = (folder / name for name in FILES)
    faiss.write_index(made, str(rows_file))
    np.save(axes, directions.axes)
    np.save(centre, directions.centre)


def _sample(chunks: Callable[[], Chunks], n_rows: int, width: int, count: int) -> Features:
    """Rows evenly spread over all, the same every time."""
    wanted = np.unique(np.linspace(0, n_rows - 1, min(count, n_rows)).astype(np.int64))
    sample = np.empty((len(wanted), width), np.float32)
    for start, rows in chunks():
        low, high = np.searchsorted(wanted, (start, start + len(rows)))
        sample[low:high] = rows[wanted[low:high] - start]
    return sample


def _pieces(rows: Features, size: int = 4096) -> Iterator[tuple[int, Features]]:
    for start in range(0, len(rows), size):
        yield start, rows[start : start + size]


class Index:
    """An index that `build` wrote, in memory."""

    def __init__(self, folder: Path) -> None:
        import faiss

        rows_file, axes, centre = (folder / name for name in FILES)
        self._rows: Any = faiss.read_index(str(rows_file))
        options: dict[str, Any] = {"nprobe": PROBED}
        self._probing = faiss.SearchParametersIVF(**options)
        self._directions = Directions(np.load(centre, allow_pickle=False), np.load(axes, allow_pickle=False))

    def candidates(self, queries: Features, count: int) -> list[NDArray[np.int64]]:
        """Rows that are probably among the most similar of each query, ascending."""
        _, rows = self._rows.search(self._directions.along(queries), count, params=self._probing)
        return [np.unique(row[row >= 0]) for row in rows]
