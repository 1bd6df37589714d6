"""Which rows and matrices of a feature file are learned from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from stackcls import backbones, bases, costs, exposure, grouping, holdouts, memory
from stackcls.backbones import Backbone
from stackcls.errors import IdentityMismatch, StoreError, TrainingError
from stackcls.files import digest_file
from stackcls.holdouts import HeldOut, Ints, Mask
from stackcls.inspect.duplicates import Found
from stackcls.listener import Listener
from stackcls.printable import counted, were
from stackcls.seen import Hashes
from stackcls.settings import Settings
from stackcls.store import ImageTable, Store
from stackcls.streaming import Streamed, Traffic
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
    held : HeldOut or None
        Rows that are scored once, when all is fitted.
    duplicates : Found
        Among the rows of `data`.
    given_groups : ndarray of int64, shape (n,), or None
        Groups of these rows that duplicates have no part in.
    seen : ndarray of uint64
        Images, by content hash, that fine-tuning of a backbone saw, or a copy; none of them is among the rows.
    seconds_per_image : mapping of str to float or None
        What each backbone's features cost on this machine; None where that is not known.
    """

    data: TrainingSet
    table: ImageTable
    rows: np.ndarray
    notes: list[str]
    held: HeldOut | None
    duplicates: Found
    given_groups: Ints | None
    seen: Hashes
    seconds_per_image: Mapping[str, float | None] = field(default_factory=dict)

    def read(self) -> list[str]:
        """What to say of matrices that were read in blocks: how often, and how fast."""
        stored: _Stored = self.data.X  # type: ignore[assignment]
        n_rows, found = len(self.table.paths), []
        for number in sorted(self.data.streamed):
            count, size = stored.traffic[number], memory.NUMBER * n_rows * self.data.widths[number]
            found.append(memory.traffic(self.data.names[number], size, count.bytes, count.seconds))
        return found


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
            f"{store.path}: none of {counted(len(table.paths), 'image')} has a label; `fit` needs class folders, or a "
            "manifest with a `label` column (path,label[,group][,split])"
        )
    if not all(np.isfinite(values).all() for name in names for _, values in store.chunks(name)):
        raise StoreError(f"{store.path}: has features that are not finite; delete it and run `stackcls features`")
    notes: list[str] = []
    given = groups = _groups(table, notes)
    found, note = grouping.look_for_fit(store, names, settings)
    notes += [note] if note else []
    if settings.cv.groups == "duplicates":
        groups = grouping.merged(groups, found)
    saw = exposure.find(store, names, groups, found, notes)
    held, left_out = _hold_out(store, names, settings, found, groups, notes)
    keep = _learned_from(table, held | left_out | saw.rows, groups, settings, notes)
    if not keep.any():
        raise TrainingError(f"{store.path}: no labelled image is left to learn from ({'; '.join(notes)})")
    rows = np.flatnonzero(keep)
    present, y = np.unique(table.labels[rows], return_inverse=True)
    widths = tuple(store.matrices[name].width for name in names)
    planned = memory.plan(names, widths, len(rows), len(present), settings)
    data = TrainingSet(
        X=_Stored(store, tuple(names), rows, tuple(Traffic() for _ in names)),
        names=tuple(names),
        widths=widths,
        y=y.astype(np.int64),
        class_names=tuple(table.class_names[index] for index in present),
        groups=None if groups is None else groups[rows],
        memory=planned.memory,
        streamed=planned.streamed,
    )
    held_out = None
    if settings.cv.holdout is not None:
        held_out = _held_out(
            store,
            data,
            present.astype(np.int64),
            held & ~saw.rows,
            int((left_out & (table.labels >= 0)).sum()),
            settings,
            notes,
        )
    _note_precisions(store, names, notes)
    for note in notes:
        listener.warn(note)
    for line in planned.lines:
        listener.say(line)
    given = None if given is None else given[rows]
    return TrainingRows(data, table, rows, notes, held_out, found.take(rows), given, saw.hashes, _costs(store, names))


def _costs(store: Store, names: Sequence[str]) -> dict[str, float | None]:
    made = [
        (store.matrices[name].identity.digest, str(store.matrices[name].provenance.get("engine"))) for name in names
    ]
    return dict(zip(names, costs.known(made), strict=True))


def _groups(table: ImageTable, notes: list[str]) -> Ints | None:
    """Return the number of each image's group, an image without one being a group of its own; None without groups."""
    if not (table.groups >= 0).any():
        return None
    notes.append("images of one group were kept in one fold")
    return np.where(table.groups >= 0, table.groups, len(table.group_names) + np.arange(len(table.groups)))


