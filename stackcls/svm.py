"""Linear support vector machines, one for each class against the rest, fitted to their exact optimum.

Each minimises |w|²/2 plus C times the sum of the images' squared hinge losses, the intercept a weight like the others,
as scikit-learn's `LinearSVC` does. The loss is quadratic as long as the images inside the margin stay the same, so that
few Newton steps end exactly at the optimum (Keerthi, DeCoste: A modified finite Newton method for fast solution of
large scale linear SVMs, Journal of Machine Learning Research 6, 2005).
"""

from typing import Any

import numpy as np
from joblib import delayed
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import brentq

from stackcls import buffers
from stackcls.parallel import in_parallel

MAX_STEPS = 200
ROWS = 512  # at a time, so that several machines fitted at a time take little memory
LARGE = 2e7  # numbers in all machines' matrices from which threads pay
LEAST_DESCENT = 1e-12  # of the loss along a step, in proportion to the loss

Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]


def fit(X: Floats, y: NDArray[np.integer[Any]], n_classes: int, C: float, class_weights: Floats) -> Doubles:
    """Fit one machine per class; of two classes the second's alone.

    Parameters
    ----------
    X : ndarray of float, shape (n, n_features)
    y : ndarray of int, shape (n,)
        From 0 to `n_classes` - 1; each occurs.
    n_classes : int
    C : float
        Inverse regularisation.
    class_weights : ndarray of shape (n_classes,)
        How much an image of each class counts in its class's own machine; of two classes, in the one there is.

    Returns
    -------
    ndarray of float64, shape (n_classes, n_features + 1), or (1, n_features + 1) for two classes
        Weights, the intercept last.
    """
    wide = buffers.zeros((len(X), X.shape[1] + 1), np.float64)
    wide[:, :-1], wide[:, -1] = X, 1
    if n_classes == 2:
        costs = C * class_weights.astype(np.float64)[y]
        return _fit_one(wide, np.where(y == 1, 1.0, -1.0), costs, np.zeros(wide.shape[1]))[None]
    ridge = cho_factor(np.eye(wide.shape[1]) + 2 * C * (wide.T @ wide))  # the curvature if all images were inside
    jobs = -1 if wide.size * n_classes >= LARGE else 1
    tasks = (delayed(_fit_label)(wide, y == label, C, weight, ridge) for label, weight in enumerate(class_weights))
    return np.stack(list(in_parallel(tasks, jobs)))


def _fit_label(X: Doubles, own: Mask, C: float, weight: float, ridge: tuple[Doubles, bool]) -> Doubles:
    """Fit one class against the rest."""
    truth = np.where(own, 1.0, -1.0)
    return _fit_one(X, truth, np.where(own, C * weight, C), cho_solve(ridge, 2 * C * (X.T @ truth)))


def _fit_one(X: Doubles, truth: Doubles, costs: Doubles, weights: Doubles) -> Doubles:
    """Newton's steps from `weights` to the least loss."""
    scores = X @ weights
    curvature = _Curvature(X, costs)
    for _ in range(MAX_STEPS):
        inside = truth * scores < 1
        hessian = curvature.at(inside)
        target = cho_solve(cho_factor(hessian), X.T @ np.where(inside, 2 * costs * truth, 0.0))
        step = target - weights
        change = X @ step

        line = (truth, costs, weights, scores, step, change)
        loss = weights @ weights / 2 + costs @ np.maximum(1 - truth * scores, 0) ** 2
        if -_slope(0.0, *line) <= LEAST_DESCENT * loss:
            break
        length = 1.0 if _slope(1.0, *line) <= 0 else float(brentq(_slope, 0.0, 1.0, line))
        weights, scores = weights + length * step, scores + length * change
    return weights


def _slope(
    length: float, truth: Doubles, costs: Doubles, weights: Doubles, scores: Doubles, step: Doubles, change: Doubles
) -> float:
    """Derivative of the loss by the length gone along a step."""
    losses = np.maximum(1 - truth * (scores + length * change), 0)
    return float((weights + length * step) @ step - 2 * np.sum(costs * losses * truth * change))


class _Curvature:
    """Second derivatives of the loss, brought up to date by the images that came inside the margin or left it."""

    def __init__(self, X: Doubles, costs: Doubles) -> None:
        self._X, self._scales = X, np.sqrt(2 * costs)
        self._inside = np.zeros(len(X), np.bool_)
        self._matrix = np.eye(X.shape[1])

    def at(self, inside: Mask) -> Doubles:
        """The matrix for this set of images, shape (n_features + 1, n_features + 1)."""
        come, gone = inside & ~self._inside, self._inside & ~inside
        if come.sum() + gone.sum() > inside.sum():  # fewer to begin anew with
            self._matrix = np.eye(len(self._matrix))
            come, gone = inside, np.zeros_like(inside)
        self._add(come, 1.0)
        self._add(gone, -1.0)
        self._inside = inside
        return self._matrix

    def _add(self, rows: Mask, factor: float) -> None:
        indices = np.flatnonzero(rows)
        for start in range(0, len(indices), ROWS):
            some = indices[start : start + ROWS]
            part = self._X[some] * self._scales[some, None]
            self._matrix += factor * (part.T @ part)
