"""The stack is mlxtend's in one recipe, Wolpert's in the other, and a scikit-learn estimator in both."""

import numpy as np
import pytest
from mlxtend.classifier import StackingClassifier
from mlxtend.feature_selection import ColumnSelector
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from stackcls import descent, logistic, stack
from stackcls.decisions import probabilities
from stackcls.settings import StackSettings
from stackcls.stack import StackedClassifier

WIDTHS = (7, 5)
RECIPES = ("in-sample", "out-of-fold")
recipes = pytest.mark.parametrize("recipe", RECIPES)


def make_data(n_classes=4, n_rows=120, seed=0):
    """Two blocks of columns that are informative, but far from enough."""
    X, y = make_classification(
        n_rows, 12, n_informative=6, n_classes=n_classes, class_sep=0.7, random_state=seed, shuffle=True
    )
    return X.astype(np.float32), np.array(["cat", "dog", "猫", "emu"])[y]


def plain_stack():
    """The article's stack as a careful user writes it."""
    bases = [
        make_pipeline(ColumnSelector(cols=columns), LogisticRegression(max_iter=1000))
        for columns in (tuple(range(7)), tuple(range(7, 12)))
    ]
    meta = LinearSVC(tol=1e-9, dual=False, max_iter=100_000)
    return StackingClassifier(classifiers=bases, use_probas=True, average_probas=True, meta_classifier=meta)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_in_sample_is_the_plain_mlxtend_stack(n_classes):
    X, y = make_data(n_classes)
    X_new, _ = make_data(n_classes, seed=1)
    ours, plain = StackedClassifier(widths=WIDTHS).fit(X, y), plain_stack().fit(X, y)
    plain_decisions = plain.meta_clf_.decision_function(plain.predict_meta_features(X_new))
    np.testing.assert_allclose(ours.decision_function(X_new), plain_decisions, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(ours.predict(X_new), plain.predict(X_new))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_out_of_fold_is_the_hand_written_stack(n_classes):
    X, y = make_data(n_classes)
    X_new, _ = make_data(n_classes, seed=1)
    X, X_new = X.astype(np.float64), X_new.astype(np.float64)  # in float32, liblinear makes more of the last digit
    ours = StackedClassifier(widths=WIDTHS, recipe="out-of-fold", inner_folds=4, random_state=3).fit(X, y)
    folds = StratifiedKFold(4, shuffle=True, random_state=3)
    inner, outer = [], []
    for columns in (slice(0, 7), slice(7, 12)):
        learner = LogisticRegression(max_iter=1000)
        inner.append(cross_val_predict(learner, X[:, columns], y, cv=folds, method="predict_proba"))
        outer.append(learner.fit(X[:, columns], y).predict_proba(X_new[:, columns]))
    meta = LinearSVC(tol=1e-9, dual=False, max_iter=100_000).fit(np.mean(inner, axis=0), y)
    expected = meta.decision_function(np.mean(outer, axis=0))
    np.testing.assert_allclose(ours.decision_function(X_new), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(ours.predict(X_new), meta.predict(np.mean(outer, axis=0)))


def test_the_recipes_differ():
    X, y = make_data()
    first, second = (StackedClassifier(widths=WIDTHS, recipe=recipe).fit(X, y).meta_.coef_ for recipe in RECIPES)
    assert not np.allclose(first, second, rtol=1e-2)


@recipes
def test_a_base_sees_its_own_columns_alone(recipe):
    X, y = make_data()
    scrambled = X.copy()
    scrambled[:, 7:] = np.random.default_rng(0).normal(size=(len(X), 5))
    before, after = (StackedClassifier(widths=WIDTHS, recipe=recipe).fit(values, y) for values in (X, scrambled))
    np.testing.assert_array_equal(before.bases_[0].predict_proba(X), after.bases_[0].predict_proba(X))
    np.testing.assert_array_equal(before.bases_[0].predict_proba(X), before.bases_[0].predict_proba(scrambled))
    assert not np.allclose(before.bases_[1].predict_proba(X), before.bases_[1].predict_proba(scrambled))
    assert [base.estimator.coef_.shape[1] for base in before.bases_] == list(WIDTHS)


@recipes
@pytest.mark.parametrize("n_classes", [2, 3, 4])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_probabilities_sum_to_one_and_agree_with_the_label(recipe, n_classes, temperature):
    X, y = make_data(n_classes)
    model = StackedClassifier(widths=WIDTHS, recipe=recipe, temperature=temperature).fit(X, y)
    shares = model.predict_proba(X)
    assert shares.shape == (len(X), n_classes)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(model.classes_[shares.argmax(axis=1)], model.predict(X))
    # Not only in agreement with each other, but with the linear SVM on top.
    np.testing.assert_array_equal(model.meta_.predict(model.average_probabilities(X)), model.predict(X))


def test_huge_decisions_give_finite_probabilities():
    shares = probabilities(np.array([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]]), 0.001)
    np.testing.assert_allclose(shares, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])


