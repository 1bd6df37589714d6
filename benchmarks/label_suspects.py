"""How well `fit` finds labels that were made wrong on purpose.

    python benchmarks/label_suspects.py [--shared ../shared] [--folder F] [--seeds 3]

flips one label in twenty to another class, drawn evenly, runs `features` (which computes nothing anew) and `fit`, and
prints which share of the first rows of `label_suspects.csv`, as many as were flipped, is flipped indeed; and how many
labels the report says look wrong, and are flagged there.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
from against_script import ROOT, mobilenets, write_settings

from stackcls import config
from stackcls.settings import Settings
from stackcls.stages import features, fit

SHARE = 0.05
DATA = {"flowers17": "flowers17", "birds20": "birds20/images"}


def write_flipped(images: Path, manifest: Path, seed: int, share: float = SHARE) -> set[str]:
    """Write a manifest of class folders in which some labels are wrong; return the paths of these."""
    files = sorted(images.glob("*/*.jpg"))
    classes = sorted({file.parent.name for file in files})
    rng = np.random.default_rng(seed)
    wrong = set(rng.choice(len(files), round(share * len(files)), replace=False).tolist())
    with open(manifest, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        for number, path in enumerate(files):
            place = classes.index(path.parent.name)
            if number in wrong:
                place = (place + rng.integers(1, len(classes))) % len(classes)
            rows.writerow([path, classes[place]])
    return {str(files[number]) for number in wrong}


def found(settings: Settings, wrong: set[str]) -> tuple[float, int, int]:
    """Fit; return precision at the number of wrong labels, how many are flagged, and how many of those are wrong."""
    report = fit.run(settings).report
    with open(settings.files.suspects, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    suspicious = np.array([any(path.endswith(row["path"]) for path in wrong) for row in rows])
    flagged = np.array([row["flagged"] == "yes" for row in rows])
    assert report.suspects is not None
    assert report.suspects.flagged == flagged.sum()
    return float(np.mean(suspicious[: len(wrong)])), int(flagged.sum()), int((suspicious & flagged).sum())


def measure(images: Path, raw: Path, seeds: int) -> None:
    """Print a line per seed."""
    print(f"{'':10s}seed  flipped  precision (probabilities alone)  flagged, of these flipped")
    for seed in range(seeds):
        wrong = write_flipped(images, raw.with_suffix(".csv"), seed)
        settings = config.read(raw, ("report.depth=full",))
        features.run(settings, offline=True)
        alone, *_ = found(config.read(raw, ("report.depth=quick",)), wrong)
        precision, flagged, right = found(settings, wrong)
        print(f"{raw.stem:10s}{seed:4d}  {len(wrong):7d}  {precision:9.3f} {alone:15.3f} {flagged:23d} {right:8d}")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--folder", type=Path, help="where to keep the features; by default a temporary folder")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = (arguments.folder or Path(name)).resolve()
        for data, where in DATA.items():
            raw = folder / f"{data}.yaml"
            write_settings(raw, raw.with_suffix(".csv"), mobilenets(arguments.shared.resolve()))
            measure(arguments.shared.resolve() / "data" / where, raw, arguments.seeds)


if __name__ == "__main__":
    main()
