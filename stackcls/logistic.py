"""Logistic regression as scikit-learn defines it, fitted without leaving the precision of the features.

The loss is the mean of the images' log losses plus |W|²/(2 C n), the intercept free; two classes share one column of
coefficients. See scikit-learn's user guide, "Logistic regression".
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackcls import buffers
from stackcls.descent import PAIRS, Vector, minimise
from stackcls.streaming import ROWS, Streamed, pieces

TOLERANCE = 1e-4  # scikit-learn's own, on the largest element of the gradient

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Coefficients:
    """What was fitted, in scikit-learn's shapes.

    Attributes
    ----------
    coef : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
    intercept : ndarray of shape (n_classes,), or (1,)
    iterations : int
    converged : bool
    """

    coef: Floats
    intercept: Floats
    iterations: int
    converged: bool


def fit(
    X: Floats | Streamed,
    y: Ints,
    n_classes: int,
    *,
    C: float = 1.0,
    class_weights: Floats | None = None,
    tolerance: float = TOLERANCE,
    max_iterations: int,
    start: Coefficients | None = None,
) -> Coefficients:
    """Fit a logistic regression by L-BFGS.

    Parameters
    ----------
    X : ndarray of float32 or float64, shape (n, n_features), or Streamed
        Streamed rows are read once for each value of the loss; the steps are the same, to the last bit.
    y : ndarray of int, shape (n,)
        From 0 to `n_classes` - 1; each occurs.
    n_classes : int
    C : float
        Inverse regularisation.
    class_weights : ndarray of shape (n_classes,), optional
        How much an image of each class counts; by default all the same.
    tolerance : float
        Where to stop: no element of the gradient is larger.
    max_iterations : int
    start : Coefficients, optional
        Where to begin; by default at zero.

    Returns
    -------
    Coefficients
    """
    loss = _Loss(X, y, n_classes, C, class_weights)
    first: Floats = buffers.zeros((X.shape[1] + 1, loss.columns), X.dtype)
    if start is not None:
        first[:-1], first[-1] = start.coef.T, start.intercept
    pairs = PAIRS if start is None else PAIRS // 2  # near the end, less of the way matters, and memory does
    found = minimise(loss, first.reshape(-1), tolerance, max_iterations, pairs)
    parameters = loss.unpack(found.x)
    coef = parameters[:-1].T.copy(order="F")
    return Coefficients(coef, parameters[-1].copy(), found.iterations, found.converged)


class _Loss:
    """The loss and its gradient by the parameters: a row for each feature and one for the intercept."""

    def __init__(self, X: Floats | Streamed, y: Ints, n_classes: int, C: float, class_weights: Floats | None) -> None:
        weights = np.ones(n_classes) if class_weights is None else class_weights
        total = float(weights[y].sum())
        self.columns = 1 if n_classes == 2 else n_classes
        self._X, self._y = X, y
        self._share = (weights / total).astype(X.dtype)  # of an image of each class in the mean
        self._penalty = 1 / (C * total)
        self._scores = np.empty((min(ROWS, len(y)), self.columns), X.dtype)
        self._part = buffers.zeros((X.shape[1], self.columns), X.dtype)

    def unpack(self, parameters: Vector) -> Floats:
        """Parameters as a matrix, shape (n_features + 1, columns)."""
        return parameters.reshape(-1, self.columns)

    def __call__(self, parameters: Vector, into: Vector) -> float:
        """Loss, summed in float64; the gradient goes into the second array."""
        matrix, gradient, loss = self.unpack(parameters), self.unpack(into), 0.0
        to_residuals = _binary_residuals if self.columns == 1 else _residuals
        np.multiply(matrix[:-1], parameters.dtype.type(self._penalty), out=gradient[:-1])
        gradient[-1] = 0
        for start, part in pieces(self._X):
            y = self._y[start : start + len(part)]
            scores = np.matmul(part, matrix[:-1], out=self._scores[: len(y)])
            scores += matrix[-1]
            loss += to_residuals(scores, y, self._share)
            gradient[:-1] += np.matmul(part.T, scores, out=self._part)
            gradient[-1] += scores.sum(axis=0)
        norm = float(np.vdot(matrix[:-1], matrix[:-1]))
        return loss + self._penalty / 2 * norm


def _residuals(scores: Floats, y: Ints, share: Floats) -> float:
    """Turn scores into weighted probabilities minus truths, in place; return the weighted loss."""
    own = np.arange(len(y)), y
    scores -= scores.max(axis=1, keepdims=True)
    truth = scores[own].astype(np.float64)
    np.exp(scores, out=scores)
    total = scores.sum(axis=1, keepdims=True)
    weight = share[y]
    scores *= weight[:, None] / total
    scores[own] -= weight
    return float(np.dot(weight, np.log(total[:, 0].astype(np.float64)) - truth))


def _binary_residuals(scores: Floats, y: Ints, share: Floats) -> float:
    """As `_residuals`, where the scores are the second class's alone."""
    column, weight = scores[:, 0], share[y]
    wide = column.astype(np.float64)
    loss = np.dot(weight, np.logaddexp(0, wide) - y * wide)
    column[:] = weight * (np.exp(-np.logaddexp(0, -wide)) - y)
    return float(loss)
