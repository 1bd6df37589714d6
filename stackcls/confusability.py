"""Orders of classes that bring together what is taken for one another."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackcls.report.results import Report
from stackcls.runtables import Predictions

MOST_PROBABILITIES = 100_000_000
MOST_ORDERED = 300  # beyond, the order of the tree's leaves takes long to make best


def orders(
    report: Report, found: Predictions | None, probabilities: NDArray[np.floating[Any]] | None
) -> dict[str, list[int]]:
    """Orders of a report's classes: by `name`, by `errors`, and by `similarity`; none without a confusion matrix.

    Similar are classes whose images get one another's probabilities (without them, one another's labels): neighbours
    in the tree of average linkage, its leaves in the best order (Bar-Joseph et al., Fast optimal leaf ordering for
    hierarchical clustering, Bioinformatics 17, 2001).
    """
    if not report.confusion:
        return {}
    counts = np.array(report.confusion, dtype=np.float64)
    names = list(range(len(counts)))
    errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if found is not None and probabilities is not None and probabilities.size <= MOST_PROBABILITIES:
        for given in names:
            rows = np.flatnonzero(found.given == given)
            if rows.size:
                shares[given] = np.asarray(probabilities[rows], dtype=np.float64).mean(axis=0)
    return {"name": names, "errors": np.argsort(-errors, kind="stable").tolist(), "similarity": _similar(shares)}


def _similar(shares: NDArray[np.float64]) -> list[int]:
    if len(shares) < 3:
        return list(range(len(shares)))
    from scipy.cluster import hierarchy
    from scipy.spatial import distance

    # Of shares that span orders of magnitude, the square roots tell small ones apart.
    alike = np.sqrt(np.clip((shares + shares.T) / 2, 0, 1))
    apart = 1 - alike
    np.fill_diagonal(apart, 0)
    tree = hierarchy.linkage(distance.squareform(apart), "average", optimal_ordering=len(shares) <= MOST_ORDERED)
    order: list[int] = hierarchy.leaves_list(tree).tolist()
    return order
