"""Scores against scikit-learn, SciPy and numbers worked out by hand."""

import math

import numpy as np
import pytest
from mlxtend.evaluate import mcnemar, mcnemar_table
from scipy import stats
from sklearn import metrics

from stackcls import scoring
from stackcls.decisions import probabilities
from stackcls.report.results import STACK
from stackcls.scoring import Predictions


def make_predictions(n_classes=8, n_rows=90, folds=3, seed=0):
    """Rankings of a good and a poor single learner and of a better stack."""
    rng = np.random.default_rng(seed)
    given = rng.integers(0, n_classes, n_rows)
    truth = np.eye(n_classes)[given]
    ranking = {
        name: strength * truth + rng.normal(size=truth.shape)
        for name, strength in (("poor", 0.5), ("good", 1.5), (STACK, 2.0))
    }
    return Predictions(given, rng.permutation(np.arange(n_rows) % folds), ranking)


def from_right(right_by_learner, fold):
    """Two-class predictions that are right where they are told to be."""
    given = np.zeros(len(fold), dtype=np.int64)
    ranking = {name: np.eye(2)[np.where(np.array(right, dtype=bool), 0, 1)] for name, right in right_by_learner.items()}
    return Predictions(given, np.array(fold), ranking)


@pytest.mark.parametrize("learner", ["poor", "good", STACK])
def test_scores_are_scikit_learn_s(learner):
    predictions = make_predictions()
    score = scoring.score(predictions, learner)
    predicted, ranking = predictions.ranking[learner].argmax(axis=1), predictions.ranking[learner]
    folds = [
        metrics.accuracy_score(predictions.given[predictions.fold == fold], predicted[predictions.fold == fold])
        for fold in range(3)
    ]
    np.testing.assert_allclose(score.folds, folds)
    assert score.mean == pytest.approx(np.mean(folds))
    assert score.std == pytest.approx(np.std(folds))
    assert score.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(predictions.given, predicted))
    assert score.top5 == pytest.approx(metrics.top_k_accuracy_score(predictions.given, ranking, k=5))


def test_scores_by_hand():
    predictions = from_right({STACK: [1, 1, 0, 1, 0, 0]}, [0, 0, 0, 0, 1, 1])
    score = scoring.score(predictions, STACK)
    assert score.folds == [0.75, 0.0]
    assert score.mean == 0.375
    assert score.std == 0.375
    assert score.balanced_accuracy == 0.5


@pytest.mark.parametrize(("n_classes", "has_top5"), [(2, False), (5, False), (6, True)])
def test_top_5_is_given_where_it_says_something(n_classes, has_top5):
    assert (scoring.score(make_predictions(n_classes), STACK).top5 is not None) == has_top5


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_balanced_accuracy_ignores_classes_that_are_not_given():
    given = np.array([0, 0, 1, 1])
    ranking = {STACK: np.eye(3)[[0, 2, 1, 1]]}
    score = scoring.score(Predictions(given, np.zeros(4, dtype=np.int64), ranking), STACK)
    assert score.balanced_accuracy == metrics.balanced_accuracy_score(given, [0, 2, 1, 1]) == 0.75


def test_per_class_and_confusion_are_scikit_learn_s():
    predictions = make_predictions(4)
    names = ("a", "b", "c", "d")
    predicted = predictions.ranking[STACK].argmax(axis=1)
    report = metrics.classification_report(predictions.given, predicted, target_names=names, output_dict=True)
    for name, found in scoring.per_class_scores(predictions, names).items():
        expected = report[name]
        assert found.precision == pytest.approx(expected["precision"])
        assert found.recall == pytest.approx(expected["recall"])
        assert found.f1 == pytest.approx(expected["f1-score"])
        assert found.support == expected["support"]
    # Rows are the given classes.
    counts = np.zeros((4, 4), dtype=int)
    for given, guess in zip(predictions.given, predicted, strict=True):
        counts[given, guess] += 1
    assert scoring.confusion(predictions, 4) == counts.tolist()


def test_gain_is_over_the_best_single_on_the_same_folds():
    predictions = make_predictions()
    scores = {name: scoring.score(predictions, name) for name in predictions.ranking}
    gain = scoring.gain(predictions, scores)
    assert gain.over == "good"
    np.testing.assert_allclose(gain.folds, np.subtract(scores[STACK].folds, scores["good"].folds))
    assert gain.mean == pytest.approx(scores[STACK].mean - scores["good"].mean)


