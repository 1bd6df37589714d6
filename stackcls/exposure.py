"""Images that fine-tuning saw, among the rows of a feature file, and copies: no fold may learn from or score them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackcls import grouping
from stackcls.errors import TrainingError
from stackcls.inspect.duplicates import Found
from stackcls.printable import counted
from stackcls.seen import Hashes, short_hashes
from stackcls.store import Store


@dataclass(frozen=True)
class Exposure:
    """What fine-tuning of some backbones saw.

    Attributes
    ----------
    hashes : ndarray of uint64
        All images, by content hash, whether they are in the store or not, and those of `rows`.
    rows : ndarray of bool, shape (n,)
        Rows of the store that are such images, or a copy, exact or near, or of a group with one.
    """

    hashes: Hashes
    rows: NDArray[np.bool_]


def find(
    store: Store, names: Sequence[str], groups: NDArray[np.int64] | None, found: Found, notes: list[str]
) -> Exposure:
    """Look up what fine-tuning of any of these backbones saw; note how many labelled images are left out.

    Parameters
    ----------
    store : Store
    names : sequence of str
        Matrices that are learned from.
    groups : ndarray of int64, shape (n,), or None
    found : Found
        Duplicates among all rows of the store.
    notes : list of str
        Is added to.

    Raises
    ------
    TrainingError
        If that is all of them.
    """
    tuned = {name: saw for name in names if (saw := store.matrices[name].seen) is not None}
    hashes = np.unique(np.concatenate([np.empty(0, np.uint64), *tuned.values()]))
    own = short_hashes(store.table.sha256)
    related = grouping.merged(groups, found)
    rows: NDArray[np.bool_] = np.isin(related, related[np.isin(own, hashes)])
    labelled = store.table.labels >= 0
    by = ", ".join(tuned)
    if not (labelled & ~rows).any():
        raise TrainingError(
            f"{store.path}: fine-tuning of {by} saw all {counted(int(labelled.sum()), 'labelled image')}, or "
            "copies of them, or others of their groups, and on those no honest score can be had: fine-tune on a "
            "smaller share (finetune.share), add images, or leave it out of features.backbones"
        )
    if count := int((rows & labelled).sum()):
        notes.append(
            f"{counted(count, 'image was', 'images were')} left out: fine-tuning of {by} saw them, a copy, exact or "
            "near, or one of their group"
        )
    if tuned and found.near is None:
        notes.append(f"near copies of what fine-tuning of {by} saw may have been scored, since none were looked for")
    if absent := int((~np.isin(hashes, own)).sum()):
        notes.append(
            f"{counted(absent, 'image')} that fine-tuning of {by} saw {'is' if absent == 1 else 'are'} not in "
            f"{store.path.name}, so that neither near copies of those nor other images of their groups could be "
            "looked for, and may have been scored"
        )
    return Exposure(np.union1d(hashes, own[rows]), rows)
