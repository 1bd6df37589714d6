"""What one image, one gigabyte and one pass cost on this machine: the figures that `scaling.py` multiplies.

    python benchmarks/unit_costs.py -c pipeline.yaml --folder build/units --out mine.json
    python benchmarks/scaling.py --units mine.json

Seconds are of processors, not of the clock, so that other work on the machine matters little. Each part runs in a
process of its own and is written down at once, with the machine's load: a run that was killed goes on. Files lie in the
page cache, so that speeds of reading are those of memory, not of disks. A million images take 1 GB of memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import invented
import numpy as np
import psutil

NARROW = (8, 8, 8, 8)  # features of four backbones that take next to nothing
WIDE = 20_000  # images with features of the usual width
FILES = 2_000  # of each size that are hashed
ROWS, WIDTH, CLASSES = 20_000, 1024, 100  # of the fit
PHOTOS = (100, 500)  # what the start costs is in both


def memory() -> float:
    """Largest memory of this process so far, in bytes; unlike `ru_maxrss` not that of who started it."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


@contextmanager
def measured(found: dict[str, float], name: str) -> Iterator[None]:
    """Note what some work takes of the processors, and how far memory rises."""
    before, start = memory(), time.process_time()
    yield
    found[f"{name}_s"] = found.get(f"{name}_s", 0) + time.process_time() - start
    found[f"{name}_bytes"] = memory() - before