def test_interval_by_hand():
    # Differences 0.1, 0.2, 0.3 on three equal folds: mean 0.2, variance 0.01, corrected by 1/3 + (1/3)/(2/3) = 5/6,
    # and 4.302653 is Student's t at 97.5 % with two degrees of freedom.
    fold = np.repeat([0, 1, 2], 10)
    single = np.tile([1] * 5 + [0] * 5, 3)
    stacked = np.concatenate([[1] * (5 + more) + [0] * (5 - more) for more in (1, 2, 3)])
    predictions = from_right({"single": single, STACK: stacked}, fold)
    gain = scoring.gain(predictions, {name: scoring.score(predictions, name) for name in predictions.ranking})
    reach = 4.302653 * math.sqrt(0.01 * 5 / 6)
    assert gain.interval == pytest.approx([0.2 - reach, 0.2 + reach], abs=1e-6)
    assert "Nadeau and Bengio" in gain.interval_method


def test_one_fold_has_no_interval():
    predictions = from_right({"single": [1, 0, 0], STACK: [1, 1, 0]}, [0, 0, 0])
    gain = scoring.gain(predictions, {name: scoring.score(predictions, name) for name in predictions.ranking})
    assert gain.interval is None
    assert gain.mean == pytest.approx(1 / 3)


@pytest.mark.parametrize(("stack_only", "single_only"), [(0, 0), (5, 0), (9, 3), (4, 4), (2, 11), (30, 12), (40, 39)])
def test_mcnemar(stack_only, single_only):
    both = 20
    stacked = [1] * both + [1] * stack_only + [0] * single_only
    single = [1] * both + [0] * stack_only + [1] * single_only
    predictions = from_right({"single": single, STACK: stacked}, np.arange(len(single)) % 3)
    scores = {name: scoring.score(predictions, name) for name in predictions.ranking}
    test = scoring.gain(predictions, scores).mcnemar
    assert (test.stack_only, test.single_only) == (stack_only, single_only)
    discordant = stack_only + single_only
    if discordant == 0:
        expected = 1.0
    elif discordant < 25:
        expected = stats.binomtest(stack_only, discordant).pvalue
    else:
        expected = stats.chi2.sf((abs(stack_only - single_only) - 1) ** 2 / discordant, 1)
    assert test.p_value == pytest.approx(expected)


def test_mcnemar_is_mlxtend_s():
    predictions = make_predictions(n_rows=400)
    scores = {name: scoring.score(predictions, name) for name in predictions.ranking}
    guesses = [predictions.ranking[name].argmax(axis=1) for name in (STACK, "good")]
    _, expected = mcnemar(mcnemar_table(predictions.given, *guesses))
    assert scoring.gain(predictions, scores).mcnemar.p_value == pytest.approx(expected)


def slow_calibration_error(shares, given):
    """Expected calibration error as its definition reads."""
    total = 0.0
    for number in range(15):
        inside = []
        for row, label in zip(shares, given, strict=True):
            confidence = max(row)
            last = number == 14 and confidence >= 1
            if number / 15 <= confidence < (number + 1) / 15 or last:
                inside.append((confidence, list(row).index(confidence) == label))
        if inside:
            confidence, right = np.mean(inside, axis=0)
            total += len(inside) / len(given) * abs(confidence - right)
    return total


@pytest.mark.parametrize("temperature", [0.01, 0.5, 1, 5])
def test_calibration_error_is_the_slow_one(temperature):
    predictions = make_predictions()
    shares = probabilities(predictions.ranking[STACK], temperature)
    expected = slow_calibration_error(shares, predictions.given)
    bins = scoring.reliability(shares, predictions.given)
    assert scoring.expected_calibration_error(bins) == pytest.approx(expected)
    assert scoring.calibration(shares, predictions.given, temperature).bins == bins


def test_calibration_by_hand():
    shares, given = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]]), np.array([0, 1, 1])
    found = scoring.calibration(shares, given, 2.0)
    assert found.expected_calibration_error == pytest.approx((abs(1.8 - 1) + abs(0.7 - 1)) / 3)
    assert found.log_loss == pytest.approx(-(math.log(0.9) + math.log(0.1) + math.log(0.7)) / 3)
    assert found.log_loss == pytest.approx(metrics.log_loss(given, shares))
    assert found.temperature == 2.0


