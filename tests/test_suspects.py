"""Labels that look wrong: found where they are, none where there are none, and counted as the paper counts."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from stackcls.inspect import neighbours, suspects


def blobs(n_classes=5, per_class=40, spread=1.0, seed=0):
    """Features of classes that overlap a little, and their labels."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((n_classes, 12))
    y = np.repeat(np.arange(n_classes), per_class)
    return centres[y] + spread * rng.standard_normal((len(y), 12)), y


def flipped(y, n_classes, share=0.05, seed=0):
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(y), round(share * len(y)), replace=False)
    given = y.copy()
    given[wrong] = (given[wrong] + rng.integers(1, n_classes, len(wrong))) % n_classes
    return given, set(wrong.tolist())


def out_of_fold(X, y):
    return cross_val_predict(LogisticRegression(max_iter=1000), X, y, cv=3, method="predict_proba")


def test_flipped_labels_come_first_and_are_counted():
    X, y = blobs()
    given, wrong = flipped(y, 5)
    ranked = suspects.rank(out_of_fold(X, given), given)
    first = ranked.rows[: len(wrong)].tolist()
    assert len(wrong.intersection(first)) >= 9
    assert abs(ranked.flagged - len(wrong)) <= 2
    found = [row for row in range(len(wrong)) if first[row] in wrong]
    assert (ranked.suggested[found] == y[ranked.rows[found]]).all()


def test_where_no_label_is_wrong_none_is_flagged():
    X, y = blobs(spread=0.5)
    ranked = suspects.rank(out_of_fold(X, y), y)
    assert ranked.flagged == 0
    assert len(ranked.rows) == suspects.LISTED


def test_the_count_by_hand():
    shares = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.75, 0.25], [0.1, 0.9], [0.3, 0.7]])
    given = np.array([0, 0, 0, 1, 1, 1])
    # Mean own probabilities are 0.6 and 0.617: the third row is surely of class 1, the fourth surely of class 0.
    ranked = suspects.rank(shares, given)
    assert ranked.flagged == 2
    assert ranked.rows.tolist() == [2, 3, 1, 5, 0, 4]
    np.testing.assert_array_equal(ranked.suggested, 1 - given[ranked.rows])
    np.testing.assert_allclose(ranked.given_probability, [0.2, 0.25, 0.7, 0.7, 0.9, 0.9])
    np.testing.assert_allclose(ranked.suggested_probability, 1 - ranked.given_probability)


def test_a_row_that_is_like_no_class_is_not_flagged():
    shares = np.array([[0.9, 0.05, 0.05]] * 3 + [[0.05, 0.9, 0.05]] * 3 + [[0.05, 0.05, 0.9]] * 2 + [[0.4, 0.35, 0.25]])
    assert suspects.rank(shares, np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])).flagged == 0


def test_all_that_is_flagged_is_listed_though_others_are_less_probable():
    shares = np.array([[0.95, 0.03, 0.02]] * 60 + [[0.3, 0.4, 0.3]] * 60 + [[0.05, 0.05, 0.9]] * 60)
    shares = np.concatenate([shares, [[0.5, 0.45, 0.05]] * 5])
    given = np.repeat([0, 1, 2, 0], [60, 60, 60, 5])
    ranked = suspects.rank(shares, given)
    # The last five are surely of the second class; the sixty of that class are less probable, and like no other.
    assert ranked.flagged == 5
    assert ranked.rows[ranked.wrong].tolist() == [180, 181, 182, 183, 184]
    assert set(given[ranked.rows[~ranked.wrong]]) == {1}
    assert len(ranked.rows) == suspects.LISTED + 5
    assert (np.diff(ranked.given_probability) >= 0).all()


def test_the_least_probable_of_a_class_are_flagged():
    shares = np.array([[0.9, 0.1]] * 5 + [[0.25, 0.75], [0.2, 0.8]] + [[0.1, 0.9]] * 3)
    given = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    # Only the last of the first class is surely of the second, for one of its rows there lacks a little.
    shares[7:] = [[0.24, 0.76], [0.2, 0.8], [0.16, 0.84]]
    ranked = suspects.rank(shares, given)
    assert ranked.rows[ranked.wrong].tolist() == [6]


def test_one_in_ten_is_listed_at_least():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(3), 295)
    given = shares.argmax(axis=1)
    assert len(suspects.rank(shares, given).rows) == 30
    few = suspects.rank(shares[:5], np.array([0, 1, 2, 0, 1]))
    assert sorted(few.rows.tolist()) == list(range(5))


def slow_neighbours(shares, given, unit, groups):
    found = np.empty_like(shares)
    for row in range(len(shares)):
        others = [other for other in range(len(shares)) if groups[other] != groups[row]]
        others.sort(key=lambda other: -float(unit[row] @ unit[other]))
        counts = np.full(shares.shape[1], 1 / shares.shape[1])
        for other in others[: suspects.NEIGHBOURS]:
            counts[given[other]] += shares[other, given[other]]
        product = shares[row] * counts
        found[row] = product / product.sum()
    return found


@pytest.mark.parametrize("grouped", [False, True])
def test_neighbours_vote_as_the_definition_reads(grouped, monkeypatch):
    monkeypatch.setattr(suspects, "ROWS", 7)
    X, y = blobs(per_class=8)
    unit = neighbours.unit([X[:, :5], X[:, 5:]])
    shares = np.random.default_rng(0).dirichlet(np.ones(5), len(y))
    groups = np.arange(len(y)) // 4 if grouped else np.arange(len(y))
    found = suspects.with_neighbours(shares, y, unit, groups if grouped else None)
    np.testing.assert_allclose(found, slow_neighbours(shares, y, unit, groups), rtol=1e-6)


def test_fewer_images_than_neighbours():
    shares = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    unit = np.eye(3, dtype=np.float32)
    found = suspects.with_neighbours(shares, np.array([0, 0, 1]), unit)
    np.testing.assert_allclose(found[2], np.array([0.3 * (0.5 + 1.4), 0.7 * 0.5]) / (0.3 * 1.9 + 0.35))
    alone = suspects.with_neighbours(shares, np.array([0, 0, 1]), unit, np.zeros(3, np.int64))
    np.testing.assert_allclose(alone, shares)


def test_neighbours_help_where_the_learner_errs():
    X, y = blobs(spread=1.6, per_class=60)
    precision = []
    for seed in range(5):
        given, wrong = flipped(y, 5, 0.1, seed)
        shares = out_of_fold(X, given)
        both = suspects.with_neighbours(shares, given, neighbours.unit([X - X.mean(axis=0)]))
        precision.append([len(wrong.intersection(suspects.rank(p, given).rows[: len(wrong)])) for p in (shares, both)])
    alone, together = np.sum(precision, axis=0)
    assert together > 1.05 * alone


def test_the_mean_of_learners():
    one, other = np.array([[1, 0]], np.float32), np.array([[0.5, 0.5]], np.float32)
    np.testing.assert_array_equal(suspects.mean([one, other]), [[0.75, 0.25]])
    np.testing.assert_array_equal(one, [[1, 0]])