def hashing(_: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Hash files of 1 kB and of 100 kB: so much for each file, and so much for each gigabyte."""
    from stackcls import listing, sources
    from stackcls.listener import Silent
    from stackcls.settings import Limits

    taken = []
    for size in (1_000, 100_000):
        for number in range(FILES):
            path = folder / str(size) / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(os.urandom(size))
        source = sources.scan(path.parent)
        start = time.process_time()
        listing.hash_all(source, Silent(), Limits())
        taken.append((time.process_time() - start) / FILES)
    per_gb = (taken[1] - taken[0]) / 99e-6
    return {"image_s": taken[0] - per_gb * 1e-6, "gb_s": per_gb}


def networks(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Run the configured networks on some photos and on more: what each further photo takes, whole."""
    from stackcls import config, sources
    from stackcls.stages import features

    given = config.read(arguments.config)
    source = sources.scan(given.images)
    entries = list(source.entries)
    np.random.default_rng(0).shuffle(entries)  # type: ignore[arg-type]
    taken, wall, n_bytes = {}, {}, 0
    for count in (PHOTOS[0], *PHOTOS):  # the first fills the cache of compiled networks
        manifest = folder / f"{count}.csv"
        lines = (f"{source.root}/{entry.path},{entry.label}\n" for entry in entries[:count])
        manifest.write_text("path,label\n" + "".join(lines))
        for old in folder.glob("artifacts/*"):
            old.unlink()
        settings = given.model_copy(update={"images": manifest, "artifacts": folder / "artifacts"})
        begin, start = time.perf_counter(), time.process_time()
        features.run(settings)
        taken[count], wall[count] = time.process_time() - start, time.perf_counter() - begin
    n_bytes = sum((Path(str(source.root)) / entry.path).stat().st_size for entry in entries[: PHOTOS[1]])
    more = PHOTOS[1] - PHOTOS[0]
    return {
        "image_s": (taken[PHOTOS[1]] - taken[PHOTOS[0]]) / more,
        "wall_s": (wall[PHOTOS[1]] - wall[PHOTOS[0]]) / more,
        "start_s": taken[PHOTOS[0]] - PHOTOS[0] * (taken[PHOTOS[1]] - taken[PHOTOS[0]]) / more,
        "image_bytes": n_bytes / PHOTOS[1],
    }


def client(folder: Path, count: int, widths: tuple[int, ...]) -> dict[str, float]:
    """`features` of images that do not exist: what the command itself takes, and its file."""
    from stackcls import computation
    from stackcls.stages import features
    from stackcls.store import Store

    invented.install()
    found: dict[str, float] = {"images": count, "feature_bytes": 4 * sum(widths) * count}
    compute: Any = computation.compute
    write: Any = features._write_store

    def clocked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            with measured(found, name):
                return function(*given)

        return call

    computation.compute, features._write_store = clocked("blocks", compute), clocked("store", write)
    settings = invented.settings(folder, count, widths)
    Store  # noqa: B018  (imported before, not within)
    with measured(found, "all"):
        done = features.run(settings)
    found["file_bytes"] = done.path.stat().st_size
    opened = [sys.executable, __file__, "--open", str(done.path)]
    return {**found, **json.loads(subprocess.run(opened, check=True, stdout=subprocess.PIPE).stdout)}


def opening(path: Path) -> dict[str, float]:
    """Open a feature file, as `fit`, `check`, `similar` and a further `features` do."""
    from stackcls.store import Store

    found: dict[str, float] = {}
    with measured(found, "open"), Store(path):
        pass
    return found


def fitting(_: argparse.Namespace, folder: Path) -> dict[str, float]:
    """One logistic regression in memory, on one thread; streamed, it tells how often its rows are gone through."""
    import beyond_memory
    import cub_sized
    from threadpoolctl import threadpool_limits

    from stackcls import logistic
    from stackcls.store import Store
    from stackcls.streaming import Streamed, Traffic

    cub_sized.WIDTHS = {beyond_memory.NAME: WIDTH}
    beyond_memory.write(folder, ROWS, CLASSES)
    with Store(folder / "features.h5") as store, threadpool_limits(1):
        y, traffic, rows = store.table.labels.astype(np.int64), Traffic(), np.arange(ROWS)
        width = store.matrices[beyond_memory.NAME].width
        X = store.read_rows(beyond_memory.NAME, rows)
        start = time.process_time()
        logistic.fit(X, y, CLASSES, max_iterations=1000)
        taken = time.process_time() - start

        def read(some: Any, target: Any) -> int:
            return store.read_rows_into(beyond_memory.NAME, some, target)

        start = time.process_time()
        logistic.fit(Streamed(read, rows, width, np.float32, traffic), y, CLASSES, max_iterations=1000)
        streamed = time.process_time() - start
    passes = traffic.bytes / (4.0 * ROWS * width)
    return {
        "passes": passes,
        "number_s": taken / (passes * ROWS * width * CLASSES),
        "streamed_gb_s": (streamed - taken) / traffic.bytes * 1e9,
        "read_gb_per_s": traffic.bytes / traffic.seconds / 1e9,
    }


PARTS: dict[str, Callable[[argparse.Namespace, Path], dict[str, float]]] = {
    "hashing": hashing,
    "networks": networks,
    "client, 100,000": lambda _, folder: client(folder, 100_000, NARROW),
    "client, 1,000,000": lambda _, folder: client(folder, 1_000_000, NARROW),
    "client, four narrow": lambda _, folder: client(folder, WIDE, NARROW),
    "client, four wide": lambda _, folder: client(folder, WIDE, invented.MOBILENETS),
    "fitting": fitting,
}


def write(path: Path, parts: dict[str, dict[str, float]], networks: str) -> None:
    """Write down what was measured so far; when all is, also what `scaling.py` takes of it."""
    done = {"units": units(parts, networks)} if parts.keys() == PARTS.keys() else {}
    path.write_text(json.dumps({**done, "parts": parts}, indent=1) + "\n")


def units(parts: dict[str, dict[str, float]], networks: str) -> dict[str, float]:
    """What `scaling.py` takes, from what was measured; what a cluster takes is measured by others."""
    few, many = parts["client, 100,000"], parts["client, 1,000,000"]
    narrow, wide = parts["client, four narrow"], parts["client, four wide"]
    images, gb = many["images"] - few["images"], (wide["feature_bytes"] - narrow["feature_bytes"]) / 1e9

    def each(name: str) -> float:
        return (many[name] - few[name]) / images

    def per_gb(name: str) -> float:
        return (wide[name] - narrow[name]) / gb

    return {
        "hash_image_s": parts["hashing"]["image_s"],
        "hash_gb_s": parts["hashing"]["gb_s"],
        "client_image_bytes": each("all_bytes"),
        "client_image_s": each("all_s"),
        "blocks_gb_s": per_gb("blocks_s"),
        "store_gb_s": per_gb("store_s"),
        "table_image_bytes": each("file_bytes") - 4 * sum(NARROW),
        "open_image_s": each("open_s"),
        "open_image_bytes": each("open_bytes"),
        "open_gb_s": per_gb("open_s"),
        "fit_number_s": parts["fitting"]["number_s"],
        "read_gb_per_s": parts["fitting"]["read_gb_per_s"],
        f"{networks}_image_s": parts["networks"]["image_s"],
    }


def main() -> None:
    """Read the options and measure what is not measured yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, help="a pipeline.yaml: its networks and photos are measured")
    parser.add_argument("--networks", default="mobilenets", choices=("mobilenets", "article"), help="which these are")
    parser.add_argument("--folder", type=Path, help="where to work; by default a temporary folder")
    parser.add_argument("--out", type=Path, default=Path("mine.json"))
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        print(json.dumps(opening(arguments.open)))
        return
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.part:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            print(json.dumps(PARTS[arguments.part](arguments, Path(folder))))
        return
    parts = json.loads(arguments.out.read_text())["parts"] if arguments.out.exists() else {}
    for name in PARTS:
        if name not in parts:
            again = [sys.executable, __file__, *sys.argv[1:], "--part", name]
            load = psutil.getloadavg()[0]
            parts[name] = {**json.loads(subprocess.run(again, check=True, stdout=subprocess.PIPE).stdout), "load": load}
            write(arguments.out, parts, arguments.networks)
            print(name, parts[name], file=sys.stderr, flush=True)
    write(arguments.out, parts, arguments.networks)
    print(json.dumps(units(parts, arguments.networks), indent=1))


if __name__ == "__main__":
    main()
