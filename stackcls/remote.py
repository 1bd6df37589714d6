"""Files at URLs, and pieces of them."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from stackcls import fetching
from stackcls.errors import FileMissing, SourceError, SourceMissing, UnreadableFile
from stackcls.settings import Limits
from stackcls.urls import Url

LISTS = 2**28
MOST_LEVELS = 32  # of folders that an HTTP server lists, since links may lead round in circles
MOST_PAGES, MOST_FILES = 100_000, 10_000_000  # of all of them


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at a URL, or a piece of one; any process can read it from this alone.

    Attributes
    ----------
    url : Url
    start, size : int, optional
        The piece; by default all of the file.
    copy : Path, optional
        Where a copy may lie on this machine.
    """

    url: Url
    start: int | None = None
    size: int | None = None
    copy: Path | None = None

    def __str__(self) -> str:
        """What may be shown."""
        return str(self.url)

    def read(self, name: str, limits: Limits, admit: Callable[[int], None] | None = None) -> bytes:
        """Read all of it.

        Parameters
        ----------
        name : str
            What errors call it.
        limits : Limits
            A file that is larger than any image within them is not read.
        admit : callable, optional
            Called with the number of bytes before more than the first MiB of them is read; may wait.

        Raises
        ------
        UnreadableFile
            If there is no such file, it may not be read, or is too large.
        SourceAway
            If the server does not give it, nor says why it cannot: then it would give no other either.
        SourceError
            If a package is missing, or credentials are.
        """
        admit = _once(admit)
        if self.copy is not None:
            with suppress(OSError):
                admit(self.copy.stat().st_size)
                return self.copy.read_bytes()
        if self.size is None:
            return self._whole(name, limits, admit)
        if self.size > limits.max_bytes:
            raise UnreadableFile(name, _too_large(limits))
        admit(self.size)
        start = self.start or 0
        end = start + self.size
        data = fetching.trying(
            lambda: fetching.fetch(self.url, start, end, limits.read_seconds), self.url, name, limits
        )
        if len(data) != self.size:
            raise UnreadableFile(name, f"is cut short: {len(data)} of {self.size} bytes are there")
        return data

    def _whole(self, name: str, limits: Limits, admit: Callable[[int], None]) -> bytes:
        def asked() -> bytes:
            return fetching.fetch_whole(self.url, limits.max_bytes, limits.read_seconds, admit)

        try:
            return fetching.trying(asked, self.url, name, limits)
        except fetching.TooLarge:
            raise UnreadableFile(name, _too_large(limits)) from None


def _once(admit: Callable[[int], None] | None) -> Callable[[int], None]:
    """Ask for room at the first of several tries alone, since a job that waits for what it holds itself never ends."""
    asked: list[int] = []

    def ask(size: int) -> None:
        if admit is not None and not asked:
            admit(size)
            asked.append(size)

    return ask


def _too_large(limits: Limits) -> str:
    return f"the file has more than the {limits.max_bytes} bytes that an image within features.max_pixels needs"


def read_whole(url: Url, limits: Limits) -> bytes:
    """Read a file that lists images; raises as `RemoteFile.read`."""
    return RemoteFile(url).read(str(url), replace(limits, max_pixels=LISTS))


def find(url: Url, limits: Limits) -> Mapping[str, int | None]:
    """Sizes of all files below a folder, where they are known, by relative path without escapes.

    Raises
    ------
    UnreadableFile
        If there is nothing, or nothing that may be listed.
    SourceAway, SourceError
        As for reading.
    """
    if url.is_http:
        return dict(_pages(url, limits))
    system = fetching.file_system(url, listing=True)
    base = system._strip_protocol(url.folder).rstrip("/")
    try:
        listed: Mapping[str, Mapping[str, Any]] = fetching.trying(
            lambda: system.find(base, detail=True), url, str(url), limits, fetching.OWN_TRIES
        )
    except FileMissing:  # where a bucket has nothing of that name, its listing is empty instead
        raise SourceMissing(
            f"images: {url}: there is no such bucket; check its name, and the address of its service where that is "
            "not the usual one (AWS_ENDPOINT_URL, STORAGE_EMULATOR_HOST)"
        ) from None
    return {
        name.removeprefix(f"{base}/"): info.get("size")
        for name, info in listed.items()
        if info.get("type") == "file" and not name.endswith("/")
    }


def _pages(url: Url, limits: Limits) -> Iterator[tuple[str, None]]:
    """Go through the folders that a server shows as pages of links."""
    system = fetching.file_system(url, listing=True)
    folders: list[tuple[str, int, frozenset[str]]] = [(url.folder, 0, frozenset())]
    pages = files = 0
    while folders:
        folder, level, above = folders.pop()
        ask = partial(system.ls, folder, detail=True, timeout=limits.read_seconds)
        found = fetching.trying(ask, url, str(url), limits)
        names = sorted({str(info["name"]).removesuffix(url.query) for info in found})
        digest = hashlib.sha256("\n".join(name.removeprefix(folder) for name in names).encode("utf-8", "replace"))
        pages, files = pages + 1, files + len(names)
        if pages > MOST_PAGES or files > MOST_FILES:
            raise SourceError(
                f"images: {url} is on a server that shows more than {MOST_PAGES} folders or {MOST_FILES} links below "
                "it, in circles perhaps; give a manifest with a line for each image"
            )
        # The page of a folder above it, under a longer name; `train/train/` alone is none, and soon ends.
        if len(names) > 1 and digest.hexdigest() in above:
            continue
        above |= {digest.hexdigest()}
        for name in names:
            if not name.startswith(folder) or "?" in name:  # links to elsewhere, and to other orders of the same page
                continue
            if not name.endswith("/"):
                yield url.relative(name), None
            elif level < MOST_LEVELS and name != folder:
                folders.append((name, level + 1, above))


def size_of(url: Url, limits: Limits) -> int:
    """Length of a file in bytes; raises as reading it does."""
    return fetching.trying(lambda: fetching.size_of(url), url, str(url), limits)
