"""From a classifier's decisions to probabilities."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def per_class(decisions: Floats) -> Floats:
    """Decisions with one column per class, also for two classes."""
    return np.column_stack([-decisions, decisions]) if decisions.ndim == 1 else decisions


def probabilities(decisions: Floats, temperature: float) -> NDArray[np.float64]:
    """Softmax of decisions divided by a temperature, shape (n, classes), in float64."""
    scaled = per_class(np.asarray(decisions, dtype=np.float64)) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares
