"""What is waited for deep inside and in any thread, told now and then to whoever wants to hear it."""

import threading
import time
from collections.abc import Callable

EVERY = 15.0  # seconds between two lines of one kind

_lock = threading.Lock()
_hear: Callable[[str], None] | None = None
_told: dict[str, float] = {}


def tell_to(hear: Callable[[str], None] | None) -> None:
    """Let a process's one user hear from now on; None for nobody."""
    global _hear
    with _lock:
        _hear = hear
        _told.clear()


def tell(kind: str, line: str) -> None:
    """Say what is waited for, unless something of that kind was said just before."""
    with _lock:
        now = time.monotonic()
        if _hear is None or now - _told.get(kind, -EVERY) < EVERY:
            return
        _told[kind] = now
        _hear(line)
