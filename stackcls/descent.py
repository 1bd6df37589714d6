"""Minimise a smooth function of many variables: limited-memory BFGS, in the precision of the variables.

Steps, stopping rules and tolerances are those of `scipy.optimize.minimize(method="L-BFGS-B")` without bounds, which
scikit-learn's logistic regression uses, so that both take the same path and stop at the same place. That matters: at
scikit-learn's default tolerance the path has not ended, and another one stops where other images are told apart. What
differs is that scipy computes in float64 whatever it is given, and takes five times the memory for float32 variables.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackcls import buffers

PAIRS = 10
TRIALS = 50
SUFFICIENT, CURVATURE, BRACKET = 1e-3, 0.9, 0.1  # of the line search, as in L-BFGS-B
LEAST_GAIN = 64 * float(np.finfo(np.float64).eps)  # as scikit-learn asks

Vector = NDArray[np.floating]
Objective = Callable[[Vector, Vector], float]


@dataclass(frozen=True)
class Minimum:
    """Where the descent stopped.

    Attributes
    ----------
    x : ndarray
    iterations : int
    converged : bool
        False where the limit of iterations ended it.
    """

    x: Vector
    iterations: int
    converged: bool


def minimise(objective: Objective, start: Vector, tolerance: float, max_iterations: int, pairs: int = PAIRS) -> Minimum:
    """Minimise by L-BFGS (Liu, Nocedal: On the limited memory BFGS method, Mathematical Programming 45, 1989).

    Parameters
    ----------
    objective : callable
        From x to the value; writes the gradient into its second argument.
    start : ndarray of float32 or float64, one-dimensional
    tolerance : float
        Stop where no element of the gradient is larger.
    max_iterations : int
    pairs : int
        How many steps are remembered; memory is two vectors for each.

    Returns
    -------
    Minimum
    """
    point, memory = _Point(objective, start), _Memory(start, pairs)
    for iteration in range(max_iterations):
        if np.abs(point.gradient).max() <= tolerance:
            return Minimum(point.x, iteration, True)
        before = point.value
        gone = _step(point, memory)
        if not gone and memory.count:
            memory.clear()
            gone = _step(point, memory)
        if not gone:  # rounding leaves nothing to gain, unless the loss is not a number
            return Minimum(point.x, iteration, bool(np.isfinite(point.value)))
        if before - point.value <= LEAST_GAIN * max(abs(before), abs(point.value), 1):
            return Minimum(point.x, iteration + 1, True)
    return Minimum(point.x, max_iterations, bool(np.abs(point.gradient).max() <= tolerance))


class _Point:
    """Where the descent is, and another place that is looked at from there; arrays are reused."""

    def __init__(self, objective: Objective, start: Vector) -> None:
        self._objective = objective
        self.x, self._other_x, self.gradient, self.other_gradient = (_like(start) for _ in range(4))
        self.x[:] = start
        self.value = self._other_value = objective(self.x, self.gradient)

    def look(self, direction: Vector, length: float) -> tuple[float, float]:
        """Value and slope at some length along a direction."""
        np.multiply(direction, direction.dtype.type(length), out=self._other_x)
        self._other_x += self.x
        self._other_value = self._objective(self._other_x, self.other_gradient)
        return self._other_value, float(np.vdot(self.other_gradient, direction))

    def go(self) -> None:
        """Be where was looked at last; `other_gradient` is the one left behind."""
        self.x, self._other_x = self._other_x, self.x
        self.gradient, self.other_gradient = self.other_gradient, self.gradient
        self.value = self._other_value


class _Memory:
    """The last pairs of steps and changes of the gradient, and the direction that follows from them."""

    def __init__(self, like: Vector, pairs: int) -> None:
        self._pairs = pairs
        self._steps: NDArray[np.floating] = buffers.zeros((pairs, like.size), like.dtype)
        self._changes: NDArray[np.floating] = buffers.zeros((pairs, like.size), like.dtype)
        self._products = np.empty(pairs)
        self._scaled, self._direction = _like(like), _like(like)
        self.clear()

    def clear(self) -> None:
        self.count, self._next = 0, 0

    def add(self, direction: Vector, length: float, gradient: Vector, before: Vector) -> None:
        """Remember a step and the gradients at its end and its beginning."""
        step, change = self._steps[self._next], self._changes[self._next]
        np.multiply(direction, direction.dtype.type(length), out=step)
        np.subtract(gradient, before, out=change)
        product = float(step @ change)
        if product <= 0:
            self.count = min(self.count, self._pairs - 1)  # the oldest pair's place was written over
            return
        self._products[self._next] = product
        self._scale = product / float(change @ change)
        self._next = (self._next + 1) % self._pairs
        self.count = min(self.count + 1, self._pairs)

    def direction(self, gradient: Vector) -> Vector:
        """Where to go from a gradient; the array is the same each time."""
        result = np.negative(gradient, out=self._direction)
        newest_first = [(self._next - 1 - back) % self._pairs for back in range(self.count)]
        weights = {}
        for pair in newest_first:
            weights[pair] = float(self._steps[pair] @ result) / self._products[pair]
            self._add(result, -weights[pair], self._changes[pair])
        if self.count:
            result *= result.dtype.type(self._scale)
        for pair in reversed(newest_first):
            correction = float(self._changes[pair] @ result) / self._products[pair]
            self._add(result, weights[pair] - correction, self._steps[pair])
        return result

    def _add(self, to: Vector, factor: float, vector: Vector) -> None:
        """Add a multiple, in place; by NumPy, beside whose BLAS threads SciPy's would be others."""
        np.multiply(vector, to.dtype.type(factor), out=self._scaled)
        to += self._scaled


