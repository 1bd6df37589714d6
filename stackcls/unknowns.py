"""Fits what tells images of known classes from others, and measures it on classes that are left out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from joblib import cpu_count, delayed
from numpy.typing import NDArray
from scipy import optimize
from sklearn.metrics import roc_auc_score

from stackcls import buffers, validation
from stackcls.decisions import probabilities
from stackcls.errors import TrainingError
from stackcls.familiarity import FEW, MOST_VIEWS, Familiarity, Space, View, Weights, certain, fit_space, scores
from stackcls.listener import Listener
from stackcls.parallel import in_parallel
from stackcls.report.findings import Trade, Unknown
from stackcls.report.results import STACK
from stackcls.scoring import fit_temperature
from stackcls.settings import Settings
from stackcls.streaming import pieces
from stackcls.training import TrainingSet, check_folds
from stackcls.validation import Advance, Floats, Ints, Part, Validated

GROUPS, TRIED = (
    4,
    2,
)  # a quarter of the classes is left out together, of which two are tried: each costs a third of a fit
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
PENALTY = 1e-3

_FITTED = (
    "logistic regression on the log odds of the stack's largest probability, on the features' likelihood under the "
    "nearest class against a class never seen (Ioffe 2006), and on the distance from that class along the directions "
    "in which images vary most within classes; fitted on out-of-fold images"
)
MEASURED = (
    f"probability that the label is right, where every second image is of a class never seen: {_FITTED} and on images "
    "of classes left out of folds"
)
NOT_MEASURED = f"probability that the label of an image of a known class is right: {_FITTED}"


@dataclass(frozen=True)
class Rows:
    """Images that a stack was not fitted on.

    Attributes
    ----------
    scores : ndarray of float, shape (3, n)
        As `familiarity.scores`.
    right : ndarray of bool, shape (n,)
        Whether the stack's label is right; of a class left out it never is.
    known : ndarray of bool, shape (n,)
        Whether the stack knows their class.
    fold : ndarray of int, shape (n,)
        The fold that was held out from what scored them.
    home : ndarray of int, shape (n,)
        The fold that they are in themselves.
    label : ndarray of int, shape (n,)
        Their class, also where the stack does not know it.
    """

    scores: Floats
    right: NDArray[np.bool_]
    known: NDArray[np.bool_]
    fold: Ints
    home: Ints
    label: Ints

    def take(self, mask: NDArray[np.bool_]) -> "Rows":
        """Some of them."""
        rest = (getattr(self, item.name)[mask] for item in fields(self)[1:])
        return Rows(self.scores[:, mask], *rest)


def look(
    data: TrainingSet, validated: Validated, settings: Settings, full: bool, listener: Listener
) -> tuple[Unknown, Familiarity]:
    """Fit what the model needs to answer `unknown`, and measure what that does.

    Parameters
    ----------
    data : TrainingSet
    validated : Validated
    settings : Settings
    full : bool
        Whether to fit further stacks, on a part of the classes each, and to see what they say of the others.
    listener : Listener
    """
    fold = validated.predictions.fold
    groups = class_groups(len(data.class_names), settings.cv.seed) if full else []
    cases = [case for case in (_leave_out(data, fold, group, settings, n) for n, group in enumerate(groups)) if case]
    parts = [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in np.unique(fold)]
    large = validation.is_large(data)
    fits = len(data.names) * (len(parts) + 2 * len(cases))
    with listener.track("unknown", fits, "fit") as advance:
        found = np.empty((3, len(data.y)))
        fitted = list(familiarities(data, parts, large, advance))
        for (_, test), (_, looks) in zip(parts, fitted, strict=True):
            found[:, test] = scores(validated.shares[test], *looks)
        right = validated.predictions.correct(STACK)
        rows = Rows(found, right, np.ones(len(right), bool), fold, fold, data.y)
        left_out = [_score(case, validated, data.y, settings, large, advance) for case in cases]
    unknown = [item.take(~item.known) for item in left_out]
    views = [
        View(tuple(spaces), np.bincount(data.y[train], minlength=len(data.class_names)))
        for (train, _), (spaces, _) in zip(parts[:MOST_VIEWS], fitted, strict=False)
    ]
    model = Familiarity(calibrate([rows, *unknown]), tuple(views), bool(cases))
    groups = [case.group for case in cases]
    return _measure(rows, left_out, groups, data.class_names), model


def class_groups(n_classes: int, seed: int) -> list[Ints]:
    """Classes to leave out together; none where fewer than two classes would remain."""
    if n_classes < 3:
        return []
    order = np.random.default_rng(seed).permutation(n_classes)
    return [np.sort(group) for group in np.array_split(order, min(GROUPS, n_classes))[:TRIED]]


def calibrate(items: Sequence[Rows]) -> Weights:
    """Weights of the scores; images of known and of unknown classes count as much together.

    As Platt (Probabilistic outputs for support vector machines, 1999), to a little less than certainty, so that there
    is an answer also where no label is wrong. No weight is negative: what is likelier is never less certain.
    """
    right, known = (np.concatenate([getattr(item, name) for item in items]) for name in ("right", "known"))
    columns = np.hstack([item.scores for item in items])
    weight = np.where(known, 1 / max(known.sum(), 1), 1 / max((~known).sum(), 1))
    target = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    middle, scale = columns.mean(axis=1), np.maximum(columns.std(axis=1), 1e-9)
    inputs = np.vstack([np.ones(len(right)), (columns - middle[:, None]) / scale[:, None]])

    def loss(parameters: Floats) -> tuple[float, Floats]:
        scores = parameters @ inputs
        value = np.sum(weight * (np.logaddexp(0, scores) - target * scores)) + PENALTY * np.sum(parameters[1:] ** 2)
        gradient = inputs @ (weight * (np.exp(-np.logaddexp(0, -scores)) - target))
        return value, gradient + 2 * PENALTY * np.concatenate([[0], parameters[1:]])

    bounds = [(None, None), *[(0, None)] * len(columns)]
    fitted = optimize.minimize(loss, np.zeros(len(inputs)), jac=True, method="L-BFGS-B", bounds=bounds).x
    slopes = fitted[1:] / scale
    return float(fitted[0] - slopes @ middle), *map(float, slopes)  # type: ignore[return-value]


@dataclass(frozen=True)
class _Case:
    """A training set without some classes; rows of those have the label -1 and are held out, with those of one fold."""

    data: TrainingSet
    part: Part
    group: Ints
    fold: int


def _leave_out(data: TrainingSet, fold: Ints, group: Ints, settings: Settings, number: int) -> _Case | None:
    """Leave a group of classes out of what all folds but one are fitted on; None where groups of images forbid that."""
    held_out = number % settings.cv.folds
    away = np.isin(data.y, group)
    kept = np.setdiff1d(np.arange(len(data.class_names)), group)
    case = restricted(data, kept)
    try:
        check_folds(case, [], settings, np.flatnonzero(~away & (fold != held_out)))
    except TrainingError:
        return None
    return _Case(case, _split(away | (fold == held_out)), group, held_out)


def _split(test: NDArray[np.bool_]) -> Part:
    return np.flatnonzero(~test), np.flatnonzero(test)


def restricted(data: TrainingSet, kept: Ints) -> TrainingSet:
    """The same rows with some classes; those of the others have the label -1."""
    new = np.full(len(data.class_names), -1)
    new[kept] = np.arange(len(kept))
    return replace(data, y=new[data.y], class_names=tuple(data.class_names[number] for number in kept))


def _score(case: _Case, validated: Validated, labels: Ints, settings: Settings, large: bool, advance: Advance) -> Rows:
    """Fit a stack without the classes left out, and let it say what it thinks of what is held out."""
    train, test = case.part
    kept = np.setdiff1d(np.arange(len(case.data.class_names) + len(case.group)), case.group)
    if validated.temperatures:
        temperature = validated.temperatures[case.fold]
    else:
        # From rows that the case is fitted on: those held out are to be judged.
        temperature = fit_temperature(validated.predictions.ranking[STACK][np.ix_(train, kept)], case.data.y[train])
    as_in_fold = settings.model_copy(update={"stack": validated.stacks[case.fold]})  # chosen without what is held out
    decisions = validation.predict_held_out(case.data, case.part, as_in_fold, advance)[STACK]
    ((_, looks),) = familiarities(case.data, [case.part], large, advance)
    given = case.data.y[test]
    right = decisions.argmax(axis=1) == given
    shares = probabilities(decisions, temperature)
    home = validated.predictions.fold[test]
    return Rows(scores(shares, *looks), right, given >= 0, np.full(len(given), case.fold), home, labels[test])


def familiarities(
    data: TrainingSet, parts: Sequence[Part], large: bool, advance: Advance
) -> Iterator[tuple[list[Space], tuple[Floats, Floats]]]:
    """Of each part: the spaces fitted on its rows, and how they see the rows held out, means over the backbones."""
    tasks = [(number, *part) for part in parts for number in range(len(data.names))]
    jobs = (delayed(_fit_space)(data, *task) for task in tasks)
    fitted = in_parallel(jobs, 1, cpu_count()) if large else in_parallel(jobs, -1)
    for _, test in parts:
        spaces: list[Space] = []
        ratios, nuisance = buffers.zeros((len(test), len(data.class_names))), np.zeros(len(test))
        for _ in data.names:
            space, *found = next(fitted)
            spaces.append(space)
            ratios += found[0] / len(data.names)
            nuisance += found[1] / len(data.names)
            advance(1)
        yield spaces, (ratios, nuisance)


def _fit_space(data: TrainingSet, number: int, train: Ints, test: Ints) -> tuple[Space, Floats, Floats]:
    if data.streamed:
        buffers.give_back()
    y = data.y[train]
    space = fit_space(data.matrix(number, train), y, len(data.class_names))
    counts = np.bincount(y, minlength=len(data.class_names))
    ratios, nuisance = buffers.zeros((len(test), len(counts))), np.empty(len(test))
    for start, part in pieces(data.matrix(number, test), FEW):
        found = space.look(part, counts)
        ratios[start : start + len(part)], nuisance[start : start + len(part)] = found
    return space, ratios, nuisance


def _measure(rows: Rows, left_out: Sequence[Rows], groups: Sequence[Ints], class_names: Sequence[str]) -> Unknown:
    """What thresholds do, each fold, and each case, judged by weights that were fitted on the others."""
    items = [rows, *(item.take(~item.known) for item in left_out)]
    known, none = np.empty(len(rows.fold)), np.arange(0)
    for number in np.unique(rows.fold):
        here = rows.fold == number
        known[here] = certain(_weights(items, number, none), rows.scores[:, here])
    judged = [
        certain(_weights(items, item.fold[0], group), item.scores) for item, group in zip(left_out, groups, strict=True)
    ]
    unknown = np.concatenate([none, *(sure[~item.known] for item, sure in zip(left_out, judged, strict=True))])
    trades = []
    for threshold in THRESHOLDS:
        answered = known >= threshold
        trades.append(
            Trade(
                reject=threshold,
                coverage=float(answered.mean()),
                accuracy=float(rows.right[answered].mean()) if answered.any() else None,
                unknown_rejected=float((unknown < threshold).mean()) if len(unknown) else None,
            )
        )
    if not left_out:
        return Unknown(trades, None, None, [], NOT_MEASURED)
    pairs = zip(left_out, judged, strict=True)
    areas = [(roc_auc_score(i.known, sure), roc_auc_score(i.known, i.scores[0])) for i, sure in pairs]
    ours, alone = np.mean(areas, axis=0)
    names = [[class_names[number] for number in group] for group in groups]
    return Unknown(trades, float(ours), float(alone), names, MEASURED)


def _weights(items: Sequence[Rows], fold: int, group: Ints) -> Weights:
    """Weights to judge a fold, and a group left out, by: no image of that fold or group had a part in them."""
    return calibrate([i.take((i.fold != fold) & (i.home != fold) & ~np.isin(i.label, group)) for i in items])
