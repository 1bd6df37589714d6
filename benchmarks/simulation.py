"""A hundred workers, one scheduler and stackcls's own client; networks only sleep as long as they would compute.

    python benchmarks/simulation.py --seconds 1.4 0.5 0.1 --tasks 2000
    python benchmarks/simulation.py --seconds 1 --tasks 3000 --kill 5 --per-process 5

Images are invented (`invented.py`); the client lists, sends, receives and writes blocks as `features` does, but keeps
none of them (a `--folder` in memory leaves disks out). The scheduler is a process of its own, workers are objects with
a thread each in few processes, all on 127.0.0.1. With `--kill`, every so many seconds such a process is killed with
all its workers, and another one is started.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import invented
import psutil

WARM = 0.1  # share of the tasks before the clock starts, and after it stops
STARTING = 60.0  # seconds for all workers to come


async def serve(file: Path, count: int) -> None:
    """Be so many workers, in this process, until it is ended."""
    from distributed import Worker

    address = json.loads(file.read_text())["address"]
    given = {"nthreads": 1, "memory_limit": 0, "dashboard": False, "host": "127.0.0.1"}
    workers = [await Worker(address, local_directory=str(file.parent), **given) for _ in range(count)]
    await asyncio.gather(*(worker.finished() for worker in workers))


@dataclass
class Crowd:
    """The scheduler, and the processes that hold workers.

    Attributes
    ----------
    file : Path
        Where the scheduler writes its address.
    scheduler : Popen
    each : int
        Workers of a process.
    seconds : float
        That each sleeps over a block.
    processes : list of Popen
    killed : int
        Processes so far.
    """

    file: Path
    scheduler: subprocess.Popen[bytes]
    each: int
    seconds: float
    processes: list[subprocess.Popen[bytes]]
    killed: int = 0

    def add(self) -> None:
        """Start a process of workers."""
        log = str(self.file.with_name("log"))
        environment = {**os.environ, invented.SECONDS: str(self.seconds), invented.LOG: log}
        command = [sys.executable, __file__, "--serve", str(self.file), str(self.each)]
        self.processes.append(started(command, environment))

    def kill(self, every: float, until: threading.Event) -> None:
        """Kill the oldest process now and then, and start another one."""
        while not until.wait(every):
            oldest = self.processes.pop(0)
            oldest.send_signal(signal.SIGKILL)
            oldest.wait()
            self.killed += 1
            self.add()


def started(command: Sequence[str], environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A process that finds stackcls and these stand-ins, and says nothing."""
    paths = f"{invented.ROOT}{os.pathsep}{invented.ROOT / 'benchmarks'}"
    # Twenty-five workers of a process would each look at all its threads a hundred times a second.
    profile = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}
    variables = {**(environment or os.environ), **profile, "PYTHONPATH": paths}
    return subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def crowd(folder: Path, workers: int, each: int, seconds: float) -> Iterator[Crowd]:
    """Start all, and end all."""
    file = folder / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--scheduler-file", str(file)]
    scheduler = started([*command, "--no-dashboard", "--host", "127.0.0.1", "--port", "0"])
    found = Crowd(file, scheduler, each, seconds, [])
    try:
        while not file.exists():
            time.sleep(0.1)
        for _ in range(workers // each):
            found.add()
        yield found
    finally:
        for process in [*found.processes, scheduler]:
            process.kill()
            process.wait()


class Clock:
    """Is told how many images are done; measures the middle of the run, when all workers are busy."""

    def __init__(self, total: int, processes: Sequence[psutil.Process]) -> None:
        self._total, self._processes, self._done = total, processes, 0
        self._marks: list[tuple[int, float, list[float]]] = []

    def advance(self, count: int) -> None:
        """Count, and look twice at what was used."""
        self._done += count
        if self._done >= (WARM, 1 - WARM, 2)[len(self._marks)] * self._total:
            used = [sum(item.cpu_times()[:2]) for item in self._processes]
            self._marks.append((self._done, time.perf_counter(), used))

    def found(self) -> tuple[float, list[float]]:
        """Images a second, and processor seconds of each process for an image."""
        (first, begin, before), (last, end, after) = self._marks
        images = last - first
        return images / (end - begin), [(b - a) / images for a, b in zip(before, after, strict=True)]


def simulate(arguments: argparse.Namespace, seconds: float, folder: Path) -> dict[str, Any]:
    """One run with workers that sleep so long over each block."""
    from stackcls import computation, connecting, loading, sources
    from stackcls.blocks import BlockFolder
    from stackcls.clustersettings import ClusterSettings
    from stackcls.listener import Silent
    from stackcls.listing import Listing

    class Dropping(BlockFolder):
        """Makes blocks as ever, and drops them."""

        def add(self, block: Any) -> None:
            super().add(block)
            self.clear()

    class Listening(Silent):
        @contextmanager
        def track(self, *_: Any) -> Iterator[Any]:
            yield clock.advance

    count = arguments.tasks * computation.IMAGES_PER_BLOCK
    settings = invented.settings(folder, count, arguments.widths)
    source = sources.scan(settings.images)
    hashes = {entry.path: invented.hash_name(None, entry.path) for entry in source.entries}
    listing = Listing(source, hashes, {}, settings.features.limits)
    located = loading.locate(invented.known(settings), settings, True, Silent())
    done: dict[str, set[str]] = {item.identity.digest: set() for item in located}
    with crowd(folder, arguments.workers, arguments.per_process, seconds) as there:
        watched = [psutil.Process(), psutil.Process(there.scheduler.pid)]
        clock, stop = Clock(count, watched), threading.Event()
        with connecting.connect(ClusterSettings(address=str(there.file)), Silent()) as cluster:
            assert cluster is not None
            cluster._client.wait_for_workers(arguments.workers, timeout=STARTING)
            before = [item.memory_info().rss for item in watched]
            killer = threading.Thread(target=there.kill, args=(arguments.kill, stop))
            if arguments.kill:
                killer.start()
            try:
                given = (settings.features, Dropping(folder / "blocks"), Listening())
                computation.compute(listing, located, done, *given, cluster)
            finally:
                stop.set()
                if killer.is_alive():
                    killer.join()
            rate, used = clock.found()
            n_bytes = [item.memory_info().rss - old for item, old in zip(watched, before, strict=True)]
        assert not listing.rejected
        return {
            "rate": rate / computation.IMAGES_PER_BLOCK,
            "ms": [1000 * each * computation.IMAGES_PER_BLOCK for each in used],
            "bytes": n_bytes,
            "killed": there.killed * arguments.per_process,
            "computed": len(there.file.with_name("log").read_bytes()),
        }


def line(arguments: argparse.Namespace, seconds: float, found: dict[str, Any]) -> str:
    """A row of the table."""
    ideal = arguments.workers / seconds
    client, scheduler = (
        f"{ms:.1f} | {size / 2**20:+.0f}" for ms, size in zip(found["ms"], found["bytes"], strict=True)
    )
    shares = " / ".join(f"{100 * ms * found['rate'] / 1000:.0f}" for ms in found["ms"])
    cells = (f"{seconds:g}", f"{ideal:.0f}", f"{found['rate']:.0f} ({100 * found['rate'] / ideal:.0f} %)")
    again = f"{found['killed']} | {found['computed'] - arguments.tasks}"
    return f"| {' | '.join(cells)} | {client} | {scheduler} | {shares} | {again} |"


def main() -> None:
    """Read the options and simulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.4], help="that a worker takes for a block")
    parser.add_argument("--tasks", type=int, default=1000, help="blocks of 128 images")
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--per-process", type=int, default=25)
    parser.add_argument("--widths", type=int, nargs="+", default=list(invented.MOBILENETS))
    parser.add_argument("--kill", type=float, default=0, help="a process of workers every so many seconds")
    parser.add_argument("--folder", type=Path, help="where to work; by default a temporary folder")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(Path(arguments.serve[0]), int(arguments.serve[1])))
        return
    invented.install()
    head = ("s per block", "blocks/s ideal", "reached", "client: ms", "MiB", "scheduler: ms", "MiB", "% of a core each")
    print(f"| {' | '.join((*head, 'workers killed', 'computed again'))} |\n|{' --- |' * (len(head) + 2)}")
    for seconds in arguments.seconds:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            print(line(arguments, seconds, simulate(arguments, seconds, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
