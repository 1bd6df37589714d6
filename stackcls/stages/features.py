"""`stackcls features`: images in, `features.h5` out; only what is not there yet is computed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackcls import backbones, engines, extraction, loading, sources, store
from stackcls.assembly import Assembly
from stackcls.backbones import Backbone
from stackcls.blocks import Block, BlockFolder
from stackcls.errors import IdentityMismatch, StoreDamaged, StoreError, StoreMissing
from stackcls.extraction import ImageInput
from stackcls.files import check_writable
from stackcls.listener import Listener, Silent
from stackcls.listing import Listing, hash_all
from stackcls.loading import Located
from stackcls.settings import Settings
from stackcls.store import Store
from stackcls.versions import created_with

BATCHES_PER_BLOCK = 4
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


@dataclass(frozen=True)
class FeaturesResult:
    """What a run of `features` did.

    Attributes
    ----------
    path : Path
        The feature file.
    n_images, n_classes : int
        Rows, and distinct labels.
    computed, reused : mapping of str to int
        Images per backbone whose features were computed, or were there.
    rejected : mapping of str to str
        Images that could not be read, and why.
    seconds : float
    written : bool
        False for a dry run, or where the file already said all this.
    """

    path: Path
    n_images: int
    n_classes: int
    computed: Mapping[str, int]
    reused: Mapping[str, int]
    rejected: Mapping[str, str]
    seconds: float
    written: bool


def run(
    settings: Settings,
    *,
    dry_run: bool = False,
    offline: bool = False,
    replace: bool = False,
    listener: Listener | None = None,
) -> FeaturesResult:
    """Compute the features of all images with all backbones.

    Parameters
    ----------
    settings : Settings
    dry_run : bool
        Only say what would be computed.
    offline : bool
        Never fetch weights.
    replace : bool
        Allow matrices made in another way to be replaced.
    listener : Listener, optional

    Returns
    -------
    FeaturesResult

    Raises
    ------
    SourceError, ConfigError, WeightsError
        If images, settings or weights cannot be used.
    IdentityMismatch
        If a stored matrix was made otherwise, and `replace` is not set.
    """
    listener = listener or Silent()
    start = time.perf_counter()
    known = backbones.resolve(settings.features)
    source = sources.scan(settings.images)
    absent = _announce_absent(known, settings, listener) if dry_run else set()
    known = tuple(backbone for backbone in known if backbone.name not in absent)
    located = loading.locate(known, settings, offline, listener)
    if not dry_run:
        check_writable(settings.artifacts)
    listing = hash_all(source, listener)
    folder, target = BlockFolder(settings.files.blocks), settings.files.features
    old = _open_old(target, listener)
    try:
        if old is not None and not replace:
            _check_identities(old, located, target)
            _check_coverage(old, {item.backbone.name for item in located} | absent, listing, target)
        finished = _finished(located, old, folder)
        wanted = set(listing.sha256.values())
        reused = {item.backbone.name: len(wanted & finished[item.identity.digest]) for item in located}
        missing = dict.fromkeys(sorted(absent), len(wanted))
        reused |= dict.fromkeys(absent, 0)
        missing |= {item.backbone.name: len(wanted) - reused[item.backbone.name] for item in located}
        _announce(listing, missing, reused, listener)
        if dry_run:
            return _result(target, listing, missing, reused, start, written=False)
        _compute(listing, located, finished, settings, folder, listener)
        written = _write_store(target, listing, located, old, folder, settings, listener)
    finally:
        if old is not None:
            old.__exit__(None, None, None)
    folder.clear()
    return _result(target, listing, missing, reused, start, written)


def _announce_absent(known: Sequence[Backbone], settings: Settings, listener: Listener) -> set[str]:
    """Say which weights would have to be fetched first; return the backbones that need them."""
    wanted = loading.absent(known)
    for name, download in wanted.items():
        listener.say(f"{name}: would fetch {download.url(settings.weights.base_url)}, and compute all images")
    return set(wanted)


def _result(
    target: Path, listing: Listing, computed: dict[str, int], reused: dict[str, int], start: float, written: bool
) -> FeaturesResult:
    entries = listing.kept
    n_classes = len({entry.label for entry in entries if entry.label is not None})
    seconds = time.perf_counter() - start
    return FeaturesResult(target, len(entries), n_classes, computed, reused, listing.rejected, seconds, written)


def _open_old(target: Path, listener: Listener) -> Store | None:
    try:
        return Store(target)
    except StoreMissing:
        return None
    except StoreDamaged as error:
        listener.warn(f"{error}; it will be made anew")
        return None


def _check_identities(old: Store, located: Sequence[Located], target: Path) -> None:
    for item in located:
        name = item.backbone.name
        if name in old.matrices and (differences := old.matrices[name].identity.differences(item.identity)):
            raise IdentityMismatch(
                f"{target}: {name!r} was made otherwise ({'; '.join(differences)}): give the backbone another name, "
                "or let its features be computed anew with --replace"
            )


def _check_coverage(old: Store, configured: set[str], listing: Listing, target: Path) -> None:
    """Refuse to drop finished matrices that are not configured now and lack rows of new images."""
    others = sorted(set(old.matrices) - configured)
    if others and not set(listing.sha256.values()) <= set(old.table.sha256):
        raise StoreError(
            f"{target}: has features of {', '.join(others)} too, which are not configured now and would lack the new "
            "images: name them under features.backbones as well, or let them be dropped with --replace"
        )


def _finished(located: Sequence[Located], old: Store | None, folder: BlockFolder) -> dict[str, set[str]]:
    """Content hashes whose features exist, by digest of the identity."""
    finished: dict[str, set[str]] = {item.identity.digest: set() for item in located}
    if old is not None:
        for info in old.matrices.values():
            if info.identity.digest in finished:
                finished[info.identity.digest].update(old.table.sha256)
    for block in folder.read():
        for digest in finished.keys() & block.features.keys():
            finished[digest].update(block.sha256)
    return finished


def _announce(listing: Listing, missing: dict[str, int], reused: dict[str, int], listener: Listener) -> None:
    source = listing.source
    if source.ignored:
        counts = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(source.ignored.items()))
        listener.warn(f"files of formats that are not read were passed over: {counts}")
    if source.class_names and {name.lower() for name in source.class_names} <= SPLITS:
        listener.warn(f"the class folders are called {', '.join(source.class_names)}; if these are splits, give one")
    if len(source.class_names) < 2:
        found = "one class" if source.class_names else "no labels"
        listener.warn(f"{found} in {source.root}: features can be computed, but `fit` needs at least two classes")
    listener.say(f"{len(source.entries)} images of {len(source.class_names)} classes in {source.root} ({source.kind})")
    for name, count in missing.items():
        listener.say(f"  {name}: {count} to compute, {reused[name]} there")


def _compute(
    listing: Listing,
    located: Sequence[Located],
    finished: Mapping[str, set[str]],
    settings: Settings,
    folder: BlockFolder,
    listener: Listener,
) -> None:
    """Compute what is missing, block by block; images that cannot be decoded are added to the rejected."""
    work = _group_work(listing, located, finished)
    needed = {name for names in work for name in names}
    if not needed:
        return
    engine = engines.choose(settings.features.engine)
    batch_size = settings.features.batch_size
    chosen = [item for item in located if item.backbone.name in needed]
    extractors = loading.prepare(chosen, engine, batch_size, listener)
    digests = {item.backbone.name: item.identity.digest for item in chosen}
    made_by = {item.identity.digest: {**engine.provenance(), "configured": item.backbone.to_dict()} for item in chosen}
    bad: dict[str, str] = {}
    with listener.track("features", sum(map(len, work.values())), "image") as advance:
        for names, inputs in work.items():
            parts: list[tuple[list[str], Mapping[str, NDArray[np.float32]]]] = []
            subset = {name: extractors[name] for name in names}
            try:
                for batch in extraction.extract(inputs, subset, batch_size):
                    hashes = [inputs[position].sha256 or "" for position in batch.positions]
                    parts.append((hashes, batch.features))
                    bad |= {inputs[at].sha256 or "": error.reason for at, error in batch.failures.items()}
                    if len(parts) == BATCHES_PER_BLOCK:
                        folder.add(_block(parts, digests, made_by))
                        parts = []
                    advance(len(batch.positions) + len(batch.failures))
            finally:  # an interrupted run keeps what it has shown as done
                if any(hashes for hashes, _ in parts):
                    folder.add(_block(parts, digests, made_by))
    listing.reject(bad)


def _group_work(
    listing: Listing, located: Sequence[Located], finished: Mapping[str, set[str]]
) -> dict[tuple[str, ...], list[ImageInput]]:
    """Images by the backbones that they still need; images of equal content are computed once."""
    work: dict[tuple[str, ...], list[ImageInput]] = {}
    seen: set[str] = set()
    for entry in listing.source.entries:
        digest = listing.sha256.get(entry.path)
        if digest is None or digest in seen:
            continue
        seen.add(digest)
        names = tuple(item.backbone.name for item in located if digest not in finished[item.identity.digest])
        if names:
            work.setdefault(names, []).append(ImageInput(entry.path, listing.source.locate(entry), digest))
    return work


def _block(
    parts: Sequence[tuple[list[str], Mapping[str, NDArray[np.float32]]]],
    digests: Mapping[str, str],
    made_by: Mapping[str, Mapping[str, Any]],
) -> Block:
    full = [part for part in parts if part[0]]
    hashes = tuple(digest for part, _ in full for digest in part)
    features = {digests[name]: np.concatenate([matrices[name] for _, matrices in full]) for name in full[0][1]}
    return Block(hashes, features, {digest: made_by[digest] for digest in features})


def _write_store(
    target: Path,
    listing: Listing,
    located: Sequence[Located],
    old: Store | None,
    folder: BlockFolder,
    settings: Settings,
    listener: Listener,
) -> bool:
    """Assemble the store from the old one and the blocks; leave it alone if it already says the same."""
    table = listing.table(settings.images.as_posix().encode("utf-8", "backslashreplace").decode())
    for name in set(listing.source.class_names) - set(table.class_names):
        listener.warn(f"class {name!r} has no image that can be read")
    assembly = Assembly(table, old, folder)
    identities = {item.backbone.name: item.identity for item in located}
    for name, info in (old.matrices if old else {}).items():
        if name not in identities and set(table.sha256) <= set(old.table.sha256 if old else ()):
            identities[name] = info.identity
        elif name not in identities:
            listener.warn(f"the features of {name!r} are dropped: they are not configured any more, and images are new")
    current = {name: info.identity for name, info in old.matrices.items()} if old else {}
    if old is not None and old.table.equals(table) and current == identities:
        return False
    matrices = {name: assembly.info(identity) for name, identity in identities.items()}
    rows = {name: assembly.rows(identity.digest) for name, identity in identities.items()}
    store.write(target, table, matrices, rows, created_with())
    return True
