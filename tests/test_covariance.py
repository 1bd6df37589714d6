"""Covariance pooling: against its definition, whatever the batch, the views and the shape of the maps."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg

from stackcls import covariance
from stackcls.bases import Basis, joined, needed
from stackcls.errors import ConfigError, EngineError


def maps(count=5, side=4, channels=10, seed=0):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(channels, channels))
    return (rng.normal(size=(count, side, side, channels)) @ mixed).astype(np.float32)


def fitted(*parts):
    fit = covariance.Fit("b")
    for part in parts:
        fit.add(part)
    return fit.basis()


def by_definition(one, onto):
    """Features of a single map, step by step with scipy."""
    descriptors = one.reshape(-1, one.shape[-1]).astype(np.float64) @ onto
    root = scipy.linalg.sqrtm(np.cov(descriptors.T, bias=True)).real
    whole = root[np.triu_indices(len(root))] * np.where(np.eye(len(root)), 1, np.sqrt(2))[np.triu_indices(len(root))]
    return covariance.LENGTH * whole / np.linalg.norm(whole)


def test_the_basis_is_the_principal_components_of_all_descriptors():
    sample, more = maps(), maps(3, seed=1)
    basis = fitted(sample, more)
    onto = covariance.components(basis)
    assert (basis.kind, onto.shape) == ("principal-components", (10, 10))
    descriptors = np.concatenate([sample.reshape(-1, 10), more.reshape(-1, 10)]).astype(np.float64)
    values, _ = np.linalg.eigh(np.cov(descriptors.T))
    projected = descriptors @ onto
    assert np.allclose(np.cov(projected.T), np.diag(values[::-1]), atol=1e-4 * values.max())


def test_only_the_leading_components_are_kept(monkeypatch):
    whole = covariance.components(fitted(maps()))
    monkeypatch.setattr(covariance, "MOST", 4)
    assert np.allclose(covariance.components(fitted(maps())), whole[:, :4], atol=1e-5)


def test_the_same_maps_give_the_same_basis_to_the_bit():
    sample = maps(20, side=7, channels=512)
    assert len({fitted(sample).digest for _ in range(4)}) == 1


def test_features_are_the_root_of_the_covariance():
    onto = covariance.components(fitted(maps()))
    features = covariance.pool([maps()], onto, "b")
    assert features.dtype == np.float32
    assert features.shape == (5, covariance.width(10))
    for row, one in zip(features, maps(), strict=True):
        assert np.allclose(row, by_definition(one, onto), atol=1e-4)


def test_products_of_features_are_those_of_whole_matrices():
    onto = covariance.components(fitted(maps()))
    first, second = covariance.pool([maps(2)], onto, "b")
    roots = [scipy.linalg.sqrtm(np.cov((one.reshape(-1, 10) @ onto).T)).real for one in maps(2)]
    roots = [root / np.linalg.norm(root) for root in roots]
    assert first @ second == pytest.approx(covariance.LENGTH**2 * (roots[0] * roots[1]).sum(), rel=1e-4)


def test_a_row_does_not_depend_on_the_batch_to_the_bit():
    many = maps(16, side=7, channels=64)
    onto = covariance.components(fitted(many))
    whole = covariance.pool([many, many[:, ::-1]], onto, "b")
    for size in (1, 2, 5):
        parts = [
            covariance.pool([many[at : at + size], many[at : at + size, ::-1]], onto, "b") for at in range(0, 16, size)
        ]
        assert np.array_equal(np.concatenate(parts), whole)


def test_views_count_as_more_positions_of_one_covariance():
    onto = covariance.components(fitted(maps()))
    both = covariance.pool([maps(), maps(seed=1)], onto, "b")
    assert np.allclose(both, covariance.pool([np.concatenate([maps(), maps(seed=1)], axis=1)], onto, "b"), atol=1e-5)
    assert not np.allclose(both, covariance.pool([maps()], onto, "b"), atol=1e-2)


def test_fewer_positions_than_components_and_maps_of_one_colour_are_finite():
    few = maps(4, side=2, channels=50)
    onto = covariance.components(fitted(few))
    features = covariance.pool([few], onto, "b")
    assert np.allclose(np.linalg.norm(features, axis=1), covariance.LENGTH, rtol=1e-5)
    assert np.isfinite(features).all()
    assert not covariance.pool([np.ones((1, 2, 2, 50), np.float32)], onto, "b").any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_an_image_whose_map_is_not_finite_gets_no_features_and_the_others_theirs(value):
    onto, whole, some = covariance.components(fitted(maps())), maps(), maps()
    some[2, 1, 3, 4:8] = value
    found = covariance.pool([some], onto, "b")
    assert np.isnan(found[2]).all()
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(found[others], covariance.pool([whole], onto, "b")[others])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_components_of_maps_that_are_not_finite(value):
    some = maps()
    some[2, 1, 3, 4] = value
    with pytest.raises(EngineError, match=r"'b' gives NaN or infinite numbers for some images.*`preprocessing`"):
        fitted(maps(), some)


@pytest.mark.parametrize("shape", [(3, 8), (3, 1, 1, 8)])
def test_what_has_no_positions_is_refused(shape):
    with pytest.raises(
        ConfigError, match=r"'b' gives features of (no positions|one position), .* `pooling` to average"
    ):
        covariance.Fit("b").add(np.ones(shape, np.float32))


def test_maps_of_another_network_are_refused():
    onto = covariance.components(fitted(maps()))
    with pytest.raises(EngineError, match=r"'b' gives \(4, 4, 9\), and its principal components are of 10 channels"):
        covariance.pool([maps(channels=9)], onto, "b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.ones(99, np.float32)}, "99 numbers, not 10 times 10"),
        ({"layout": "[]"}, "not as stackcls writes them"),
        ({"layout": '{"channels": 10, "components": 11, "length": 10.0}'}, r"shape \(10, 11\)"),
        ({"layout": '{"channels": 10, "components": true, "length": 10.0}'}, r"shape \(10, True\)"),
        ({"layout": '{"channels": 10, "components": 10, "length": 1.0}'}, "not as stackcls writes them"),
        ({"layout": "{"}, "Expecting"),
    ],
)
def test_a_basis_that_no_fit_gives_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        covariance.components(dataclasses.replace(fitted(maps()), **change))


def test_two_bases_are_one_and_can_be_told_apart():
    ranges, found = Basis("int8-ranges", "{}", np.ones(3, np.float32)), fitted(maps())
    both = joined([ranges, found])
    assert (both.kind, both.words) == ("int8-ranges+principal-components", "8-bit ranges and principal components")
    assert (both.part("int8-ranges").digest, both.part("principal-components").digest) == (ranges.digest, found.digest)
    assert joined([found]) is found
    assert found.part("int8-ranges") is None
    assert both.digest not in (ranges.digest, found.digest)


@pytest.mark.parametrize(
    ("precision", "pooling", "kinds"),
    [
        ("float32", "max", ()),
        ("bfloat16", "covariance", ("principal-components",)),
        ("int8", "average", ("int8-ranges",)),
        ("int8", "covariance", ("int8-ranges", "principal-components")),
    ],
)
def test_precision_and_pooling_say_which_bases_are_needed(precision, pooling, kinds):
    assert needed(precision, pooling) == kinds
