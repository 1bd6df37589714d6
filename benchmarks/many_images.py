"""Time, memory and work of `features` on manifests of ever more images, with a stub in the networks' place.

    python benchmarks/many_images.py [--counts 25000 50000 100000]

Every image is a small PNG; a quarter of them differ, the others repeat their content under other names. What is
measured is what stackcls itself does for each image: listing, hashing, decoding, blocks, going on, the feature file.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

WIDTH, REPEATED = 512, 4
STEPS = {
    "plan": "dry run, nothing there",
    "half": "first run, stopped in the middle",
    "rest": "going on from the blocks",
    "same": "again, nothing new",
    "renamed": "all labels and a tenth of the names changed",
    "added": "1,000 new images",
}


class Stub:
    """An engine whose networks repeat an image's mean; stops after some images."""

    name, batch_size = "stub", 64

    def __init__(self, stop_after: int) -> None:
        self.left = stop_after

    def refusal(self, _: str) -> str | None:
        """Refuse nothing."""
        return None

    def provenance(self) -> Mapping[str, str]:
        """Name the stub."""
        return {"engine": self.name}

    def prepare(self, located: Any, _: int) -> Any:
        """Take no time."""
        stub = self

        class Extractor:
            input_size, width = located.backbone.input_size, WIDTH

            def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
                if stub.left <= 0:
                    raise KeyboardInterrupt
                stub.left -= len(images)
                means = images.mean(axis=(1, 2, 3), dtype=np.float32)
                return np.repeat(means[:, None], self.width, axis=1)

        return Extractor()


def write_images(folder: Path, count: int) -> None:
    """Write images, most of them as other names of the same file, and a manifest."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = []
    for number in range(count // REPEATED):
        first = folder / f"{number:06d}.png"
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(first)
        names.append(first.name)
        for copy in range(1, REPEATED):
            # Apart from each other, so that rows of one content are.
            other = folder / f"{copy * (count // REPEATED) + number * 7919 % (count // REPEATED):06d}.png"
            os.link(first, other)
            names.append(other.name)
    write_manifest(folder, names, "label")


def write_manifest(folder: Path, names: list[str], label: str) -> None:
    """Write a manifest of a hundred classes."""
    lines = "".join(f"{name},{label}{number % 100}\n" for number, name in enumerate(names))
    (folder / "manifest.csv").write_text(f"path,label\n{lines}")


def change(folder: Path, step: str) -> None:
    """Change the images as a step asks."""
    names = sorted(path.name for path in folder.glob("*.png"))
    if step == "renamed":
        for number in range(0, len(names), 10):
            (folder / names[number]).rename(folder / f"r{names[number]}")
            names[number] = f"r{names[number]}"
        write_manifest(folder, names, "other")
    if step == "added":
        rng = np.random.default_rng(1)
        for number in range(1000):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"n{number:06d}.png")
        write_manifest(folder, [*names, *(f"n{number:06d}.png" for number in range(1000))], "other")


def measure_here(folder: Path, step: str) -> dict[str, Any]:
    """Run one step in this process."""
    from stackcls import config, engines
    from stackcls.stages import features
    from stackcls.store import Store

    images = folder / "images"
    change(images, step)
    backbones = [{"name": str(n), "architecture": "MobileNet", "input_size": 32, "weights": "random"} for n in (1, 2)]
    raw = {
        "images": str(images / "manifest.csv"),
        "artifacts": str(folder / "artifacts"),
        "features": {"backbones": backbones},
    }
    count = len((images / "manifest.csv").read_text().splitlines()) - 1
    stub = Stub(count // REPEATED if step == "half" else 2**62)
    engines.choose = lambda *_: engines.Choice(stub, "")  # type: ignore[arg-type, assignment]
    settings = config.build(raw)
    Store  # noqa: B018
    base, start, processor = peak(), time.perf_counter(), time.process_time()
    try:
        features.run(settings, dry_run=step == "plan")
    except KeyboardInterrupt:
        assert step == "half"
    return {
        "images": count,
        "seconds": time.perf_counter() - start,
        "processor": time.process_time() - processor,
        "memory": (peak() - base) / 2**20,
    }


def peak() -> int:
    """Largest memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(count: int) -> dict[str, dict[str, Any]]:
    """Run every step on so many images, each in a process of its own."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder) / "images", count)
        for step in STEPS:
            command = [sys.executable, __file__, "--step", step, folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            found[step] = json.loads(done.stdout)
            print(count, step, found[step], file=sys.stderr, flush=True)
    return found


def table(found: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> str:
    """Seconds of processor time and memory by step and number of images, and the ratio of the last to the first."""
    counts = list(found)
    head = [*(f"{count:,}: s" for count in counts), "ratio", *(f"{count:,}: MiB" for count in counts)]
    lines = [f"| | {' | '.join(head)} |", f"|{' --- |' * (len(head) + 1)}"]
    for step, said in STEPS.items():
        seconds = [found[count][step]["processor"] for count in counts]
        memory = [found[count][step]["memory"] for count in counts]
        cells = [*(f"{value:.1f}" for value in seconds), f"{seconds[-1] / seconds[0]:.1f}"]
        lines.append(f"| {said} | {' | '.join([*cells, *(f'{value:.0f}' for value in memory)])} |")
    return "\n".join(lines)


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, folder = arguments.step
        print(json.dumps(measure_here(Path(folder), step)))
        return
    print(table({count: measure(count) for count in arguments.counts}))


if __name__ == "__main__":
    main()
