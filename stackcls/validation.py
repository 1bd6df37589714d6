"""Cross-validation of the single backbones and the stack on the same folds, from the same base fits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray

from stackcls import basefits, buffers, memory, stack
from stackcls.backbones import backbone_of
from stackcls.basefits import Advance as Advance
from stackcls.basefits import BaseResult
from stackcls.basefits import Floats as Floats
from stackcls.basefits import Ints as Ints
from stackcls.basefits import Part as Part
from stackcls.learners import FittedBase
from stackcls.listener import Listener
from stackcls.report.results import STACK
from stackcls.scoring import Predictions, calibrated, cross_calibrated, fit_temperature
from stackcls.settings import Settings, StackSettings
from stackcls.training import TrainingSet, check_classes, check_folds

MANY = 6e7  # numbers in a matrix of which there should not be a copy for every processor: 240 MB
LARGE = 2e8  # multiplications of a pass over a matrix from which BLAS threads pay and memory counts


@dataclass(frozen=True)
class Validated:
    """What cross-validation gave.

    Attributes
    ----------
    model : StackedClassifier
        Fitted on all rows, its temperature from the out-of-fold decisions, or the one given for it.
    predictions : Predictions
        Out-of-fold, of every backbone and the stack.
    shares : ndarray of float64, shape (n, classes)
        The stack's probabilities, each fold calibrated on the others, or with the temperature given for it.
    baselines : Predictions or None
        Out-of-fold, of a linear SVM on each backbone.
    unconverged : tuple of str
        Backbones of which a logistic regression reached the limit of iterations.
    without : mapping of str to ndarray of int64, shape (n,)
        Out-of-fold classes predicted by the stack without one backbone (all its matrices), by that backbone's name;
        empty where it was not asked for, and with one backbone.
    stacks : sequence of StackSettings
        What was fitted, fold by fold, and last on all rows.
    temperatures : sequence of float
        Those that were given; empty where the stacks are all the same.
    """

    model: stack.StackedClassifier
    predictions: Predictions
    shares: NDArray[np.float64]
    baselines: Predictions | None
    unconverged: tuple[str, ...]
    without: Mapping[str, Ints] = field(default_factory=dict)
    stacks: Sequence[StackSettings] = ()
    temperatures: Sequence[float] = ()


def cross_validate(
    data: TrainingSet,
    settings: Settings,
    baseline: bool,
    listener: Listener,
    leave_out: bool = False,
    stacks: Sequence[StackSettings] | None = None,
    temperatures: Sequence[float] = (),
) -> Validated:
    """Score every backbone and the stack on the same folds, then fit on all rows.

    Parameters
    ----------
    data : TrainingSet
    settings : Settings
    baseline : bool
        Whether to score a linear SVM on each backbone too.
    listener : Listener
    leave_out : bool
        Whether to score the stack without each backbone too.
    stacks : sequence of StackSettings, optional
        Another stack for each fold, and for all rows; by default the one of the settings for all.
    temperatures : sequence of float, optional
        Of each of these stacks: one for all would not do, where their decisions are of another kind and scale.

    Raises
    ------
    TrainingError
        If a class is too rare for the folds.
    """
    folds = split(data, settings)
    wanted = stacks or [settings.stack] * (len(folds) + 1)
    unfitted = [stack.from_settings(each, data.widths, settings.cv.seed, data.names) for each in wanted]
    found = _Found(data, _fold_of(folds), leave_out)
    svms = len(folds) * len(data.names) if baseline else 0
    with listener.track("fit", (len(folds) + 1) * len(data.names) + svms, "fit") as advance:
        parts = [*folds, (np.arange(len(data.y)), np.arange(0))]
        bases = fit_bases(unfitted, data, parts, advance)
        for each, part in zip(unfitted, parts, strict=True):
            model = _fit_part(each, data, part, bases, found)
        baselines = _validate_baselines(settings.stack.class_weight, data, folds, advance) if baseline else None
    decisions = found.predictions.ranking[STACK]
    fold = found.predictions.fold
    model.set_params(temperature=temperatures[-1] if temperatures else fit_temperature(decisions, data.y))
    shares = calibrated(decisions, fold, temperatures) if temperatures else cross_calibrated(decisions, data.y, fold)
    unconverged = tuple(sorted(found.unconverged))
    return Validated(model, found.predictions, shares, baselines, unconverged, found.without, wanted, temperatures)


def split(data: TrainingSet, settings: Settings) -> list[Part]:
    """The folds; raise `TrainingError` where the labels, or the groups, do not allow them."""
    check_classes(data, settings)
    folds = list(stack.splitter(settings.cv.folds, settings.cv.seed, data.groups).split(data.y, data.y, data.groups))
    check_folds(data, folds, settings)
    return folds


def fold_numbers(data: TrainingSet, settings: Settings) -> Ints:
    """The fold of each image."""
    return _fold_of(split(data, settings))


def predict_folds(data: TrainingSet, settings: Settings, listener: Listener) -> Predictions:
    """Predict every image out of fold, as `cross_validate` does, without a final model; other groups, other folds."""
    folds = split(data, settings)
    unfitted = stack.from_settings(settings.stack, data.widths, settings.cv.seed, data.names)
    found = _Found(data, _fold_of(folds))
    with listener.track("fit", len(folds) * len(data.names), "fit") as advance:
        bases = fit_bases([unfitted] * len(folds), data, folds, advance)
        for part in folds:
            _fit_part(unfitted, data, part, bases, found)
    return found.predictions


class _Found:
    """What is kept of the folds: predictions of the images held out, and which backbones' fits did not converge."""

    def __init__(self, data: TrainingSet, fold: Ints, leave_out: bool = False) -> None:
        shape = (len(data.y), len(data.class_names))
        ranking = {name: buffers.zeros(shape) for name in data.names}
        self.predictions = Predictions(data.y, fold, {**ranking, STACK: buffers.zeros(shape)})
        self.unconverged: set[str] = set()
        backbones = dict.fromkeys(map(backbone_of, data.names))
        left_out = backbones if leave_out and len(backbones) > 1 else ()
        self.without = {name: np.empty(len(data.y), dtype=np.int64) for name in left_out}


