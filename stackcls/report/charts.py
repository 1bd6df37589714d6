"""Where marks lie on the axis of a chart, as percentages of its length; the page's stylesheet draws the rest."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

STEPS = (1, 2, 5, 10)
MOST_TICKS = 6


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low` to `high`, with round numbers marked.

    Attributes
    ----------
    low, high : float
    ticks : tuple of float
    step : float
        From one tick to the next.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    step: float

    def at(self, value: float) -> str:
        """Place of a value from the axis's beginning on, for SVG; values beyond an end lie at the end."""
        return f"{100 * self._share(value):.2f}%"

    def up(self, value: float) -> str:
        """Place of a value from the top, for an axis that rises."""
        return f"{100 * (1 - self._share(value)):.2f}%"

    def between(self, first: float, second: float) -> str:
        """Length from one value to another."""
        return f"{100 * abs(self._share(second) - self._share(first)):.2f}%"

    def label(self, tick: float, sign: bool = False) -> str:
        """A tick as a percentage with as many decimals as the step needs."""
        decimals = max(0, -math.floor(math.log10(100 * self.step) + 1e-9))
        value = round(100 * tick, decimals) + 0.0  # no minus before a zero
        return f"{value:+.{decimals}f}" if sign and value else f"{value:.{decimals}f}"

    def _share(self, value: float) -> float:
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def axis(values: Iterable[float], low: float = -math.inf, high: float = math.inf) -> Axis:
    """Make an axis that holds all values, with a little room, and does not go beyond what values can be.

    Parameters
    ----------
    values : iterable of float
        At least one; what is not finite is passed over.
    low, high : float
        Bounds of what is measured, such as 0 and 1 of a share.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    first, last = max(low, min(finite)), min(high, max(finite))
    room = max(0.06 * (last - first), 0.005)
    first, last = max(low, first - room), min(high, last + room)
    step = _step((last - first) / MOST_TICKS)
    ticks = [number * step for number in range(math.ceil(first / step - 1e-9), math.floor(last / step + 1e-9) + 1)]
    return Axis(first, last, tuple(ticks), step)


def _step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in STEPS if step * power >= least * (1 - 1e-9))
