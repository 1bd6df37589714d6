"""What a fitted stack has learned, as plain numbers: enough to predict, and nothing that could be run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
        The linear SVM.
    """

    parameters: Mapping[str, Any]
    converged: tuple[bool, ...]
    bases: tuple[Linear, ...]
    meta: Linear

    @property
    def n_classes(self) -> int:
        """Number of classes, which are numbered from 0."""
        return int(self.meta.coef.shape[1])
