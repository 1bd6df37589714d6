"""How long work speaks while it runs: the library says, the caller decides where it is heard."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Listener(Protocol):
    """Receives progress and remarks; the command line prints them, the library by default drops them."""

    def say(self, line: str) -> None:
        """Take a remark about what is being done."""

    def warn(self, line: str) -> None:
        """Take a remark about what the user should look at."""

    def track(self, what: str, total: int, unit: str) -> AbstractContextManager[Callable[[int], None]]:
        """Open a progress display over `total` units; the yielded function advances it."""


class Silent:
    """Hears everything and passes nothing on."""

    def say(self, line: str) -> None:
        """Drop the remark."""

    def warn(self, line: str) -> None:
        """Drop the warning."""

    @contextmanager
    def track(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Yield a function that drops what it is told."""
        yield lambda _: None
