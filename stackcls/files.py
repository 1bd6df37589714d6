"""Files that are whole or absent, and the digests that tell them apart."""

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

from stackcls import processes
from stackcls.errors import ConfigError, StackclsError, WriteError

# Large, since a thread that hashes must wait for the interpreter after every piece.
CHUNK = 1 << 24

_Written = list[tuple[Path, Path]]
_TOGETHER: ContextVar[_Written | None] = ContextVar("together", default=None)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset(
    {errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR}
)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Hand out a temporary name beside `target`, and rename it over `target` once the block ends well.

    Parameters
    ----------
    target : Path
        The file to be written or replaced; its folder is created.

    Yields
    ------
    Path
        A name in the same folder, to be written and closed inside the block. On any exception it is removed, and
        `target` stays what it was.

    Raises
    ------
    WriteError
        If the disk is full, or the file cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{processes.mark()}.tmp")
    together = _TOGETHER.get()
    try:
        with explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
            if together is None:
                _rename([(temporary, target)])
            else:
                together.append((temporary, target))
    except BaseException:
        _remove(temporary)
        raise


@contextmanager
def together(first: Path, last: Path, stale: Iterable[Path] = ()) -> Iterator[None]:
    """Let all files that `replacing` writes in this block appear at its end, or none of them.

    Nothing is renamed before everything is written and synced, so that no full disk leaves new files beside old ones.
    A process killed between two renames can; then `first` is new and `last` is old, and where `last` names the
    content of `first` that is found out.

    Parameters
    ----------
    first, last : Path
        The files that are renamed first and last.
    stale : iterable of Path
        Files that go, if they are there, once all new ones are written and before the first appears.
    """
    written: _Written = []
    token = _TOGETHER.set(written)
    try:
        yield
        for path in stale:
            with explained(path):
                path.unlink(missing_ok=True)
        with explained(last):
            _rename(sorted(written, key=lambda pair: (pair[1] == last) - (pair[1] == first)))
    finally:
        _TOGETHER.reset(token)
        for temporary, _ in written:
            _remove(temporary)


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Say which file could not be written, and what helps, where the system says only why."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StackclsError) or error.errno not in _FULL | _REFUSED:
            raise
        remedy = "free space there" if error.errno in _FULL else "allow writing there and check the disk"
        raise WriteError(
            f"{target}: cannot be written ({error.strerror}): {remedy}, and run the same command again"
        ) from error


def sweep(folder: Path) -> None:
    """Remove half-written files in a folder whose writers are gone."""
    for path in folder.glob(".*.tmp"):
        found = re.fullmatch(rf"\..+\.({processes.MARK})\.tmp", path.name)
        if found and processes.is_left_behind(path, found[1]):
            _remove(path)


def write_text(target: Path, text: str) -> None:
    """Write a UTF-8 text file whole, or not at all; line ends are kept as given."""
    with replacing(target) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def begins_with(path: Path, text: str) -> bool:
    """Whether a file begins with a text; one that cannot be read does not."""
    try:
        with open(path, "rb") as file:
            return file.read(len(text.encode("utf-8"))) == text.encode("utf-8")
    except OSError:
        return False


def check_writable(folder: Path) -> None:
    """Create a folder and try to write in it, before hours of work.

    Raises
    ------
    ConfigError
        If it cannot be written to.
    WriteError
        If its disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in _FULL:
            with explained(folder):
                raise
        raise ConfigError(f"artifacts: {folder} cannot be written to ({error.strerror}); give another folder") from None


def digest_file(path: Path, start: int = 0) -> str:
    """SHA-256 of a file's bytes from `start` on, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        file.seek(start)
        return digest_stream(file)


def digest_stream(file: BinaryIO, algorithm: str = "sha256") -> str:
    """Digest of what is left of an open binary file, read in chunks, as hexadecimal digits."""
    state = hashlib.new(algorithm, usedforsecurity=False)
    piece = min(_size(file) or CHUNK, CHUNK)  # a larger one would be allocated in full for a small file
    while chunk := file.read(piece):
        state.update(chunk)
        del chunk  # before the next one is allocated
    return state.hexdigest()


def _size(file: BinaryIO) -> int:
    """Size of an open file, or 0 where it is not known."""
    try:
        return os.fstat(file.fileno()).st_size
    except OSError:  # not a file of the system's
        return 0


def _rename(written: _Written) -> None:
    for temporary, target in written:
        os.replace(temporary, target)
    for folder in dict.fromkeys(target.parent for _, target in written):
        _sync_folder(folder)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # must not take the place of what went wrong before; the next run sweeps it away
        return


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system lets folders be synced."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
