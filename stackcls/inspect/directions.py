"""Leading principal components of matrices that are read piece by piece."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EXTRA = 16  # directions beyond those asked for, which make the others exact sooner
PASSES = 4

Features = NDArray[np.float32]
Chunks = Iterable[tuple[int, Features]]


@dataclass(frozen=True)
class Directions:
    """A centre, shape (width,), and orthonormal directions in falling order of variance, shape (width, count)."""

    centre: Features
    axes: Features

    def along(self, rows: Features) -> Features:
        """Coordinates of rows, shape (n, count)."""
        found: Features = rows @ self.axes - self.centre @ self.axes
        return found


def principal(chunks: Callable[[], Chunks], width: int, count: int, seed: int = 0) -> Directions:
    """Find principal components by subspace iteration, which needs a few passes and no copy of the matrix.

    Libraries want the matrix in memory, twice, or a square one of its width; the last digits, for which they take
    longer, decide nothing in a picture or an approximate index.

    Parameters
    ----------
    chunks : callable
        Gives the rows anew, as (first row, rows), for each pass.
    width : int
    count : int
        As many directions, or `width` where that is less.
    seed : int

    References
    ----------
    Halko, Martinsson, Tropp: Finding structure with randomness, SIAM Review 53 (2011), algorithm 4.4.
    """
    total, n_rows = np.zeros(width), 0
    for _, rows in chunks():
        total += rows.sum(axis=0, dtype=np.float64)
        n_rows += len(rows)
    centre = (total / max(n_rows, 1)).astype(np.float32)
    start = np.random.default_rng(seed).normal(size=(width, min(width, count + EXTRA)))
    axes = np.linalg.qr(start)[0].astype(np.float32)
    for _ in range(PASSES):
        image = np.zeros(axes.shape, np.float32)
        for _, rows in chunks():
            centred = rows - centre
            image += centred.T @ (centred @ axes)
        axes, _, _ = np.linalg.svd(image, full_matrices=False)
    return Directions(centre, np.ascontiguousarray(axes[:, :count]))
