"""How much features, and places in maps of them, count for a class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating[Any]]
Heat = NDArray[np.float32]


def direction(coefficients: Floats, shares: Floats, number: int) -> Floats:
    """How much each feature counts for one class against the others that are likely, shape (n_features,).

    Parameters
    ----------
    coefficients : ndarray of float, shape (n_classes, n_features), or (1, n_features) for two classes
        Of a linear classifier.
    shares : ndarray of float, shape (n_classes,)
        Its probabilities, by which the other classes are weighted.
    number : int
        The class.
    """
    rows = np.vstack([-coefficients, coefficients]) if len(coefficients) == 1 else coefficients
    others = np.array(shares, dtype=np.float64)
    others[number] = 0
    if not others.sum():  # so sure that nothing else is left
        others[:] = np.arange(len(others)) != number
    found: Floats = rows[number] - (others / others.sum()) @ rows
    return found


def enlarge(heat: Heat, side: int) -> Heat:
    """Stretch a map to (side, side), smoothly."""
    return np.asarray(Image.fromarray(heat).resize((side, side), Image.Resampling.BILINEAR))


def average(maps: Sequence[Heat], shares: Sequence[float]) -> Heat:
    """Mean of maps, each divided by its own mean first, since units of different networks do not compare.

    Parameters
    ----------
    maps : sequence of ndarray of float32
    shares : sequence of float
        The probability that each network gives the class: one that sees another class has less to say.
    """
    weights = np.asarray(shares, dtype=np.float64) + 1e-12
    found: Heat = np.average([heat / (heat.mean() or 1) for heat in maps], axis=0, weights=weights).astype(np.float32)
    return found
