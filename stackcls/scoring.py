"""From out-of-fold predictions to scores, and from decisions to a calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from sklearn import metrics

from stackcls.backbones import backbone_of
from stackcls.decisions import per_class, probabilities
from stackcls.report.findings import Contribution, ReliabilityBin
from stackcls.report.results import STACK, Calibration, ClassScore, Gain, McNemar, Score

BINS = 15
ROWS = 1024  # at a time, so that many classes take little memory
CONFIDENCE = 0.95
EXACT_BELOW = 25
TIE = 1e-12
MOST_CLASSES = 2000  # whose square of counts is worth its memory: a report of some 10 MB
TEMPERATURES = (1e-3, 1e3)
CERTAIN = 1e-6  # log loss at which no temperature is too low, nor any lower one better

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Predictions:
    """What several learners said of images that they were not fitted on.

    Attributes
    ----------
    given : ndarray of int, shape (n,)
        The labels, as indices of classes.
    fold : ndarray of int, shape (n,)
        The fold in which each image was predicted.
    ranking : mapping of str to ndarray, shape (n, classes)
        By learner: probabilities or decisions, the largest being the prediction.
    """

    given: Ints
    fold: Ints
    ranking: Mapping[str, Floats]

    def predicted(self, learner: str) -> Ints:
        """Predicted class of each image."""
        best: Ints = self.ranking[learner].argmax(axis=1)
        return best

    def correct(self, learner: str) -> NDArray[np.bool_]:
        """Whether each image's prediction is its label."""
        right: NDArray[np.bool_] = self.predicted(learner) == self.given
        return right


def score(predictions: Predictions, learner: str) -> Score:
    """Accuracy of one learner, fold by fold and over all."""
    right = predictions.correct(learner)
    folds = [float(right[predictions.fold == fold].mean()) for fold in np.unique(predictions.fold)]
    ranking = predictions.ranking[learner]
    top5 = None
    if ranking.shape[1] > 5:
        parts = (slice(start, start + ROWS) for start in range(0, len(ranking), ROWS))
        best = (np.argsort(-ranking[part], axis=1)[:, :5] == predictions.given[part, None] for part in parts)
        top5 = float(np.concatenate([found.any(axis=1) for found in best]).mean())
    recalls = metrics.recall_score(
        predictions.given, predictions.predicted(learner), average=None, zero_division=np.nan
    )
    present = np.isin(np.union1d(predictions.given, predictions.predicted(learner)), predictions.given)
    return Score(float(np.mean(folds)), float(np.std(folds)), folds, float(np.mean(recalls[present])), top5)


def balanced(predictions: Predictions, learner: str) -> Score:
    """As `score`, all classes of a fold weighing the same."""
    right, folds = predictions.correct(learner), []
    for fold in np.unique(predictions.fold):
        here = predictions.fold == fold
        hits, counts = (np.bincount(predictions.given[here], weights) for weights in (right[here], None))
        folds.append(float(np.mean(hits[counts > 0] / counts[counts > 0])))
    return replace(score(predictions, learner), mean=float(np.mean(folds)), std=float(np.std(folds)), folds=folds)


def gain(predictions: Predictions, scores: Mapping[str, Score]) -> Gain:
    """Compare the stack with the best single backbone on the same folds.

    The interval is the corrected resampled t-test's (Nadeau, Bengio: Inference for the generalization error, Machine
    Learning 52, 2003): folds share training images, so their spread alone would promise too much.
    """
    from mlxtend.evaluate import mcnemar, mcnemar_table

    best = max((name for name in scores if name != STACK), key=lambda name: scores[name].mean)
    differences = np.subtract(scores[STACK].folds, scores[best].folds)
    table = mcnemar_table(predictions.given, predictions.predicted(STACK), predictions.predicted(best))
    stack_only, single_only = int(table[0, 1]), int(table[1, 0])
    p_value = 1.0
    if stack_only + single_only:
        _, p_value = mcnemar(table, exact=stack_only + single_only < EXACT_BELOW)
    interval = _corrected_interval(differences, predictions.fold)
    method = f"{CONFIDENCE:.0%} corrected resampled t (Nadeau and Bengio 2003)"
    if interval is None:
        method = "none: one fold" if len(differences) < 2 else "none: all folds have the same gain"
    tests = McNemar(stack_only, single_only, float(min(1.0, p_value)))
    return Gain(best, float(differences.mean()), differences.tolist(), interval, method, tests)


def _corrected_interval(differences: Floats, fold: Ints) -> list[float] | None:
    count = len(differences)
    if count < 2 or np.ptp(differences) < TIE:
        return None  # folds that happen to agree say nothing about their spread
    test_share = float(np.mean([(fold == number).mean() for number in np.unique(fold)]))
    variance = differences.var(ddof=1) * (1 / count + test_share / (1 - test_share))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.sqrt(variance))
    return [float(differences.mean()) - reach, float(differences.mean()) + reach]


def contributions(
    predictions: Predictions, without: Mapping[str, Ints], seconds: Mapping[str, float | None]
) -> dict[str, Contribution]:
    """Compare the stack with the stack without each backbone, on the same folds.

    Parameters
    ----------
    predictions : Predictions
    without : mapping of str to ndarray of int, shape (n,)
        Class of each image as predicted without that backbone, by its name.
    seconds : mapping of str to float or None
        What each matrix cost per image. Those of one backbone come from one pass: it costs what one of them does.
    """
    whole = score(predictions, STACK).folds
    found = {}
    for name, predicted in without.items():
        right = predicted == predictions.given
        folds = [float(right[predictions.fold == fold].mean()) for fold in np.unique(predictions.fold)]
        adds = np.subtract(whole, folds)
        interval = _corrected_interval(adds, predictions.fold)
        matrices = [matrix for matrix in predictions.ranking if matrix != STACK and backbone_of(matrix) == name]
        cost = max(filter(None, map(seconds.get, matrices)), default=None)
        found[name] = Contribution(float(np.mean(folds)), folds, float(adds.mean()), interval, cost, matrices)
    return found


