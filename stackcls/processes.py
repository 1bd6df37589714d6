"""Which process, of which machine, made something, and whether it is gone; what memory is left to this one."""

import contextlib
import hashlib
import math
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
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
    """When a process of this machine began; None if it has ended, zero where that cannot be seen.

    On Linux in ticks since the machine was booted, which no setting of the clock changes; elsewhere in seconds since
    1970.
    """
    if not _exists(pid):
        return None
    if sys.platform == "linux":
        try:
            # After the name, which may hold anything: the state, and as the twentieth the start.
            fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
            return None if fields[0] in (b"Z", b"X") else float(fields[19])
        except (OSError, IndexError, ValueError):  # another user's, under `hidepid`
            return 0.0
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return 0.0


def _exists(pid: int) -> bool:
    if os.name != "posix":  # where signal 0 would be sent
        return bool(psutil.pid_exists(pid))
    try:
        os.kill(pid, 0)
    except PermissionError:  # another user's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


@cache
def _mark(pid: int) -> str:
    return f"{this_machine()}-{pid}-{started(pid) or 0:.0f}"


@dataclass(frozen=True)
class Left:
    """Memory that a process can still take.

    Attributes
    ----------
    name : str
        Of its machine, as `this_machine`.
    machine : int
        Bytes that its machine has.
    own : float
        Bytes that its control groups and its own limits leave; infinite where there are none.
    group : str
        Its control groups, which other processes may be in too.
    """

    name: str
    machine: int
    own: float
    group: str


def memory_left() -> Left:
    """What this process can still take."""
    found: list[float] = [*_left_to_groups()]
    if sys.platform != "win32":
        import resource

        used = psutil.Process().memory_info()
        # Of what Linux says, `data` has the stack too, which that limit does not count; other systems do not say it.
        for limit, taken in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, getattr(used, "data", used.rss))):
            soft, _ = resource.getrlimit(limit)
            if soft != resource.RLIM_INFINITY:
                found.append(soft - int(taken))
    return Left(
        this_machine(), int(psutil.virtual_memory().available), max(0.0, min(found, default=math.inf)), _groups()
    )


def available_memory() -> int:
    """Bytes that this process can still take: of the machine's, of its control groups' and of its own limits."""
    left = memory_left()
    return int(min(left.machine, left.own))


def _groups() -> str:
    try:
        return (PROC / "self" / "cgroup").read_text("ascii")
    except (OSError, ValueError):  # not Linux
        return ""


def _left_to_groups() -> Iterator[int]:
    """What limits of Linux's control groups leave, as containers and batch systems set them."""
    for _, kinds, name in (line.split(":", 2) for line in _groups().splitlines() if line.count(":") > 1):
        if kinds not in ("", "memory") and "memory" not in kinds.split(","):
            continue
        first = GROUPS if not kinds else GROUPS / "memory"
        here = first / name.lstrip("/")
        for folder in (here, *here.parents):  # in a container the name may be the host's, and the limit at the top
            with contextlib.suppress(OSError, ValueError, KeyError):
                yield _left_to_group(folder, not kinds)
            if folder == first:
                break


def _left_to_group(folder: Path, unified: bool) -> int:
    """What one group's limit leaves; what is kept of files can be given back, and does not count."""
    # Above `high` nothing is refused, but all is slowed down until it stands still.
    limits = ("memory.max", "memory.high") if unified else ("memory.limit_in_bytes",)
    used = "memory.current" if unified else "memory.usage_in_bytes"
    stated = [path.read_text("ascii").strip() for path in (folder / name for name in limits) if path.exists()]
    limit = min(int(text) for text in stated if text != "max")  # where there is none, the ValueError says so
    said = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
    files = int(said["inactive_file"]) + int(said["active_file"])
    return limit - int((folder / used).read_text("ascii")) + files


def mark() -> str:
    """Name this process, as part of a file's name."""
    return _mark(os.getpid())


def is_gone(machine: str, pid: int, began: float) -> bool | None:
    """Tell whether a process has ended; None where that cannot be known.

    That is so of another machine's, and where there is a process of that number whose start cannot be seen or is
    another: most likely the number was given again, but a living process must never be taken for dead.
    """
    if machine != this_machine():
        return None
    now = started(pid)
    if now is None:
        return True
    return False if now > 0 and abs(now - began) < 1 else None  # names of files have whole numbers


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