def test_a_higher_temperature_is_less_sure():
    decisions = np.array([[2.0, 1.0, 0.0]])
    np.testing.assert_allclose(
        probabilities(decisions, 2.0)[0], np.exp([1.0, 0.5, 0.0]) / np.exp([1.0, 0.5, 0.0]).sum()
    )


def test_float32_stays_float32_in_the_base_learners(monkeypatch):
    seen = []
    minimise = descent.minimise
    monkeypatch.setattr(logistic, "minimise", lambda loss, *rest: seen.append(rest[0].dtype) or minimise(loss, *rest))
    X, y = make_data()
    model = StackedClassifier(widths=WIDTHS).fit(X, y)
    assert seen == [np.float32, np.float32]
    assert {base.estimator.coef_.dtype for base in model.bases_} == {np.dtype(np.float32)}


def test_groups_never_straddle_inner_folds(monkeypatch):
    X, y = make_data()
    groups = np.random.default_rng(0).integers(0, 30, len(y))
    straddling = []

    def watched(estimator, X, y, *, groups, cv, method):
        for train, test in cv.split(X, y, groups):
            straddling.append(np.intersect1d(groups[train], groups[test]).size)
        return cross_val_predict(estimator, X, y, groups=groups, cv=cv, method=method)

    monkeypatch.setattr(stack, "cross_val_predict", watched)
    StackedClassifier(widths=WIDTHS, recipe="out-of-fold").fit(X, y, groups=groups)
    assert straddling == [0] * 6


def test_balanced_weights_reach_bases_and_meta():
    X, y = make_data(n_classes=2)
    keep = np.flatnonzero((y == "cat") | (np.cumsum(y == "dog") <= 15))
    X, y = X[keep], y[keep]
    plain, balanced = (StackedClassifier(WIDTHS, class_weight=weight).fit(X, y) for weight in (None, "balanced"))
    expected = LogisticRegression(max_iter=1000, class_weight="balanced").fit(X[:, :7], y)
    np.testing.assert_allclose(balanced.bases_[0].estimator.coef_, expected.coef_, rtol=1e-3, atol=1e-4)
    assert not np.allclose(plain.bases_[0].estimator.coef_, expected.coef_, rtol=1e-2)
    meta = LinearSVC(random_state=0, class_weight="balanced").fit(balanced.average_probabilities(X), y)
    np.testing.assert_allclose(balanced.meta_.coef_, meta.coef_, rtol=1e-4)


def test_parameters_reach_the_learners():
    X, y = make_data()
    model = StackedClassifier(widths=WIDTHS, base_C=0.01, meta_C=0.1, random_state=5).fit(X, y)
    expected = LogisticRegression(C=0.01, max_iter=1000).fit(X[:, 7:], y)
    np.testing.assert_allclose(model.bases_[1].estimator.coef_, expected.coef_, rtol=1e-3, atol=1e-4)
    assert (model.meta_.C, model.meta_.random_state) == (0.1, 5)


def test_settings_become_parameters():
    settings = StackSettings(recipe="out-of-fold", base={"C": 2}, meta={"C": 3}, class_weight="balanced", inner_folds=4)
    model = stack.from_settings(settings, [3, 4], seed=9)
    assert model.get_params() == {
        "widths": (3, 4),
        "recipe": "out-of-fold",
        "base_C": 2.0,
        "meta_C": 3.0,
        "class_weight": "balanced",
        "inner_folds": 4,
        "random_state": 9,
        "temperature": 1.0,
        "n_jobs": None,
        "meta": "linear-svm",
    }


