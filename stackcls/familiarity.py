"""How much an image looks like one of the known classes, from its features, and how sure its label is then."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackcls import buffers
from stackcls.streaming import Streamed, pieces

SHRINKAGE = 0.3  # of the covariance towards a multiple of one: from 0.2 to 0.5 does about as well on birds and flowers
MOST_AXES = 64
MOST_VIEWS = 3  # a model holds no more, however many folds there are
NUISANCES = 3
TURNS = 8
ROWS = 1024
FEW = 256  # rows, or columns, of which there are several copies at a time
TINY = 1e-12
SURE = 1e-6  # probabilities are kept this far from 0 and 1 before odds are taken

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Weights = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Space:
    """The directions of one backbone's features in which the known classes differ, the variance within a class being 1.

    Attributes
    ----------
    centre : ndarray of float32, shape (width,)
    axes : ndarray of float32, shape (width, n_axes)
    means : ndarray of float32, shape (n_classes, n_axes)
        Of the classes, along the axes.
    spread : ndarray of float32, shape (n_axes,)
        Variance between classes.
    nuisances : ndarray of float32, shape (width, n_nuisances)
        The directions in which images vary most within classes: size, background, light.
    usual : ndarray of float32, shape (n_classes, n_nuisances)
        Of the classes, along those.
    """

    centre: NDArray[np.float32]
    axes: NDArray[np.float32]
    means: NDArray[np.float32]
    spread: NDArray[np.float32]
    nuisances: NDArray[np.float32]
    usual: NDArray[np.float32]

    def look(self, X: Floats, counts: Ints) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How rows fit the classes, and how far off they are in what says little of the class.

        Ioffe, Probabilistic Linear Discriminant Analysis, ECCV 2006: the mean of a class is drawn from a Gaussian, of
        which a known class has shown `counts` examples and an unknown class none.

        Returns
        -------
        ndarray of float64, shape (n, n_classes)
            Logarithms of how much likelier each row is from each known class than from one never seen.
        ndarray of float64, shape (n,)
            Squared distance from the likeliest class along the nuisances.
        """
        rows = powered(np.array(X, dtype=np.float32)).astype(np.float64) - self.centre
        z = rows @ self.axes
        spread, means = self.spread.astype(np.float64), self.means.astype(np.float64)
        shown = spread * counts[:, None]
        expected = means * shown / (shown + 1)
        variance = 1 + spread / (shown + 1)
        known = (z**2) @ (1 / variance).T - 2 * z @ (expected / variance).T
        known += (expected**2 / variance + np.log(variance)).sum(axis=1)
        new = (z**2 / (1 + spread) + np.log(1 + spread)).sum(axis=1)
        ratios = (new[:, None] - known) / 2
        away = rows @ self.nuisances - self.usual[ratios.argmax(axis=1)]
        return ratios, (away**2).sum(axis=1)


@dataclass(frozen=True, eq=False)
class View:
    """How images look to what was fitted on all folds but one.

    Attributes
    ----------
    spaces : tuple of Space
        One per backbone.
    counts : ndarray of int64, shape (n_classes,)
        Images of each class that the spaces were fitted on.
    """

    spaces: tuple[Space, ...]
    counts: Ints

    def scores(self, shares: Floats, features: Sequence[Floats]) -> NDArray[np.float64]:
        """As `scores`, from the stack's probabilities and each backbone's rows."""
        looks = [space.look(rows, self.counts) for space, rows in zip(self.spaces, features, strict=True)]
        return scores(shares, *(np.mean(parts, axis=0) for parts in zip(*looks, strict=True)))


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What tells images of known classes from others.

    Attributes
    ----------
    weights : tuple of four floats
        Intercept, and of each row of `scores`.
    views : tuple of View
        Those of folds, over which scores are averaged: the weights were fitted on what such say of images held out, and
        to a space that was fitted on all rows every image, known or not, is more familiar.
    measured : bool
        Whether the weights were fitted on images of classes left out too.
    """

    weights: Weights
    views: tuple[View, ...] = ()  # which pickles of before did not have
    measured: bool = True

    def certainty(self, shares: Floats, features: Sequence[Floats]) -> NDArray[np.float64]:
        """Probability that the label is right, shape (n,), from the stack's probabilities and each backbone's rows."""
        found = np.mean([view.scores(shares, features) for view in self.views], axis=0)
        return certain(self.weights, found)


def powered(X: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signed square roots, rows of length one, in place: features are skewed, and this makes them more Gaussian.

    Perronnin et al., Improving the Fisher Kernel for Large-Scale Image Classification, ECCV 2010.
    """
    for start in range(0, len(X), ROWS):
        part = X[start : start + ROWS]
        np.copysign(np.sqrt(np.abs(part)), part, out=part)
        part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), np.float32(TINY))
    return X