def _like(vector: Vector) -> Vector:
    found: Vector = buffers.zeros(vector.shape, vector.dtype)
    return found


def _step(point: _Point, memory: _Memory) -> bool:
    """Go along the memory's direction; return whether there was anything to gain."""
    direction = memory.direction(point.gradient)
    slope = float(np.vdot(point.gradient, direction))
    if slope >= 0:
        return False
    search = LineSearch(point.value, slope)
    length = 1.0 if memory.count else 1 / float(np.linalg.norm(direction))
    for _ in range(TRIALS):
        following = search.next(length, *point.look(direction, length))
        if following is None:
            point.go()
            memory.add(direction, length, point.gradient, point.other_gradient)
            return True
        if not np.isfinite(following) or following <= 0:
            break
        length = following
    return False


@dataclass
class _Trial:
    """A length that was tried; value and slope there."""

    length: float
    value: float
    slope: float


class LineSearch:
    """Look for a length with enough decrease and a flat enough slope.

    Moré, Thuente: Line search algorithms with guaranteed sufficient decrease, ACM Transactions on Mathematical
    Software 20, 1994.

    Parameters
    ----------
    value, slope : float
        At length 0; the slope is negative.
    """

    def __init__(self, value: float, slope: float) -> None:
        self._start = _Trial(0.0, value, slope)
        self._best = self._other = self._start
        self._bracketed = self._exhausted = False
        self._easing = True  # the paper's first stage: until a value is low enough and its slope not negative
        self._widths = (np.inf, np.inf)
        self._least, self._most = 0.0, np.inf

    def next(self, length: float, value: float, slope: float) -> float | None:
        """Take value and slope at a length; return the next length to try, or None where this one will do."""
        wanted = SUFFICIENT * self._start.slope
        enough = self._start.value + length * wanted
        if self._exhausted or (value <= enough and abs(slope) <= -CURVATURE * self._start.slope):
            return None
        if not self._bracketed and self._most == np.inf:
            self._most = 5 * length
        self._easing = self._easing and not (value <= enough and slope >= 0)
        tilt = wanted if self._easing and enough < value <= self._best.value else 0.0
        trial = _Trial(length, value, slope)
        with np.errstate(all="ignore"):  # a step that came out infinite is not used, or ends the search
            following = float(self._narrow(*(_tilted(item, tilt) for item in (self._best, self._other, trial))))
        self._best, self._other = (_tilted(item, -tilt) for item in (self._best, self._other))
        if self._bracketed:
            width = abs(self._other.length - self._best.length)
            if width >= 0.66 * self._widths[0]:
                following = (self._best.length + self._other.length) / 2
            self._widths = (self._widths[1], width)
            self._least, self._most = sorted((self._best.length, self._other.length))
            self._exhausted = not self._least < following < self._most
            self._exhausted = self._exhausted or self._most - self._least <= BRACKET * self._most
            return self._best.length if self._exhausted else following
        best = self._best.length
        self._least, self._most = following + 1.1 * (following - best), following + 4 * (following - best)
        return following

    def _narrow(self, best: _Trial, other: _Trial, trial: _Trial) -> float:
        """Move the interval to one that holds a minimum, and choose a length in it."""
        cubic = _cubic(best, trial)
        secant = trial.length + trial.slope / (trial.slope - best.slope) * (best.length - trial.length)
        opposed = trial.slope * best.slope < 0
        if trial.value > best.value:
            run = trial.length - best.length
            parabola = best.length + best.slope / ((best.value - trial.value) / run + best.slope) / 2 * run
            nearer = abs(cubic - best.length) < abs(parabola - best.length)
            following = cubic if nearer else (cubic + parabola) / 2
            self._bracketed = True
        elif opposed:
            following = cubic if abs(cubic - trial.length) > abs(secant - trial.length) else secant
            self._bracketed = True
        elif abs(trial.slope) < abs(best.slope):
            following = self._extrapolate(best, other, trial, cubic, secant)
        elif self._bracketed:
            following = _cubic(other, trial)
        else:
            following = self._most if trial.length > best.length else self._least
        if trial.value > best.value:
            self._best, self._other = best, trial
        else:
            self._best, self._other = trial, best if opposed else other
        return following

    def _extrapolate(self, best: _Trial, other: _Trial, trial: _Trial, cubic: float, secant: float) -> float:
        """The slope falls but keeps its sign: go on, not too far."""
        outward = (cubic - trial.length) * (trial.length - best.length) > 0
        if not outward or not np.isfinite(cubic):
            cubic = self._most if trial.length > best.length else self._least
        if self._bracketed:
            nearer = cubic if abs(cubic - trial.length) < abs(secant - trial.length) else secant
            limit = trial.length + 0.66 * (other.length - trial.length)
            return min(nearer, limit) if trial.length > best.length else max(nearer, limit)
        farther = cubic if abs(cubic - trial.length) > abs(secant - trial.length) else secant
        return float(np.clip(farther, self._least, self._most))


def _tilted(trial: _Trial, slope: float) -> _Trial:
    """Subtract a line of that slope."""
    return _Trial(trial.length, trial.value - trial.length * slope, np.float64(trial.slope - slope))


def _cubic(one: _Trial, two: _Trial) -> float:
    """Minimum of the cubic through both, with their slopes (Nocedal, Wright, Numerical Optimization, 3.59)."""
    run = two.length - one.length
    middle = one.slope + two.slope - 3 * (one.value - two.value) / -run
    under = middle**2 - one.slope * two.slope
    root = np.copysign(np.sqrt(max(under, 0.0)), run)
    return float(two.length - run * (two.slope + root - middle) / (two.slope - one.slope + 2 * root))
