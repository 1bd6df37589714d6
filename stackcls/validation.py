"""Cross-validation of the single backbones and the stack on the same folds, from the same base fits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import delayed
from numpy.typing import NDArray

from stackcls import stack
from stackcls.errors import TrainingError
from stackcls.listener import Listener
from stackcls.report.results import STACK
from stackcls.scoring import Predictions, cross_calibrated, fit_temperature
from stackcls.settings import Settings

NAMED = 5

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TrainingSet:
    """Labelled rows.

    Attributes
    ----------
    X : ndarray of float32, shape (n, sum of widths)
        The feature matrices side by side.
    names, widths : tuple
        Of the backbones, in the order of the columns.
    y : ndarray of int64, shape (n,)
        Labels as indices of `class_names`; every class occurs.
    class_names : tuple of str
    groups : ndarray of int64, shape (n,), or None
        Rows with the same number stay in one fold.
    """

    X: NDArray[np.float32]
    names: tuple[str, ...]
    widths: tuple[int, ...]
    y: Ints
    class_names: tuple[str, ...]
    groups: Ints | None


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
    folds = list(stack.splitter(settings.cv.folds, settings.cv.seed, data.groups).split(data.X, data.y, data.groups))
    _check_folds(data, folds, settings)
    unfitted = stack.from_settings(settings.stack, data.widths, settings.cv.seed)
    blocks = unfitted.blocks(data.X.shape[1])
    everything = np.arange(len(data.y))
    parts = [everything, *(train for train, _ in folds)]
    jobs = [delayed(_fit_base)(unfitted, data, rows, columns) for rows in parts for columns in blocks]
    if baseline:
        weight = settings.stack.class_weight
        jobs += [delayed(_fit_svm)(weight, data, rows, columns) for rows, _ in folds for columns in blocks]
    with listener.track("fit", len(jobs), "fit") as advance:
        fitted = stack.in_parallel(jobs, -1, advance)
    bases = [fitted[start : start + len(blocks)] for start in range(0, len(parts) * len(blocks), len(blocks))]
    svms = fitted[len(parts) * len(blocks) :]

    predictions = _predict_folds(unfitted, data, folds, bases[1:])
    decisions = predictions.ranking[STACK]
    model = stack.unfitted_like(unfitted).set_params(temperature=fit_temperature(decisions, data.y))
    model.fit_meta(data.X, data.y, bases[0])
    unconverged = {name for part in bases for name, base in zip(data.names, part, strict=True) if not base.converged}
    return Validated(
        model,
        predictions,
        cross_calibrated(decisions, data.y, predictions.fold),
        _predict_baselines(data, folds, svms) if baseline else None,
        tuple(sorted(unconverged)),
    )


def _fit_base(unfitted: stack.StackedClassifier, data: TrainingSet, rows: Ints, columns: slice) -> stack.FittedBase:
    groups = None if data.groups is None else data.groups[rows]
    return unfitted.fit_base(_rows(data.X[:, columns], rows), data.y[rows], groups)


def _fit_svm(class_weight: str | None, data: TrainingSet, rows: Ints, columns: slice) -> Any:
    return stack.linear_svm(class_weight).fit(_rows(data.X[:, columns], rows), data.y[rows])


def _rows(X: NDArray[np.float32], rows: Ints) -> NDArray[np.float32]:
    """Pick rows; all of them without a copy."""
    return X if len(rows) == len(X) else X[rows]


def _predict_folds(
    unfitted: stack.StackedClassifier,
    data: TrainingSet,
    folds: Sequence[tuple[Ints, Ints]],
    bases: Sequence[Sequence[stack.FittedBase]],
) -> Predictions:
    shape = (len(data.y), len(data.class_names))
    ranking = {name: np.empty(shape) for name in (*data.names, STACK)}
    fold_of = np.empty(len(data.y), dtype=np.int64)
    for number, ((train, test), fitted) in enumerate(zip(folds, bases, strict=True)):
        model = stack.unfitted_like(unfitted).fit_meta(data.X[train], data.y[train], fitted)
        X = data.X[test]
        for name, base in zip(data.names, model.bases_, strict=True):
            ranking[name][test] = base.predict_proba(X)
        ranking[STACK][test] = stack.per_class(model.decision_function(X))
        fold_of[test] = number
    return Predictions(data.y, fold_of, ranking)


def _predict_baselines(data: TrainingSet, folds: Sequence[tuple[Ints, Ints]], svms: Sequence[Any]) -> Predictions:
    ranking = {name: np.empty((len(data.y), len(data.class_names))) for name in data.names}
    fold_of = np.empty(len(data.y), dtype=np.int64)
    edges = np.cumsum([0, *data.widths])
    fitted: Iterator[Any] = iter(svms)
    for number, (_, test) in enumerate(folds):
        for name, start, end in zip(data.names, edges, edges[1:], strict=False):
            ranking[name][test] = stack.per_class(next(fitted).decision_function(data.X[test, start:end]))
        fold_of[test] = number
    return Predictions(data.y, fold_of, ranking)


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
