"""Deletion scores of `stackcls explain` against random orders and the centre first, on photos that a model never saw.

    python benchmarks/explaining.py ARTIFACTS IMAGES [--count 10] [--out FILE.json]

ARTIFACTS is what `stackcls fit --set cv.holdout=0.1` wrote, and IMAGES the folder that paths there are relative to. The
photos are drawn with a fixed seed from those that were held out. Pictures come into ARTIFACTS/explain-METHOD.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tabulate import tabulate

from stackcls import modelfile
from stackcls.errors import UnreadableImage
from stackcls.explaining import Explainer
from stackcls.inspect import occlusion
from stackcls.stages import explain as stage

METHODS = ("occlusion", "gradcam")


def drawn(artifacts: Path, images: Path, count: int) -> list[Path]:
    """Photos that were held out."""
    with open(artifacts / "holdout_predictions.csv", newline="", encoding="utf-8") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    chosen = np.random.default_rng(0).permutation(len(paths))[:count]
    return [images / paths[row] for row in sorted(chosen)]


def centre_first() -> np.ndarray:
    """A map that knows only that photographers put what matters into the middle."""
    y, x = np.mgrid[: occlusion.SIDE, : occlusion.SIDE] - (occlusion.SIDE - 1) / 2
    return -np.hypot(y, x).astype(np.float32)


def measure(explainer: Explainer, method: str, path: Path, picture: Path) -> dict[str, float | str]:
    """One photo by one method; what is the same for all methods is computed with the first."""
    start, busy = time.perf_counter(), time.process_time()
    (found,) = explainer.explain([path])
    if isinstance(found, UnreadableImage):
        raise SystemExit(str(found))
    row = {
        "path": str(path),
        "method": method,
        "label": found.label,
        "probability": found.probability,
        "deletion": found.deletion,
        "random": found.random,
        "seconds": time.perf_counter() - start,
        "processor": time.process_time() - busy,
    }
    if method == METHODS[0]:
        number = explainer.model.classes_.tolist().index(found.explained)
        row["centre"] = explainer._deletion(Image.fromarray(found.picture), number, occlusion.removals(centre_first()))
    stage._save(found, picture)
    return row


def interval(differences: np.ndarray) -> str:
    """Mean with a 95 % interval, from 10,000 bootstrap samples of the photos."""
    rng = np.random.default_rng(0)
    means = differences[rng.integers(0, len(differences), (10_000, len(differences)))].mean(axis=1)
    return f"{differences.mean():+.3f} ({np.quantile(means, 0.025):+.3f} to {np.quantile(means, 0.975):+.3f})"


def table(rows: list[dict]) -> str:
    """Mean and standard deviation over photos, and the paired difference from random orders."""
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        for what in ("deletion", "random", "centre"):
            if what not in mine[0] or (what == "random" and method != METHODS[0]):
                continue
            found, base = (np.array([row[name] for row in mine]) for name in (what, "random"))
            cells = [method if what == "deletion" else what, f"{found.mean():.3f} ± {found.std(ddof=1):.3f}"]
            if what == "random":
                lines.append([*cells, "", "", "", ""])
                continue
            better = f"{(found < base).sum()} of {len(mine)}"
            cost = ["", ""]
            if what == "deletion":
                cost = [f"{np.median([row[name] for row in mine]):.1f}" for name in ("seconds", "processor")]
            lines.append([*cells, interval(found - base), better, *cost])
    headers = ["order", "deletion score", "minus random", "lower on", "s per image", "of them processor"]
    return tabulate(lines, headers, "github", disable_numparse=True)


def main() -> None:
    """Measure what is not measured yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--out", type=Path, help="keeps what is measured; a run goes on from it")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out and options.out.exists() else []
    done = {(row["method"], row["path"]) for row in rows}
    model = modelfile.load(options.artifacts / "model.safetensors")
    for method in METHODS:
        explainer = Explainer(model, method)
        for path in drawn(options.artifacts, options.images, options.count):
            if (method, str(path)) not in done:
                picture = options.artifacts / f"explain-{method}" / f"{path.parent.name}-{path.stem}.png"
                rows.append(measure(explainer, method, path, picture))
                if options.out:
                    options.out.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