def _hold_out(
    store: Store, names: Sequence[str], settings: Settings, found: Found, groups: Ints | None, notes: list[str]
) -> tuple[Mask, Mask]:
    """Which images are held out, and which are not learned from since a copy, or one of their group, is held out."""
    table, how = store.table, settings.cv.holdout
    held, related = np.zeros((2, len(table.paths)), dtype=bool)
    if how is None:
        return held, related
    held = holdouts.choose(table, how)
    related = holdouts.relatives(found, held, groups)
    if found.near is None:
        notes.append("near copies of what is held out may have been learned from, since none were looked for")
    if count := int((related & (table.labels >= 0)).sum()):
        notes.append(
            f"{counted(count, 'image was', 'images were')} left out, since a copy of each, exact or near, or one of "
            "its group, is held out"
        )
    for name in names:
        basis = store.matrices[name].basis
        if basis is None:
            continue
        if not basis.sample:
            raise StoreError(
                f"{store.path}: {name!r} was made with what was fitted on some of the images, and of which is not "
                f"recorded, so that it may have seen what cv.holdout: {how!r} holds out: run `stackcls features "
                "--refit` with that setting"
            )
        sample = np.isin([digest[: bases.SHORT] for digest in table.sha256], list(basis.sample))
        if seen := int((sample & held).sum()):
            raise StoreError(
                f"{store.path}: {name!r} was made with what was fitted on {seen} of the images that cv.holdout: "
                f"{how!r} holds out: run `stackcls features --refit` with that setting, or hold out others"
            )
    return held, related


def _learned_from(table: ImageTable, not_seen: Mask, groups: Ints | None, settings: Settings, notes: list[str]) -> Mask:
    """Labelled images that are not kept back, without rare classes where the settings say so."""
    keep: Mask = (table.labels >= 0) & ~not_seen
    if count := int((table.labels < 0).sum()):
        notes.append(f"{counted(count, 'image')} without a label {were(count)} left out")
    if settings.cv.rare == "drop":
        own_groups = None if groups is None else groups[keep]
        counts = class_counts(table.labels[keep].astype(np.int64), own_groups, len(table.class_names))
        rare = np.flatnonzero((counts < images_needed(settings)) & (counts > 0))
        if rare.size:
            keep &= ~np.isin(table.labels, rare)
            listed = ", ".join(table.class_names[index] for index in rare)
            notes.append(f"classes too rare for the folds were left out: {listed}")
    return keep


def _held_out(
    store: Store, data: TrainingSet, present: Ints, held: Mask, left_out: int, settings: Settings, notes: list[str]
) -> HeldOut:
    """What is held out, of the classes that are learned."""
    table = store.table
    known = held & np.isin(table.labels, present)
    if strange := int((held & (table.labels >= 0) & ~known).sum()):
        notes.append(
            f"{counted(strange, 'held-out image is', 'held-out images are')} of classes that are not learned, and "
            f"{were(strange)} not scored"
        )
    rows = np.flatnonzero(known)
    if not rows.size:
        raise TrainingError(
            f"cv.holdout: {settings.cv.holdout!r} holds out no image of a class that is learned and that can be scored "
            f"({'; '.join(notes)})"
        )
    y = np.searchsorted(present, table.labels[rows])
    stored = _Stored(store, data.names, rows, tuple(Traffic() for _ in data.names))
    unseen = replace(data, X=stored, y=y, groups=None)
    return HeldOut(str(settings.cv.holdout), unseen, tuple(table.paths[row] for row in rows), left_out)


def _note_precisions(store: Store, names: Sequence[str], notes: list[str]) -> None:
    precisions = {name: store.matrices[name].identity.precision for name in names}
    if len(set(precisions.values())) > 1:
        listed = ", ".join(f"{name} {precision}" for name, precision in precisions.items())
        notes.append(f"features of different precision were stacked: {listed}")


@dataclass(frozen=True)
class _Stored:
    """Feature matrices that stay in the store until they are needed: together they may be larger than memory."""

    store: Store
    names: tuple[str, ...]
    rows: np.ndarray
    traffic: tuple[Traffic, ...]

    def block(self, number: int, rows: np.ndarray) -> np.ndarray:
        """Read some of the labelled rows of one matrix."""
        return self.store.read_rows(self.names[number], self.rows[rows])

    def stream(self, number: int, rows: np.ndarray) -> Streamed:
        """The same rows, read whenever they are gone through."""
        name = self.names[number]
        read = partial(self.store.read_rows_into, name)
        return Streamed(read, self.rows[rows], self.store.matrices[name].width, np.float32, self.traffic[number])
