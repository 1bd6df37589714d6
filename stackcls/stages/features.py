"""`stackcls features`: images in, `features.h5` out; only what is not there yet is computed."""

import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from stackcls import (
    announcing,
    backbones,
    calibration,
    computation,
    connecting,
    engines,
    loading,
    locks,
    remotely,
    sources,
    storewriter,
)
from stackcls.assembly import Assembly
from stackcls.backbones import Backbone, Located
from stackcls.blocks import BlockFolder
from stackcls.cluster import Cluster
from stackcls.errors import StoreDamaged, StoreMissing
from stackcls.listener import Listener, Silent
from stackcls.listing import Listing, hash_all
from stackcls.losses import Losses
from stackcls.printable import counted
from stackcls.settings import Settings
from stackcls.store import ImageTable, Store
from stackcls.versions import created_with


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
    refit: bool = False,
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
        Allow finished features to be replaced, or dropped.
    refit : bool
        Fit bases (8-bit ranges, principal components) anew on the images as they are now, and replace the matrices made
        on the old ones.
    listener : Listener, optional

    Returns
    -------
    FeaturesResult

    Raises
    ------
    SourceError, ConfigError, WeightsError
        If images, settings or weights cannot be used.
    EngineError
        If the engine cannot run a network.
    IdentityMismatch
        If a stored matrix was made otherwise, and `replace` is not set.
    StoreError
        If finished features would be dropped, or images that have some cannot be read, and `replace` is not set.
    ClusterError
        If the cluster cannot be reached, is lost, or its workers cannot do their part.
    ArtifactsInUse, WriteError
        If another run works in the folder, or it cannot be written to.
    """
    start = time.perf_counter()
    known = backbones.resolve(settings.features)
    listener = listener or Silent()
    with ExitStack() as stack:
        # A dry run only reads, and what it reads is whole at any time.
        lock = None if dry_run else stack.enter_context(locks.held(settings.artifacts))
        workers = None if dry_run else stack.enter_context(connecting.connect(settings.cluster, listener))
        return _run(settings, known, lock, workers, offline, replace, refit, listener, start)


def _run(
    settings: Settings,
    known: Sequence[Backbone],
    lock: locks.Lock | None,
    workers: Cluster | None,
    offline: bool,
    replace: bool,
    refit: bool,
    listener: Listener,
    start: float,
) -> FeaturesResult:
    """Run under the lock; a dry run where there is none."""
    dry_run = lock is None
    if settings.features.precision != "float32":
        engines.choose(settings.features.engine, settings.features.precision)  # which may refuse, before any work
    source = sources.scan(settings.images, settings.features.limits)
    absent = _announce_absent(known, settings, listener) if dry_run else set()
    known = tuple(backbone for backbone in known if backbone.name not in absent)
    located = loading.locate(known, settings, offline, listener)
    hasher = functools.partial(remotely.hash_on, workers) if workers else None
    listing = hash_all(source, listener, settings.features.limits, hasher)
    folder, target = BlockFolder(settings.files.blocks), settings.files.features
    old = _open_old(target, listener)
    try:
        located = calibration.known_bases(located, old, folder, refit, listener)
        losses = Losses(target, old, folder, located, absent, listing, dict(listing.sha256), replace)
        losses.refuse()
        losses.refuse_unread()
        if dry_run:
            calibration.announce(located, listener)
        else:
            drawn = settings.features.engine, settings.cv.seed, folder, listener, settings.cv.holdout
            located = calibration.fit_bases(located, listing, *drawn)
        finished = computation.finished(located, old, folder)
        computation.reject_unreadable(listing, located, finished, workers is not None)
        wanted = set(listing.sha256.values())
        reused = {item.backbone.name: len(wanted & finished[item.identity.digest]) for item in located}
        missing = dict.fromkeys(sorted(absent), len(wanted))
        reused |= dict.fromkeys(absent, 0)
        missing |= {item.backbone.name: len(wanted) - reused[item.backbone.name] for item in located}
        losses.refuse_unread()
        announcing.plan(listing, missing, reused, listener)
        losses.announce(listener)
        if lock is None:
            if old is not None and not any(missing.values()):
                announcing.rewriting(old, _table(listing, settings), listener)
            return _result(target, listing, missing, reused, start, written=False)
        with _telling_what_is_kept(folder):
            computation.compute(listing, located, finished, settings.features, folder, listener, workers)
            readable = set(listing.sha256.values())  # fewer, where some could not be decoded
            missing = {item.backbone.name: len(readable - finished[item.identity.digest]) for item in located}
            losses.refuse_unread()
            lock.verify()
            written = _write_store(target, listing, located, old, folder, settings, listener)
    finally:
        if old is not None:
            old.__exit__(None, None, None)
    folder.clear()
    return _result(target, listing, missing, reused, start, written)


@contextmanager
def _telling_what_is_kept(folder: BlockFolder) -> Iterator[None]:
    """Add to whatever ends the work early what was finished until then."""
    try:
        yield
    except BaseException as error:
        if found := len(folder):
            error.add_note(
                f"what was finished is kept ({counted(found, 'block')} of up to {computation.IMAGES_PER_BLOCK} "
                f"images in {folder.folder}), and the same command goes on from there"
            )
        raise


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


def _table(listing: Listing, settings: Settings) -> ImageTable:
    return listing.table(settings.images.as_posix().encode("utf-8", "backslashreplace").decode())


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
    table = _table(listing, settings)
    for name in set(listing.source.class_names) - set(table.class_names):
        listener.warn(f"class {name!r} has no image that can be read")
    assembly = Assembly(table, old, folder)
    identities = {item.backbone.name: item.identity for item in located}
    for name, info in (old.matrices if old else {}).items():
        if name not in identities and set(table.sha256) <= set(old.table.sha256 if old else ()):
            identities[name] = info.identity
    current = {name: info.identity for name, info in old.matrices.items()} if old else {}
    if old is not None and old.table.equals(table) and current == identities:
        return False
    bases = {name: info.basis for name, info in (old.matrices if old else {}).items()}
    bases |= {item.backbone.name: item.basis for item in located}
    # By the weights, since it is them that were fine-tuned; their file may be gone where a matrix is only kept.
    saw = {info.identity.weights: info.seen for info in (old.matrices if old else {}).values()}
    saw |= {item.identity.weights: item.seen for item in located}
    matrices = {
        name: dataclasses.replace(assembly.info(identity), basis=bases[name], seen=saw.get(identity.weights))
        for name, identity in identities.items()
    }
    rows = {name: assembly.rows(identity.digest) for name, identity in identities.items()}
    storewriter.write(target, table, matrices, rows, created_with())
    return True
