"""What parts of a picture matter, from how decisions change when they are covered; and how good such a map is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SIDE = 60  # of masks and maps, whatever the picture's size
WINDOWS = (3, 4)  # windows are a third and a quarter as wide and as high as the picture
PER_WINDOW = 2  # and are moved by half of themselves
CELLS = 6  # a picture is taken away in so many rows and columns of pieces; windows tell no finer ones apart
STEPS = 10

Floats = NDArray[np.float32]


def windows(sizes: Sequence[int] = WINDOWS) -> Floats:
    """Masks that each cover one window, shape (n, SIDE, SIDE): 1 where the picture stays, 0 where it is covered.

    Windows of each size overlap, and hang over the edges, so that every place is covered equally often.

    References
    ----------
    Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014.
    """
    masks = []
    for parts in sizes:
        width = SIDE / parts
        starts = np.arange(-(PER_WINDOW - 1), parts * PER_WINDOW) * width / PER_WINDOW
        edges = [(max(0, round(start)), round(start + width)) for start in starts]
        for top, bottom in edges:
            for left, right in edges:
                mask = np.ones((SIDE, SIDE), np.float32)
                mask[top:bottom, left:right] = 0
                masks.append(mask)
    return np.stack(masks)


def importance(masks: Floats, gains: NDArray[np.floating]) -> Floats:
    """How much a score gains by a place being there: the mean over all windows that have it, shape (SIDE, SIDE).

    Parameters
    ----------
    masks : ndarray of float32, shape (n, SIDE, SIDE)
    gains : ndarray of float, shape (n,)
        What the score gains by each window.
    """
    covered = 1 - masks
    found: Floats = (np.tensordot(gains, covered, 1) / np.maximum(covered.sum(axis=0), 1e-6)).astype(np.float32)
    return found


def removals(importance_map: Floats) -> Floats:
    """Masks that take away more and more, the most important pieces first, shape (STEPS + 1, SIDE, SIDE)."""
    pieces = importance_map.reshape(CELLS, SIDE // CELLS, CELLS, SIDE // CELLS).mean(axis=(1, 3))
    return _removing(np.argsort(-pieces.ravel(), kind="stable"))


def random_removals(seed: int) -> Floats:
    """Masks that take away more and more, in random order."""
    return _removing(np.random.default_rng(seed).permutation(CELLS**2))


def deletion(probabilities: NDArray[np.floating]) -> float:
    """Area under the curve of a class's probability over the share of the picture that is gone: low is good.

    Parameters
    ----------
    probabilities : ndarray of float, shape (STEPS + 1,)
        Under each of the masks of `removals` or `random_removals`.

    References
    ----------
    Petsiuk, Das, Saenko: RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018.
    """
    return float(np.trapezoid(probabilities, dx=1 / STEPS))


def _removing(order: NDArray[np.int64]) -> Floats:
    kept = np.ones((STEPS + 1, CELLS**2), np.float32)
    for step in range(STEPS + 1):
        kept[step, order[: round(len(order) * step / STEPS)]] = 0
    cells = kept.reshape(-1, CELLS, CELLS)
    return cells.repeat(SIDE // CELLS, axis=1).repeat(SIDE // CELLS, axis=2)
