"""A logistic regression on a matrix in memory, on the same read in blocks, and on the same by stochastic gradients.

    python benchmarks/beyond_memory.py [--images 24000] [--classes 50] [--folder F]

draws features as `cub_sized.py` does (2,048 columns), keeps every fifth row back, and fits on the others in a process
each: `stackcls.logistic` on the array, and on rows streamed from the feature file, where the values that it looks at
are the same; and scikit-learn's `SGDClassifier.partial_fit` on blocks of it, whose step alpha is that of C = 1, for
several numbers of passes. Prints seconds, memory on top of what imports take, passes over the matrix, what was read,
and accuracy on the rows kept back. What the system keeps of the file (its page cache) is not counted as memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import cub_sized
import numpy as np
from numpy.typing import NDArray

NAME = "inception_v3"
WAYS = ("memory", "streamed", "sgd 5", "sgd 20", "sgd 80")


def write(folder: Path, n_images: int, n_classes: int) -> None:
    """Write the feature file."""
    from stackcls import backbones, store, storewriter
    from stackcls.settings import Settings

    name, matrix = next(cub_sized.matrices(n_images, n_classes))
    (backbone,) = backbones.resolve(Settings(features={"backbones": [{"name": name, "weights": "random"}]}).features)
    info = store.MatrixInfo(
        backbone.identity("random:0", "float32"), {"configured": backbone.to_dict()}, matrix.shape[1]
    )
    paths, digests = (tuple(text.format(row) for row in range(n_images)) for text in ("{:08d}.jpg", "{:064x}"))
    table = store.ImageTable(
        paths,
        digests,
        ("",) * n_images,
        cub_sized.labels(n_images, n_classes).astype(np.int32),
        np.full(n_images, -1),
        tuple(f"{number:04d}" for number in range(n_classes)),
        (),
        {},
        "images",
    )
    storewriter.write(folder / "features.h5", table, {name: info}, {name: [(np.arange(n_images), matrix)]}, {})


def status(field: str) -> float:
    """A line of what Linux says of this process, in MiB."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure_here(folder: Path, way: str) -> dict[str, Any]:
    """Fit in one way, in this process."""
    from sklearn.linear_model import SGDClassifier

    from stackcls import logistic
    from stackcls.store import Store
    from stackcls.streaming import Streamed, Traffic, pieces

    with Store(folder / "features.h5") as store:
        y = store.table.labels.astype(np.int64)
        n_classes, traffic = len(store.table.class_names), Traffic()
        every = np.arange(len(y))
        train, test = every[every % 5 != 0], every[every % 5 == 0]
        before, begin = status("VmRSS"), time.perf_counter()

        def streamed(rows: NDArray[np.int64]) -> Streamed:
            width = store.matrices[NAME].width
            return Streamed(partial(store.read_rows_into, NAME), rows, width, np.float32, traffic)

        if way.startswith("sgd"):
            model = SGDClassifier(loss="log_loss", alpha=1 / len(train), random_state=0, average=True)
            for _ in range(int(way.split()[1])):
                for start, part in pieces(streamed(train)):
                    model.partial_fit(part, y[train][start : start + len(part)], classes=np.arange(n_classes))
            coef, intercept = model.coef_, model.intercept_
        else:
            X = store.read_rows(NAME, train) if way == "memory" else streamed(train)
            found = logistic.fit(X, y[train], n_classes, max_iterations=1000)
            coef, intercept = found.coef, found.intercept
        seconds, taken, read = time.perf_counter() - begin, status("VmHWM") - before, traffic.bytes
        usage = resource.getrusage(resource.RUSAGE_SELF)
        right = [
            (part @ coef.T + intercept).argmax(axis=1) == y[test][start : start + len(part)]
            for start, part in pieces(streamed(test))
        ]
        return {
            "seconds": seconds,
            "processor": usage.ru_utime + usage.ru_stime,
            "memory": taken,
            "passes": read / (len(y) * store.matrices[NAME].width * 4),
            "rate": read / traffic.seconds / 1e9 if read else None,
            "accuracy": float(np.concatenate(right).mean()),
        }


def compare(folder: Path, n_images: int, n_classes: int) -> None:
    """Print a row for each way."""
    write(folder, n_images, n_classes)
    print(f"matrix: {n_images * cub_sized.WIDTHS[NAME] * 4 / 2**20:.0f} MiB", file=sys.stderr)
    print("| | seconds | of processors | MiB | passes | GB/s while reading | accuracy, % |")
    print(f"|{' --- |' * 7}")
    for way in WAYS:
        command = [sys.executable, __file__, "--way", str(folder), way]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        rate = f"{found['rate']:.1f}" if found["rate"] else ""
        passes = f"{found['passes']:.0f}" if found["rate"] else ""
        cells = (way, f"{found['seconds']:.1f}", f"{found['processor']:.1f}", f"{found['memory']:.0f}", passes, rate)
        print(f"| {' | '.join(cells)} | {100 * found['accuracy']:.2f} |", flush=True)


def main() -> None:
    """Read the options and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24_000)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--folder", type=Path, help="where to keep the features; by default a temporary folder")
    parser.add_argument("--way", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure_here(Path(arguments.way[0]), arguments.way[1])))
        return
    with tempfile.TemporaryDirectory() as name:
        compare(arguments.folder or Path(name), arguments.images, arguments.classes)


if __name__ == "__main__":
    main()
