"""Pretrain a small network on eight classes of CIFAR-10, and transfer it to the other two.

    python benchmarks/transfer.py CIFAR10_FOLDER FOLDER [--seeds 3] [--images 500] [--epochs 8]

CIFAR10_FOLDER holds `train.npz`: `jpeg` (the files' bytes, joined), `offsets`, `labels`, `classes`. Images, networks
and results go into FOLDER. For each seed the network of `mini_vgg` is trained from random weights on eight classes;
then, on 200 images of each of the other two (a fifth of them tell the best epoch), from random weights, its head alone,
and as a whole. Accuracy is on 1,000 more images of each, which neither saw. What is finished is not repeated.
"""

import argparse
import json
import os
import statistics
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from stackcls import config, splits
from stackcls.console import Console
from stackcls.settings import Settings
from stackcls.stages import finetune

NEW = ("automobile", "truck")
LEARNED, SCORED = 200, 1000
SHARE = 0.5
WAYS = ("scratch", "head", "tuned")


def write(cifar: Path, folder: Path, per_class: int) -> None:
    """Write the images as class folders: `old` of eight classes, `new` of two, of which exactly 200 each are drawn."""
    data = np.load(cifar / "train.npz")
    jpeg, offsets = data["jpeg"].tobytes(), data["offsets"]
    wanted = dict.fromkeys(data["classes"].tolist(), per_class) | dict.fromkeys(NEW, 0)
    drawn = {name: [LEARNED, SCORED] for name in NEW}
    for row, number in enumerate(data["labels"].tolist()):
        name = str(data["classes"][number])
        path = f"{name}/{row:05d}.jpg"
        if name in NEW:
            part = int(1 - splits.place(path) > SHARE)
            take, drawn[name][part] = drawn[name][part] > 0, max(0, drawn[name][part] - 1)
            target = folder / "new" / path
        else:
            take, wanted[name] = wanted[name] > 0, max(0, wanted[name] - 1)
            target = folder / "old" / path
        if take:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(jpeg[offsets[row] : offsets[row + 1]])


def settings(folder: Path, part: str, seed: int, **tuning: object) -> Settings:
    """Settings of one run."""
    return config.build(
        {
            "images": str(folder / part),
            "artifacts": str(folder / f"seed{seed}"),
            "features": {"backbones": ["mini_vgg"]},
            "finetune": {"seed": seed, "patience": 1000, **tuning},
        }
    )


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=500, help="of each of the eight classes")
    parser.add_argument("--epochs", type=int, default=8, help="of the pretraining")
    parser.add_argument("--transfer-epochs", type=int, default=15)
    arguments = parser.parse_args()
    folder, console = arguments.folder, Console()
    if not (folder / "old").exists():
        write(arguments.cifar10, folder, arguments.images)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    before = []
    for seed in range(arguments.seeds):
        augment = {"brightness": 0}
        first = {"start": "random", "share": 1.0, "validation": 0.05, "batch_size": 64, "epochs": arguments.epochs}
        pretraining = settings(folder, "old", seed, augment=augment, **first)
        pretrained = finetune.run(pretraining, "mini_vgg", name="pretrained", listener=console)
        before.append(pretrained.validation_accuracy)
        second = {"start": pretrained.entry["model"], "share": SHARE, "epochs": arguments.transfer_epochs}
        transfer = settings(folder, "new", seed, augment=augment, **second)
        runs, _ = finetune.compare(transfer, "mini_vgg", listener=console)
        for way, run in zip(WAYS, runs, strict=True):
            found[way].append(run.accuracy or 0.0)
        (folder / "results.json").write_text(json.dumps({"pretrained": before, **found}, indent=1) + "\n")
    print("pretrained, validation:", " ".join(f"{100 * value:.1f}" for value in before))
    for way, values in found.items():
        print(f"{way}: {100 * statistics.mean(values):.1f} ({' '.join(f'{100 * value:.1f}' for value in values)})")


if __name__ == "__main__":
    main()
