"""Pretrain a small network on eight classes of CIFAR-10, and transfer it to the other two.

    python benchmarks/transfer.py CIFAR10_FOLDER FOLDER [--new automobile truck] [--seeds 3] [--images 3000]

CIFAR10_FOLDER holds `train.npz`: `jpeg` (the files' bytes, joined), `offsets`, `labels`, `classes`. Images, networks
and results go into FOLDER, by the names of the two classes. The network of `mini_vgg` is trained once from random
weights on eight classes; then, for each seed, on 200 images of each of the other two (a fifth of them tell the best
epoch): from random weights, its head alone, and as a whole, at two rates of the backbone. A logistic regression on the
frozen network's features, as `fit` learns it, is told all 400. Accuracy is on 1,000 more images of each class, which
none of them saw. What is finished is not repeated.
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from stackcls import config, splits, stack
from stackcls.console import Console
from stackcls.report.tables import table
from stackcls.report.tuned import Tuned
from stackcls.settings import Settings, StackSettings
from stackcls.stages import features, finetune
from stackcls.store import Store

LEARNED, SCORED = 200, 1000
SHARE = 0.5
RATES = (0.03, 0.1)  # of what was learned before, and as from random weights
LOGISTIC = "logistic regression on frozen features"


def write(cifar: Path, folder: Path, new: Sequence[str], per_class: int) -> None:
    """Write the images as class folders: `old` of eight classes, `new` of two, of which exactly 200 each are drawn."""
    data = np.load(cifar / "train.npz")
    jpeg, offsets = data["jpeg"].tobytes(), data["offsets"]
    wanted = dict.fromkeys(data["classes"].tolist(), per_class) | dict.fromkeys(new, 0)
    drawn = {name: [LEARNED, SCORED] for name in new}
    for row, number in enumerate(data["labels"].tolist()):
        name = str(data["classes"][number])
        path = f"{name}/{row:05d}.jpg"
        if name in new:
            part = int(not is_drawn(path))
            take, drawn[name][part] = drawn[name][part] > 0, max(0, drawn[name][part] - 1)
            target = folder / "new" / path
        else:
            take, wanted[name] = wanted[name] > 0, max(0, wanted[name] - 1)
            target = folder / "old" / path
        if take:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(jpeg[offsets[row] : offsets[row + 1]])
    (folder / "written").touch()


def is_drawn(path: str) -> bool:
    """Whether `finetune` takes an image into the share that it sees."""
    return 1 - splits.place(path) <= SHARE


def settings(folder: Path, part: str, seed: int, backbone: object = "mini_vgg", **tuning: object) -> Settings:
    """Settings of one run."""
    return config.build(
        {
            "images": str(folder / part),
            "artifacts": str(folder / f"seed{seed}"),
            "features": {"backbones": [backbone]},
            "finetune": {"seed": seed, "patience": 1000, "augment": {"brightness": 0}, **tuning},
        }
    )


def pretrain(folder: Path, epochs: int) -> Tuned:
    """Train on the eight classes: batches and rates as networks with batch normalisation take them from random."""
    how = {"epochs": epochs, "batch_size": 128, "multipliers": {"backbone": 0.3}, "validation": 0.05, "share": 1.0}
    chosen = settings(folder, "old", 0, start="random", **how)
    return finetune.run(chosen, "mini_vgg", name="old", listener=Console())


def transfer(folder: Path, seed: int, epochs: int, entry: dict[str, str]) -> dict[str, float]:
    """Accuracy on what is left of the two classes, by each way to learn them."""
    ways: dict[str, dict[str, object]] = {
        "from scratch": {"start": "random"},
        "frozen, a new head": {"start": entry["model"], "unfreeze": "none"},
    }
    for rate in RATES:
        ways[f"fine-tuned, backbone {rate:g}"] = {"start": entry["model"], "multipliers": {"backbone": rate}}
    found = {}
    for way, how in ways.items():
        chosen = settings(folder, "new", seed, share=SHARE, epochs=epochs, **how)
        run = finetune.run(chosen, "mini_vgg", name=way.replace(",", "").replace(" ", "-"), listener=Console())
        found[way] = run.accuracy or 0.0
    return found | {LOGISTIC: on_features(settings(folder, "new", 0, {**entry}))}


def on_features(chosen: Settings) -> float:
    """Accuracy of the stack's base learner on what a backbone sees, fitted to the same images."""
    features.run(chosen)
    with Store(chosen.files.features) as store:
        X = store.read_rows("old", np.arange(len(store.table.paths)))
        learns = np.array([is_drawn(path) for path in store.table.paths])
        y = np.array(store.table.labels)
    base, _ = stack.from_settings(StackSettings(), (), 0).fit_base(X[learns], y[learns])
    return float((base.predict_proba(X[~learns]).argmax(axis=1) == y[~learns]).mean())


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--new", nargs=2, default=["automobile", "truck"], metavar="CLASS")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=3000, help="of each of the eight classes")
    parser.add_argument("--epochs", type=int, default=6, help="of the pretraining")
    parser.add_argument("--transfer-epochs", type=int, default=30)
    arguments = parser.parse_args()
    folder = arguments.folder / "-".join(arguments.new)
    if not (folder / "written").exists():
        write(arguments.cifar10, folder, arguments.new, arguments.images)
    first = pretrain(folder, arguments.epochs)
    print(f"pretrained: {100 * first.validation_accuracy:.1f} % of the validation images")
    found: dict[str, list[float]] = {}
    for seed in range(arguments.seeds):
        for way, accuracy in transfer(folder, seed, arguments.transfer_epochs, dict(first.entry)).items():
            found.setdefault(way, []).append(accuracy)
        (folder / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    rows = [
        [way, f"{100 * statistics.mean(values):.1f}", " ".join(f"{100 * value:.1f}" for value in values)]
        for way, values in found.items()
    ]
    print(table([f"{' and '.join(arguments.new)}, accuracy in %", "mean", "each seed"], rows))


if __name__ == "__main__":
    main()