def test_reliability_by_hand():
    shares, given = np.array([[0.9, 0.1], [0.92, 0.08], [0.3, 0.7], [1, 0]]), np.array([0, 1, 1, 0])
    bins = scoring.reliability(shares, given)
    assert [item.low for item in bins] == pytest.approx(np.arange(15) / 15)
    assert [item.high for item in bins] == pytest.approx(np.arange(1, 16) / 15)
    filled = {number: item for number, item in enumerate(bins) if item.count}
    assert [(item.count, item.accuracy) for item in filled.values()] == [(1, 1), (2, 0.5), (1, 1)]
    assert list(filled) == [10, 13, 14]
    assert [item.confidence for item in filled.values()] == pytest.approx([0.7, 0.91, 1])
    assert {(item.confidence, item.accuracy) for item in bins if not item.count} == {(0, 0)}


def test_a_certain_error_has_a_finite_loss_and_certainty_none():
    certain = np.array([[1.0, 0.0]])
    assert math.isfinite(scoring.calibration(certain, np.array([1]), 1.0).log_loss)
    # Not minus zero, which would be shown as -0.000.
    assert math.copysign(1, scoring.calibration(certain, np.array([0]), 1.0).log_loss) == 1


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("temperature", [0.2, 1.0, 4.0])
def test_a_known_temperature_is_recovered(n_classes, temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6000, n_classes)) * 2
    shares = probabilities(logits, 1.0)
    given = (shares.cumsum(axis=1) < rng.random((6000, 1))).sum(axis=1)
    assert scoring.fit_temperature(logits * temperature, given) == pytest.approx(temperature, rel=0.08)


def test_one_column_of_decisions_has_a_temperature_too():
    rng = np.random.default_rng(0)
    decisions = rng.normal(size=3000) * 2
    given = (rng.random(3000) < 1 / (1 + np.exp(-decisions))).astype(np.int64)
    # As two columns, -d and d, the decisions are twice as far apart as these labels were drawn for.
    assert scoring.fit_temperature(decisions, given) == pytest.approx(2.0, rel=0.1)


def test_a_fold_is_calibrated_without_its_own_labels():
    predictions = make_predictions(4)
    decisions, fold = predictions.ranking[STACK], predictions.fold
    before = scoring.cross_calibrated(decisions, predictions.given, fold)
    flipped = np.where(fold == 1, (predictions.given + 1) % 4, predictions.given)
    after = scoring.cross_calibrated(decisions, flipped, fold)
    np.testing.assert_array_equal(before[fold == 1], after[fold == 1])
    for other in (0, 2):
        assert not np.allclose(before[fold == other], after[fold == other])


def test_each_fold_gets_the_temperature_of_the_others():
    predictions = make_predictions(4)
    decisions, given, fold = predictions.ranking[STACK], predictions.given, predictions.fold
    shares = scoring.cross_calibrated(decisions, given, fold)
    temperature = scoring.fit_temperature(decisions[fold != 2], given[fold != 2])
    np.testing.assert_array_equal(shares[fold == 2], probabilities(decisions[fold == 2], temperature))
    np.testing.assert_array_equal(shares.argmax(axis=1), decisions.argmax(axis=1))


def test_folds_that_agree_give_no_interval():
    """Equal gains have no spread, but a zero-width interval would promise certainty."""
    given = np.array([0, 1, 0, 1] * 4)
    fold = np.repeat(np.arange(4), 4)
    stacked, single = given.copy(), given.copy()
    stacked[::4] = 1 - stacked[::4]
    single[1::4] = 1 - single[1::4]
    ranking = {name: np.eye(2)[predicted] for name, predicted in ((STACK, stacked), ("one", single))}
    predictions = scoring.Predictions(given, fold, ranking)
    gain = scoring.gain(predictions, {name: scoring.score(predictions, name) for name in ranking})
    assert (gain.mean, gain.interval, gain.interval_method) == (0, None, "none: all folds have the same gain")
    assert (gain.mcnemar.stack_only, gain.mcnemar.single_only) == (4, 4)
