"""The lean fit is scikit-learn's: the same path, the same optimum, the same shapes, in the features' own precision."""

import numpy as np
import pytest
from scipy.optimize import minimize, rosen, rosen_der
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight

from stackcls import descent, logistic


def make_features(n_rows, width, n_classes, dtype, seed=0):
    """What pooled activations look like: no negative values, a mean far from zero, a spectrum that falls."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_rows) * n_classes // n_rows
    y[: n_rows // 5] = 0  # classes of unequal size
    latent = (0.8 * rng.normal(size=(n_classes, 12))[y] + rng.normal(size=(n_rows, 12))) / np.arange(1, 13) ** 0.5
    X = latent @ rng.normal(size=(12, width)) / 2 + 0.5 + rng.normal(0, 0.1, (n_rows, width))
    order = rng.permutation(n_rows)
    return np.maximum(X, 0).astype(dtype)[order], y[order]


cases = pytest.mark.parametrize(
    ("n_rows", "width", "n_classes"), [(150, 20, 5), (60, 100, 4), (150, 20, 2), (50, 90, 2)]
)
weights = pytest.mark.parametrize("balanced", [False, True])
types = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def reference(X, y, balanced, **more):
    weight = "balanced" if balanced else None
    return LogisticRegression(max_iter=20_000, class_weight=weight, C=0.7, **more).fit(X, y)


def class_weights(y):
    return compute_class_weight("balanced", classes=np.unique(y), y=y)


def fit(X, y, balanced, **more):
    weights = class_weights(y) if balanced else None
    found = logistic.fit(X, y, y.max() + 1, C=0.7, class_weights=weights, max_iterations=20_000, **more)
    assert found.converged
    return found


@cases
@weights
@types
def test_it_finds_the_optimum(n_rows, width, n_classes, balanced, dtype):
    X, y = make_features(n_rows, width, n_classes, dtype)
    expected = reference(X.astype(np.float64), y, balanced, tol=1e-9)
    found = fit(X, y, balanced, tolerance=2e-6)
    assert found.coef.shape == expected.coef_.shape
    assert found.intercept.shape == expected.intercept_.shape
    assert found.coef.dtype == found.intercept.dtype == dtype
    lean = LogisticRegression()
    lean.coef_, lean.intercept_, lean.classes_ = found.coef, found.intercept, np.unique(y)
    np.testing.assert_allclose(found.coef, expected.coef_, atol=2e-3)
    np.testing.assert_allclose(lean.predict_proba(X), expected.predict_proba(X.astype(np.float64)), atol=2e-3)


@cases
@weights
def test_it_goes_scikit_learn_s_way_and_stops_where_that_stops(n_rows, width, n_classes, balanced):
    X, y = make_features(n_rows, width, n_classes, np.float64)
    expected, found = reference(X, y, balanced), fit(X, y, balanced)
    assert found.iterations == expected.n_iter_[0] > 10
    np.testing.assert_allclose(found.coef, expected.coef_, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(found.intercept, expected.intercept_, rtol=1e-5, atol=1e-8)


def evaluate(loss, at):
    gradient = np.full_like(at, np.nan)
    return loss(at, gradient), gradient


@cases
@weights
@types
def test_the_gradient_is_the_loss_s(n_rows, width, n_classes, balanced, dtype):
    """Against the definition, at a point far from zero."""
    X, y = make_features(n_rows, width, n_classes, dtype)
    loss = logistic._Loss(X, y, n_classes, 0.7, class_weights(y) if balanced else None)
    rng = np.random.default_rng(1)
    at = rng.normal(0, 0.3, (width + 1) * loss.columns).astype(dtype)
    value, gradient = evaluate(loss, at)
    assert gradient.dtype == dtype

    def defined(parameters):
        matrix = parameters.reshape(width + 1, -1)
        scores = X.astype(np.float64) @ matrix[:-1] + matrix[-1]
        scores = np.hstack([np.zeros((n_rows, 1)), scores]) if n_classes == 2 else scores
        losses = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(n_rows), y]
        weight = compute_class_weight("balanced" if balanced else None, classes=np.arange(n_classes), y=y)[y]
        return (weight * losses).mean() + (matrix[:-1] ** 2).sum() / (2 * 0.7 * n_rows)

    wide = at.astype(np.float64)
    assert value == pytest.approx(defined(wide), rel=1e-5)
    for index in rng.integers(0, at.size, 10):
        nudge = np.zeros_like(wide)
        nudge[index] = 1e-5
        slope = (defined(wide + nudge) - defined(wide - nudge)) / 2e-5
        assert gradient[index] == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_large_scores_do_not_overflow():
    X, y = make_features(60, 10, 3, np.float32)
    for n_classes, labels in ((3, y), (2, np.minimum(y, 1))):
        loss = logistic._Loss(X * 1e4, labels, n_classes, 1.0, None)
        value, gradient = evaluate(loss, np.arange(11 * loss.columns, dtype=np.float32))
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_the_limit_of_iterations_is_told():
    X, y = make_features(150, 20, 5, np.float32)
    found = logistic.fit(X, y, 5, max_iterations=3)
    assert (found.iterations, found.converged) == (3, False)


def rosenbrock(x):
    return rosen(x), rosen_der(x)


def narrow_valley(x):
    """Steep, then flat: the first step is far too short, the next ones too long."""
    root = np.sqrt(1 + 1e4 * x @ x)
    return float(root + x[0] ** 4), 1e4 * x / root + np.array([4 * x[0] ** 3, 0, 0])


def waves(x):
    return float(np.sin(3 * x).sum() + 0.1 * x @ x), 3 * np.cos(3 * x) + 0.2 * x


@pytest.mark.parametrize("function", [rosenbrock, narrow_valley, waves])
@pytest.mark.parametrize("start", [[-1.2, 1.0, 0.5], [3.0, -4.0, 2.0], [0.01, 0.02, -0.01], [9.0, 3.0, -8.0]])
def test_the_descent_visits_what_scipy_visits(function, start):
    """Also where a search along a line takes several lengths."""
    visited = {"ours": [], "scipy": []}

    def watched(who):
        return lambda x: visited[who].append(x.copy()) or function(x)

    def writing(x, gradient):
        value, gradient[:] = watched("ours")(x)
        return value

    found = descent.minimise(writing, np.array(start), 1e-5, 200)
    options = {"gtol": 1e-5, "ftol": descent.LEAST_GAIN, "maxls": 50, "maxcor": 10}
    expected = minimize(watched("scipy"), start, jac=True, method="L-BFGS-B", options=options)
    both = min(len(visited["ours"]), len(visited["scipy"]), 20)
    np.testing.assert_allclose(visited["ours"][:both], visited["scipy"][:both], rtol=1e-4, atol=1e-6)
    assert function(found.x)[0] == pytest.approx(expected.fun, rel=1e-6, abs=1e-8)


def test_a_loss_that_is_no_number_is_not_converged():
    def broken(x, gradient):
        gradient[:] = 1.0
        return float("nan")

    assert not descent.minimise(broken, np.zeros(3), 1e-5, 10).converged
