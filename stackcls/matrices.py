"""How a network's outputs become the rows of a feature matrix: over the positions of a feature map, and over views."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackcls import covariance
from stackcls.backbones import PLAIN, Located
from stackcls.bases import COMPONENTS
from stackcls.engines import Extractor
from stackcls.errors import EngineError
from stackcls.settings import VIEWS

Features = NDArray[np.float32]
Pool = Callable[[Sequence[Features]], Features]


@dataclass(frozen=True, eq=False)
class Matrix:
    """What one feature matrix is made by.

    Attributes
    ----------
    network : Extractor
        Several matrices may share one.
    views : tuple of str
        What the network is shown of each image.
    pool : callable
        From the network's outputs, one array per view, to features, shape (n, width). A row depends on its own image
        alone, and not on how many others there are.
    """

    network: Extractor
    views: tuple[str, ...]
    pool: Pool


def matrix(located: Located, network: Extractor) -> Matrix:
    """Return the matrix of one backbone, by its views and pooling, on a network that was prepared for it."""
    return Matrix(network, located.backbone.views, pool_of(located))


def bare(network: Extractor) -> Matrix:
    """What a network gives for images as they are, not pooled."""
    return Matrix(network, VIEWS[:1], lambda outputs: outputs[0])


def pool_of(located: Located) -> Pool:
    """How one backbone's outputs become features; raise `EngineError` where the basis for that is missing."""
    pooling = located.backbone.pooling
    if pooling != "covariance":
        return lambda outputs: _mean([_pooled(output, pooling) for output in outputs])
    basis = located.basis.part(COMPONENTS) if located.basis else None
    if basis is None:
        raise EngineError(f"{located.backbone.name!r}: covariance needs principal components, and there are none")
    components = covariance.components(basis)
    return lambda outputs: covariance.pool(outputs, components, located.backbone.name)


def _pooled(output: Features, pooling: str) -> Features:
    """Average or largest over positions; what has no positions is features already."""
    if output.ndim == 2:
        return output
    positions = output.reshape(len(output), -1, output.shape[-1])
    found: Features = (
        positions.mean(axis=1, dtype=np.float64).astype(np.float32) if pooling == PLAIN else positions.max(axis=1)
    )
    return found


def _mean(views: Sequence[Features]) -> Features:
    if len(views) == 1:
        return views[0]
    return np.asarray(np.mean(np.stack(views), axis=0, dtype=np.float64), dtype=np.float32)
