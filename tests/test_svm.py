"""The machines are liblinear's at a tolerance that it only reaches slowly, with weights, two classes and few images."""

import numpy as np
import pytest
from sklearn.svm import LinearSVC
from sklearn.utils.class_weight import compute_class_weight

from stackcls import learners, svm
from stackcls.learners import LeanLinearSVC


def make_shares(n_rows, n_classes, seed=0):
    """Probabilities as averaged base learners give them: most sure, some wrong."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_rows) * n_classes // n_rows
    y[: 3 * n_rows // (2 * n_classes)] = 0  # classes of unequal size
    scores = 2 * rng.standard_normal((n_rows, n_classes))
    scores[np.arange(n_rows), y] += 3
    shares = np.exp(scores)
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32), y


def exact(X, y, weight, C):
    return LinearSVC(C=C, class_weight=weight, tol=1e-10, dual=False, max_iter=1_000_000).fit(X.astype(np.float64), y)


@pytest.mark.parametrize(("n_rows", "n_classes"), [(200, 2), (300, 3), (900, 12), (30, 12)])
@pytest.mark.parametrize("weight", ["balanced", None])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_it_finds_the_optimum(n_rows, n_classes, weight, C):
    X, y = make_shares(n_rows, n_classes)
    weights = compute_class_weight(weight, classes=np.arange(n_classes), y=y)
    found, expected = svm.fit(X, y, n_classes, C, weights), exact(X, y, weight, C)
    np.testing.assert_allclose(found[:, :-1], expected.coef_, atol=1e-5 * np.abs(expected.coef_).max())
    np.testing.assert_allclose(found[:, -1], expected.intercept_, atol=1e-5 * np.abs(expected.coef_).max())


def test_every_step_descends_from_a_bad_start():
    X, y = make_shares(300, 2)
    wide, truth = np.column_stack([X, np.ones(300)]), np.where(y == 1, 1.0, -1.0)
    costs = np.full(300, 1.0)
    far = svm._fit_one(wide, truth, costs, np.array([1e3, -1e3, 1e3]))
    np.testing.assert_allclose(far, svm._fit_one(wide, truth, costs, np.zeros(3)), rtol=1e-9)


def test_equal_rows_and_constant_columns_are_no_obstacle():
    X, y = np.repeat(np.eye(3, 4, dtype=np.float32), 10, axis=0), np.repeat([0, 1, 2], 10)
    found = svm.fit(X, y, 3, 1.0, np.ones(3))
    np.testing.assert_allclose(found[:, :-1], exact(X, y, None, 1.0).coef_, atol=1e-6)


def test_the_estimator_is_plain_and_keeps_labels():
    X, y = make_shares(300, 3)
    names = np.array(["a", "b", "c"])[y]
    fitted = LeanLinearSVC(C=2.0).fit(X, names).plain()
    assert type(fitted) is LinearSVC
    assert fitted.C == 2.0
    assert (fitted.predict(X) == exact(X, names, None, 2.0).predict(X)).all()


def test_many_columns_are_left_to_liblinear(monkeypatch):
    monkeypatch.setattr(learners, "WIDE", 4)
    monkeypatch.setattr(svm, "fit", lambda *_: pytest.fail("squares of the columns"))
    X, y = make_shares(300, 5)
    assert LeanLinearSVC(random_state=0).fit(X, y).plain().coef_.shape == (5, 5)


def test_where_rounding_counts_liblinear_does_it():
    X, y = make_shares(300, 3)
    fitted = LeanLinearSVC(C=1e15, random_state=0).fit(X, y).plain()
    assert (fitted.predict(X) == LinearSVC(C=1e15, random_state=0).fit(X, y).predict(X)).all()
