"""Cross-validation of the single backbones and the stack on the same folds, from the same base fits."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import cpu_count, delayed
from numpy.typing import NDArray

from stackcls import buffers, stack
from stackcls.decisions import per_class
from stackcls.learners import FittedBase
from stackcls.listener import Listener
from stackcls.logistic import Coefficients
from stackcls.parallel import in_parallel
from stackcls.report.results import STACK
from stackcls.scoring import Predictions, cross_calibrated, fit_temperature
from stackcls.settings import Settings
from stackcls.training import TrainingSet, check_classes, check_folds

MANY = 6e7  # numbers in a matrix of which there should not be a copy for every processor: 240 MB
LARGE = 2e8  # multiplications of a pass over a matrix from which BLAS threads pay and memory counts

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Validated:
    """What cross-validation gave.

    Attributes
    ----------
    model : StackedClassifier
        Fitted on all rows, its temperature from the out-of-fold decisions.
    predictions : Predictions
        Out-of-fold, of every backbone and the stack.
    shares : ndarray of float64, shape (n, classes)
        The stack's probabilities, each fold calibrated on the others.
    baselines : Predictions or None
        Out-of-fold, of a linear SVM on each backbone.
    unconverged : tuple of str
        Backbones of which a logistic regression reached the limit of iterations.
    """

    model: stack.StackedClassifier
    predictions: Predictions
    shares: NDArray[np.float64]
    baselines: Predictions | None
    unconverged: tuple[str, ...]


def cross_validate(data: TrainingSet, settings: Settings, baseline: bool, listener: Listener) -> Validated:
    """Score every backbone and the stack on the same folds, then fit on all rows.

    Parameters
    ----------
    data : TrainingSet
    settings : Settings
    baseline : bool
        Whether to score a linear SVM on each backbone too.
    listener : Listener

    Raises
    ------
    TrainingError
        If a class is too rare for the folds.
    """
    check_classes(data, settings)
    splitter = stack.splitter(settings.cv.folds, settings.cv.seed, data.groups)
    folds = list(splitter.split(data.y, data.y, data.groups))
    check_folds(data, folds, settings)
    unfitted = stack.from_settings(settings.stack, data.widths, settings.cv.seed)
    svms = len(folds) * len(data.names) if baseline else 0
    with listener.track("fit", (len(folds) + 1) * len(data.names) + svms, "fit") as advance:
        bases = _fit_bases(unfitted, data, folds, advance)
        baselines = _validate_baselines(settings.stack.class_weight, data, folds, advance) if baseline else None

    ranking, decisions = bases.ranking, buffers.zeros((len(data.y), len(data.class_names)), np.float64)
    metas = [delayed(_fit_meta)(unfitted, bases, number, data.y) for number in range(len(folds) + 1)]
    *models, model = in_parallel(metas, 2 if _is_large(data) else -1)  # each takes memory
    for (_, test), fitted in zip(folds, models, strict=True):
        decisions[test] = fitted.meta_decisions(np.mean([ranking[name][test] for name in data.names], axis=0))
    predictions = Predictions(data.y, _fold_of(folds), {**ranking, STACK: decisions})
    model.set_params(temperature=fit_temperature(decisions, data.y))
    shares = cross_calibrated(decisions, data.y, predictions.fold)
    return Validated(model, predictions, shares, baselines, tuple(sorted(bases.unconverged)))


@dataclass(frozen=True)
class _Bases:
    """The base learners of all folds and, last, of all rows.

    Attributes
    ----------
    rows : list of ndarray
        What each part is fitted on.
    fitted : list of FittedBase
        On all rows, by backbone; of the folds' only the predictions are kept.
    unconverged : set of str
        Backbones of which a fit reached the limit of iterations.
    average : list of ndarray, shape (rows of the part, classes)
        What the meta-classifier of each part learns from.
    ranking : dict of str to ndarray, shape (n, classes)
        Out-of-fold probabilities of each backbone.
    """

    rows: list[Ints]
    fitted: list[FittedBase]
    unconverged: set[str]
    average: list[Floats]
    ranking: dict[str, Floats]


def _fit_bases(
    unfitted: stack.StackedClassifier, data: TrainingSet, folds: Sequence[tuple[Ints, Ints]], advance: Advance
) -> _Bases:
    """Fit backbone after backbone, and keep probabilities only: of large matrices one is in memory at a time."""
    size, n_classes = len(data.y), len(data.class_names)
    parts = [*folds, (np.arange(size), np.arange(0))]
    tasks = [(number, part) for number in range(len(data.names)) for part in range(len(parts))]
    found = _Bases(
        [train for train, _ in parts],
        [],
        set(),
        [buffers.zeros((len(train), n_classes)) for train, _ in parts],
        {name: buffers.zeros((size, n_classes)) for name in data.names},
    )
    if _is_large(data):
        results = in_parallel(_large_jobs(unfitted, data, parts), 1, cpu_count())
    else:
        results = in_parallel((delayed(_fit_base)(unfitted, data, number, *parts[part]) for number, part in tasks), -1)
    for (number, part), (base, shares, held_out) in zip(tasks, results, strict=True):
        if part == len(folds):
            found.fitted.append(base)
        if not base.converged:
            found.unconverged.add(data.names[number])
        shares /= len(data.names)
        found.average[part][:] += shares
        found.ranking[data.names[number]][parts[part][1]] = held_out
        advance(1)
    return found


def _large_jobs(
    unfitted: stack.StackedClassifier, data: TrainingSet, parts: Sequence[tuple[Ints, Ints]]
) -> Iterator[Any]:
    """Fit all rows from the mean of the folds' coefficients, which leaves few iterations.

    That model may know all labels; the folds' models, which are scored, all begin at zero.
    """
    for number in range(len(data.names)):
        mean = _Mean()
        for train, test in parts[:-1]:
            yield delayed(mean.fit)(unfitted, data, number, train, test)
        yield delayed(mean.fit)(unfitted, data, number, *parts[-1])


class _Mean:
    """Fits the folds of one backbone from zero, and then all rows from the mean of what was found."""

    def __init__(self) -> None:
        self._found: list[Coefficients] = []

    def fit(
        self, unfitted: stack.StackedClassifier, data: TrainingSet, number: int, train: Ints, test: Ints
    ) -> tuple[FittedBase, Floats, Floats]:
        start = None
        if not test.size:
            coef = np.mean([one.coef for one in self._found], axis=0)
            start = Coefficients(coef, np.mean([one.intercept for one in self._found], axis=0), 0, True)
            self._found.clear()
        results = _fit_base(unfitted, data, number, train, test, start)
        fitted = results[0].estimator
        self._found.append(Coefficients(fitted.coef_, fitted.intercept_, 0, True))
        return results


def _is_large(data: TrainingSet) -> bool:
    numbers = len(data.y) * max(data.widths)
    return numbers * len(data.class_names) >= LARGE or numbers >= MANY


def _fit_base(
    unfitted: stack.StackedClassifier,
    data: TrainingSet,
    number: int,
    train: Ints,
    test: Ints,
    start: Coefficients | None = None,
) -> tuple[FittedBase, Floats, Floats]:
    """Fit one base learner; also return what the meta-classifier learns from, and the probabilities of other rows."""
    groups = None if data.groups is None else data.groups[train]
    base, shares = unfitted.fit_base(data.block(number, train), data.y[train], groups, start)
    if not test.size:
        return base, shares, np.empty((0, shares.shape[1]), shares.dtype)
    return base, shares, base.predict_proba(data.block(number, test))


def _fit_meta(unfitted: stack.StackedClassifier, bases: _Bases, part: int, y: Ints) -> stack.StackedClassifier:
    model = stack.unfitted_like(unfitted).fit_meta(bases.average[part], y[bases.rows[part]])
    return model.take_bases(bases.fitted) if part == len(bases.rows) - 1 else model


def _fold_of(folds: Sequence[tuple[Ints, Ints]]) -> Ints:
    fold_of = np.empty(sum(len(test) for _, test in folds), dtype=np.int64)
    for number, (_, test) in enumerate(folds):
        fold_of[test] = number
    return fold_of


def _validate_baselines(
    class_weight: str | None, data: TrainingSet, folds: Sequence[tuple[Ints, Ints]], advance: Advance
) -> Predictions:
    ranking = {name: np.empty((len(data.y), len(data.class_names))) for name in data.names}
    tasks = [(number, train, test) for number in range(len(data.names)) for train, test in folds]
    jobs = (delayed(_fit_svm)(class_weight, data, *task) for task in tasks)
    for (number, _, test), decisions in zip(tasks, in_parallel(jobs, -1), strict=True):
        ranking[data.names[number]][test] = decisions
        advance(1)
    return Predictions(data.y, _fold_of(folds), ranking)


def _fit_svm(class_weight: str | None, data: TrainingSet, number: int, train: Ints, test: Ints) -> Floats:
    svm = stack.linear_svm(class_weight).fit(data.block(number, train), data.y[train])
    return per_class(svm.decision_function(data.block(number, test)))
