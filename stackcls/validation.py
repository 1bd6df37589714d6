"""Cross-validation of the single backbones and the stack on the same folds, from the same base fits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from joblib import cpu_count, delayed
from numpy.typing import NDArray

from stackcls import stack
from stackcls.decisions import per_class
from stackcls.errors import TrainingError
from stackcls.listener import Listener
from stackcls.parallel import in_parallel
from stackcls.report.results import STACK
from stackcls.scoring import Predictions, cross_calibrated, fit_temperature
from stackcls.settings import Settings

NAMED = 5
LARGE = 2e8  # multiplications of a pass over a matrix from which BLAS threads pay and memory counts

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
Advance = Callable[[int], None]


class Blocks(Protocol):
    """Feature matrices that are fetched when they are needed."""

    def block(self, number: int, rows: Ints) -> NDArray[np.float32]:
        """Features by the backbone of that number, shape (rows, width); the rows ascend."""


@dataclass(frozen=True)
class TrainingSet:
    """Labelled rows.

    Attributes
    ----------
    X : ndarray of float32, shape (n, sum of widths), or Blocks
        The feature matrices side by side, or where to fetch them.
    names, widths : tuple
        Of the backbones, in the order of the columns.
    y : ndarray of int64, shape (n,)
        Labels as indices of `class_names`; every class occurs.
    class_names : tuple of str
    groups : ndarray of int64, shape (n,), or None
        Rows with the same number stay in one fold.
    """

    X: NDArray[np.float32] | Blocks
    names: tuple[str, ...]
    widths: tuple[int, ...]
    y: Ints
    class_names: tuple[str, ...]
    groups: Ints | None

    def block(self, number: int, rows: Ints) -> NDArray[np.float32]:
        """Features of some rows, which ascend, by the backbone of that number, shape (rows, width)."""
        if isinstance(self.X, np.ndarray):
            start = sum(self.widths[:number])
            return self.X[rows, start : start + self.widths[number]]
        return self.X.block(number, rows)


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


def check_classes(data: TrainingSet, settings: Settings) -> None:
    """Raise `TrainingError` before any work if the labels do not allow the folds."""
    if len(data.class_names) < 2:
        found = ", ".join(map(repr, data.class_names)) or "none"
        raise TrainingError(f"a classifier needs images of at least two classes; found {found}")
    counts = class_counts(data.y, data.groups, len(data.class_names))
    need = images_needed(settings)
    if too_rare := [(name, int(count)) for name, count in zip(data.class_names, counts, strict=True) if count < need]:
        unit = "images" if data.groups is None else "groups"
        listed = ", ".join(f"{name!r} has {count}" for name, count in too_rare[:NAMED])
        more = f" and {len(too_rare) - NAMED} more classes" if len(too_rare) > NAMED else ""
        raise TrainingError(
            f"{settings.cv.folds} folds need at least {need} {unit} of each class, but {listed}{more}: add images, "
            "use fewer folds (--cv), or leave such classes out (--set cv.rare=drop)"
        )


def class_counts(y: Ints, groups: Ints | None, n_classes: int) -> Ints:
    """Images of each class, or groups where there are groups."""
    if groups is not None:
        y = np.unique(np.stack([y, groups]), axis=1)[0]
    return np.bincount(y, minlength=n_classes)


def images_needed(settings: Settings) -> int:
    """Images (or groups) of a class that the folds need, so that each training part can be split again if it must."""
    folds = settings.cv.folds
    if settings.stack.recipe == "in-sample":
        return folds
    inner = settings.stack.inner_folds
    return next(count for count in range(folds, 2 * folds * inner) if count - -(-count // folds) >= inner)


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
    _check_folds(data, folds, settings)
    unfitted = stack.from_settings(settings.stack, data.widths, settings.cv.seed)
    svms = len(folds) * len(data.names) if baseline else 0
    with listener.track("fit", (len(folds) + 1) * len(data.names) + svms, "fit") as advance:
        bases = _fit_bases(unfitted, data, folds, advance)
        baselines = _validate_baselines(settings.stack.class_weight, data, folds, advance) if baseline else None

    ranking, decisions = bases.ranking, np.empty((len(data.y), len(data.class_names)))
    metas = [delayed(_fit_meta)(unfitted, bases, number, data.y) for number in range(len(folds) + 1)]
    *models, model = in_parallel(metas, 1 if _is_large(data) else -1)
    for (_, test), fitted in zip(folds, models, strict=True):
        decisions[test] = fitted.meta_decisions(np.mean([ranking[name][test] for name in data.names], axis=0))
    predictions = Predictions(data.y, _fold_of(folds), {**ranking, STACK: decisions})
    model.set_params(temperature=fit_temperature(decisions, data.y))
    unconverged = {
        name for part in bases.fitted for name, base in zip(data.names, part, strict=True) if not base.converged
    }
    shares = cross_calibrated(decisions, data.y, predictions.fold)
    return Validated(model, predictions, shares, baselines, tuple(sorted(unconverged)))


@dataclass(frozen=True)
class _Bases:
    """The base learners of all folds and, last, of all rows.

    Attributes
    ----------
    rows : list of ndarray
        What each part is fitted on.
    fitted : list of list of FittedBase
        By part and backbone.
    average : list of ndarray, shape (rows of the part, classes)
        What the meta-classifier of each part learns from.
    ranking : dict of str to ndarray, shape (n, classes)
        Out-of-fold probabilities of each backbone.
    """

    rows: list[Ints]
    fitted: list[list[stack.FittedBase]]
    average: list[Floats]
    ranking: dict[str, Floats]


def _fit_bases(
    unfitted: stack.StackedClassifier, data: TrainingSet, folds: Sequence[tuple[Ints, Ints]], advance: Advance
) -> _Bases:
    """Fit backbone after backbone, and keep probabilities only: of large matrices one is in memory at a time."""
    size, n_classes = len(data.y), len(data.class_names)
    parts = [*folds, (np.arange(size), np.arange(0))]
    tasks = [(number, part) for number in range(len(data.names)) for part in range(len(parts))]
    jobs = (delayed(_fit_base)(unfitted, data, number, *parts[part]) for number, part in tasks)
    results = in_parallel(jobs, 1, cpu_count()) if _is_large(data) else in_parallel(jobs, -1)
    found = _Bases(
        [train for train, _ in parts],
        [[] for _ in parts],
        [np.zeros((len(train), n_classes), np.float32) for train, _ in parts],
        {name: np.empty((size, n_classes), np.float32) for name in data.names},
    )
    for (number, part), (base, shares, held_out) in zip(tasks, results, strict=True):
        found.fitted[part].append(base)
        found.average[part][:] += shares / np.float32(len(data.names))
        found.ranking[data.names[number]][parts[part][1]] = held_out
        advance(1)
    return found


def _is_large(data: TrainingSet) -> bool:
    return len(data.y) * max(data.widths) * len(data.class_names) >= LARGE


def _fit_base(
    unfitted: stack.StackedClassifier, data: TrainingSet, number: int, train: Ints, test: Ints
) -> tuple[stack.FittedBase, Floats, Floats]:
    """Fit one base learner; also return what the meta-classifier learns from, and the probabilities of other rows."""
    groups = None if data.groups is None else data.groups[train]
    base, shares = unfitted.fit_base(data.block(number, train), data.y[train], groups)
    if not test.size:
        return base, shares, np.empty((0, shares.shape[1]), shares.dtype)
    return base, shares, base.estimator.predict_proba(data.block(number, test))


def _fit_meta(unfitted: stack.StackedClassifier, bases: _Bases, part: int, y: Ints) -> stack.StackedClassifier:
    model = stack.unfitted_like(unfitted)
    return model.fit_meta(bases.fitted[part], bases.average[part], y[bases.rows[part]])


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


def _check_folds(data: TrainingSet, folds: Sequence[tuple[Ints, Ints]], settings: Settings) -> None:
    """Look for training parts without a class, which groups can leave although there are enough of them."""
    if data.groups is None:
        return
    parts = [train for train, _ in folds]
    if settings.stack.recipe == "out-of-fold":
        inner = stack.splitter(settings.stack.inner_folds, settings.cv.seed, data.groups)
        for rows in [np.arange(len(data.y)), *parts]:
            parts += [rows[train] for train, _ in inner.split(rows, data.y[rows], data.groups[rows])]
    for train in parts:
        missing = np.setdiff1d(np.arange(len(data.class_names)), data.y[train])
        if missing.size:
            raise TrainingError(
                f"with these groups, a training part has no image of {data.class_names[missing[0]]!r}: use another "
                "seed (--set cv.seed=1) or fewer folds (--cv), or add images from other groups"
            )
