"""What tells images of known classes from others, on drawn features."""

import numpy as np
import pytest

from stackcls.familiarity import MOST_AXES, NUISANCES, Familiarity, Space, View, certain, fit_space, powered, scores
from stackcls.rejecting import UNKNOWN, check, labels, needed

RNG = np.random.default_rng


def drawn(n_classes, per_class, width, seed=0, spread=1.0):
    """Features of classes whose means differ in eight directions, shape (n, width), and labels."""
    rng = RNG(seed)
    directions = RNG(99).normal(size=(8, width))
    means = spread * rng.normal(size=(n_classes, 8)) @ directions
    y = np.repeat(np.arange(n_classes), per_class)
    return (means[y] + rng.normal(0, 2, (len(y), width))).astype(np.float32), y


@pytest.mark.parametrize("per_class", [5, 40])
def test_known_classes_are_likelier_and_new_ones_are_not(per_class):
    # More features than images, and fewer: both ways through the equations.
    X, y = drawn(8, per_class + 10, 100)
    train = np.tile(np.arange(per_class + 10) < per_class, 8)
    space = fit_space(X[train].copy(), y[train], 8)
    counts = np.bincount(y[train])
    known, new = space.look(X[~train], counts)[0], space.look(drawn(6, 20, 100, seed=5)[0], counts)[0]
    assert (known.argmax(axis=1) == y[~train]).mean() > 0.9
    assert (known.max(axis=1)[:, None] > new.max(axis=1)).mean() > 0.9


def test_both_ways_through_the_equations_agree():
    X, y = drawn(5, 30, 149)
    wide = np.hstack([X, np.zeros((len(X), 2), np.float32)])  # 151 columns for 150 rows
    found, other = fit_space(X.copy(), y, 5), fit_space(wide.copy(), y, 5)
    counts = np.bincount(y)
    # Two empty columns only lower the mean variance towards which is shrunk.
    np.testing.assert_allclose(other.look(wide, counts)[0], found.look(X, counts)[0], rtol=0.03, atol=0.3)


def test_the_ratio_is_that_of_two_gaussians():
    axes = np.linalg.qr(RNG(0).normal(size=(6, 2)))[0].astype(np.float32)
    means, spread = np.array([[1, 0], [0, -2]], np.float32), np.array([2, 0.5], np.float32)
    space = Space(np.full(6, 0.1, np.float32), axes, means, spread, axes[:, :1], means[:, :1])
    X, counts = RNG(1).normal(size=(4, 6)).astype(np.float32), np.array([3, 10])
    z = (powered(X.copy()) - space.centre) @ axes

    def log_density(at, mean, variance):
        return (-0.5 * ((at - mean) ** 2 / variance + np.log(2 * np.pi * variance))).sum(axis=1)

    for number, count in enumerate(counts):
        # The posterior of a mean with prior variance b after `count` draws of variance 1 that average m.
        precision = 1 / space.spread + count
        own = log_density(z, count * space.means[number] / precision, 1 + 1 / precision)
        expected = own - log_density(z, 0, 1 + space.spread)
        np.testing.assert_allclose(space.look(X, counts)[0][:, number], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("n_classes", "n_axes"), [(2, 1), (7, 6), (80, MOST_AXES)], ids=["two classes", "a few", "more than are kept"]
)
def test_axes_are_few(n_classes, n_axes):
    X, y = drawn(n_classes, 3, 120)
    space = fit_space(X, y, n_classes)
    assert space.axes.shape == (120, n_axes)
    assert space.means.shape == (n_classes, n_axes)
    assert all(np.isfinite(getattr(space, name)).all() for name in ("centre", "axes", "means", "spread"))
    assert (space.nuisances.shape, space.usual.shape) == ((120, NUISANCES), (n_classes, NUISANCES))


@pytest.mark.parametrize(
    "X",
    [np.ones((8, 5)), np.zeros((8, 5)), np.eye(2, 5).repeat(4, axis=0), np.eye(8, 5)],
    ids=["all the same", "all zero", "classes without spread", "nothing but spread"],
)
def test_degenerate_features_give_finite_answers(X):
    space = fit_space(X.astype(np.float32), np.repeat([0, 1], 4), 2)
    assert all(np.isfinite(found).all() for found in space.look(X, np.array([4, 4])))


def test_one_image_of_each_class():
    space = fit_space(np.eye(4, dtype=np.float32), np.arange(4), 4)
    assert all(np.isfinite(found).all() for found in space.look(np.eye(4), np.ones(4, int)))


def test_powers_keep_signs_and_scale_does_not_matter():
    X = np.array([[4, -9, 0, 1]], np.float32)
    np.testing.assert_allclose(powered(X.copy()), np.array([[2, -3, 0, 1]]) / np.sqrt(14), rtol=1e-6)
    np.testing.assert_allclose(powered(7 * X), powered(X.copy()), rtol=1e-6)


