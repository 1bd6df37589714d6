"""Run the plain script with clocks on its parts, then `predict` of each of its networks alone.

python script_stages.py REPORT.json article.py IMAGES [...]
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from clock import Clock, alone

BATCH = 32


def watch(script: Any, clock: Clock, kept: dict[str, tuple[Callable[[], object], int]]) -> None:
    """Put clocks on the script's functions."""
    backbones = script.backbones

    def watched(kind: str) -> Iterator[tuple[str, Any, Any, int]]:
        networks = backbones(kind)
        while True:
            with clock.stage("build"):
                found = next(networks, None)
            if found is None:
                return
            name, model, module, size = found
            images = module.preprocess_input(
                np.random.default_rng(0).uniform(0, 255, (BATCH, size, size, 3)).astype(np.float32)
            )
            kept[name] = (partial(model.predict, images, batch_size=BATCH, verbose=0), len(images))
            model.predict = clock.timed("inference", model.predict)
            yield name, model, module, size

    script.backbones = watched
    script.load = clock.timed("decode", script.load)


def main() -> None:
    """Run the script, then the networks."""
    clock = Clock()
    report, path = Path(sys.argv[1]), sys.argv[2]
    specification = importlib.util.spec_from_file_location("script", path)
    if specification is None or specification.loader is None:
        raise SystemExit(f"{path} is no Python file")
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    import keras  # noqa: F401  (the script imports it on first use, which would count as building)

    clock.add("import", clock.since_start())
    kept: dict[str, tuple[Callable[[], object], int]] = {}
    watch(script, clock, kept)
    sys.argv = sys.argv[2:]
    script.main()
    total = clock.since_start()
    clock.report(report, total, alone(kept))


if __name__ == "__main__":
    main()
