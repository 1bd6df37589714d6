"""Images that are the same, by content, or nearly the same, by features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stackcls.inspect.neighbours import Chunks, Features

MOST = 100_000  # images of different content, up to which all are compared with all
NEIGHBOURS = 10
FEWEST = 2 * NEIGHBOURS  # images of different content; among so few the tenth neighbour tells nothing
CHANCE = 1e-3  # pairs per image that may count as near-duplicates though they are not
DENSEST = 0.5  # of the usual distance to the tenth neighbour: nearer ones are copies themselves
DIMENSIONS = 512
ROUNDING = 1e-12  # cosine distance of unit rows in float32 that differ in their last bits

Ints = NDArray[np.int64]
Links = tuple[Ints, Ints, NDArray[np.float64]]  # rows, other rows, similarities


@dataclass(frozen=True)
class Found:
    """Which images are duplicates of which.

    Attributes
    ----------
    content : ndarray of int64, shape (n,)
        Equal for files of the same bytes.
    group : ndarray of int64, shape (n,)
        Equal for duplicates, exact or near, also by way of others; an image without any has a number of its own.
    similarity : ndarray of float64, shape (n,)
        To the most similar duplicate, 1 for the same bytes; 0 for an image without any.
    threshold : float
        Similarity from which two images count as near-duplicates; 1 where only exact ones were looked for.
    near : tuple of three ndarrays, or None
        Contents, other contents that are nearly the same, and similarities; None where only exact ones were looked for.
    """

    content: Ints
    group: Ints
    similarity: NDArray[np.float64]
    threshold: float
    near: Links | None = None

    def take(self, rows: Ints) -> "Found":
        """What is found among some rows alone: none of it is by way of others."""
        return _linked(self.content[rows], self.threshold, self.near)


def find(sha256: Sequence[str], chunks: Chunks | None) -> Found:
    """Find exact duplicates by the hash of the content, and near-duplicates by features.

    Two images are near-duplicates where each is much nearer to the other than to its tenth neighbour: their cosine
    distance, divided by the geometric mean of both images' distances to their tenth neighbours (local scaling:
    Zelnik-Manor, Perona, Self-tuning spectral clustering, NIPS 2004), is below a limit. Its difference from 1 is the
    similarity. The limit is where images that are spread by chance would fall short of it once in a thousand images;
    that follows from the number of dimensions in which they spread, which their distances to the fifth and the tenth
    neighbour tell (Farahmand, Szepesvari, Audibert, Manifold-adaptive dimension estimation, ICML 2007).

    Parameters
    ----------
    sha256 : sequence of str
        Of every image's content.
    chunks : iterable of (int, ndarray of float32), or None
        Number of the first row, and rows from `neighbours.unit`; None to look for exact duplicates alone.
    """
    _, first, content = np.unique(np.array(sha256, dtype=np.bytes_), return_index=True, return_inverse=True)
    content = content.astype(np.int64)
    if chunks is None or len(first) <= FEWEST:
        return _linked(content, 1.0, None)
    near, threshold = _near(_points(chunks, len(sha256))[first])
    return _linked(content, threshold, near)


def _linked(content: Ints, threshold: float, near: Links | None) -> Found:
    """Groups and similarities of these contents, from those links of which both ends are among them."""
    counts = np.bincount(content)
    similarity = np.where(counts[content] > 1, 1.0, 0.0)
    if near is None:
        return Found(content, content, similarity, threshold)
    ends = np.isin(near[0], content) & np.isin(near[1], content)
    one, other, similarities = near[0][ends], near[1][ends], near[2][ends]
    nearest = np.zeros(len(counts))
    np.maximum.at(nearest, one, similarities)
    np.maximum.at(nearest, other, similarities)
    group = joined(one, other, len(counts))[content]
    return Found(content, group, np.maximum(similarity, nearest[content]), threshold, (one, other, similarities))


def joined(one: Ints, other: Ints, count: int) -> Ints:
    """Number the connected parts of a graph of `count` nodes, from both ends of its edges."""
    graph = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(count, count))
    parts: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
    return parts


def count_pairs(*numbers: NDArray[Any]) -> int:
    """Pairs of rows that are equal in each of the given columns."""
    _, counts = np.unique(np.stack(numbers), axis=1, return_counts=True)
    return int((counts * (counts - 1) // 2).sum())


def _points(chunks: Chunks, count: int) -> Features:
    """Place wide rows in fewer dimensions by a seeded random projection, which keeps distances to some percent."""
    points, mix = np.empty((count, 0), np.float32), None
    for start, rows in chunks:
        if not points.size:
            width = rows.shape[1]
            points = np.empty((count, min(width, DIMENSIONS)), np.float32)
            if width > DIMENSIONS:
                mix = np.random.default_rng(0).standard_normal((width, DIMENSIONS), np.float32)
                mix /= np.float32(np.sqrt(DIMENSIONS))
        points[start : start + len(rows)] = rows if mix is None else rows @ mix
    return points


def _near(points: Features) -> tuple[Links, float]:
    """Pairs of points that are near-duplicates, and the threshold of their similarity."""
    from sklearn.neighbors import NearestNeighbors

    lengths, neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(points).kneighbors()
    distances = lengths.astype(np.float64) ** 2 / 2
    distances[distances < ROUNDING] = 0  # so that equal features are always near, however small the limit
    limit = _limit(distances)
    reach = distances[:, -1]
    reach = np.maximum(reach, DENSEST * np.median(reach))
    rows = np.repeat(np.arange(len(points)), NEIGHBOURS)
    others = neighbours.reshape(-1).astype(np.int64)
    scale = np.sqrt(reach[rows] * reach[others])
    ratios = distances.reshape(-1) / np.maximum(scale, np.finfo(np.float64).tiny)
    near = ratios <= limit
    return (rows[near], others[near], 1 - ratios[near]), 1 - limit


def _limit(distances: NDArray[np.float64]) -> float:
    """Share of the distance to the tenth neighbour below which a chance neighbour is as rare as `CHANCE` says.

    In a ball of m dimensions with nine points, one is within a share s of the radius with a probability of 9 s^m; of
    two that are so near each other both are counted. Squared distances are what is compared, so that m is halved.
    """
    ratios = distances[:, NEIGHBOURS // 2 - 1] / np.maximum(distances[:, -1], np.finfo(np.float64).tiny)
    half = np.log(2) / -np.log(np.clip(np.median(ratios), 1e-6, 1 - 1e-6))
    return float((2 * CHANCE / (NEIGHBOURS - 1)) ** (1 / half))
