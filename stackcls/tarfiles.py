"""Tar files whose members are read where they lie, on this machine or at a URL."""

import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from stackcls import fetching, remote
from stackcls.errors import StackclsError, UnreadableFile
from stackcls.settings import Limits
from stackcls.urls import Place, Url

READ_AHEAD = 2**20
LONGEST_HEADER = 2**20  # bytes, of a name say; a damaged one may claim any number


class Damaged(Exception):
    """Says how far a tar file could be read, as a clause."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file within a tar file on this machine.

    Attributes
    ----------
    shard : Path
    start, size : int
        Of its content, in bytes.
    """

    shard: Path
    start: int
    size: int

    def read(self, name: str, limits: Limits, admit: Callable[[int], None] | None = None) -> bytes:
        """Read its bytes; raise `UnreadableFile` under `name` where that cannot be done."""
        if self.size > limits.max_bytes:
            raise UnreadableFile(
                name,
                f"the file's {self.size} bytes are more than an image within features.max_pixels needs; raise that",
            )
        if admit is not None:
            admit(self.size)
        try:
            with open(self.shard, "rb") as file:
                file.seek(self.start)
                data = file.read(self.size)
        except FileNotFoundError:
            raise UnreadableFile(name, "its shard is not there any more") from None
        except OSError as error:
            raise UnreadableFile(name, f"cannot be read ({error.strerror or error})") from None
        if len(data) < self.size:
            raise UnreadableFile(name, f"is cut short: {len(data)} of {self.size} bytes are there")
        return data


def opened(shard: Place, limits: Limits) -> tuple[BinaryIO, int]:
    """Open a tar file, and tell its size; raise `UnreadableFile` or `OSError` where it cannot be read."""
    if isinstance(shard, Url):
        size = remote.size_of(shard, limits)
        return io.BufferedReader(_Pieces(shard, size, limits), READ_AHEAD), size  # type: ignore[type-var]
    return open(shard, "rb"), shard.stat().st_size


def members(file: BinaryIO, size: int) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files of a tar file in order.

    Raises
    ------
    Damaged
        Where it cannot be read any further.
    """
    place = 0
    try:
        with tarfile.open(fileobj=cast(BinaryIO, _Headers(file)), mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # which would keep all of them
                if member.offset_data <= place or member.size < 0:
                    raise tarfile.ReadError("a member lies before the one before it")
                place = member.offset_data
                if sum(map(len, tar.pax_headers.values())) > LONGEST_HEADER:
                    raise tarfile.ReadError("its headers for all members are too long")
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"{member.name!r} is longer than what is there")
                if member.isreg() and not member.issparse():
                    yield member
            file.seek(tar.offset)
            end = file.read(tarfile.BLOCKSIZE)
            if not end or end.strip(b"\0"):
                raise tarfile.ReadError("no end mark")
    except StackclsError:
        raise
    except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
        at = f"after byte {place}" if place else "from its beginning on"
        raise Damaged(f"is damaged or cut short {at} ({error}); make this shard anew") from None


def content(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    """Content of a small member."""
    file.seek(member.offset_data)
    return file.read(member.size)


class _Headers:
    """A file of which nothing is read at once that is longer than a header needs to be."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError(f"a header is longer than {LONGEST_HEADER} bytes")
        return self._file.read(size)


class _Pieces(io.RawIOBase):
    """A file at a URL, read piece by piece."""

    def __init__(self, url: Url, size: int, limits: Limits) -> None:
        self._url, self._size, self._limits, self._place = url, size, limits, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = max(0, offset + (0, self._place, self._size)[whence])
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        end = min(self._place + len(buffer), self._size)
        if end <= self._place:
            return 0
        data = fetching.trying(
            lambda: fetching.fetch(self._url, self._place, end, self._limits.read_seconds),
            self._url,
            str(self._url),
            self._limits,
        )
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
