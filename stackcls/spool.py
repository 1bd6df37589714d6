"""Copies on this disk of what is read from elsewhere, so that hashing and decoding transfer it once."""

import hashlib
import os
import shutil
import tempfile
import threading
import weakref
from contextlib import suppress
from pathlib import Path

from stackcls import processes

BEGINNING = "spool-"
MOST = 20 * 2**30  # bytes; never more than half of what is free
LEAST_FREE = 2**30


class Spool:
    """Copies in a folder of their own, which goes when nobody has this any more.

    Parameters
    ----------
    folder : Path
        Where that folder is made; what killed processes left there is removed.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{BEGINNING}*"):
            if processes.is_left_behind(left, left.suffix[1:]):
                shutil.rmtree(left, ignore_errors=True)
        self._folder = Path(tempfile.mkdtemp(f".{processes.mark()}", BEGINNING, folder))
        weakref.finalize(self, _remove, self._folder, os.getpid())
        self._left = max(0, min(MOST, shutil.disk_usage(folder).free // 2 - LEAST_FREE))
        self._counting = threading.Lock()

    def place(self, path: str) -> Path:
        """Where the copy of an image lies, if there is one."""
        return self._folder / hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:40]

    def keep(self, path: str, data: bytes) -> None:
        """Copy an image, as long as there is room; whole, or not at all."""
        with self._counting:
            if len(data) > self._left:
                return
            self._left -= len(data)
        target = self.place(path)
        begun = target.with_suffix(".begun")
        try:
            begun.write_bytes(data)
            begun.replace(target)
        except OSError:  # a full disk: then it is transferred twice
            self._left = 0
            with suppress(OSError):
                begun.unlink(missing_ok=True)


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # and not a fork of the process that it belongs to
        shutil.rmtree(folder, ignore_errors=True)
