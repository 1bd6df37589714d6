"""Duplicates among the images of a feature file: looked for, kept in one fold, counted and listed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stackcls import runtables
from stackcls.inspect import duplicates, neighbours
from stackcls.inspect.duplicates import Found, Ints
from stackcls.inspect.neighbours import Features
from stackcls.report import tables
from stackcls.report.findings import Duplicates
from stackcls.settings import Settings
from stackcls.store import Store

ROWS = 1024
QUICK = 20_000  # images that are compared with each other in a few seconds


@dataclass(frozen=True)
class Duplicate:
    """One image of a group of duplicates.

    Attributes
    ----------
    path : str
    label : str or None
    kind : str
        `exact` where another one of the group has the same bytes, else `near`.
    similarity : float
        To the most similar one of the group.
    """

    path: str
    label: str | None
    kind: str
    similarity: float


def look(store: Store, names: Sequence[str], most: int = duplicates.MOST) -> tuple[Found, str | None]:
    """Look for duplicates among all images of a feature file.

    Parameters
    ----------
    store : Store
    names : sequence of str
        Matrices to compare images by, all together.
    most : int
        Among more images than this, exact duplicates alone are looked for.

    Returns
    -------
    Found
    str or None
        What was not looked for.
    """
    count = len(set(store.table.sha256))
    note = f"near-duplicates were not looked for among {count} images, only exact ones"
    if count > most:
        return duplicates.find(store.table.sha256, None), note
    found = duplicates.find(store.table.sha256, _chunks(store, names))
    return found, None if found.near is not None else f"{note}: it takes more than {duplicates.FEWEST} different images"


def look_for_fit(store: Store, names: Sequence[str], settings: Settings) -> tuple[Found, str | None]:
    """Look for as much as the settings ask for: what takes more than seconds only where it is needed or asked for."""
    tuned = any(store.matrices[name].seen is not None for name in names)
    if tuned or settings.cv.groups == "duplicates" or settings.cv.holdout is not None:
        return look(store, names)  # what is learned from depends on it, and may not on how long the report may take
    most = {"quick": 0, "auto": QUICK, "full": duplicates.MOST}[settings.report.depth]
    found, note = look(store, names, most)
    if note and most == QUICK < len(set(store.table.sha256)):
        note += " (--set report.depth=full does)"
    return found, note


def _chunks(store: Store, names: Sequence[str]) -> Iterator[tuple[int, Features]]:
    names = sorted(names)  # so that the projection is the same, whoever asks
    for start in range(0, len(store.table.paths), ROWS):
        rows = np.arange(start, min(start + ROWS, len(store.table.paths)))
        yield start, neighbours.unit([store.read_rows(name, rows) for name in names])


def merged(groups: Ints | None, found: Found) -> Ints:
    """Groups that keep together what is in one group already, and duplicates."""
    if groups is None:
        return found.group
    _, given = np.unique(groups, return_inverse=True)
    _, copies = np.unique(found.group, return_inverse=True)
    # Nodes are both kinds of groups; each image joins its two.
    parts = duplicates.joined(given.astype(np.int64), copies + len(groups), 2 * len(groups))
    return parts[given]


def summary(found: Found, labels: Ints, fold: Ints, ungrouped: Mapping[str, float] | None) -> Duplicates:
    """Count duplicates among images that were learned from.

    Parameters
    ----------
    found : Found
    labels : ndarray of int64, shape (n,)
    fold : ndarray of int64, shape (n,)
        Of folds that do not know the duplicates.
    ungrouped : mapping of str to float, or None
        Mean accuracies on these, where the report's own folds are others; empty where they were not scored.
    """
    pairs, exact = duplicates.count_pairs(found.group), duplicates.count_pairs(found.content)
    sizes = np.bincount(found.group)
    return Duplicates(
        threshold=found.threshold,
        exact_pairs=exact,
        near_pairs=pairs - exact,
        groups=int((sizes > 1).sum()),
        images=int(sizes[sizes > 1].sum()),
        conflicting=pairs - duplicates.count_pairs(found.group, labels),
        straddling=pairs - duplicates.count_pairs(found.group, fold),
        grouped=ungrouped is not None,
        ungrouped=ungrouped or {},
        near_looked_for=found.near is not None,
    )


def listed(found: Found, paths: Sequence[str], labels: Sequence[str | None]) -> list[list[Duplicate]]:
    """Groups of two images and more: those with different labels first, then the most similar."""
    sizes = np.bincount(found.group)
    copies = np.bincount(found.content)
    groups: dict[int, list[Duplicate]] = {}
    for row in np.flatnonzero(sizes[found.group] > 1).tolist():
        kind = "exact" if copies[found.content[row]] > 1 else "near"
        one = Duplicate(paths[row], labels[row], kind, float(found.similarity[row]))
        groups.setdefault(int(found.group[row]), []).append(one)
    return sorted(groups.values(), key=_interest)


def _interest(group: Sequence[Duplicate]) -> tuple[bool, float, str]:
    labels = {one.label for one in group if one.label is not None}
    return len(labels) < 2, -max(one.similarity for one in group), group[0].path


def to_csv(groups: Sequence[Sequence[Duplicate]]) -> str:
    """A row per image, groups numbered from 1."""
    rows = [
        (number, one.path, one.label or "", one.kind, f"{one.similarity:.4f}")
        for number, group in enumerate(groups, 1)
        for one in group
    ]
    return tables.comma_separated([runtables.DUPLICATES, *rows])
