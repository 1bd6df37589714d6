"""What a run of `features` found and is about to do, in words."""

from collections.abc import Mapping, Sequence

from stackcls.listener import Listener
from stackcls.listing import Listing
from stackcls.printable import counted
from stackcls.store import ImageTable, Store

SUFFIXES = 8  # that are named of the files passed over
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


def plan(listing: Listing, missing: Mapping[str, int], reused: Mapping[str, int], listener: Listener) -> None:
    """Say what was found, what looks odd, and how much is to be computed."""
    source = listing.source
    if source.ignored:
        often = sorted(source.ignored.items(), key=lambda item: (-item[1], item[0]))
        counts = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in often[:SUFFIXES])
        more = f" and {len(often) - SUFFIXES} other formats" if len(often) > SUFFIXES else ""
        listener.warn(f"files of formats that are not read were passed over: {counts}{more}")
    if source.outside:
        place, target = min(source.outside.items())
        which = counted(len(source.outside), "link was", "links were")
        listener.say(f"{which} followed out of {source.root}, the first from {place} to {target}")
    if source.class_names and {name.lower() for name in source.class_names} <= SPLITS:
        listener.warn(f"the class folders are called {', '.join(source.class_names)}; if these are splits, give one")
    if len(source.class_names) < 2:
        found = "one class" if source.class_names else "no labels"
        listener.warn(f"{found} in {source.root}: features can be computed, but `fit` needs at least two classes")
    classes = counted(len(source.class_names), "class", "classes")
    listener.say(f"{counted(len(source.entries), 'image')} of {classes} in {source.root} ({source.kind})")
    for name, count in missing.items():
        listener.say(f"  {name}: {count} to compute, {reused[name]} there")


def rewriting(old: Store, table: ImageTable, listener: Listener) -> None:
    """Say, for a dry run that would compute nothing, whether the file would change all the same."""
    if old.table.equals(table):
        listener.say("nothing new")
        return
    before = dict(zip(old.table.paths, old.table.labels.tolist(), strict=True))
    now = dict(zip(table.paths, table.labels.tolist(), strict=True))
    names = [old.table.class_names, table.class_names]
    other = sum(
        path in before and _name(names[0], before[path]) != _name(names[1], label) for path, label in now.items()
    )
    listener.say(
        f"{old.path} would be written anew: {counted(len(now.keys() - before.keys()), 'name')} new, "
        f"{len(before.keys() - now.keys())} gone, {counted(other, 'label')} changed"
    )


def _name(class_names: Sequence[str], label: int) -> str | None:
    return class_names[label] if label >= 0 else None
