"""Which rows and matrices of a feature file are learned from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stackcls import backbones
from stackcls.backbones import Backbone
from stackcls.errors import IdentityMismatch, StoreError, TrainingError
from stackcls.files import digest_file
from stackcls.listener import Listener
from stackcls.seen import short_hashes
from stackcls.settings import Settings
from stackcls.store import ImageTable, Store
from stackcls.training import TrainingSet, class_counts, images_needed


@dataclass(frozen=True)
class TrainingRows:
    """The training set, and which rows of the store it is.

    Attributes
    ----------
    data : TrainingSet
    table : ImageTable
        Of the whole store.
    rows : ndarray of int64, shape (n,)
        The store's row of each row of `data`.
    notes : list of str
        What was left out, and what else a careful reader should know.
    seen : ndarray of uint64
        Images, by content hash, that fine-tuning of a backbone saw; none of them is among the rows.
    """

    data: TrainingSet
    table: ImageTable
    rows: np.ndarray
    notes: list[str]
    seen: NDArray[np.uint64]


def choose(store: Store, settings: Settings) -> dict[str, Backbone]:
    """Matrices to learn from: those that the settings name, or all of the store where they name none.

    Raises
    ------
    StoreError
        If the store lacks one of them.
    IdentityMismatch
        If one was made otherwise than the settings say.
    """
    named = {item.name: item for item in backbones.resolve(settings.features)}
    found = store.matrices
    if "backbones" not in settings.features.model_fields_set:
        # An identity may have been computed first under another name, which its provenance then has.
        return {
            name: replace(Backbone.from_dict(info.provenance["configured"]), name=name) for name, info in found.items()
        }
    if absent := [name for name in named if name not in found]:
        raise StoreError(
            f"{store.path}: has features of {', '.join(sorted(found))}, not of {', '.join(absent)}: "
            "run `stackcls features` with this configuration first"
        )
    for name, item in named.items():
        stored = found[name].identity
        weights = digest_file(item.file) if item.file is not None and item.file.is_file() else stored.weights
        wanted = replace(
            item.identity(f"random:{item.seed}" if item.weights == "random" else weights, settings.features.precision),
            basis=stored.basis,
        )
        if differences := stored.differences(wanted):
            raise IdentityMismatch(
                f"{store.path}: {name!r} was made otherwise than configured ({'; '.join(differences)}): "
                "run `stackcls features --replace`, or change the configuration"
            )
    return named


def load(store: Store, names: Sequence[str], settings: Settings, listener: Listener) -> TrainingRows:
    """Find labelled rows; leave out unlabelled ones, and rare classes where the settings say so.

    Raises
    ------
    TrainingError
        If nothing is labelled.
    StoreError
        If features are not finite.
    """
    table = store.table
    if not (table.labels >= 0).any():
        raise TrainingError(
            f"{store.path}: none of the {len(table.paths)} images has a label; `fit` needs class folders, or a "
            "manifest with a `label` column (path,label[,group][,split])"
        )
    notes = []
    keep = table.labels >= 0
    if not keep.all():
        notes.append(f"{int((~keep).sum())} images without a label were left out")
    hashes = seen_by_any(store, names)
    keep &= ~_seen_rows(store, names, hashes, keep, notes)
    groups = None
    if (table.groups >= 0).any():
        alone = len(table.group_names) + np.arange(len(table.groups))
        groups = np.where(table.groups >= 0, table.groups, alone)
        notes.append("images of one group were kept in one fold")
    if settings.cv.rare == "drop":
        own_groups = None if groups is None else groups[keep]
        counts = class_counts(table.labels[keep].astype(np.int64), own_groups, len(table.class_names))
        rare = np.flatnonzero(counts < images_needed(settings))
        if rare.size:
            keep &= ~np.isin(table.labels, rare)
            listed = ", ".join(table.class_names[index] for index in rare)
            notes.append(f"classes too rare for the folds were left out: {listed}")
    precisions = {name: store.matrices[name].identity.precision for name in names}
    if len(set(precisions.values())) > 1:
        listed = ", ".join(f"{name} {precision}" for name, precision in precisions.items())
        notes.append(f"features of different precision were stacked: {listed}")
    for note in notes:
        listener.warn(note)
    rows = np.flatnonzero(keep)
    present, y = np.unique(table.labels[rows], return_inverse=True)
    widths = tuple(store.matrices[name].width for name in names)
    data = TrainingSet(
        X=_Stored(store, tuple(names), rows),
        names=tuple(names),
        widths=widths,
        y=y.astype(np.int64),
        class_names=tuple(table.class_names[index] for index in present),
        groups=None if groups is None else groups[rows],
    )
    if not all(np.isfinite(values).all() for name in names for _, values in store.chunks(name)):
        raise StoreError(f"{store.path}: has features that are not finite; delete it and run `stackcls features`")
    return TrainingRows(data, table, rows, notes, hashes)


def seen_by_any(store: Store, names: Sequence[str]) -> NDArray[np.uint64]:
    """Images, by content hash, that fine-tuning of any of these backbones saw."""
    seen = [info.seen for name in names if (info := store.matrices[name]).seen is not None]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *seen]))


def _seen_rows(
    store: Store, names: Sequence[str], hashes: NDArray[np.uint64], labelled: NDArray[np.bool_], notes: list[str]
) -> NDArray[np.bool_]:
    """Rows that no fold may learn from or score: images that fine-tuning saw, and images of their groups."""
    table = store.table
    rows: NDArray[np.bool_] = np.isin(short_hashes(table.sha256), hashes)
    groups = np.unique(table.groups[rows])
    rows |= np.isin(table.groups, groups[groups >= 0])
    if not (rows & labelled).any():
        return rows
    tuned = ", ".join(name for name in names if store.matrices[name].seen is not None)
    if not (labelled & ~rows).any():
        raise TrainingError(
            f"{store.path}: fine-tuning of {tuned} saw all {int(labelled.sum())} labelled images, or others of their "
            "groups, and on those no honest score can be had: fine-tune on a smaller share (finetune.share), add "
            "images, or leave it out of features.backbones"
        )
    notes.append(
        f"{int((rows & labelled).sum())} images that fine-tuning of {tuned} saw, or of their groups, were left out"
    )
    return rows


@dataclass(frozen=True)
class _Stored:
    """Feature matrices that stay in the store until they are needed: together they may be larger than memory."""

    store: Store
    names: tuple[str, ...]
    rows: np.ndarray

    def block(self, number: int, rows: np.ndarray) -> np.ndarray:
        """Read some of the labelled rows of one matrix."""
        return self.store.read_rows(self.names[number], self.rows[rows])