def _fit_part(
    unfitted: stack.StackedClassifier, data: TrainingSet, part: Part, bases: Iterator[BaseResult], found: _Found
) -> stack.StackedClassifier:
    """Fit the stack on one part's rows, from the next base learners; predict the rows held out, if there are any."""
    train, test = part
    average, seen = (buffers.zeros((len(rows), len(data.class_names))) for rows in part)
    fitted: list[FittedBase] = []
    own: dict[str, list[tuple[Floats, Floats]]] = {}
    for name in data.names:
        base, shares, held_out = next(bases)
        shares /= len(data.names)
        average += shares
        found.predictions.ranking[name][test] = held_out
        seen += held_out
        fitted.append(base)
        if backbone_of(name) in found.without and test.size:
            own.setdefault(backbone_of(name), []).append((shares, held_out))
        if not base.converged:
            found.unconverged.add(name)
    model = stack.unfitted_like(unfitted).fit_meta(average, data.y[train]).take_bases(fitted)
    if test.size:
        seen /= len(data.names)
        found.predictions.ranking[STACK][test] = model.meta_decisions(seen)
    for name, given in own.items():
        every, others = len(data.names), len(data.names) - len(given)
        own_shares, own_seen = (sum(column[1:], column[0]) for column in zip(*given, strict=True))
        # The bases are fitted alone, so that without some of them nothing but the average and the SVM is another.
        rest = stack.unfitted_like(unfitted).fit_meta((average - own_shares) * every / others, data.y[train])
        decisions = rest.meta_decisions((seen * every - own_seen) / others)
        found.without[name][test] = decisions.argmax(axis=1)
    return model


def fit_bases(
    unfitted: Sequence[stack.StackedClassifier], data: TrainingSet, parts: Sequence[Part], advance: Advance
) -> Iterator[BaseResult]:
    """Fit the base learners of part after part, each by a stack of its own; of large matrices one is in memory."""
    large = is_large(data, max(memory.copies(each.recipe) for each in unfitted))
    return basefits.fit_all(unfitted, data, parts, large, advance)


def is_large(data: TrainingSet, copies: int = 1) -> bool:
    """Whether fits, which have so many copies of a matrix, take so long or so much that none should be done in vain."""
    numbers = len(data.y) * max(data.widths)
    if data.streamed or copies * memory.NUMBER * numbers * cpu_count() > data.memory:
        return True
    return numbers * len(data.class_names) >= LARGE or numbers >= MANY


def predict_held_out(data: TrainingSet, part: Part, settings: Settings, advance: Advance) -> dict[str, Floats]:
    """What a stack that is fitted on one part's rows says of those held out: as `Predictions.ranking`, by learner."""
    unfitted = stack.from_settings(settings.stack, data.widths, settings.cv.seed, data.names)
    found = _Found(data, np.zeros(len(data.y), dtype=np.int64))
    _fit_part(unfitted, data, part, fit_bases([unfitted], data, [part], advance), found)
    return {name: ranking[part[1]] for name, ranking in found.predictions.ranking.items()}


def _fold_of(folds: Sequence[tuple[Ints, Ints]]) -> Ints:
    fold_of = np.empty(sum(len(test) for _, test in folds), dtype=np.int64)
    for number, (_, test) in enumerate(folds):
        fold_of[test] = number
    return fold_of


def _validate_baselines(
    class_weight: str | None, data: TrainingSet, folds: Sequence[tuple[Ints, Ints]], advance: Advance
) -> Predictions:
    ranking = {name: np.empty((len(data.y), len(data.class_names))) for name in data.names}
    for (number, test), decisions in basefits.fit_svms(class_weight, data, folds, is_large(data)):
        ranking[data.names[number]][test] = decisions
        advance(1)
    return Predictions(data.y, _fold_of(folds), ranking)
