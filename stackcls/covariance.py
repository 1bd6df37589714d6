"""Covariance pooling: how the local descriptors of a feature map vary together, as features.

The descriptors are projected on their leading principal components, since a covariance has as many numbers as pairs of
them. Of the covariance over positions the matrix square root is kept, its upper triangle, scaled to one length.

References
----------
Lin, RoyChowdhury, Maji: Bilinear CNN Models for Fine-grained Visual Recognition, ICCV 2015.
Li, Xie, Wang, Zuo: Is Second-order Information Helpful for Large-scale Visual Recognition? ICCV 2017 (MPN-COV).
Li, Xie, Wang, Gao: Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square Root
Normalization, CVPR 2018 (iSQRT-COV).
"""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from stackcls.bases import COMPONENTS, Basis
from stackcls.errors import ConfigError, EngineError

MOST = 96  # components
FEWEST = 2  # positions
# Features of this length under C = 1 are the same model as features of length 1 under C = 100, which is what
# covariances want (docs/performance.md); so `stack.base.C` means the same for every kind of matrix.
LENGTH = 10.0

Floats = NDArray[np.float32]


class Fit:
    """Finds the leading principal components of local descriptors, map by map.

    Parameters
    ----------
    name : str
        The backbone's, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._count, self._total, self._products = 0, np.zeros(1), np.zeros((1, 1))

    def add(self, maps: Floats) -> None:
        """Take feature maps, shape (n, height, width, channels); raise `ConfigError` where they have no positions."""
        if maps.ndim != 4 or maps.shape[1] * maps.shape[2] < FEWEST:
            what = "one position" if maps.ndim == 4 else "no positions"
            raise ConfigError(
                f"features.backbones: {self._name!r} gives features of {what}, so that there is no covariance over "
                "them; set its `pooling` to average, or name a `layer` that gives a larger feature map"
            )
        rows = maps.reshape(-1, maps.shape[-1]).astype(np.float64)
        with _one_thread().limit(limits=1, user_api="blas"), np.errstate(invalid="ignore"):  # `basis` looks
            self._count += len(rows)
            self._total = self._total + rows.sum(axis=0)
            self._products = self._products + rows.T @ rows

    def basis(self) -> Basis:
        """What was found, of kind `principal-components`; raise `EngineError` where a map was not finite."""
        channels = len(self._total)
        kept = min(MOST, channels)
        with np.errstate(invalid="ignore", over="ignore"):
            spread = self._products / self._count - np.outer(self._total, self._total) / self._count**2
        if not np.isfinite(spread).all():
            raise EngineError(
                f"{self._name!r} gives NaN or infinite numbers for some images, of which no principal components can "
                "be fitted: check its weights and its `preprocessing`, or set features.precision to float32"
            )
        with _one_thread().limit(limits=1, user_api="blas"):
            vectors = np.linalg.eigh(spread).eigenvectors[:, ::-1][:, :kept]
        # A component's sign is arbitrary, and must not hang on the library.
        vectors = vectors * np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(kept)] < 0, -1.0, 1.0)
        layout = json.dumps({"channels": channels, "components": kept, "length": LENGTH}, sort_keys=True)
        return Basis(COMPONENTS, layout, vectors.astype(np.float32).ravel())


def components(basis: Basis) -> Floats:
    """Components as columns, shape (channels, components); raise `ValueError` where the basis is not of this kind."""
    said: Any = json.loads(basis.layout)
    known = {"channels", "components", "length"}
    if not isinstance(said, dict) or said.keys() - {"sample"} != known or said["length"] != LENGTH:
        raise ValueError("its principal components are not as stackcls writes them")
    shape = said["channels"], said["components"]
    if not all(type(size) is int and size > 0 for size in shape) or shape[1] > min(MOST, shape[0]):
        raise ValueError(f"its principal components are said to be of shape {shape}")
    if len(basis.values) != shape[0] * shape[1]:
        raise ValueError(f"its principal components have {len(basis.values)} numbers, not {shape[0]} times {shape[1]}")
    return basis.values.reshape(shape)


def width(kept: int) -> int:
    """Number of features that so many components give."""
    return kept * (kept + 1) // 2


def pool(outputs: Sequence[Floats], onto: Floats, name: str) -> Floats:
    """Turn feature maps into features.

    Parameters
    ----------
    outputs : sequence of ndarray of float32, shape (n, height, width, channels)
        Of several views of the same images; the covariance is over the positions of all of them.
    onto : ndarray of float32, shape (channels, components)
    name : str
        The backbone's, for messages.

    Returns
    -------
    ndarray of float32, shape (n, components * (components + 1) / 2)
        A row of NaN for an image of which a map has NaN or infinite numbers, as its average would be.
    """
    if outputs[0].ndim != 4 or outputs[0].shape[-1] != len(onto):
        raise EngineError(
            f"{name!r} gives {outputs[0].shape[1:]}, and its principal components are of {len(onto)} channels; fit new "
            "ones with `stackcls features --refit`"
        )
    kept = onto.shape[1]
    rows, columns = np.triu_indices(kept)
    # Off the diagonal every number stands for two: products of features are then those of the whole matrices.
    weight = np.where(rows == columns, 1.0, np.sqrt(2.0))
    # One thread: products of small matrices are no faster with more, and always sum in the same order.
    with _one_thread().limit(limits=1, user_api="blas"), np.errstate(invalid="ignore", over="ignore"):
        local = [maps.reshape(len(maps), -1, len(onto)) @ onto for maps in outputs]
        descriptors = np.concatenate(local, axis=1).astype(np.float64)
        descriptors -= descriptors.mean(axis=1, keepdims=True)
        bad = ~np.isfinite(descriptors).all(axis=(1, 2))
        descriptors[bad] = 0.0  # of these there are no eigenvalues, and the others' are wanted
        values, vectors = np.linalg.eigh(descriptors.transpose(0, 2, 1) @ descriptors)
        spread = vectors * np.sqrt(np.sqrt(np.maximum(values, 0.0)))[:, None]
        found = (spread @ spread.transpose(0, 2, 1))[:, rows, columns] * weight
    lengths: NDArray[np.float64] = np.linalg.norm(found, axis=1, keepdims=True)
    found *= LENGTH / np.where(lengths > 0, lengths, 1.0)  # an image of one colour has no covariance
    found[bad] = np.nan
    features: Floats = found.astype(np.float32)
    return features


@cache
def _one_thread() -> ThreadpoolController:
    """NumPy's linear algebra on one thread, which sums in the same order at every run; looking for it takes a while."""
    return ThreadpoolController()