def test_the_nuisance_is_what_varies_within_classes_not_between():
    rng = RNG(0)
    X, y = drawn(6, 40, 60)
    clutter = rng.normal(size=60)
    X = np.abs(X + rng.normal(0, 12, (len(X), 1)) * clutter).astype(np.float32)  # as after a rectifier
    space = fit_space(X.copy(), y, 6)
    rows = powered(X.copy())
    within = rows - np.stack([rows[y == number].mean(axis=0) for number in range(6)])[y]
    variances = np.linalg.svd(within)[1][:NUISANCES] ** 2
    np.testing.assert_allclose(space.nuisances.T @ space.nuisances, np.eye(NUISANCES), atol=1e-5)
    assert ((within @ space.nuisances) ** 2).sum() == pytest.approx(variances.sum(), rel=0.05)
    ratios, nuisance = space.look(X, np.bincount(y))
    centres = np.stack([rows[y == number].mean(axis=0) for number in range(6)])[ratios.argmax(axis=1)]
    np.testing.assert_allclose(nuisance, (((rows - centres) @ space.nuisances) ** 2).sum(axis=1), rtol=1e-3)


def test_scores_are_log_odds_the_likeliest_class_and_the_nuisance():
    shares = np.array([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]])
    found = scores(shares, np.array([[1.0, 2], [5, 3], [-2, -1]]), np.array([7.0, 8, 9]))
    np.testing.assert_allclose(found[0], [np.log(4), np.log((1 - 1e-6) / 1e-6), 0])
    assert found[1:].tolist() == [[2, 5, -1], [7, 8, 9]]


def test_numbers_that_overflow_are_not_certain():
    found = certain((0.0, 1.0, 1.0, 0.0), np.array([[np.inf, 0], [-np.inf, 1e300], [0, 0]]))
    assert found.tolist() == [0, 1]
    assert certain((0.0, 1e308, 1e308, 0.0), np.full((3, 1), 1e300)).tolist() == [0]


def test_certainty_does_not_depend_on_company():
    X, y = drawn(4, 20, 30)
    familiarity = Familiarity((0.5, 1.0, 0.2, 1.0), (View((fit_space(X.copy(), y, 4),), np.bincount(y)),))
    shares = RNG(0).dirichlet(np.ones(4), len(X))
    together = familiarity.certainty(shares, [X])
    alone = [familiarity.certainty(shares[[row]], [X[[row]]])[0] for row in range(5)]
    np.testing.assert_allclose(together[:5], alone, rtol=1e-9)


def test_certainty_comes_from_the_mean_over_the_views():
    X, y = drawn(4, 20, 30)
    shares, half = RNG(0).dirichlet(np.ones(4), len(X)), np.arange(len(y)) % 2 == 0
    views = [View((fit_space(X[part].copy(), y[part], 4),), np.bincount(y[part])) for part in (half, ~half)]
    weights = (0.5, 1.0, 0.2, 1.0)
    own = [view.scores(shares, [X]) for view in views]
    found = Familiarity(weights, tuple(views)).certainty(shares, [X])
    np.testing.assert_allclose(found, certain(weights, (own[0] + own[1]) / 2))
    assert np.abs(own[0][1] - own[1][1]).max() > 1


def test_labels_below_the_threshold_are_unknown():
    shares, certainty = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0.3, 0.7])
    classes = np.array(["a", "b"])
    assert labels(classes, shares, certainty, 0.5).tolist() == [UNKNOWN, "b"]
    assert labels(classes, shares, certainty, 0.7).tolist() == [UNKNOWN, "b"]  # not below
    assert labels(classes, shares, None, None).tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("classes", "reject", "message"),
    [
        (["a", "b"], 1.5, "reject: 1.5 is not a probability; a number from 0 to 1 is allowed"),
        (["a", "b"], float("nan"), "reject: nan is not a probability"),
        (["a", "unknown"], 0.5, "has a class 'unknown'.*another name"),
        (None, 0.5, "could not reject yet; run `stackcls fit` again"),
    ],
)
def test_what_cannot_be_rejected_by(classes, reject, message):
    familiarity = None if classes is None else Familiarity((0.0, 1.0, 1.0, 0.0), (View((), np.ones(2, int)),))
    with pytest.raises(ValueError, match=message):
        check(familiarity, np.array(classes or ["a", "b"]), reject)
    if classes is None:
        for older in (None, Familiarity((0.0, 1.0, 1.0, 0.0))):
            with pytest.raises(ValueError, match="fit` again"):
                needed(older)
