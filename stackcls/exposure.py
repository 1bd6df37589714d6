"""Images that fine-tuning saw, among the rows of a feature file: no fold may learn from or score them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackcls.errors import TrainingError
from stackcls.seen import Hashes, short_hashes
from stackcls.store import Store


@dataclass(frozen=True)
class Exposure:
    """What fine-tuning of some backbones saw.

    Attributes
    ----------
    hashes : ndarray of uint64
        All images, by content hash, whether they are in the store or not.
    rows : ndarray of bool, shape (n,)
        Rows of the store that are such images, or of a group with one.
    """

    hashes: Hashes
    rows: NDArray[np.bool_]


def find(store: Store, names: Sequence[str], groups: NDArray[np.int64] | None, notes: list[str]) -> Exposure:
    """Look up what fine-tuning of any of these backbones saw; note how many labelled images are left out.

    Raises
    ------
    TrainingError
        If that is all of them.
    """
    tuned = {name: saw for name in names if (saw := store.matrices[name].seen) is not None}
    hashes = np.unique(np.concatenate([np.empty(0, np.uint64), *tuned.values()]))
    rows: NDArray[np.bool_] = np.isin(short_hashes(store.table.sha256), hashes)
    if groups is not None:
        rows |= np.isin(groups, groups[rows])
    labelled = store.table.labels >= 0
    by = ", ".join(tuned)
    if not (labelled & ~rows).any():
        raise TrainingError(
            f"{store.path}: fine-tuning of {by} saw all {int(labelled.sum())} labelled images, or others of their "
            "groups, and on those no honest score can be had: fine-tune on a smaller share (finetune.share), add "
            "images, or leave it out of features.backbones"
        )
    if count := int((rows & labelled).sum()):
        notes.append(f"{count} images that fine-tuning of {by} saw, or of their groups, were left out")
    return Exposure(hashes, rows)
