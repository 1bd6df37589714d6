"""How many copies `stackcls` finds, what else it takes for copies, and what they do to the scores.

    python benchmarks/copied_images.py --images ../shared/data/birds20/images --weights ../shared/weights

Of 30 images, drawn by a seed, a copy is made: re-encoded (JPEG, quality 50 to 80), made smaller (0.6 to 0.9 of the
sides), turned left to right, cut (5 to 10 % of either side), each of the four with a probability of 3/4. The copies go
into other classes' folders, or in a second round into the same class's. Each is scored with and without
`cv.groups: duplicates`.
"""

import argparse
import csv
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stackcls import config, grouping
from stackcls.inspect import duplicates
from stackcls.settings import Settings
from stackcls.stages import features, fit
from stackcls.store import Store

ROOT = Path(__file__).resolve().parent.parent
CHANCES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
SUFFIXES = {".jpg", ".jpeg", ".png"}
BACKBONES = {
    "mobilenet_1.00_224": {"architecture": "MobileNet"},
    "mobilenet_0.75_192": {"architecture": "MobileNet", "arguments": {"alpha": 0.75}, "input_size": 192},
    "mobilenet_0.50_160": {"architecture": "MobileNet", "arguments": {"alpha": 0.5}, "input_size": 160},
    "mobilenet_v2_1.00_224": {"architecture": "MobileNetV2"},
}


def altered(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, int]:
    """Cut, made smaller and turned, or some of that; and the quality to write it with."""
    cut, smaller, turned, rough = rng.random(4) < 0.75
    if not (cut or smaller or turned):
        cut = True
    if cut:
        sides = [round(side * (1 - rng.uniform(0.05, 0.1))) for side in image.size]
        left, top = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(image.size, sides, strict=True))
        image = image.crop((left, top, left + sides[0], top + sides[1]))
    if smaller:
        scale = rng.uniform(0.6, 0.9)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    if turned:
        image = ImageOps.mirror(image)
    return image, int(rng.integers(50, 81)) if rough else 95


def add_copies(folder: Path, paths: Sequence[str], count: int, seed: int, same_class: bool) -> dict[str, str]:
    """Put altered copies of some images of class folders there too; originals by copy."""
    rng = np.random.default_rng(seed)
    classes = sorted({path.split("/")[0] for path in paths})
    made = {}
    for number, index in enumerate(rng.choice(len(paths), count, replace=False)):
        original = paths[index]
        with Image.open(folder / original) as image:
            copy, quality = altered(ImageOps.exif_transpose(image).convert("RGB"), rng)
        others = [name for name in classes if name != original.split("/")[0]]
        label = original.split("/")[0] if same_class else others[rng.integers(len(others))]
        name = f"{label}/copy-{number:03d}.jpg"
        copy.save(folder / name, quality=quality)
        made[name] = original
    return made


def count_found(settings: Settings, made: Mapping[str, str]) -> tuple[int, int]:
    """Copies that are in one group with their original, and all other pairs."""
    with Store(settings.files.features) as store:
        found, _ = grouping.look(store, tuple(store.matrices))
        group = dict(zip(store.table.paths, found.group.tolist(), strict=True))
    hits = sum(group[copy] == group[original] for copy, original in made.items())
    return hits, duplicates.count_pairs(found.group) - hits


def accuracy(settings: Settings, names: set[str]) -> float:
    """Share of some images that the stack predicts as labelled."""
    with open(settings.files.predictions, encoding="utf-8", newline="") as file:
        return float(
            np.mean([row["label"] == row["predicted"] for row in csv.DictReader(file) if row["path"] in names])
        )


def score(settings: Settings, made: Mapping[str, str]) -> dict[str, Any]:
    """Scores with and without groups: of all images, and of the originals and copies alone."""
    grouped = settings.model_copy(update={"cv": settings.cv.model_copy(update={"groups": "duplicates"})})
    originals, copies = set(made.values()), set(made)
    found = {}
    for name, chosen in (("plain", settings), ("grouped", grouped)):
        report = fit.run(chosen).report
        assert report.duplicates is not None
        found[name] = report.scores["stack"].mean, accuracy(chosen, originals), accuracy(chosen, copies)
        found["straddling"] = report.duplicates.straddling
    return found


def rounds(settings: Settings, count: int, seeds: int) -> Iterator[tuple[bool, int, dict[float, Any], dict[str, Any]]]:
    """Every seed, into other classes' folders and into the same."""
    paths = sorted(
        path.relative_to(settings.images).as_posix()
        for path in settings.images.rglob("*")
        if path.suffix.lower() in SUFFIXES
    )
    usual = duplicates.CHANCE
    for same_class in (False, True):
        for seed in range(seeds):
            made = add_copies(settings.images, paths, count, seed, same_class)
            features.run(settings)
            grid = {}
            for chance in CHANCES:
                duplicates.CHANCE = chance
                grid[chance] = count_found(settings, made)
            duplicates.CHANCE = usual
            yield same_class, seed, grid, score(settings, made)
            for name in made:
                (settings.images / name).unlink()


def settings_for(images: Path, weights: Path, folder: Path, names: Sequence[str] = tuple(BACKBONES)) -> Settings:
    """Settings for a copy of the images, and the networks whose weights are there."""
    shutil.rmtree(folder / "images", ignore_errors=True)
    shutil.copytree(images, folder / "images")
    backbones = [{"name": name, **BACKBONES[name], "weights": str(weights / f"{name}.weights.h5")} for name in names]
    places = {"images": str(folder / "images"), "artifacts": str(folder / "artifacts")}
    return config.build({**places, "features": {"backbones": backbones}})


def main() -> None:
    """Read the options and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="class folders")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--copies", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "copied-images")
    arguments = parser.parse_args()
    settings = settings_for(arguments.images.resolve(), arguments.weights.resolve(), arguments.work.absolute())
    grids, scores = [], []
    for same_class, seed, grid, found in rounds(settings, arguments.copies, arguments.seeds):
        where = "same class" if same_class else "other classes"
        grids += [[where, seed, *(f"{hits} + {others}" for hits, others in grid.values())]]
        figures = [
            f"{100 * value:.2f}" for pair in zip(found["plain"], found["grouped"], strict=True) for value in pair
        ]
        scores += [[where, seed, found["straddling"], *figures]]
        print(grids[-1], scores[-1], file=sys.stderr, flush=True)
    print(tabulate(grids, ["copies in", "seed", *map(str, CHANCES)], tablefmt="pipe", disable_numparse=True))
    heads = [f"{what}, {how}" for what in ("all images", "originals", "copies") for how in ("plain", "grouped")]
    print("\n" + tabulate(scores, ["copies in", "seed", "astride", *heads], tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
