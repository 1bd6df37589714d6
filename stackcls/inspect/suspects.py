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
    """Rows by how improbable their given label is, the most suspicious first.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        All flagged ones, and those of the least probable labels, at least 20 or one in ten.
    wrong : ndarray of bool, shape (n,)
        Which of these rows are flagged: their labels are probably wrong.
    suggested : ndarray of int64, shape (n,)
        Of each of these rows, the most probable other class.
    given_probability, suggested_probability : ndarray of float64, shape (n,)
    """

    rows: Ints
    wrong: NDArray[np.bool_]
    suggested: Ints
    given_probability: Floats
    suggested_probability: Floats

    @property
    def flagged(self) -> int:
        """So many labels are probably wrong."""
        return int(self.wrong.sum())


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
    """Rank rows by the probability of their given label, and flag those that confident learning finds mislabelled.

    A row is in class `j` with confidence where its probability of `j` is at least the mean one of the rows that are
    given as `j`; of several such classes the most probable counts. Rows that are so in another class than the given one
    are the off-diagonal of the paper's confident joint. So many of each class as these are, those of the least
    probable given label, are flagged (the paper's pruning by class). Numbers are not scaled to the class sizes, as in
    the paper's estimate of the noise, which counts too many.

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
    elsewhere = np.zeros(n_classes, dtype=np.int64)
    for part in _parts(n):
        confident = np.where(shares[part] >= thresholds, shares[part], -1)
        is_other = (confident.max(axis=1) >= 0) & (confident.argmax(axis=1) != given[part])
        elsewhere += np.bincount(given[part][is_other], minlength=n_classes)
    by_class = np.lexsort((own, given))
    sizes = np.bincount(given, minlength=n_classes)
    place = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within its class
    wrong = np.zeros(n, dtype=bool)
    wrong[by_class] = place < elsewhere[given[by_class]]
    order = np.argsort(own, kind="stable")
    # Where a class is hard, its right labels may be less probable than a flagged one of another class.
    rows = order[wrong[order] | (np.arange(n) < max(LISTED, int(np.ceil(LISTED_SHARE * n))))]
    listed = len(rows)
    others = shares[rows].copy()
    others[np.arange(listed), given[rows]] = -1
    suggested = others.argmax(axis=1)
    return Ranked(rows, wrong[rows], suggested, own[rows], others.max(axis=1))


def _parts(n: int) -> Iterator[slice]:
    return (slice(start, start + ROWS) for start in range(0, n, ROWS))
