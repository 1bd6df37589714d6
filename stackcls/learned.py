"""What a fitted stack has learned, as plain numbers: enough to predict, and nothing that could be run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackcls.decisions import probabilities


@dataclass(frozen=True, eq=False)
class Linear:
    """A fitted linear classifier.

    Attributes
    ----------
    coef : ndarray of float, shape (n_classes, n_features), or (1, n_features) for two classes
    intercept : ndarray of float, shape (n_classes,), or (1,)
    """

    coef: NDArray[np.floating[Any]]
    intercept: NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class LearnedStack:
    """A fitted stack.

    Attributes
    ----------
    parameters : mapping
        What `StackedClassifier` is constructed with.
    converged : tuple of bool
        Of each base learner, whether its fit came to an end.
    bases : tuple of Linear
        Logistic regressions, one per backbone.
    meta : Linear
        What decides on the averaged probabilities.
    """

    parameters: Mapping[str, Any]
    converged: tuple[bool, ...]
    bases: tuple[Linear, ...]
    meta: Linear

    @property
    def n_classes(self) -> int:
        """Number of classes, which are numbered from 0."""
        return int(self.meta.coef.shape[1])

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities, shape (n, n_classes), of more than two classes: what scikit-learn computes, without it.

        Importing that takes longer than predicting an image.
        """
        start, shares = 0, []
        for base in self.bases:
            end = start + base.coef.shape[1]
            scores = X[:, start:end] @ base.coef.T + base.intercept
            scores -= scores.max(axis=1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=1, keepdims=True)
            shares.append(scores)
            start = end
        average = np.mean(shares, axis=0)
        return probabilities(average @ self.meta.coef.T + self.meta.intercept, self.parameters["temperature"])
