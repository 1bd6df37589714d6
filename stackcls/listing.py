"""A source's images with the hashes of their content, and the table of rows that comes of them."""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from stackcls import images
from stackcls.errors import SourceError, UnreadableFile, UnreadableImage
from stackcls.extraction import ImageInput
from stackcls.listener import Listener
from stackcls.settings import Limits
from stackcls.sources import ImageEntry, Source
from stackcls.store import ImageTable

AT_ONCE = 32  # images that one thread takes at a time: a task for each would cost more than hashing a small one
PER_TASK = 128  # and that one task takes on a cluster


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
            raise SourceError(f"images: none of the {len(self.rejected)} images can be read; {path}: {reason}")
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


Outcomes = list[str | UnreadableImage]
Hasher = Callable[[Iterable[list[ImageInput]], Limits], Generator[tuple[int, Outcomes]]]


def hash_all(source: Source, listener: Listener, limits: Limits, hasher: Hasher | None = None) -> Listing:
    """Read every file once to know its content; what cannot be opened is rejected.

    Parameters
    ----------
    source : Source
    listener : Listener
    limits : Limits
    hasher : callable, optional
        Reads blocks of images elsewhere, and yields each block's number and hashes, in any order; by default threads
        read them here.
    """
    found: dict[int, str | UnreadableImage] = {}
    each = AT_ONCE if hasher is None else PER_TASK
    starts = range(0, len(source.entries), each)
    hashed = _in_threads(source, starts, limits) if hasher is None else hasher(_blocks(source, starts), limits)
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


def _blocks(source: Source, starts: range) -> Iterator[list[ImageInput]]:
    for start in starts:
        some = source.entries[start : start + starts.step]
        yield [ImageInput(entry.path, source.locate(entry)) for entry in some]


def _in_threads(source: Source, starts: range, limits: Limits) -> Generator[tuple[int, Outcomes]]:
    def digest(entry: ImageEntry) -> str | UnreadableImage:
        try:
            return images.hash_file(source.locate(entry), entry.path, limits)
        except UnreadableImage as error:
            return error

    def digests(start: int) -> Outcomes:
        return [digest(entry) for entry in source.entries[start : start + starts.step]]

    pool = ThreadPoolExecutor(thread_name_prefix="hash")
    try:
        yield from enumerate(pool.map(digests, starts))
    finally:
        pool.shutdown(cancel_futures=True)  # whoever interrupts does not wait for the rest
