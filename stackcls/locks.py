"""One run at a time in a folder, also where the file system knows no locks, as many network file systems do.

The lock is a file that appears whole or not at all (a hard link). It says which process holds it, and its time of
change is renewed while that process lives.
"""

import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from stackcls import processes
from stackcls.errors import ArtifactsInUse
from stackcls.files import check_writable, explained, sweep

BEAT = 20.0  # seconds between two signs of life
SILENT_FOR = 300.0  # seconds after which a process that cannot be seen is taken for dead
TRIES, PAUSE = 5, 1.0  # at reading one's own lock, and seconds between them
LONGEST = 200  # characters of a command that are shown


@dataclass(frozen=True)
class Holder:
    """Who holds a lock; `started` tells a process from a later one of the same number."""

    host: str
    machine: str
    pid: int
    started: float
    command: str
    since: str
    token: str


class Lock:
    """A lock that this process holds.

    Parameters
    ----------
    path : Path
    mine : Holder
    """

    def __init__(self, path: Path, mine: Holder) -> None:
        self.path, self.mine = path, mine

    def verify(self) -> None:
        """Raise `ArtifactsInUse` if another run took over meanwhile, because this one stood still for long."""
        for _ in range(TRIES):
            if (found := _read(self.path)) is not None:
                break
            time.sleep(PAUSE)  # the folder may be out of reach for a moment
        if found is None or found.token != self.mine.token:
            by = f"by {_named(found)}" if found else "and then given back"
            raise ArtifactsInUse(
                f"{self.path.parent}: was taken over {by}, since this run gave no sign of life for over "
                f"{SILENT_FOR:.0f} s; wait until nothing runs there, and run the same command again"
            )


@contextmanager
def held(folder: Path) -> Iterator[Lock]:
    """Hold the lock of a folder, which is created; what dead writers left half-written there is removed.

    Raises
    ------
    ArtifactsInUse
        If another run holds it.
    ConfigError
        If the folder cannot be written to.
    """
    created = not folder.exists()
    check_writable(folder)
    lock = _acquire(folder / ".lock", _myself())
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(lock, stop), name="heartbeat", daemon=True)
    beating.start()
    try:
        sweep(folder)
        yield lock
    finally:
        stop.set()
        beating.join()
        _release(lock)
        if created:
            with suppress(OSError):  # it holds something now
                folder.rmdir()


def _myself() -> Holder:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return Holder(
        host=socket.gethostname(),
        machine=processes.this_machine(),
        pid=os.getpid(),
        started=processes.started(os.getpid()) or 0.0,
        command=command if len(command) <= LONGEST else f"{command[: LONGEST - 1]}…",
        since=datetime.now(UTC).isoformat(" ", "seconds"),
        token=uuid4().hex,
    )


def _acquire(path: Path, mine: Holder) -> Lock:
    """Create the lock, or take it over from a dead process.

    Of several who find the same dead process, one takes over: that is done under a lock of its own, in which the
    finding is repeated. Should the winner die there, that lock is taken over in the same way.
    """
    while True:
        with _written(path, mine) as candidate:
            try:
                _create(candidate, path)
                return Lock(path, mine)
            except FileExistsError:
                holder = _read(path)
                if holder is not None and holder.token == mine.token:  # a file server answered a repeated question
                    return Lock(path, mine)
                if not path.exists():  # given back just now
                    continue
                if not _is_dead(path, holder, candidate):
                    raise ArtifactsInUse(_refusal(path, holder)) from None
        taking = _acquire(path.with_name(f"{path.name}-taking"), mine)
        try:
            with _written(path, mine) as candidate:
                if path.exists() and _is_dead(path, _read(path), candidate):
                    os.replace(candidate, path)
                    return Lock(path, mine)
        finally:
            _release(taking)


@contextmanager
def _written(path: Path, mine: Holder) -> Iterator[Path]:
    """A file of our own beside the lock, whole, to be renamed or linked; its time is the file server's."""
    candidate = path.with_name(f"{path.name}.{mine.token}.{processes.mark()}.tmp")
    try:
        with explained(path):
            candidate.write_text(json.dumps(asdict(mine), ensure_ascii=False), "utf-8", "backslashreplace")
        yield candidate
    finally:
        with suppress(OSError):
            candidate.unlink()


def _create(candidate: Path, path: Path) -> None:
    """Let the lock appear, whole, if there is none; raise `FileExistsError` otherwise."""
    try:
        os.link(candidate, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links there: whole but for an instant, in which nobody takes it for dead
        with explained(path):
            content = candidate.read_bytes()
            file = open(path, "xb")  # noqa: SIM115  (what was there before must not be removed)
            try:
                with file:
                    file.write(content)
            except BaseException:
                with suppress(OSError):
                    path.unlink()
                raise


def _release(lock: Lock) -> None:
    found = _read(lock.path)
    if found is not None and found.token == lock.mine.token:
        with suppress(OSError):
            lock.path.unlink()


def _read(path: Path) -> Holder | None:
    try:
        holder = Holder(**json.loads(path.read_text("utf-8")))
        return holder if isinstance(holder.pid, int) and isinstance(holder.started, int | float) else None
    except (OSError, ValueError, TypeError):
        return None


def _is_dead(path: Path, holder: Holder | None, now: Path) -> bool:
    """Ask the processes of this machine; else how long ago it gave a sign of life, by the file server's clock."""
    gone = processes.is_gone(holder.machine, holder.pid, holder.started) if holder else None
    if gone is not None:
        return gone
    with suppress(OSError):
        return now.stat().st_mtime - path.stat().st_mtime > SILENT_FOR
    return False


def _refusal(path: Path, holder: Holder | None) -> str:
    if holder is None:
        return f"{path.parent}: is in use, and {path} does not say by whom; if nothing runs there, delete that file"
    said = f"{path.parent}: is in use by {_named(holder)}; wait until it has ended, or stop it"
    if processes.is_gone(holder.machine, holder.pid, holder.started) is None:
        said += (
            f". If it does not run any more, it is passed over {SILENT_FOR:.0f} s after its last sign of life"
            f"{_last_seen(path)}; or delete {path}"
        )
    return said


def _last_seen(path: Path) -> str:
    try:
        return f", which was {max(0.0, time.time() - path.stat().st_mtime):.0f} s ago"
    except OSError:
        return ""


def _named(holder: Holder) -> str:
    return f"`{holder.command}` (process {holder.pid} on {holder.host}, since {holder.since})"


def _beat(lock: Lock, stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        with suppress(OSError):  # the folder may be out of reach for a while
            found = _read(lock.path)
            if found is not None and found.token == lock.mine.token:
                os.utime(lock.path)