def test_parallel_fits_are_the_same():
    X, y = make_data()
    one, two = (StackedClassifier(widths=WIDTHS, n_jobs=jobs).fit(X, y).decision_function(X) for jobs in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_clone_is_unfitted_and_fits_the_same():
    X, y = make_data()
    model = StackedClassifier(widths=WIDTHS, base_C=0.3).fit(X, y)
    copy = clone(model)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        copy.predict(X)
    np.testing.assert_array_equal(copy.fit(X, y).decision_function(X), model.decision_function(X))


def test_cross_val_score_is_the_plain_stack_s():
    X, y = make_data()
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    ours = cross_val_score(StackedClassifier(widths=WIDTHS), X, y, cv=folds)
    np.testing.assert_array_equal(ours, cross_val_score(plain_stack(), X, y, cv=folds))


def test_grid_search_over_all_that_matters():
    X, y = make_data(3, 60)
    grid = {"base_C": [1e-4, 1.0], "meta_C": [1e-4, 1.0], "recipe": list(RECIPES)}
    search = GridSearchCV(StackedClassifier(widths=WIDTHS), grid, cv=2, error_score="raise").fit(X, y)
    means = search.cv_results_["mean_test_score"]
    assert len(means) == 8
    assert np.unique(means).size > 1
    assert cross_val_score(search.best_estimator_, X, y, cv=2).mean() == search.best_score_ == means.max()


def test_unconverged_bases_are_told_once(monkeypatch):
    monkeypatch.setattr(stack, "MAX_ITERATIONS", 2)
    X, y = make_data()
    with pytest.warns(ConvergenceWarning, match="a base learner stopped at 2 iterations") as caught:
        model = StackedClassifier(widths=WIDTHS).fit(X, y)
    assert len(caught) == 1
    assert model.converged_ == [False, False]


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"recipe": "in-sampel"}, ValueError, "recipe 'in-sampel' is not one of in-sample, out-of-fold"),
        ({"widths": (7, 4)}, ValueError, r"widths \(7, 4\) add up to 11, but X has 12 columns"),
        ({"widths": (12, 1)}, ValueError, r"widths \(12, 1\) add up to 13, but X has 12 columns"),
        ({"widths": (12, 0)}, ValueError, r"0 feature\(s\)"),
        ({"base_C": 0.0}, ValueError, "'C' parameter of LogisticRegression must be"),
        ({"base_C": -1.0}, ValueError, "'C' parameter of LogisticRegression must be"),
        ({"meta_C": 0.0}, ValueError, "'C' parameter of LinearSVC must be"),
        ({"meta_C": -1.0}, ValueError, "'C' parameter of LinearSVC must be"),
        ({"temperature": 0.0}, ValueError, "temperature 0.0 must be above 0"),
        ({"temperature": -2}, ValueError, "temperature -2 must be above 0"),
        ({"temperature": float("nan")}, ValueError, "temperature nan must be above 0"),
        ({"class_weight": "balance"}, ValueError, "'class_weight' parameter of LogisticRegression must be"),
        ({"recipe": "out-of-fold", "inner_folds": 1}, ValueError, "n_splits=1"),
        ({"recipe": "out-of-fold", "inner_folds": 1000}, ValueError, "n_splits=1000 greater than the number"),
    ],
)
def test_bad_parameters(params, error, message):
    X, y = make_data()
    with pytest.raises(error, match=message):
        StackedClassifier(**params).fit(X, y)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda X, y: (X, np.repeat("cat", len(y))), ValueError, "(one|1) class"),
        (lambda X, y: (X, np.linspace(0, 1, len(y))), ValueError, "Unknown label type"),
        (lambda X, y: (X[:-1], y), ValueError, "inconsistent numbers of samples"),
        (lambda X, y: (np.where(X > 2, np.nan, X), y), ValueError, "contains NaN"),
    ],
)
def test_bad_data(change, error, message):
    with pytest.raises(error, match=message):
        StackedClassifier().fit(*change(*make_data()))


def test_other_columns_at_prediction_are_refused():
    X, y = make_data()
    with pytest.raises(ValueError, match="X has 11 features, but StackedClassifier is expecting 12"):
        StackedClassifier(widths=WIDTHS).fit(X, y).predict(X[:, :11])


@parametrize_with_checks([StackedClassifier(recipe=recipe) for recipe in RECIPES])
def test_it_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


def test_weights_of_classes_reach_the_base_learners():
    X, y = make_data(3)
    X = X.astype(np.float64)
    weights = {label: 1.0 + 9.0 * (label == np.unique(y)[0]) for label in np.unique(y)}
    weighted = StackedClassifier(widths=WIDTHS, class_weight=weights).fit(X, y)
    expected = LogisticRegression(max_iter=1000, class_weight=weights).fit(X[:, : WIDTHS[0]], y)
    np.testing.assert_allclose(weighted.bases_[0].estimator.coef_, expected.coef_, rtol=1e-4, atol=1e-6)
    plain = LogisticRegression(max_iter=1000).fit(X[:, : WIDTHS[0]], y)
    assert np.abs(plain.coef_ - expected.coef_).max() > 0.1
