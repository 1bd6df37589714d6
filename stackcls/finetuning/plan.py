"""Which images a fine-tuning learns from, which tell it when to stop, and which it never touches."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stackcls import splits
from stackcls.errors import TrainingError
from stackcls.inspect import duplicates
from stackcls.listing import Listing
from stackcls.printable import counted
from stackcls.seen import Hashes, short_hashes
from stackcls.settings import FinetuneSettings
from stackcls.sources import ImageEntry

NAMED = 10  # classes, in notes
ENOUGH = 10  # images to validate on, of which one then decides no more than a tenth of the accuracy


@dataclass(frozen=True)
class Plan:
    """Labelled images in three parts.

    Attributes
    ----------
    classes : tuple of str
        Of the images that are learned from; others are in no part.
    train, validation, rest : tuple of ImageEntry
        Learned from; looked at after every epoch; left for the stack.
    notes : tuple of str
        Which labelled images are in no part, and why.
    """

    classes: tuple[str, ...]
    train: tuple[ImageEntry, ...]
    validation: tuple[ImageEntry, ...]
    rest: tuple[ImageEntry, ...]
    notes: tuple[str, ...] = field(default=())

    def digest(self, listing: Listing, said: Mapping[str, Any]) -> str:
        """SHA-256 of what decides the outcome: the parts that are learned from, and what else is said."""
        return _digest([[_labelled(part, listing) for part in (self.train, self.validation)], said])

    def rest_digest(self, listing: Listing) -> str:
        """SHA-256 of what is left out, which decides no weight, but the accuracy."""
        return _digest(sorted(_labelled(self.rest, listing)))


def _labelled(part: Iterable[ImageEntry], listing: Listing) -> list[list[str]]:
    return [[listing.sha256[entry.path], entry.label or ""] for entry in part]


def _digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def draw(
    listing: Listing, settings: FinetuneSettings, holdout: str | float | None = None, before: Hashes | None = None
) -> Plan:
    """Draw the parts by a hash of each relative path, which stays when the folder moves or grows.

    Groups and exact copies, and what those join in turn, go together. What a split keeps back is in no part, nor what
    `cv.holdout` holds out, with all that goes with it. The share is taken from the upper end, since that takes from the
    lower.

    Parameters
    ----------
    listing : Listing
    settings : FinetuneSettings
    holdout : 'split', float or None
        As `cv.holdout`.
    before : ndarray of uint64, or None
        Images, by content hash, that the network to begin with saw: it may learn from them again, and they tell nothing
        of how good it is.

    Raises
    ------
    TrainingError
        If fewer than two classes, or no image to validate on, are drawn.
    """
    every = [entry for entry in listing.kept if entry.label is not None]
    labelled = [entry for entry in every if not splits.is_kept_back(entry.split)]
    related = _related(listing)
    if isinstance(holdout, float):
        held = {related[entry.path] for entry in listing.kept if splits.place(_group(entry)) < holdout}
        labelled = [entry for entry in labelled if related[entry.path] not in held]
    if not labelled:
        raise TrainingError(
            f"none of {counted(len(listing.kept), 'image')} of {listing.source.root} can be learned from: `finetune` "
            "needs class folders, or a manifest with a `label` column, and images that are not held out"
        )
    known = _known(listing, before, related)
    # In 0..1, the share at the lower end.
    places = {entry.path: 1 - splits.place(related[entry.path]) for entry in labelled}
    share, border = settings.share, settings.share * settings.validation
    # An earlier, smaller share is the lower part of this one: what it did not see is at the upper end.
    mirrored = any(place <= share and path in known for path, place in places.items())
    parts: tuple[list[ImageEntry], ...] = ([], [], [])
    for entry in labelled:
        place = places[entry.path]
        validates = place > share - border if mirrored else place <= border
        parts[int(validates) if place <= share else 2].append(entry)
    classes = tuple(sorted({entry.label for entry in parts[0] if entry.label is not None}))
    train, validation, rest = (tuple(entry for entry in part if entry.label in classes) for part in parts)
    _check(classes, train, validation, settings, len(labelled))
    unknown, unseen = (tuple(entry for entry in part if entry.path not in known) for part in (validation, rest))
    if not unknown:
        raise TrainingError(
            f"finetune.start: the network saw all {counted(len(validation), 'image')} before that would tell the best "
            "epoch, or others of their groups: raise finetune.share above the earlier one, add images, or begin with "
            "another network (--from)"
        )
    notes = _notes(len(every) - len(labelled), labelled, classes, len(validation + rest) - len(unknown + unseen))
    notes += _few(len(unknown))
    return Plan(classes, train, unknown, unseen, tuple(notes))


def _group(entry: ImageEntry) -> str:
    return entry.group or entry.path


def _related(listing: Listing) -> dict[str, str]:
    """For each path the first name of all groups, and of images without, that groups and exact copies join with it."""
    groups: dict[str, int] = {}
    contents: dict[str, int] = {}
    group = [groups.setdefault(_group(entry), len(groups)) for entry in listing.kept]
    content = [contents.setdefault(listing.sha256[entry.path], len(contents)) for entry in listing.kept]
    # Nodes are both; each image joins its two.
    joined = duplicates.joined(np.array(group, int), np.array(content, int) + len(groups), len(groups) + len(contents))
    parts, first = joined[group].tolist(), dict[int, str]()
    for entry, part in zip(listing.kept, parts, strict=True):
        first[part] = min(first.get(part, _group(entry)), _group(entry))
    return {entry.path: first[part] for entry, part in zip(listing.kept, parts, strict=True)}


def _known(listing: Listing, before: Hashes | None, related: Mapping[str, str]) -> set[str]:
    """Paths of images that a network saw, and of all that go with them."""
    if before is None or not len(before):
        return set()
    paths = [entry.path for entry in listing.kept]
    saw = np.isin(short_hashes([listing.sha256[path] for path in paths]), before).tolist()
    names = {related[path] for path, is_known in zip(paths, saw, strict=True) if is_known}
    return {path for path in paths if related[path] in names}


def _notes(kept_back: int, labelled: Iterable[ImageEntry], classes: Sequence[str], known: int) -> list[str]:
    notes = []
    if kept_back:
        notes.append(f"in no part: {counted(kept_back, 'labelled image')}, held out")
    absent = Counter(entry.label for entry in labelled if entry.label not in classes)
    if absent:
        named = [f"{name} ({counted(count, 'image')})" for name, count in sorted(absent.items(), key=str)]
        more = f" and {counted(len(named) - NAMED, 'more class', 'more classes')}" if len(named) > NAMED else ""
        notes.append(
            f"in no part: {counted(absent.total(), 'image')}, since none of the class was drawn to learn from (a "
            f"larger finetune.share helps): {', '.join(named[:NAMED])}{more}"
        )
    if known:
        notes.append(
            f"in no part: {counted(known, 'image')}, since the network to begin with saw them, or others of their "
            "groups, before; copies of other bytes are not looked for here"
        )
    return notes


def _few(validation: int) -> list[str]:
    if validation >= ENOUGH:
        return []
    return [
        f"{counted(validation, 'image')} to validate on: so few that chance picks the best epoch; a larger "
        "finetune.share or finetune.validation helps, or more images"
    ]


def _check(
    classes: Sequence[str],
    train: Sequence[ImageEntry],
    validation: Sequence[ImageEntry],
    settings: FinetuneSettings,
    n_labelled: int,
) -> None:
    if len(classes) < 2 or not validation:
        counts = Counter(entry.label for entry in train)
        raise TrainingError(
            f"finetune.share {settings.share:g} of {counted(n_labelled, 'labelled image')}, of it finetune.validation "
            f"{settings.validation:g}, gives {counted(len(train), 'image')} of "
            f"{counted(len(counts), 'class', 'classes')} to learn from and "
            f"{len(validation)} to validate on; two classes and one image are the least: add images, or raise them"
        )
