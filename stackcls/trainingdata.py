"""Which rows and matrices of a feature file are learned from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stackcls import backbones, costs
from stackcls.backbones import Backbone
from stackcls.errors import IdentityMismatch, StoreError, TrainingError
from stackcls.files import digest_file
from stackcls.listener import Listener
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
    seconds_per_image : mapping of str to float or None
        What each backbone's features cost on this machine; None where that is not known.
    """

    data: TrainingSet
    table: ImageTable
    rows: np.ndarray
    notes: list[str]
    seconds_per_image: Mapping[str, float | None] = field(default_factory=dict)


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
    made = [
        (info.identity.digest, str(info.provenance.get("engine"))) for info in map(store.matrices.get, names) if info
    ]
    return TrainingRows(data, table, rows, notes, dict(zip(names, costs.known(made), strict=True)))


@dataclass(frozen=True)
class _Stored:
    """Feature matrices that stay in the store until they are needed: together they may be larger than memory."""

    store: Store
    names: tuple[str, ...]
    rows: np.ndarray

    def block(self, number: int, rows: np.ndarray) -> np.ndarray:
        """Read some of the labelled rows of one matrix."""
        return self.store.read_rows(self.names[number], self.rows[rows])
