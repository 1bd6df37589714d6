"""What the cluster's client and scheduler cost, with a network that sleeps or does nothing in the real one's place.

    python benchmarks/cluster.py                     # two workers against one, with a network that sleeps
    python benchmarks/cluster.py --tasks 100000      # memory and processor time of client and scheduler, by tasks

In the second, every task is described as `features` describes a block of images, and the worker answers with features
of the usual shape without having looked at an image. Scheduler and workers are processes of their own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stackcls import config, connecting, engines  # noqa: E402
from stackcls.clustersettings import ClusterSettings  # noqa: E402
from stackcls.extraction import ImageInput  # noqa: E402
from stackcls.listener import Silent  # noqa: E402

WIDTH = 1024
SLEEP = 0.01  # seconds per image


class Sleeping:
    """An engine whose networks only take their time."""

    name, batch_size = "sleeping", 8

    def provenance(self) -> Mapping[str, str]:
        """Name the stub."""
        return {"engine": self.name}

    def prepare(self, located: Any, _: int) -> Any:
        """Take no time."""

        class Extractor:
            input_size, width = located.backbone.input_size, WIDTH

            def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
                time.sleep(SLEEP * len(images))
                return np.zeros((len(images), WIDTH), np.float32)

        return Extractor()


def dask_setup(_: object) -> None:
    """On a worker: put the stub in the engines' place."""
    engines.choose = lambda *_: engines.Choice(Sleeping(), "")  # type: ignore[arg-type, assignment]


class Clock(Silent):
    """Measures how long features are computed, without the start of the workers."""

    seconds = 0.0

    @contextmanager
    def track(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:  # noqa: ARG002
        """Time one piece of work."""
        start = time.perf_counter()
        yield lambda _: None
        if what == "features":
            self.seconds = time.perf_counter() - start


def speed(workers: int, folder: Path) -> float:
    """Seconds in which so many workers compute the features of all images of a folder."""
    from stackcls.stages import features

    backbone = {"name": "stub", "architecture": "MobileNet", "input_size": 32, "weights": "random"}
    raw = {
        "images": str(folder / "images"),
        "artifacts": str(folder / str(workers)),
        "features": {"backbones": [backbone]},
        "cluster": {"address": f"local:{workers}"},
    }
    clock = Clock()
    features.run(config.build(raw), listener=clock)
    return clock.seconds


def write_images(folder: Path, count: int) -> None:
    """Write small images of one class, all different."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number:05d}.png")


def answer(inputs: Sequence[ImageInput]) -> NDArray[np.float32]:
    """On a worker: a block that costs nothing but its answer."""
    return np.zeros((len(inputs), WIDTH), np.float32)


def blocks(count: int, images: int) -> Iterator[tuple[int, tuple[list[ImageInput]]]]:
    """Descriptions of blocks, made one at a time."""
    for number in range(count):
        names = [f"class {number % 100}/{number}-{at:03d}.jpg" for at in range(images)]
        yield number, ([ImageInput(name, Path("/data/images") / name, f"{number:064x}") for name in names],)


@contextmanager
def processes(folder: Path, workers: int) -> Iterator[tuple[str, int]]:
    """Scheduler and workers as processes; yields the scheduler's file and process number."""
    file = folder / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"}
    quiet = ["--scheduler-file", str(file), "--no-dashboard"]
    more = [["scheduler", *quiet, "--host", "127.0.0.1", "--port", "0"]]
    more += [["worker", *quiet, "--nthreads", "1", "--no-nanny"]] * workers
    started = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{name}", *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name, *arguments in more
    ]
    try:
        while not file.exists():
            time.sleep(0.1)
        yield str(file), started[0].pid
    finally:
        for process in started:
            process.kill()
            process.wait()


def memory(count: int, images: int, workers: int) -> None:
    """Print memory, rate and processor time while so many tasks go through."""
    import cluster as here  # under the name that workers know it by

    waiting = blocks(count, images)
    with tempfile.TemporaryDirectory() as folder, processes(Path(folder), workers) as (file, scheduler):
        both = [psutil.Process(), psutil.Process(scheduler)]
        with connecting.connect(ClusterSettings(address=file), Silent()) as connected:
            assert connected is not None
            print("| tasks | client: MiB | ms per task | scheduler: MiB | ms per task | tasks per second |")
            print(f"|{' --- |' * 6}")
            start, used = time.perf_counter(), [sum(item.cpu_times()[:2]) for item in both]
            for done, _ in enumerate(connected.stream(here.answer, lambda: next(waiting, None), str), 1):
                if done % max(1, count // 10) == 0:
                    spent = [sum(item.cpu_times()[:2]) - before for item, before in zip(both, used, strict=True)]
                    sizes = [item.memory_info().rss / 2**20 for item in both]
                    cells = [f"{size:.0f} | {1000 * s / done:.1f}" for size, s in zip(sizes, spent, strict=True)]
                    rate = done / (time.perf_counter() - start)
                    print(f"| {done:,} | {' | '.join(cells)} | {rate:.0f} |", flush=True)


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, help="measure memory and rate with so many tasks")
    parser.add_argument("--images", type=int, default=128, help="of a task")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=24, help="of the comparison")
    arguments = parser.parse_args()
    if arguments.tasks:
        memory(arguments.tasks, arguments.images, arguments.workers)
        return
    import dask

    sys.path.insert(0, str(ROOT / "benchmarks"))
    with tempfile.TemporaryDirectory() as folder, dask.config.set({"distributed.worker.preload": ["cluster"]}):
        write_images(Path(folder) / "images" / "all", 128 * arguments.blocks)
        one, two = (speed(workers, Path(folder)) for workers in (1, 2))
    print(f"{arguments.blocks} blocks: one worker {one:.2f} s, two {two:.2f} s: {one / two:.2f} times as fast")


if __name__ == "__main__":
    main()
