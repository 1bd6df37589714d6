"""Cross-validation gives the scores that the plain way gives, and says beforehand when labels do not allow it."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
from mlxtend.classifier import StackingClassifier
from mlxtend.feature_selection import ColumnSelector
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from stackcls import logistic, scoring, stack, validation
from stackcls.listener import Silent
from stackcls.settings import Settings
from stackcls.stack import StackedClassifier
from stackcls.training import TrainingSet

BLOCKS = {"one": slice(0, 7), "two": slice(7, 12)}


def make_training_set(groups=None, n_classes=4, n_rows=120, seed=0):
    X, y = make_classification(n_rows, 12, n_informative=6, n_classes=n_classes, class_sep=0.7, random_state=seed)
    names = tuple("abcdefgh"[:n_classes])
    return TrainingSet(X.astype(np.float32), tuple(BLOCKS), (7, 5), y.astype(np.int64), names, groups)


def validate(data, baseline=False, leave_out=False, **sections):
    return validation.cross_validate(data, Settings(**sections), baseline, Silent(), leave_out)


def fold_scores(predictions, learner):
    right = predictions.correct(learner)
    return [right[predictions.fold == fold].mean() for fold in np.unique(predictions.fold)]


@pytest.mark.parametrize("n_classes", [2, 4])
def test_scores_are_those_of_the_plain_way(n_classes):
    data = make_training_set(n_classes=n_classes)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    predictions = validate(data).predictions
    for name, columns in BLOCKS.items():
        expected = cross_val_score(LogisticRegression(max_iter=1000), data.X[:, columns], data.y, cv=folds)
        np.testing.assert_array_equal(fold_scores(predictions, name), expected)
    bases = [
        make_pipeline(ColumnSelector(cols=tuple(range(columns.start, columns.stop))), LogisticRegression(max_iter=1000))
        for columns in BLOCKS.values()
    ]
    plain = StackingClassifier(
        classifiers=bases, use_probas=True, average_probas=True, meta_classifier=LinearSVC(random_state=0)
    )
    expected = cross_val_score(plain, data.X, data.y, cv=folds)
    np.testing.assert_array_equal(fold_scores(predictions, "stack"), expected)
    np.testing.assert_array_equal(
        predictions.predicted("stack"), cross_val_predict(plain, data.X, data.y, cv=folds), strict=True
    )


@pytest.mark.parametrize("recipe", ["in-sample", "out-of-fold"])
def test_the_stack_is_scored_as_scikit_learn_scores_the_estimator(recipe):
    data = make_training_set()
    wanted = {"recipe": recipe, "base": {"C": 0.1}, "meta": {"C": 0.5}, "class_weight": "balanced"}
    found = validate(data, stack=wanted, cv={"folds": 4, "seed": 7})
    estimator = StackedClassifier((7, 5), recipe, 0.1, 0.5, "balanced", random_state=7)
    folds = StratifiedKFold(4, shuffle=True, random_state=7)
    expected = cross_val_score(estimator, data.X, data.y, cv=folds)
    np.testing.assert_array_equal(fold_scores(found.predictions, "stack"), expected)


@pytest.mark.parametrize("recipe", ["in-sample", "out-of-fold"])
def test_the_final_model_is_fitted_on_all_rows(recipe):
    data = make_training_set()
    found = validate(data, stack={"recipe": recipe})
    expected = StackedClassifier((7, 5), recipe).fit(data.X, data.y)
    np.testing.assert_allclose(found.model.decision_function(data.X), expected.decision_function(data.X), rtol=1e-6)


class Fetched:
    """Features that are fetched; it counts what is fetched and not yet let go."""

    def __init__(self, data):
        self.data, self.alive, self.most, self.numbers = data, 0, 0, []

    def block(self, number, rows):
        found = self.data.block(number, rows)
        self.alive += 1
        self.most = max(self.most, self.alive)
        self.numbers.append(number)
        weakref.finalize(found, self._let_go)
        return found

    def _let_go(self):
        self.alive -= 1


@pytest.mark.parametrize("recipe", ["in-sample", "out-of-fold"])
def test_large_matrices_are_fetched_one_at_a_time(monkeypatch, recipe):
    data = make_training_set()
    expected = validate(data, stack={"recipe": recipe})
    monkeypatch.setattr(validation, "LARGE", 0)
    fetched = Fetched(data)
    found = validate(replace(data, X=fetched), stack={"recipe": recipe})
    assert fetched.most == 1
    assert fetched.alive == 0
    for name in ("one", "two", "stack"):
        np.testing.assert_allclose(found.predictions.ranking[name], expected.predictions.ranking[name], atol=1e-4)


def test_of_large_matrices_only_the_last_fit_begins_where_the_folds_ended(monkeypatch):
    data, starts = make_training_set(), []
    expected = validate(data).model
    fit = logistic.fit
    monkeypatch.setattr(
        logistic, "fit", lambda *args, start, **more: starts.append(start) or fit(*args, start=start, **more)
    )
    monkeypatch.setattr(validation, "LARGE", 0)
    model = validate(data).model
    folds = Settings().cv.folds
    assert [start is None for start in starts] == [True] * folds * len(data.names) + [False] * len(data.names)
    for base, cold in zip(model.bases_, expected.bases_, strict=True):
        assert base.estimator.n_iter_ < cold.estimator.n_iter_
        np.testing.assert_allclose(base.predict_proba(data.X), cold.predict_proba(data.X), atol=0.02)


def test_probabilities_are_calibrated_on_other_folds():
    data = make_training_set()
    found = validate(data)
    decisions, fold = found.predictions.ranking["stack"], found.predictions.fold
    np.testing.assert_array_equal(found.shares, scoring.cross_calibrated(decisions, data.y, fold))
    assert found.model.temperature == scoring.fit_temperature(decisions, data.y) != 1.0


def test_baselines_are_linear_svms():
    data = make_training_set()
    found = validate(data, baseline=True)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    for name, columns in BLOCKS.items():
        expected = cross_val_score(LinearSVC(random_state=0), data.X[:, columns], data.y, cv=folds)
        np.testing.assert_array_equal(fold_scores(found.baselines, name), expected)
    assert validate(data).baselines is None


def test_groups_stay_in_one_fold():
    groups = np.random.default_rng(0).integers(0, 25, 120)
    data = make_training_set(groups)
    predictions = validate(data).predictions
    for group in np.unique(groups):
        assert np.unique(predictions.fold[groups == group]).size == 1
    folds = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    estimator = LogisticRegression(max_iter=1000)
    expected = cross_val_score(estimator, data.X[:, BLOCKS["one"]], data.y, groups=groups, cv=folds)
    np.testing.assert_array_equal(fold_scores(predictions, "one"), expected)


def test_groups_reach_the_inner_folds(monkeypatch):
    groups = np.random.default_rng(0).integers(0, 40, 120)
    straddling = []

    def watched(estimator, X, y, *, groups, cv, method):
        for train, test in cv.split(X, y, groups):
            straddling.append(np.intersect1d(groups[train], groups[test]).size)
        return cross_val_predict(estimator, X, y, groups=groups, cv=cv, method=method)

    monkeypatch.setattr(stack, "cross_val_predict", watched)
    validate(make_training_set(groups), stack={"recipe": "out-of-fold"})
    # Two backbones, three outer folds and all rows, three inner folds each.
    assert straddling == [0] * 24


def test_unconverged_backbones_are_named(monkeypatch):
    monkeypatch.setattr(stack, "MAX_ITERATIONS", 2)
    assert validate(make_training_set()).unconverged == ("one", "two")
    monkeypatch.undo()
    assert validate(make_training_set()).unconverged == ()
