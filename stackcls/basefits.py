"""Fits of single backbones on parts of the rows: side by side here, or on the workers of a cluster."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from joblib import cpu_count, delayed
from numpy.typing import NDArray

from stackcls import buffers, memory, stack, worker
from stackcls.decisions import per_class
from stackcls.learners import FittedBase
from stackcls.logistic import Coefficients
from stackcls.parallel import in_parallel
from stackcls.shipping import Shipped
from stackcls.streaming import Streamed
from stackcls.training import TrainingSet

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
Advance = Callable[[int], None]
Part = tuple[Ints, Ints]  # rows to fit on, rows held out
BaseResult = tuple[FittedBase, Floats, Floats]  # and what the meta-classifier learns from, and of rows held out

SVM = 5  # times a matrix that fitting a linear SVM takes: liblinear copies its rows, wide and as pairs


class _Fit(NamedTuple):
    """One fit: all but the matrix."""

    unfitted: stack.StackedClassifier
    number: int
    train: Ints
    test: Ints


def fit_all(
    unfitted: Sequence[stack.StackedClassifier],
    data: TrainingSet,
    parts: Sequence[Part],
    large: bool,
    advance: Advance,
) -> Iterator[BaseResult]:
    """Fit the base learners of part after part, each by a stack of its own.

    Parameters
    ----------
    unfitted : sequence of StackedClassifier
        One for each part.
    data : TrainingSet
    parts : sequence of tuple of two ndarray
    large : bool
        Whether one matrix at a time is in memory, and the last part's fits begin where those of the others ended.
    advance : callable
        Is told of each fit.
    """
    fits = [
        _Fit(each, number, *part)
        for each, part in zip(unfitted, parts, strict=True)
        for number in range(len(data.names))
    ]
    copies = max(memory.copies(each.recipe) for each in unfitted)
    if large and data.workers is not None:
        yield from _large_elsewhere(fits, data, copies, advance)
    elif large:
        yield from _round(fits, data, False, advance)
    elif _all_go(data, copies, len(fits)):
        yield from _small_elsewhere(fits, data, advance)
    else:
        for result in in_parallel((delayed(_fit_here)(data, fit) for fit in fits), -1):
            advance(1)
            yield result


class _Mean:
    """Fits the folds of one backbone from zero, and then all rows from the mean of what was found.

    That leaves few iterations. This last model may know all labels; the folds' models are scored, and know their own.
    """

    def __init__(self) -> None:
        self._sums: tuple[Floats, Floats] | None = None
        self._count = 0

    def start(self) -> Coefficients | None:
        """Where the fit of all rows begins."""
        if self._sums is None:
            return None
        coef, intercept = (total / self._count for total in self._sums)
        self._sums = None
        return Coefficients(coef, intercept, 0, True)

    def take(self, result: BaseResult) -> None:
        """Take a fold's fit."""
        coef, intercept = result[0].estimator.coef_, result[0].estimator.intercept_
        self._sums = (coef, intercept) if self._sums is None else (self._sums[0] + coef, self._sums[1] + intercept)
        self._count += 1

    def fit(self, data: TrainingSet, fit: _Fit) -> BaseResult:
        """Fit one part here, the last of which holds out nothing."""
        start = None if fit.test.size else self.start()
        buffers.give_back()
        result = _fit_here(data, fit, start)
        if fit.test.size:
            self.take(result)
        return result


def _fit_here(data: TrainingSet, fit: _Fit, start: Coefficients | None = None) -> BaseResult:
    groups = None if data.groups is None else data.groups[fit.train]
    return _fit(partial(data.matrix, fit.number), fit, data.y[fit.train], groups, start)


def _fit_there(
    matrix: Floats, fit: _Fit, y: Ints, groups: Ints | None, start: Coefficients | None, large: bool
) -> BaseResult:
    """On a worker: the same, from the whole matrix."""
    with worker.at_work(alone=large):
        if large:
            buffers.give_back()
        return _fit(matrix.__getitem__, fit, y, groups, start)


def _fit(
    rows_of: Callable[[Ints], Floats | Streamed],
    fit: _Fit,
    y: Ints,
    groups: Ints | None,
    start: Coefficients | None,
) -> BaseResult:
    """Fit one base learner; also return what the meta-classifier learns from, and the probabilities of other rows."""
    base, shares = fit.unfitted.fit_base(rows_of(fit.train), y, groups, start, fit.number)
    if not fit.test.size:
        return base, shares, np.empty((0, shares.shape[1]), shares.dtype)
    return base, shares, base.predict_proba(rows_of(fit.test))


def _arguments(
    data: TrainingSet, fit: _Fit, large: bool, start: Coefficients | None = None
) -> tuple[_Fit, Ints, Ints | None, Coefficients | None, bool]:
    """What `_fit_there` takes beside the matrix."""
    return fit, data.y[fit.train], None if data.groups is None else data.groups[fit.train], start, large


def _matrix(data: TrainingSet, number: int) -> Shipped:
    """A whole matrix on the workers."""
    assert data.workers is not None
    every = np.arange(len(data.y))
    return data.workers.matrix(data.X, number, lambda wanted: np.ascontiguousarray(data.block(wanted, every)))


def _size(data: TrainingSet, number: int) -> int:
    """Bytes of a whole matrix."""
    return memory.NUMBER * len(data.y) * data.widths[number]


def _goes(data: TrainingSet, number: int, copies: int) -> bool:
    """Whether fits of a large matrix, one at a time, are the workers' rather than done here."""
    if data.workers is None or number in data.streamed:
        return False
    return data.workers.holds(data.names[number], _size(data, number), _work(data, number, copies))


