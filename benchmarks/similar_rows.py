"""Time per query of `similar` among many rows, by all rows and by the index, and how many neighbours the index finds.

    python benchmarks/similar_rows.py [--rows 100000 200000] [--widths 2048 | --widths 1024 768 512 1280] [--folder F]

The features are stand-ins with the spectrum of real ones (see cub_sized.py): 500 classes, each image its class's centre
plus a deviation, turned by a random matrix per backbone, through a rectifier. A query is an image of the feature file.
`--folder` keeps them for the next run.
"""

import argparse
import hashlib
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
from cub_sized import BETWEEN, LATENT
from numpy.typing import NDArray

from stackcls import backbones, lookup, storewriter
from stackcls.settings import Settings
from stackcls.store import ImageTable, MatrixInfo

N_CLASSES, ASKED, K, PIECE = 500, 200, 10, 1024

Features = NDArray[np.float32]


def pieces(n_rows: int, width: int, seed: int) -> Iterator[tuple[NDArray[np.int64], Features]]:
    """Generate one backbone's matrix, piece by piece."""
    place = np.arange(1, LATENT + 1)
    spread = (place**-0.5 * (1 + place / 100) ** -0.5).astype(np.float32)
    shared = np.random.default_rng(0)
    centres = shared.standard_normal((N_CLASSES, LATENT), np.float32) * math.sqrt(BETWEEN)
    turn = np.random.default_rng(seed).standard_normal((LATENT, width), np.float32) / np.linalg.norm(spread)
    offset = 0.5 + 0.5 * np.random.default_rng(seed + 1).standard_normal(width, np.float32)
    for start in range(0, n_rows, PIECE):
        rows = np.arange(start, min(start + PIECE, n_rows))
        latent = np.random.default_rng((7, start)).standard_normal((len(rows), LATENT), np.float32)
        latent = (centres[rows % N_CLASSES] + math.sqrt(1 - BETWEEN) * latent) * spread
        yield rows, np.maximum(latent @ turn + offset, 0)


def write_inputs(folder: Path, n_rows: int, widths: Sequence[int]) -> tuple[Settings, list[str]]:
    """Write a feature file, unless it is there, and the images that are asked for."""
    asked = {row: folder / f"{row:07d}.jpg" for row in range(0, n_rows, n_rows // ASKED)}
    digests = [f"{row:064x}" for row in range(n_rows)]
    folder.mkdir(parents=True, exist_ok=True)
    for row, file in asked.items():
        file.write_text(str(row))
        digests[row] = hashlib.sha256(str(row).encode()).hexdigest()
    settings = Settings(artifacts=folder)
    if not settings.files.features.exists():
        paths = tuple(f"{row:07d}.jpg" for row in range(n_rows))
        labels = (np.arange(n_rows) % N_CLASSES).astype(np.int32)
        names = tuple(f"{number:03d}" for number in range(N_CLASSES))
        table = ImageTable(paths, tuple(digests), ("",) * n_rows, labels, np.full(n_rows, -1), names, (), {}, "images")
        infos, chunks = {}, {}
        named = [
            {"name": f"net{number}", "architecture": "MobileNet", "weights": "random", "seed": number}
            for number in range(len(widths))
        ]
        for backbone, width in zip(
            backbones.resolve(Settings(features={"backbones": named}).features), widths, strict=True
        ):
            identity = backbone.identity(f"random:{backbone.seed}", "float32")
            infos[backbone.name] = MatrixInfo(identity, {"configured": backbone.to_dict()}, width)
            chunks[backbone.name] = pieces(n_rows, width, 10 * backbone.seed + 1)
        storewriter.write(settings.files.features, table, infos, chunks, {})
    return settings, [str(file) for file in asked.values()]


def measure(settings: Settings, asked: Sequence[str], **options: bool) -> list[list[str]]:
    """Load, ask for every image alone, and print times and memory."""
    process = psutil.Process()
    before, start = process.memory_info().rss, time.perf_counter()
    with lookup.Neighbours(settings, **options) as loaded:
        loading = time.perf_counter() - start
        held = (process.memory_info().rss - before) / 2**20
        seconds, found = [], []
        for path in asked:
            start = time.perf_counter()
            (one,) = loaded.find([path], K)
            seconds.append(time.perf_counter() - start)
            found.append([item.path for item in one.neighbours])
        print(
            f"  {options}: loading {loading:.1f} s, {held:.0f} MiB; a query {statistics.median(seconds):.3f} s, "
            f"at most {max(seconds):.3f} s",
            flush=True,
        )
    return found


def compare(folder: Path, n_rows: int, widths: Sequence[int]) -> None:
    """Measure one feature file: by all rows, by an index that is made, and by one that is there."""
    settings, asked = write_inputs(folder / f"{n_rows}-{'-'.join(map(str, widths))}", n_rows, widths)
    size = settings.files.features.stat().st_size / 2**20
    print(f"{n_rows} rows of {sum(widths)} columns, {size:.0f} MiB", flush=True)
    exact = measure(settings, asked, exact=True)
    measure(settings, asked[:10], exact=True, hold=False)
    lookup.LARGE = 0
    measure(settings, asked[:1])
    found = measure(settings, asked)
    shares = [len(set(one) & set(other)) / K for one, other in zip(exact, found, strict=True)]
    print(f"  recall at {K}: mean {np.mean(shares):.4f}, worst {min(shares):.2f}", flush=True)


def main() -> None:
    """Run the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 200_000])
    parser.add_argument("--widths", type=int, nargs="+", default=[2048])
    parser.add_argument("--folder", type=Path, help="where to keep the features; by default a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ.setdefault("STACKCLS_CACHE", str(Path(name) / "cache"))
        for n_rows in arguments.rows:
            compare((arguments.folder or Path(name)).resolve(), n_rows, arguments.widths)


if __name__ == "__main__":
    main()
