"""How many processors this process may keep busy: all of its own, or what a cluster grants one of its workers."""

import os

_granted: list[int] = []


def grant(count: int) -> None:
    """Let networks that are built from now on take so many."""
    _granted[:] = [count]


def granted() -> int | None:
    """What was granted last; None where nothing was."""
    return _granted[0] if _granted else None


def available() -> int:
    """Processors that this process may use, which a container or a batch system may have limited too."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(own, granted() or own)
