"""Stage two on one and on two workers of one thread each, in turn, on generated features.

    python benchmarks/cluster_fit.py [--images 6000] [--width 2048] [--classes 20] [--folds 4] [--rounds 2]

Scheduler and workers are processes of their own on this machine, started anew for every run; what is timed is
`validation.cross_validate` once they are there, so also the way of the matrices.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from cluster import processes  # noqa: E402

from stackcls import connecting, validation  # noqa: E402
from stackcls.clustersettings import ClusterSettings  # noqa: E402
from stackcls.listener import Silent  # noqa: E402
from stackcls.settings import Settings  # noqa: E402
from stackcls.shipping import Shipping  # noqa: E402
from stackcls.training import TrainingSet  # noqa: E402

STARTING = 120.0  # seconds for the workers to come


def features(images: int, width: int, classes: int) -> TrainingSet:
    """One matrix, as networks give them: no number below zero, classes apart along a few columns."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(images) % classes)
    X = np.maximum(rng.normal(size=(images, width)), 0).astype(np.float32)
    X[np.arange(images), y] += 2
    return TrainingSet(X, ("generated",), (width,), y, tuple(map(str, range(classes))), None)


def seconds(workers: int, data: TrainingSet, folds: int) -> tuple[float, float]:
    """Time of one run, and the accuracy of the backbone."""
    with (
        tempfile.TemporaryDirectory() as folder,
        processes(Path(folder), workers) as (file, _),
        connecting.connect(ClusterSettings(address=file), Silent()) as connected,
    ):
        assert connected is not None
        connected._client.wait_for_workers(workers, timeout=STARTING)
        there = replace(data, workers=Shipping(connected))
        start = time.perf_counter()
        found = validation.cross_validate(there, Settings(cv={"folds": folds}), False, Silent())
        return time.perf_counter() - start, float(found.predictions.correct("generated").mean())


def main() -> None:
    """Read the options, measure in turn, print a line for each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 6000), ("width", 2048), ("classes", 20), ("folds", 4), ("rounds", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    data = features(given.images, given.width, given.classes)
    print(json.dumps({**vars(given), "large": validation.is_large(data)}))
    for _ in range(given.rounds):
        (one, accuracy), (two, again) = (seconds(workers, data, given.folds) for workers in (1, 2))
        ratio = f"{one / two:.2f} times as fast"
        print(f"one worker {one:.1f} s, two {two:.1f} s: {ratio}; accuracy {accuracy:.4f}, {again:.4f}", flush=True)


if __name__ == "__main__":
    main()