def interval(folds: Sequence[float]) -> list[float] | None:
    """95 % interval of a mean over folds of equal size, as that of a gain."""
    return _corrected_interval(np.asarray(folds), np.arange(len(folds)))


def share_interval(share: float, count: int) -> list[float]:
    """95 % interval of a share of `count` images (Wilson, Probable inference, JASA 22, 1927)."""
    found = stats.binomtest(round(share * count), count).proportion_ci(CONFIDENCE, method="wilson")
    return [float(found.low), float(found.high)]


def per_class_scores(predictions: Predictions, class_names: Sequence[str]) -> dict[str, ClassScore]:
    """Precision, recall, F1 and support of each class, for the stack."""
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        predictions.given, predictions.predicted(STACK), labels=range(len(class_names)), zero_division=0.0
    )
    columns = zip(class_names, precision, recall, f1, support, strict=True)
    return {name: ClassScore(float(p), float(r), float(f), int(n)) for name, p, r, f, n in columns}


def confusion(predictions: Predictions, n_classes: int) -> list[list[int]]:
    """Counts, rows the given classes, columns the stack's predictions; empty with more than `MOST_CLASSES` classes."""
    if n_classes > MOST_CLASSES:
        return []
    counts = metrics.confusion_matrix(predictions.given, predictions.predicted(STACK), labels=range(n_classes))
    rows: list[list[int]] = counts.tolist()
    return rows


def fit_temperature(decisions: Floats, given: Ints) -> float:
    """Temperature that makes the softmax of `decisions` most probable given the labels.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017; searched between 0.001 and 1000.
    """
    columns = per_class(decisions)

    def loss(logarithm: float) -> float:
        temperature = float(np.exp(logarithm))
        own = [
            probabilities(columns[start : start + ROWS], temperature)[np.arange(len(part)), part]
            for start, part in ((start, given[start : start + ROWS]) for start in range(0, len(given), ROWS))
        ]
        return _mean_log_loss(np.concatenate(own))

    low, high = np.log(TEMPERATURES)
    return float(np.exp(optimize.minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def temperature_notes(decisions: Floats, given: Ints, temperature: float) -> list[str]:
    """What to say of a temperature that no label held back, so that the end of its range decided it."""
    if _log_loss(probabilities(decisions, temperature), given) < CERTAIN:
        return [
            "probabilities are not to be taken at their word: the stack is clearly right on every image held out, so "
            f"that its temperature ran to the lower end ({temperature:.2g}), and nearly all are 0 or 1, also of images "
            "that it will be wrong on; more images, or harder ones, help"
        ]
    if temperature > 0.9 * TEMPERATURES[1]:
        return [
            "probabilities say nothing: on images held out the stack's decisions are no better than chance, so its "
            f"temperature ran to the upper end ({temperature:.0f}), and all classes get nearly the same"
        ]
    return []


def cross_calibrated(decisions: Floats, given: Ints, fold: Ints) -> NDArray[np.float64]:
    """Probabilities of each fold by a temperature fitted on the other folds, shape (n, classes)."""
    calibrated = np.empty(decisions.shape, dtype=np.float64)
    for number in np.unique(fold):
        here = fold == number
        elsewhere = ~here if (~here).any() else here
        calibrated[here] = probabilities(decisions[here], fit_temperature(decisions[elsewhere], given[elsewhere]))
    return calibrated


def calibrated(decisions: Floats, fold: Ints, temperatures: Sequence[float]) -> NDArray[np.float64]:
    """Probabilities of each fold by its own temperature, shape (n, classes)."""
    shares = np.empty(decisions.shape, dtype=np.float64)
    for number in np.unique(fold):
        shares[fold == number] = probabilities(decisions[fold == number], temperatures[number])
    return shares


def calibration(shares: Floats, given: Ints, temperature: float) -> Calibration:
    """Errors of probabilities that were not fitted on these labels."""
    bins = reliability(shares, given)
    return Calibration(expected_calibration_error(bins), _log_loss(shares, given), temperature, bins)


def reliability(shares: Floats, given: Ints) -> list[ReliabilityBin]:
    """Mean largest probability and accuracy, over 15 bins of equal width."""
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == given
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts, sums, hits = (np.bincount(bins, weights, BINS) for weights in (None, confidence, right))
    some = np.maximum(counts, 1)
    columns = zip(counts.tolist(), (sums / some).tolist(), (hits / some).tolist(), strict=True)
    return [ReliabilityBin(number / BINS, (number + 1) / BINS, *column) for number, column in enumerate(columns)]


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Mean gap between the largest probability and the accuracy, over the images in the bins.

    Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015.
    """
    gaps = [item.count * abs(item.confidence - item.accuracy) for item in bins]
    return float(sum(gaps) / sum(item.count for item in bins))


def _log_loss(shares: Floats, given: Ints) -> float:
    return _mean_log_loss(shares[np.arange(len(given)), given])


def _mean_log_loss(own: Floats) -> float:
    return float(0.0 - np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean())
