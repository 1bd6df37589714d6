"""How the command line speaks while it works: on standard error, with bars on a terminal and plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm

from stackcls.printable import counted, printable

PLAIN_EVERY = 15.0
HEADLINES = 10


class Console:
    """A `Listener` that writes to standard error."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()

    def say(self, line: str) -> None:
        """Write a remark, above a running bar if there is one; names in it cannot act on the terminal."""
        tqdm.write(printable(line), file=sys.stderr)

    def warn(self, line: str) -> None:
        """Write a warning."""
        self.say(f"warning: {line}")

    @contextmanager
    def track(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Show progress with rate and time left."""
        scaled = unit == "B"
        if self._terminal:
            with tqdm(total=total, desc=what, unit=unit, unit_scale=scaled, file=sys.stderr, leave=False) as bar:
                yield lambda count: _update(bar, count)
            return
        line = _PlainLines(self, what, total, unit, scaled)
        yield line.advance

    def list_rejected(self, rejected: dict[str, str]) -> None:
        """Count and list images that could not be read."""
        if not rejected:
            return
        self.warn(f"{counted(len(rejected), 'image')} could not be read, left out:")
        shown = HEADLINES if self._terminal else len(rejected)
        for path, reason in list(rejected.items())[:shown]:
            self.say(f"  {path}: {reason}")
        if len(rejected) > shown:
            self.say(f"  and {len(rejected) - shown} more; all are listed where this does not go to a terminal (2>log)")


class _PlainLines:
    """A line now and then, for logs."""

    def __init__(self, console: Console, what: str, total: int, unit: str, scaled: bool) -> None:
        self._console, self._what, self._total, self._unit, self._scaled = console, what, total, unit, scaled
        self._start = self._last = time.monotonic()
        self._done = 0

    def advance(self, count: int) -> None:
        """Count, and write a line if the last one is long enough ago."""
        self._done += count
        now = time.monotonic()
        if now - self._last >= PLAIN_EVERY:
            self._last = now
            meter = tqdm.format_meter(
                self._done,
                self._total,
                now - self._start,
                ascii=True,
                unit=self._unit,
                unit_scale=self._scaled,
                bar_format="{n_fmt}/{total_fmt} [{elapsed}, {remaining} left, {rate_fmt}]",
            )
            self._console.say(f"{self._what}: {meter}")


def _update(bar: "tqdm[NoReturn]", count: int) -> None:
    bar.update(count)
