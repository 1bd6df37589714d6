"""Where a feature file is damaged whose checksum does not hold."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stackcls.files import CHUNK

SECONDS = 30.0
ASK = """
import json, pathlib, sys
from stackcls import storeformat
json.dump(list(storeformat.places(pathlib.Path(sys.argv[1])).items()), sys.stdout)
"""
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
    command = [sys.executable, "-P", "-c", ASK, str(path)]  # -P: not from the folder that it is run in
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True, stdin=subprocess.DEVNULL)
        return {name: (int(start), int(size), str(digest)) for name, (start, size, digest) in json.loads(done.stdout)}
    except (subprocess.SubprocessError, ValueError):
        return None


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
