"""Where a feature file is damaged whose checksum does not hold."""

import hashlib
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO

from stackcls import storeformat
from stackcls.files import CHUNK

SECONDS = 30.0
UNREADABLE = "its structure is damaged, so that no more can be said"
ELSEWHERE = "all matrices hold; damaged is the table of images, a description, the first line, or what lies between"

Places = dict[str, tuple[int, int, str]]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be, and where: a matrix, a field, a file."""

    where: str
    what: str


def find(path: Path) -> list[Finding]:
    """Name the damaged matrices, or say that it is something else."""
    places = _places(path)
    if places is None:
        return [Finding("file", UNREADABLE)]
    with open(path, "rb") as file:
        damaged = [name for name, place in places.items() if not _holds(file, *place)]
    found = [Finding(f"features/{name}", "its values are not those that were written") for name in damaged]
    return found or [Finding("file", ELSEWHERE)]


def _places(path: Path) -> Places | None:
    """Ask HDF5 where the matrices lie, in a process that may crash or never answer; None if it does not answer."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(str(path), theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(SECONDS) else None
    except EOFError:
        return None
    finally:
        process.kill()
        process.join()
        ours.close()


def _answer(path: str, answer: Connection) -> None:
    with suppress(Exception):  # whatever HDF5 says of a damaged file
        answer.send(storeformat.places(Path(path)))


def _holds(file: BinaryIO, start: int, size: int, sha256: str) -> bool:
    state = hashlib.sha256()
    for piece in _pieces(file, start, size):
        state.update(piece)
    return state.hexdigest() == sha256


def _pieces(file: BinaryIO, start: int, size: int) -> Iterator[bytes]:
    file.seek(min(start, os.fstat(file.fileno()).st_size))
    while size > 0 and (piece := file.read(min(size, CHUNK))):
        size -= len(piece)
        yield piece
