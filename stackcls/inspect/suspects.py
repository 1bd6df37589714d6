"""Labels that are probably wrong, by confident learning on out-of-fold probabilities.

Northcutt, Jiang, Chuang: Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70, 2021.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 10
ROWS = 256
LISTED, LISTED_SHARE = 20, 0.1

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """Rows whose given label is improbable, the most suspicious first.

    Attributes
    ----------
    flagged : int
        So many labels are probably wrong: those of the first rows.
    rows : ndarray of int64, shape (n,)
        All flagged ones by the probability of their given label, then others likewise: at least 20 or one in ten.
    suggested : ndarray of int64, shape (n,)
        Of each of these rows, the most probable other class.
    given_probability, suggested_probability : ndarray of float64, shape (n,)
    """

    flagged: int
    rows: Ints
    suggested: Ints
    given_probability: Floats
    suggested_probability: Floats


def mean(probabilities: Sequence[NDArray[np.floating[Any]]]) -> Floats:
    """Mean of several learners' probabilities, shape (n, classes), without another array for each."""
    total = np.zeros(probabilities[0].shape)
    for each in probabilities:
        total += each
    total /= len(probabilities)
    return total


def with_neighbours(shares: Floats, given: Ints, unit: NDArray[np.float32], groups: Ints | None = None) -> Floats:
    """Multiply probabilities by the share of each class among a row's nearest neighbours, and let rows sum to one.

    A neighbour votes for its given label, with the weight of that label's probability, so that wrong ones count little.
    Learners err together where a picture is odd; its neighbours know what such pictures are called.

    Parameters
    ----------
    shares : ndarray of float64, shape (n, classes)
        Out-of-fold probabilities.
    given : ndarray of int64, shape (n,)
        The labels.
    unit : ndarray of float32, shape (n, width)
        Features of the same rows, of length one; memory holds `ROWS` rows of similarities at a time.
    groups : ndarray of int64, shape (n,), optional
        Rows of one group do not vote for each other: they may share their mistake.

    Returns
    -------
    ndarray of float64, shape (n, classes)
    """
    n, n_classes = shares.shape
    groups = np.arange(n) if groups is None else groups
    k = min(NEIGHBOURS, n - 1)
    trust = shares[np.arange(n), given]
    found = np.empty_like(shares)
    for part in _parts(n):
        similar = unit[part] @ unit.T
        similar[groups[part][:, None] == groups] = -np.inf
        near = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        votes = np.where(np.isfinite(np.take_along_axis(similar, near, axis=1)), trust[near], 0)
        # One vote more, split evenly, so that no class becomes impossible.
        counts = np.full((len(near), n_classes), 1 / n_classes)
        np.add.at(counts, (np.arange(len(near))[:, None], given[near]), votes)
        found[part] = shares[part] * counts
        found[part] /= found[part].sum(axis=1, keepdims=True)
    return found


def rank(shares: Floats, given: Ints) -> Ranked:
    """Put first the rows that confident learning finds mislabelled, and rank by the probability of the given label.

    A row is in class `j` with confidence where its probability of `j` is at least the mean one of the rows that are
    given as `j`; of several such classes the most probable counts. Rows that are so in another class than the given one
    are the off-diagonal of the paper's confident joint. Their number is not scaled to the class sizes, as in the
    paper's estimate of the noise, which counts too many.

    Parameters
    ----------
    shares : ndarray of float64, shape (n, classes)
        Out-of-fold probabilities.
    given : ndarray of int64, shape (n,)
        The labels; every class occurs.
    """
    n, n_classes = shares.shape
    own = shares[np.arange(n), given]
    thresholds = np.bincount(given, own, n_classes) / np.bincount(given, minlength=n_classes)
    wrong = np.zeros(n, dtype=bool)
    for part in _parts(n):
        confident = np.where(shares[part] >= thresholds, shares[part], -1)
        wrong[part] = (confident.max(axis=1) >= 0) & (confident.argmax(axis=1) != given[part])
    flagged = int(wrong.sum())
    listed = min(n, max(flagged, LISTED, int(np.ceil(LISTED_SHARE * n))))
    # Flagged ones first: in a class of weak probabilities others may be less probable and yet like no other class.
    rows = np.lexsort((own, ~wrong))[:listed]
    others = shares[rows].copy()
    others[np.arange(listed), given[rows]] = -1
    suggested = others.argmax(axis=1)
    return Ranked(flagged, rows, suggested, own[rows], others.max(axis=1))


def _parts(n: int) -> Iterator[slice]:
    return (slice(start, start + ROWS) for start in range(0, n, ROWS))
