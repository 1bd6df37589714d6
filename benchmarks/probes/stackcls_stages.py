"""Run `stackcls features` with clocks on its parts, then each of its networks alone.

python stackcls_stages.py REPORT.json -c pipeline.yaml [...]
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from clock import Clock, alone


class Watched:
    """An extractor that notes when it runs."""

    def __init__(self, extractor: Any, batch_size: int, clock: Clock, calls: list[tuple[float, float]]) -> None:
        self._extractor, self._clock, self._calls = extractor, clock, calls
        self._batch_size = batch_size
        self._last: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extractor, name)

    def __call__(self, images: Any) -> Any:
        """Run one batch."""
        stage = "first batch" if self._last is None else "inference"
        self._last = images
        start = time.perf_counter()
        rows = self._extractor(images)
        end = time.perf_counter()
        self._clock.add(stage, end - start)
        self._calls.append((start, end))
        return rows

    def full_batch(self) -> tuple[Callable[[], object], int]:
        """What runs one full batch of real images, and its size."""
        if self._last is None:
            raise SystemExit("nothing was computed: the features were there already")
        images = np.resize(self._last, (self._batch_size, *self._last.shape[1:]))
        return partial(self._extractor, images), self._batch_size


def watch_engines(clock: Clock, watched: dict[str, Watched], calls: list[tuple[float, float]]) -> None:
    """Make `engines.choose` give engines with clocks; all that is assumed of the engines' contract is here."""
    from stackcls import engines

    choose = engines.choose

    def prepare(original: Callable[..., Any], item: Any, *arguments: Any, **named: Any) -> Watched:
        with clock.stage("build"):
            extractor = original(item, *arguments, **named)
        name = getattr(item, "backbone", item).name
        batch_size = next(value for value in (*reversed(arguments), *named.values()) if isinstance(value, int))
        watched[name] = Watched(extractor, batch_size, clock, calls)
        return watched[name]

    def clocked(*arguments: Any, **named: Any) -> Any:
        with clock.stage("import"):
            choice = choose(*arguments, **named)
        engine = choice[0] if isinstance(choice, tuple) else getattr(choice, "engine", choice)
        # One engine may be chosen twice, and a clock within a clock would count twice.
        if "prepare" not in vars(engine):
            engine.prepare = partial(prepare, engine.prepare)
            if hasattr(engine, "calibrate"):
                engine.calibrate = clock.timed("calibrate", engine.calibrate)
        return choice

    engines.choose = clocked


def watch_decoding(clock: Clock) -> None:
    """Count the processor seconds of decoding and resizing, which run in threads beside the networks."""
    from stackcls import images

    def watch(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                clock.add("(processor seconds of decoding)", time.thread_time() - start)

        return run

    images.decode, images.resize = watch(images.decode), watch(images.resize)


def main() -> None:
    """Run the command, then the networks."""
    clock = Clock()
    watched: dict[str, Watched] = {}
    calls: list[tuple[float, float]] = []
    from stackcls import cli
    from stackcls.stages import features

    if hasattr(features, "hash_all"):
        features.hash_all = clock.timed("list and hash", features.hash_all)
    watch_engines(clock, watched, calls)
    watch_decoding(clock)
    clock.add("import", clock.since_start())
    try:
        cli.main(["features", *sys.argv[2:]])
    except SystemExit as ended:
        if ended.code:
            raise
    end, total = time.perf_counter(), clock.since_start()
    if not calls:
        raise SystemExit("no network was seen running: the contract of stackcls.engines has changed")
    busy = clock.stages["first batch"] + clock.stages.get("inference", 0.0)
    clock.add("waiting for images", calls[-1][1] - calls[0][0] - busy)
    clock.add("write", end - calls[-1][1])
    rates = alone({name: extractor.full_batch() for name, extractor in watched.items()})
    clock.report(Path(sys.argv[1]), total, rates)


if __name__ == "__main__":
    main()
