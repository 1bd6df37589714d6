"""A hundred workers, one scheduler and stackcls's own client; networks only sleep as long as they would compute.

    python benchmarks/simulation.py --seconds 1.4 0.5 0.1 --tasks 2000
    python benchmarks/simulation.py --seconds 1 --tasks 3000 --kill 5 --per-process 5

Images are invented (`invented.py`); the client lists, sends, receives and writes blocks as `features` does, but keeps
none of them (a `--folder` in memory leaves disks out). The scheduler is a process of its own, workers are objects with
a thread each in few processes, all on 127.0.0.1. With `--kill`, every so many seconds such a process is killed with
all its workers, and another one is started. All of them are watched: where together they use up the cores of this
machine (last columns), it is the machine that was measured, and not the client.
"""

import argparse
import asyncio
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    lock : Lock
        Of who counts processes, or ends one.
    """

    file: Path
    scheduler: subprocess.Popen[bytes]
    each: int
    seconds: float
    processes: list[subprocess.Popen[bytes]]
    killed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self) -> None:
        """Start a process of workers."""
        log = str(self.file.with_name("log"))
        environment = {**os.environ, invented.SECONDS: str(self.seconds), invented.LOG: log}
        command = [sys.executable, __file__, "--serve", str(self.file), str(self.each)]
        self.processes.append(started(command, environment))

    def kill(self, every: float, until: threading.Event) -> None:
        """Kill the oldest process now and then, and start another one."""
        while not until.wait(every):
            with self.lock:
                oldest = self.processes.pop(0)
                oldest.send_signal(signal.SIGKILL)
                oldest.wait()
                self.killed += 1
                self.add()

    def used(self) -> float:
        """Processor seconds of all processes with workers, also of those that were killed."""
        with self.lock:
            ended = os.times()
            alive = sum(used(psutil.Process(process.pid)) for process in self.processes)
            return ended.children_user + ended.children_system + alive


def used(process: psutil.Process) -> float:
    """Processor seconds of a process so far."""
    return float(sum(process.cpu_times()[:2]))


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

    def __init__(self, total: int, watched: Sequence[Callable[[], float]]) -> None:
        self._total, self._watched, self._done = total, watched, 0
        self._marks: list[tuple[int, float, list[float]]] = []

    def advance(self, count: int) -> None:
        """Count, and look twice at what was used."""
        self._done += count
        if self._done >= (WARM, 1 - WARM, 2)[len(self._marks)] * self._total:
            self._marks.append((self._done, time.perf_counter(), [seconds() for seconds in self._watched]))

    def found(self) -> tuple[float, list[float]]:
        """Images a second, and processor seconds for an image of each that is watched."""
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
        seconds_of = [*(functools.partial(used, item) for item in watched), there.used]
        clock, stop = Clock(count, seconds_of), threading.Event()
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
            rate, spent = clock.found()
            n_bytes = [item.memory_info().rss - old for item, old in zip(watched, before, strict=True)]
        assert not listing.rejected
        return {
            "rate": rate / computation.IMAGES_PER_BLOCK,
            "ms": [1000 * each * computation.IMAGES_PER_BLOCK for each in spent],
            "bytes": n_bytes,
            "killed": there.killed * arguments.per_process,
            "computed": len(there.file.with_name("log").read_bytes()),
        }


def line(arguments: argparse.Namespace, seconds: float, found: dict[str, Any]) -> str:
    """A row of the table."""
    ideal = arguments.workers / seconds
    client, scheduler = (
        f"{ms:.1f} | {size / 2**20:+.0f}" for ms, size in zip(found["ms"][:2], found["bytes"], strict=True)
    )
    shares = [100 * ms * found["rate"] / 1000 for ms in found["ms"]]
    used_up = " | ".join(f"{share:.0f}" for share in (*shares, sum(shares)))
    cells = (f"{seconds:g}", f"{ideal:.0f}", f"{found['rate']:.0f} ({100 * found['rate'] / ideal:.0f} %)")
    again = f"{found['killed']} | {found['computed'] - arguments.tasks}"
    return f"| {' | '.join(cells)} | {client} | {scheduler} | {used_up} | {again} |"


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
    head = ["s per block", "blocks/s ideal", "reached", "client: ms", "MiB", "scheduler: ms", "MiB"]
    n_cores = psutil.cpu_count()
    head += ["% of a core: client", "scheduler", "workers", f"all; {n_cores} cores are {100 * (n_cores or 1)}"]
    head += ["workers killed", "computed again"]
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for seconds in arguments.seconds:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            print(line(arguments, seconds, simulate(arguments, seconds, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
