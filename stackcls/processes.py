"""Which process, of which machine, made something, and whether it is gone."""

import hashlib
import os
import re
import socket
import time
from functools import cache
from pathlib import Path

import psutil

# When a process began is told in ticks since the machine was booted, and its clock may be set meanwhile.
CLOCKS_AGREE = 2.0
MARK = r"([0-9a-f]{12})-(\d+)-(\d+)"
ABANDONED = 24 * 3600  # seconds after which a file of another machine's process is taken for left behind


@cache
def this_machine() -> str:
    """Where process numbers mean the same: host, time since it was booted, and container, as 12 hexadecimal digits."""
    said = [socket.gethostname()]
    for source in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            said.append(str(Path(source).readlink()) if source.endswith("pid") else Path(source).read_text("ascii"))
        except OSError:  # not Linux
            said.append("")
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:12]


def started(pid: int) -> float | None:
    """When a process of this machine began, in seconds since 1970; None if there is no such process any more."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:  # somebody else's, and alive
        return 0.0


@cache
def _mark(pid: int) -> str:
    return f"{this_machine()}-{pid}-{started(pid) or 0:.0f}"


def mark() -> str:
    """Name this process, as part of a file's name."""
    return _mark(os.getpid())


def is_gone(machine: str, pid: int, began: float) -> bool | None:
    """Tell whether a process has ended; None where that cannot be known, since it is another machine's."""
    if machine != this_machine():
        return None
    now = started(pid)
    return now is None or (now > 0 and abs(now - began) > CLOCKS_AGREE)


def is_left_behind(path: Path, written_by: str) -> bool:
    """Tell whether a file was begun by a process that is gone.

    Parameters
    ----------
    path : Path
    written_by : str
        The process, as its `mark` says.
    """
    parts = re.fullmatch(MARK, written_by)
    gone = is_gone(parts[1], int(parts[2]), float(parts[3])) if parts else None
    if gone is not None:
        return gone
    try:
        return path.stat().st_mtime < time.time() - ABANDONED
    except OSError:
        return False
