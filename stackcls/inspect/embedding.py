"""Rows of many columns laid out in a plane, neighbours beside neighbours (the only importer of openTSNE)."""

from collections.abc import Callable

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray

from stackcls.inspect.directions import Chunks, principal

COMPONENTS = 50
FEW = 10  # rows, of which t-SNE makes nothing that their principal components do not show
PERPLEXITY = 30
EARLY, ITERATIONS, SPOKEN = 250, 500, 50
SIDE_BY_SIDE = 10_000  # rows from which a second thread saves more than it waits

Places = NDArray[np.float32]


def lay_out(
    chunks: Callable[[], Chunks], n_rows: int, width: int, advance: Callable[[int], None], seed: int = 0
) -> Places:
    """Lay rows out by t-SNE of their leading principal components; the same rows give the same picture.

    Parameters
    ----------
    chunks : callable
        Gives rows of length one, as (first row, rows), anew for each pass; their distances rank as their cosines do.
    n_rows, width : int
    advance : callable
        Is told of iterations done, `EARLY + ITERATIONS` in all.
    seed : int

    Returns
    -------
    ndarray of float32, shape (n_rows, 2)

    References
    ----------
    van der Maaten, Hinton: Visualizing data using t-SNE, JMLR 9 (2008). Linderman et al.: Fast interpolation-based
    t-SNE, Nature Methods 16 (2019). Poličar, Stražar, Zupan: openTSNE, Journal of Statistical Software 109 (2024).
    """
    directions = principal(chunks, width, COMPONENTS, seed)
    reduced = np.zeros((n_rows, max(2, directions.axes.shape[1])), np.float32)
    for start, rows in chunks():
        reduced[start : start + len(rows), : directions.axes.shape[1]] = directions.along(rows)
    if n_rows < FEW or np.allclose(reduced, reduced[0]):
        advance(EARLY + ITERATIONS)
        return reduced[:, :2]
    from openTSNE import TSNE

    places = TSNE(
        perplexity=min(PERPLEXITY, (n_rows - 1) / 3),
        initialization="pca",
        early_exaggeration_iter=EARLY,
        n_iter=ITERATIONS,
        random_state=seed,
        n_jobs=cpu_count() if n_rows >= SIDE_BY_SIDE else 1,
        callbacks=[lambda *_: advance(SPOKEN)],
        callbacks_every_iters=SPOKEN,
    ).fit(reduced)
    return np.asarray(places, dtype=np.float32)
