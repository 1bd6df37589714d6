"""Seconds per stage inside a measured process, and inference alone after it."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROUNDS = 3
IMAGES = 32


class Clock:
    """Adds up seconds by stage."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        # The parent notes when it started this process, so that loading the interpreter counts too.
        self._started = float(os.environ.get("BENCHMARK_STARTED", time.time()))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to one stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds to one stage."""
        self.stages[name] = self.stages.get(name, 0.0) + seconds

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its wall seconds added to one stage."""

        def run(*arguments: Any, **named: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **named)

        return run

    def since_start(self) -> float:
        """Seconds since the process was started."""
        return time.time() - self._started

    def report(self, path: Path, total: float, rates: Mapping[str, float]) -> None:
        """Write down the stages, what is left of `total`, and images per second of inference alone."""
        beside = {name: value for name, value in self.stages.items() if name.startswith("(")}
        stages = {name: value for name, value in self.stages.items() if name not in beside}
        stages["other"] = max(0.0, total - sum(stages.values()))
        path.write_text(json.dumps({"total": total, "stages": {**stages, **beside}, "rates": dict(rates)}))


def alone(batches: Mapping[str, tuple[Callable[[], object], int]]) -> dict[str, float]:
    """Images per second of each network, nothing else running: the best of a few rounds in turn.

    Parameters
    ----------
    batches : mapping of str to (callable, int)
        What runs one batch, and the images in it.
    """
    best: dict[str, float] = dict.fromkeys(batches, 0.0)
    for _ in range(ROUNDS):
        for name, (run, size) in batches.items():
            count = max(1, round(IMAGES / size))
            start = time.perf_counter()
            for _ in range(count):
                run()
            best[name] = max(best[name], count * size / (time.perf_counter() - start))
    return best
