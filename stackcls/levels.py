"""Levels of work, of which none is begun that would not end in time."""

import time
from collections.abc import Iterator, Sequence

MARGIN = 1.5  # a level may take so much longer than the longest before it


class Levels:
    """Gives one factor after the other, as long as the next is likely to end in time."""

    def __init__(self, factors: Sequence[float], start: float, end: float) -> None:
        self._factors, self._start, self._end = factors, start, end
        self.done: list[float] = []

    def __iter__(self) -> Iterator[float]:
        longest, last = 0.0, self._start
        for factor in self._factors:
            if self.done and last + MARGIN * longest > self._end:
                return
            yield factor
            self.done.append(factor)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
