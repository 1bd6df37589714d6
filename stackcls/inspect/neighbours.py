"""Nearest rows of feature matrices by cosine similarity, exactly, in one pass over the rows."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST = 1e-30  # of a probability, before its logarithm is taken

Features = NDArray[np.float32]
Chunks = Iterable[tuple[int, Features]]


def unit(matrices: Sequence[NDArray[Any]]) -> Features:
    """Rows of length one, so that their product is the mean of the matrices' cosine similarities.

    Parameters
    ----------
    matrices : sequence of ndarray, shape (n, width of each)
        Features of the same images by several backbones.

    Returns
    -------
    ndarray of float32, shape (n, sum of widths)
        A row of zeros stays so, and is similar to nothing.
    """
    parts = []
    for matrix in matrices:
        wide = np.asarray(matrix, dtype=np.float32)
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)
        parts.append(wide / np.maximum(lengths * np.float32(np.sqrt(len(matrices))), np.finfo(np.float32).tiny))
    return np.hstack(parts)


def log_ratios(shares: NDArray[Any]) -> Features:
    """Make probabilities comparable by angle: their logarithms, less each row's mean (Aitchison's log-ratios).

    The angle between probabilities themselves is 0, to the last digit, of all images that a stack is sure of. This one
    also tells what each of them could be instead, and does not hang on the temperature.

    Parameters
    ----------
    shares : ndarray, shape (n, n_classes)

    Returns
    -------
    ndarray of float32, of the same shape
        Of two classes the logarithms as they are, since there the ratios differ in length alone.
    """
    logs = np.log(np.maximum(np.asarray(shares, dtype=np.float64), LEAST))
    if shares.shape[1] > 2:
        logs -= logs.mean(axis=1, keepdims=True)
    return logs.astype(np.float32)


def nearest(queries: Features, chunks: Chunks, k: int) -> tuple[NDArray[np.int64], Features]:
    """Find the most similar rows of each query.

    Parameters
    ----------
    queries : ndarray of float32, shape (n_queries, width)
        From `unit`.
    chunks : iterable of (int, ndarray of float32)
        Number of the first row, and rows from `unit`; memory holds one chunk at a time.
    k : int

    Returns
    -------
    rows : ndarray of int64, shape (n_queries, k or fewer)
        The most similar first; of equal ones the first row.
    similarities : ndarray of float32, of the same shape
        From -1 to 1.
    """
    rows, best = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
    for start, chunk in chunks:
        found = queries @ chunk.T
        rows = np.hstack([rows, np.broadcast_to(np.arange(start, start + len(chunk)), found.shape)])
        best = np.hstack([best, found])
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        rows, best = np.take_along_axis(rows, order, axis=1), np.take_along_axis(best, order, axis=1)
    return rows, np.clip(best, -1, 1)
