"""A source's images with the hashes of their content, and the table of rows that comes of them."""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from stackcls import decoding, images
from stackcls.decoding import Turn
from stackcls.engines.cache import cache_folder
from stackcls.errors import SourceError, UnreadableFile, UnreadableImage
from stackcls.extraction import ImageInput
from stackcls.listener import Listener
from stackcls.printable import counted
from stackcls.settings import Limits
from stackcls.sources import ImageEntry, Source
from stackcls.spool import Spool
from stackcls.store import ImageTable
from stackcls.urls import Url

REMOTE_THREADS = 32  # a server answers late, and several at once
AT_ONCE = 32  # images that one thread takes at a time: a task for each would cost more than hashing a small one
PER_TASK = 128  # and that one task takes on a cluster

Outcomes = list[str | UnreadableImage]
Hasher = Callable[[Iterable[list[ImageInput]], Limits], Generator[tuple[int, Outcomes]]]


@dataclass(frozen=True)
class Listing:
    """A source, the content hash of each image that can be opened, and the images that are rejected.

    Attributes
    ----------
    source : Source
    sha256 : dict of str to str
        By path; an image that turns out to be unreadable later is moved from here to `rejected`.
    rejected : dict of str to str
        Reasons by path.
    limits : Limits
        What one image may cost.
    """

    source: Source
    sha256: dict[str, str]
    rejected: dict[str, str]
    limits: Limits

    @property
    def kept(self) -> list[ImageEntry]:
        """Entries that are not rejected, in order."""
        return [entry for entry in self.source.entries if entry.path in self.sha256]

    def reject(self, errors: Iterable[UnreadableImage]) -> None:
        """Reject what cannot be read: the path alone where its file is at fault, else all images of that content."""
        contents: dict[str, str] = {}
        for error in errors:
            if isinstance(error, UnreadableFile):
                del self.sha256[error.path]
                self.rejected[error.path] = error.reason
            else:
                contents[self.sha256[error.path]] = error.reason
        for path in [path for path, digest in self.sha256.items() if digest in contents]:
            self.rejected[path] = contents[self.sha256.pop(path)]

    def table(self, source_name: str) -> ImageTable:
        """Rows of the images that are left; raise `SourceError` if none is."""
        entries = self.kept
        if not entries:
            path, reason = next(iter(self.rejected.items()))
            raise SourceError(f"images: none of {counted(len(self.rejected), 'image')} can be read; {path}: {reason}")
        classes = tuple(sorted({entry.label for entry in entries if entry.label is not None}))
        groups = tuple(sorted({entry.group for entry in entries if entry.group is not None}))
        class_index = {name: index for index, name in enumerate(classes)}
        group_index = {name: index for index, name in enumerate(groups)}
        return ImageTable(
            paths=tuple(entry.path for entry in entries),
            sha256=tuple(self.sha256[entry.path] for entry in entries),
            splits=tuple(entry.split or "" for entry in entries),
            labels=np.array([class_index.get(entry.label or "", -1) for entry in entries], dtype=np.int32),
            groups=np.array([group_index.get(entry.group or "", -1) for entry in entries], dtype=np.int64),
            class_names=classes,
            group_names=groups,
            rejected=dict(sorted(self.rejected.items())),
            source=source_name,
        )


def hash_all(source: Source, listener: Listener, limits: Limits, hasher: Hasher | None = None) -> Listing:
    """Read every file once to know its content; what cannot be opened is rejected.

    What is read here from a server is copied, where there is room, for the source that the listing has.

    Parameters
    ----------
    source : Source
    listener : Listener
    limits : Limits
    hasher : callable, optional
        Reads blocks of images elsewhere, and yields each block's number and hashes, in any order; by default threads
        read them here.
    """
    each = PER_TASK
    if hasher is not None:
        hashed = hasher(_blocks(source), limits)
    elif isinstance(source.root, Url):
        spool, each = None, 1
        with suppress(OSError):  # where the cache cannot be written, all is transferred twice
            spool = Spool(cache_folder())
            source = replace(source, copies=spool.place)
        hashed = _afar(source, limits, spool)
    else:
        hashed, each = _here(source, limits), AT_ONCE
    found: dict[int, str | UnreadableImage] = {}
    with listener.track("hash", len(source.entries), "image") as advance, closing(hashed):
        for number, outcomes in hashed:
            found.update(enumerate(outcomes, number * each))
            advance(len(outcomes))
    listing = Listing(source, {}, dict(source.rejected), limits)
    for number, entry in enumerate(source.entries):  # in this order, whichever came first
        if isinstance(outcome := found[number], UnreadableImage):
            listing.rejected[entry.path] = outcome.reason
        else:
            listing.sha256[entry.path] = outcome
    return listing


def _blocks(source: Source) -> Iterator[list[ImageInput]]:
    for start in range(0, len(source.entries), PER_TASK):
        some = source.entries[start : start + PER_TASK]
        yield [ImageInput(entry.path, source.locate(entry)) for entry in some]


def _here(source: Source, limits: Limits) -> Generator[tuple[int, Outcomes]]:
    def digest(entry: ImageEntry) -> str | UnreadableImage:
        try:
            return images.hash_file(source.locate(entry), entry.path, limits)
        except UnreadableImage as error:
            return error

    def digests(start: int) -> Outcomes:
        return [digest(entry) for entry in source.entries[start : start + AT_ONCE]]

    pool = ThreadPoolExecutor(thread_name_prefix="hash")
    try:
        yield from enumerate(pool.map(digests, range(0, len(source.entries), AT_ONCE)))
    finally:
        pool.shutdown(cancel_futures=True)  # whoever interrupts does not wait for the rest


def _afar(source: Source, limits: Limits, spool: Spool | None) -> Generator[tuple[int, Outcomes]]:
    """Hash what a server has, in threads that nobody waits for when it hangs."""

    def digest(entry: ImageEntry, turn: Turn[str | UnreadableImage]) -> str | UnreadableImage:
        try:
            data = images.read_bytes(source.locate(entry), entry.path, limits, turn.admit_file)
        except UnreadableImage as error:
            return error
        if spool is not None:
            spool.keep(entry.path, data)
        return images.content_hash(data)

    def late(number: int) -> UnreadableImage:
        return UnreadableImage(source.entries[number].path, "was not waited for")

    jobs = (partial(digest, entry) for entry in source.entries)
    with closing(decoding.in_order(jobs, late, limits.seconds, 4 * REMOTE_THREADS, REMOTE_THREADS)) as outcomes:
        yield from ((number, [outcome]) for number, outcome in enumerate(outcomes))
