"""Duplicates: copies are found and little else, whatever the file is cut into, and however alike all images are."""

import numpy as np
import pytest

from stackcls.inspect import duplicates, neighbours


def cloud(count, dimensions, seed=0, width=60):
    """Points that spread in so many dimensions of a wider space, off the origin."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dimensions)) @ rng.normal(size=(dimensions, width)) / dimensions + 3


def find(matrix, sha256=None, size=1000):
    unit = neighbours.unit([matrix])
    hashes = sha256 or [f"{row:064x}" for row in range(len(matrix))]
    return duplicates.find(hashes, [(start, unit[start : start + size]) for start in range(0, len(unit), size)])


def pairs(found):
    return {
        (one, other)
        for one in range(len(found.group))
        for other in range(one + 1, len(found.group))
        if found.group[one] == found.group[other]
    }


@pytest.mark.parametrize("dimensions", [3, 6, 12, 25])
def test_copies_are_found_and_next_to_nothing_else(dimensions):
    rng = np.random.default_rng(1)
    matrix = cloud(800, dimensions)
    noise = rng.normal(size=(20, 60)) * np.linalg.norm(matrix - matrix.mean(axis=0), axis=1).mean() / 60**0.5 / 100
    found = find(np.vstack([matrix, matrix[:20] + noise]))
    expected = {(row, 800 + row) for row in range(20)}
    assert len(pairs(found) & expected) >= 19
    assert len(pairs(found) - expected) <= 4
    assert found.similarity[found.similarity > 0].min() >= found.threshold


def test_without_copies_chance_pairs_are_as_rare_as_stated():
    counts = [duplicates.count_pairs(find(cloud(1000, 8, seed)).group) for seed in range(8)]
    assert sum(counts) <= 3 * 8 * 1000 * duplicates.CHANCE


def test_the_scale_of_the_features_does_not_matter():
    matrix = np.vstack([cloud(300, 8), cloud(300, 8)[:9] * (1 + 1e-5)])
    assert pairs(find(matrix)) == pairs(find(1000 * matrix))


def test_any_pieces_give_the_same():
    matrix = cloud(300, 8, width=600)
    matrix[40] = matrix[7]
    whole, cut = find(matrix), find(matrix, size=7)
    assert (7, 40) in pairs(whole)
    assert pairs(cut) == pairs(whole)
    np.testing.assert_allclose(cut.similarity, whole.similarity, atol=1e-5)


def test_more_copies_of_one_image_than_neighbours_are_compared_with():
    rng = np.random.default_rng(0)
    matrix = cloud(400, 12)
    frames = matrix[5] + rng.normal(size=(30, 60)) * matrix.std() / 300
    found = find(np.vstack([matrix, frames]))
    assert len(set(found.group[[5, *range(400, 430)]])) == 1


def test_the_same_bytes_are_exact_whatever_the_features():
    matrix, hashes = cloud(60, 8), [f"{row:064x}" for row in range(60)]
    hashes[50] = hashes[51] = hashes[3]
    found = find(matrix, hashes)
    assert {(3, 50), (3, 51), (50, 51)} <= pairs(found)
    np.testing.assert_array_equal(found.similarity[[3, 50, 51]], 1)
    alone = duplicates.find(hashes, None)
    assert pairs(alone) == {(3, 50), (3, 51), (50, 51)}
    assert alone.threshold == 1
    assert alone.similarity.sum() == 3


def test_a_copy_of_a_copy_is_in_the_group():
    matrix, hashes = cloud(300, 8), [f"{row:064x}" for row in range(300)]
    matrix[100] = matrix[9]
    hashes[200] = hashes[100]
    assert {(9, 100), (9, 200), (100, 200)} <= pairs(find(matrix, hashes))


@pytest.mark.parametrize("matrix", [np.zeros((50, 6)), np.ones((50, 6)), np.eye(50)])
def test_images_that_are_all_alike_or_all_unlike_break_nothing(matrix):
    found = find(matrix)
    assert np.isfinite(found.similarity).all()
    assert len(set(found.group.tolist())) in (1, 50)


def test_few_images_tell_nothing_of_each_other():
    found = find(np.ones((20, 6)))
    assert (pairs(found), found.threshold) == (set(), 1)


def test_pairs_are_counted_as_if_listed():
    rng = np.random.default_rng(0)
    group, label = rng.integers(0, 9, 50), rng.integers(0, 3, 50)
    same = [(i, j) for i in range(50) for j in range(i) if group[i] == group[j]]
    assert duplicates.count_pairs(group) == len(same)
    assert duplicates.count_pairs(group, label) == sum(label[i] == label[j] for i, j in same)


def test_rows_can_be_taken():
    matrix = cloud(300, 8)
    matrix[40] = matrix[7]
    found = find(matrix).take(np.array([7, 8, 40]))
    assert pairs(found) == {(0, 2)}
    assert found.similarity[1] == 0


def test_rows_that_are_taken_know_nothing_of_the_others():
    rng = np.random.default_rng(3)
    matrix, hashes = cloud(300, 8), [f"{row:064x}" for row in range(300)]
    matrix[40] = matrix[7] + 1e-3 * rng.normal(size=60)
    hashes[41], matrix[41] = hashes[40], matrix[40]
    whole = find(matrix, hashes)
    assert {(7, 40), (7, 41), (40, 41)} <= pairs(whole)
    assert whole.threshold < whole.similarity[7] < 1 == whole.similarity[40]
    # Without its exact copy the image is a near one, and is as similar as that one is.
    near = whole.take(np.array([7, 40]))
    assert pairs(near) == {(0, 1)}
    np.testing.assert_array_equal(near.similarity, whole.similarity[7])
    # A group that is one by way of an image that is not taken falls apart.
    links = (np.array([0, 1]), np.array([1, 2]), np.array([0.9, 0.8]))
    chain = duplicates.Found(np.arange(3), np.zeros(3, np.int64), np.array([0.9, 0.9, 0.8]), 0.7, links)
    assert pairs(chain.take(np.array([1, 2]))) == {(0, 1)}
    np.testing.assert_array_equal(chain.take(np.array([1, 2])).similarity, 0.8)
    apart = chain.take(np.array([0, 2]))
    assert pairs(apart) == set()
    np.testing.assert_array_equal(apart.similarity, 0)
