"""Rows of a matrix that is too large for memory: read from the file block by block, each time they are gone through."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stackcls import buffers

ROWS = 1024  # at a time: their probabilities fit the second-level cache, their features the third
BLOCK = 8 << 20  # bytes read at a time, or `ROWS` rows; two blocks are in memory

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]


@dataclass
class Traffic:
    """What was read of one matrix, all fits together.

    Attributes
    ----------
    bytes : int
    seconds : float
        Spent reading, most of it while the block before was worked on.
    """

    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Streamed:
    """Some rows of a matrix, read anew whenever they are gone through; a block ahead is read in a thread.

    Attributes
    ----------
    read : callable
        From rows of the file, which ascend, and an array for their features to the number of bytes that were read.
    rows : ndarray of int64, shape (n,)
        Rows of the file.
    width : int
    dtype : type of the features
    traffic : Traffic
        Is added to.
    """

    read: Callable[[Ints, Floats], int]
    rows: Ints
    width: int
    dtype: DTypeLike
    traffic: Traffic

    @property
    def shape(self) -> tuple[int, int]:
        """As an array's."""
        return len(self.rows), self.width

    def take(self, rows: Ints) -> "Streamed":
        """Some of the rows, which ascend."""
        return Streamed(self.read, self.rows[rows], self.width, self.dtype, self.traffic)

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """Yield all rows in order, as number of the first row and features; each block is gone when the next comes."""
        each = max(1, min(rows_of_block(self.width, np.dtype(self.dtype).itemsize), len(self.rows)))
        spare = [buffers.zeros((each, self.width), self.dtype) for _ in range(2)]
        with ThreadPoolExecutor(1, "read") as thread:
            following = thread.submit(self._read, 0, spare[0])
            for start in range(0, len(self.rows), each):
                block = following.result()
                spare.reverse()
                following = thread.submit(self._read, start + each, spare[0])
                yield start, block

    def _read(self, start: int, target: Floats) -> Floats:
        rows = self.rows[start : start + len(target)]
        if rows.size:
            begin = perf_counter()
            self.traffic.bytes += self.read(rows, target[: len(rows)])
            self.traffic.seconds += perf_counter() - begin
        return target[: len(rows)]


def rows_of_block(width: int, itemsize: int) -> int:
    """Rows that are read at a time, of which sums of `ROWS` can be made."""
    return ROWS * max(1, BLOCK // (ROWS * width * itemsize))


def pieces(X: Floats | Streamed, rows: int = ROWS) -> Iterator[tuple[int, Floats]]:
    """Yield a matrix in order, as number of the first row and so many rows; the last piece may have fewer.

    They are cut alike whether the matrix is in memory or not (if `rows` is a power of two up to `ROWS`), so that sums
    over them are rounded alike. A piece is gone when the next comes.
    """
    if isinstance(X, np.ndarray):
        for start in range(0, len(X), rows):
            yield start, X[start : start + rows]
        return
    for first, block in X.blocks():
        for start in range(0, len(block), rows):
            yield first + start, block[start : start + rows]
