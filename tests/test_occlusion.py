"""Maps from covered pictures: every place counts alike, what matters is found, and the deletion score says how well."""

import numpy as np
import pytest

from stackcls.inspect import attribution, occlusion
from stackcls.inspect.occlusion import CELLS, SIDE, STEPS


@pytest.mark.parametrize("parts", occlusion.WINDOWS)
def test_every_place_is_covered_equally_often(parts):
    masks = occlusion.windows([parts])
    assert masks.shape == ((2 * parts + 1) ** 2, SIDE, SIDE)
    covered = (1 - masks).sum(axis=0)
    assert covered.min() == covered.max() == 4
    assert (1 - masks).sum(axis=(1, 2)).max() <= (SIDE / parts + 1) ** 2


def test_what_matters_is_found():
    masks = occlusion.windows()
    here = np.zeros((SIDE, SIDE), bool)
    here[44:50, 8:14] = True
    falls = np.array([(1 - mask)[here].mean() for mask in masks])
    found = occlusion.importance(masks, falls)
    y, x = np.unravel_index(found.argmax(), found.shape)
    assert here[y, x]
    assert found[here].mean() > 2 * found[~here].mean()
    assert found[:20, 40:].max() == 0


def test_a_place_that_speaks_against_is_negative():
    masks = occlusion.windows()
    falls = np.array([-(1 - mask[:10, :10]).mean() for mask in masks])
    found = occlusion.importance(masks, falls)
    assert found[:10, :10].max() < 0
    assert found[40:, 40:].min() == found[40:, 40:].max() == 0


def test_pieces_go_in_order_of_importance_until_nothing_is_left():
    ramp = np.tile(np.arange(SIDE, dtype=np.float32), (SIDE, 1))
    masks = occlusion.removals(ramp)
    assert masks.shape == (STEPS + 1, SIDE, SIDE)
    assert masks[0].min() == 1
    assert masks[-1].max() == 0
    half = masks[STEPS // 2]
    assert half[:, : SIDE // 2 - SIDE // CELLS].min() == 1
    assert half[:, SIDE // 2 + SIDE // CELLS :].max() == 0
    assert (np.diff(masks, axis=0) <= 0).all(), "what is gone stays gone"
    np.testing.assert_allclose(masks.mean(axis=(1, 2)), np.linspace(1, 0, STEPS + 1), atol=0.5 / CELLS**2)


def test_random_orders_take_as_much_away_and_are_seeded():
    first, again, other = (occlusion.random_removals(seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_allclose(first.mean(axis=(1, 2)), np.linspace(1, 0, STEPS + 1), atol=0.5 / CELLS**2)


def test_the_deletion_score_is_an_area():
    assert occlusion.deletion(np.ones(STEPS + 1)) == pytest.approx(1)
    assert occlusion.deletion(np.linspace(1, 0, STEPS + 1)) == pytest.approx(0.5)
    assert occlusion.deletion(np.eye(STEPS + 1)[0]) == pytest.approx(0.5 / STEPS)


def softmax(scores):
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


@pytest.mark.parametrize("number", [0, 2])
def test_the_direction_is_that_of_the_gradient_of_the_probability(number):
    rng = np.random.default_rng(0)
    coefficients, features = rng.normal(size=(4, 6)), rng.normal(size=6)
    step = 1e-6
    numeric = [
        (softmax(coefficients @ (features + step * unit))[number] - softmax(coefficients @ features)[number]) / step
        for unit in np.eye(6)
    ]
    found = attribution.direction(coefficients, softmax(coefficients @ features), number)
    np.testing.assert_allclose(found / np.linalg.norm(found), numeric / np.linalg.norm(numeric), atol=1e-4)


def test_the_direction_of_two_classes_and_of_a_class_that_is_certain():
    coefficients = np.array([[1.0, -2.0]])
    np.testing.assert_array_equal(attribution.direction(coefficients, np.array([0.3, 0.7]), 1), [2, -4])
    np.testing.assert_array_equal(attribution.direction(coefficients, np.array([0.3, 0.7]), 0), [-2, 4])
    found = attribution.direction(np.eye(3), np.array([0.0, 1.0, 0.0]), 1)
    np.testing.assert_allclose(found, [-0.5, 1, -0.5])


def test_averaged_maps_count_by_what_their_networks_say_and_empty_ones_do_no_harm():
    one, large = np.array([[1, 0]], np.float32), np.array([[0, 1000]], np.float32)
    np.testing.assert_allclose(attribution.average([one, large], [0.4, 0.4]), [[1, 1]])
    np.testing.assert_allclose(attribution.average([one, large], [0.9, 0.1]), [[1.8, 0.2]])
    np.testing.assert_allclose(attribution.average([one, np.zeros_like(one)], [0.5, 0.5]), [[1, 0]])
    assert np.isfinite(attribution.average([one, large], [0, 0])).all()
    assert attribution.enlarge(np.eye(3, dtype=np.float32), 60).shape == (60, 60)
