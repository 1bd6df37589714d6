"""Files that are whole or absent, and the digests that tell them apart."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from stackcls.errors import ConfigError

# Large, since a thread that hashes must wait for the interpreter after every piece.
CHUNK = 1 << 24


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
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(target: Path, text: str) -> None:
    """Write a UTF-8 text file whole, or not at all; line ends are kept as given."""
    with replacing(target) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def check_writable(folder: Path) -> None:
    """Create a folder and try to write in it, before hours of work; raise `ConfigError` where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"artifacts: {folder} cannot be written to ({error.strerror}); give another folder") from None


def digest_file(path: Path, start: int = 0) -> str:
    """SHA-256 of a file's bytes from `start` on, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        file.seek(start)
        return digest_stream(file)


def digest_stream(file: BinaryIO, algorithm: str = "sha256") -> str:
    """Digest of what is left of an open binary file, read in chunks, as hexadecimal digits."""
    state = hashlib.new(algorithm, usedforsecurity=False)
    while chunk := file.read(CHUNK):
        state.update(chunk)
    return state.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system lets folders be synced."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