def fit_space(X: Floats | Streamed, y: Ints, n_classes: int) -> Space:
    """Fit one backbone's space by linear discriminant analysis with a shrunk covariance.

    Parameters
    ----------
    X : ndarray of float32, shape (n, width), or Streamed
        Is gone through twice; beside it, memory holds a matrix of `width` columns and as many rows, or n if these are
        fewer.
    y : ndarray of int64, shape (n,)
        From 0 to `n_classes` - 1; each occurs.
    n_classes : int
    """
    means = _class_means(X, y, n_classes)
    residuals = _residuals(X, y, means)
    centre = means.mean(axis=0)
    means -= centre
    nuisances = _leading(residuals)
    directions = _solve(residuals, len(y), n_classes, means)
    variances, turn = np.linalg.eigh(means @ directions)
    largest = np.argsort(-variances)[: min(n_classes - 1, MOST_AXES)]
    variances = np.maximum(variances[largest], TINY)
    axes = directions @ turn[:, largest] / np.sqrt(variances)
    # Means of few images differ by chance too.
    spread = variances / (n_classes - 1) - np.mean(1 / np.bincount(y, minlength=n_classes))
    found = centre, axes, means @ axes, np.maximum(spread, SURE), nuisances, means @ nuisances
    return Space(*(np.ascontiguousarray(array, dtype=np.float32) for array in found))


def _class_means(X: Floats | Streamed, y: Ints, n_classes: int) -> NDArray[np.float64]:
    """Mean of each class, shape (n_classes, width)."""
    sums = np.zeros((n_classes, X.shape[1]))
    for start, part in pieces(X, FEW):
        rows, given = powered(part.copy()), y[start : start + len(part)]
        for number in np.unique(given):
            sums[number] += rows[given == number].sum(axis=0, dtype=np.float64)
    sums /= np.bincount(y, minlength=n_classes)[:, None]
    return sums


def _residuals(X: Floats | Streamed, y: Ints, means: NDArray[np.float64]) -> NDArray[np.float32]:
    """What rows differ by from their class's mean, shape (n, width), or where n is larger their products among columns.

    These are all that is asked for, and the smaller.
    """
    n, width = X.shape
    found = buffers.zeros((min(n, width), width))
    means = means.astype(np.float32)
    for start, part in pieces(X, FEW):
        rows = powered(part.copy())
        rows -= means[y[start : start + len(part)]]
        if n < width:
            found[start : start + len(part)] = rows
            continue
        for first in range(0, width, FEW):  # no second matrix of that size
            found[first : first + FEW] += rows[:, first : first + FEW].T @ rows
    return found


def _solve(residuals: NDArray[np.float32], n: int, n_classes: int, means: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shrunk covariance's inverse times the means, shape (width, n_classes), by the smaller system of equations.

    The shrinkage bounds the condition to a few thousand, so that float32 does.
    """
    from scipy import linalg  # which predicting does without

    width, freedom = residuals.shape[1], n - n_classes
    share = (1 - SHRINKAGE) / max(freedom, 1)
    smaller = residuals if width <= n else residuals @ residuals.T
    total = float(np.trace(smaller, dtype=np.float64))
    ridge = SHRINKAGE * max(total / max(freedom, 1) / width, TINY)
    columns = means.T.astype(np.float32)
    smaller.flat[:: len(smaller) + 1] += np.float32(ridge / share)
    # Transposed, it is in the order of columns that LAPACK overwrites; it is symmetric.
    factor = linalg.cho_factor(smaller.T, overwrite_a=True, check_finite=False)
    if width <= n:
        solved = linalg.cho_solve(factor, columns, check_finite=False) / share
        return np.asarray(solved, dtype=np.float64)
    inner = linalg.cho_solve(factor, residuals @ columns, check_finite=False)  # Woodbury's identity
    return np.asarray((columns - residuals.T @ inner) / ridge, dtype=np.float64)


def _leading(residuals: NDArray[np.float32]) -> NDArray[np.float32]:
    """Directions in which rows vary most, shape (width, `NUISANCES`), nearly, by subspace iteration.

    Parameters
    ----------
    residuals : ndarray of float32
        As `_residuals` gives them.
    """
    n, width = residuals.shape
    start = np.random.default_rng(0).normal(size=(width, NUISANCES)).astype(np.float32)
    found = np.linalg.qr(start)[0]
    for _ in range(TURNS):
        found = np.linalg.qr(residuals @ found if n == width else residuals.T @ (residuals @ found))[0]
    return found


def scores(shares: Floats, ratios: Floats, nuisance: Floats) -> NDArray[np.float64]:
    """What certainty comes from, shape (3, n).

    The log odds of the stack's largest probability; the familiarity, that is the ratio of the likeliest class; and the
    nuisance, for an image that is odd in what says little of the class is less familiar whatever its class is.

    Parameters
    ----------
    shares : ndarray of float, shape (n, n_classes)
    ratios, nuisance : ndarray of float, shape (n, n_classes) and (n,)
        Means over the backbones.
    """
    largest = np.clip(shares.max(axis=1).astype(np.float64), SURE, 1 - SURE)
    return np.stack([np.log(largest / (1 - largest)), ratios.max(axis=1), nuisance])


def certain(weights: Weights, scores: Floats) -> NDArray[np.float64]:
    """Probability that the label is right, shape (n,); 0 where numbers overflow, as a forged file's may."""
    with np.errstate(over="ignore", invalid="ignore"):
        score = weights[0] + np.asarray(weights[1:]) @ scores
        certainty: NDArray[np.float64] = 1 / (1 + np.exp(-np.where(np.isfinite(score), score, -np.inf)))
    return certainty