def _all_go(data: TrainingSet, copies: int, n_fits: int) -> bool:
    """Whether fits of small matrices, side by side, are the workers' rather than done here."""
    if data.workers is None:
        return False
    numbers = range(len(data.names))
    work = max(_work(data, number, copies) for number in numbers) * min(data.workers.threads, n_fits)
    return data.workers.holds("all matrices", sum(_size(data, number) for number in numbers), work)


def _work(data: TrainingSet, number: int, copies: int) -> int:
    """Bytes that a fit takes beside the whole matrix."""
    return memory.one_fit(len(data.y), len(data.class_names), data.widths[number], copies)


def _named(data: TrainingSet, numbers: Sequence[int]) -> Callable[[int], str]:
    """What messages call a fit, by its position among those of these backbones."""
    return lambda position: f"a fit of {data.names[numbers[position]]}, which can be done without a cluster too"


def _small_elsewhere(fits: Sequence[_Fit], data: TrainingSet, advance: Advance) -> Iterator[BaseResult]:
    """All fits side by side."""
    assert data.workers is not None
    calls = ((_matrix(data, fit.number), _arguments(data, fit, False)) for fit in fits)
    for result in data.workers.run(_fit_there, calls, _named(data, [fit.number for fit in fits]), beside=True):
        advance(1)
        yield result


def _large_elsewhere(fits: Sequence[_Fit], data: TrainingSet, copies: int, advance: Advance) -> Iterator[BaseResult]:
    """All matrices together where the cluster keeps them all, else one by one; what it has no memory for, here."""
    assert data.workers is not None
    there = [number for number in range(len(data.names)) if _goes(data, number, copies)]
    together = data.workers.keeps(sum(_size(data, number) for number in there))
    rounds = [there] if together and there else [[number] for number in there]
    rounds += [[number] for number in range(len(data.names)) if number not in there]
    if len(rounds) == 1:
        yield from _round(fits, data, bool(there), advance)
        return
    found: dict[int, list[BaseResult]] = {number: [] for number in range(len(data.names))}
    for numbers in rounds:
        own = [fit for fit in fits if fit.number in numbers]
        for fit, result in zip(own, _round(own, data, numbers[0] in there, advance), strict=True):
            found[fit.number].append(result)
    for fit in fits:
        yield found[fit.number].pop(0)


def _round(fits: Sequence[_Fit], data: TrainingSet, there: bool, advance: Advance) -> Iterator[BaseResult]:
    """Fit large matrices: folds first, side by side on the workers where that is `there`; then all rows."""
    means = [_Mean() for _ in data.names]
    if not there:
        for result in in_parallel((delayed(means[fit.number].fit)(data, fit) for fit in fits), 1, cpu_count()):
            advance(1)
            yield result
        return
    assert data.workers is not None

    def named(some: Sequence[_Fit]) -> Callable[[int], str]:
        return _named(data, [fit.number for fit in some])

    folds = [fit for fit in fits if fit.test.size]
    whole = [fit for fit in fits if not fit.test.size]  # which come last
    calls = ((_matrix(data, fit.number), _arguments(data, fit, True)) for fit in folds)
    for fit, result in zip(folds, data.workers.run(_fit_there, calls, named(folds), beside=False), strict=True):
        means[fit.number].take(result)
        advance(1)
        yield result
    calls = ((_matrix(data, fit.number), _arguments(data, fit, True, means[fit.number].start())) for fit in whole)
    for result in data.workers.run(_fit_there, calls, named(whole), beside=False):
        advance(1)
        yield result


def fit_svms(
    class_weight: str | None, data: TrainingSet, folds: Sequence[Part], large: bool
) -> Iterator[tuple[tuple[int, Ints], Floats]]:
    """Fit a linear SVM on each backbone and fold: yield number of the backbone and rows held out, and decisions."""
    for numbers in [[number] for number in range(len(data.names))] if large else [range(len(data.names))]:
        tasks = [(number, train, test) for number in numbers for train, test in folds]
        goes = _goes(data, numbers[0], SVM) if large else _all_go(data, SVM, len(tasks))
        results = (_svms_elsewhere if goes else _svms)(class_weight, data, tasks, large)
        for (number, _, test), decisions in zip(tasks, results, strict=True):
            yield (number, test), decisions


def _svms(
    class_weight: str | None, data: TrainingSet, tasks: Sequence[tuple[int, Ints, Ints]], _: bool
) -> Iterator[Floats]:
    return in_parallel(
        (
            delayed(_fit_svm)(partial(data.block, number), class_weight, data.y[train], train, test)
            for number, train, test in tasks
        ),
        -1,
    )


def _svms_elsewhere(
    class_weight: str | None, data: TrainingSet, tasks: Sequence[tuple[int, Ints, Ints]], large: bool
) -> Iterator[Floats]:
    assert data.workers is not None
    calls = (
        (_matrix(data, number), (class_weight, data.y[train], train, test, large)) for number, train, test in tasks
    )
    return data.workers.run(_fit_svm_there, calls, _named(data, [task[0] for task in tasks]), beside=not large)


def _fit_svm_there(matrix: Floats, class_weight: str | None, y: Ints, train: Ints, test: Ints, large: bool) -> Floats:
    """On a worker: one linear SVM, from the whole matrix."""
    with worker.at_work(alone=large):
        return _fit_svm(matrix.__getitem__, class_weight, y, train, test)


def _fit_svm(rows_of: Callable[[Ints], Floats], class_weight: str | None, y: Ints, train: Ints, test: Ints) -> Floats:
    svm = stack.linear_svm(class_weight).fit(rows_of(train), y)
    return per_class(svm.decision_function(rows_of(test)))
