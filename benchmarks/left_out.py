"""How well a stack that was fitted without some classes tells their images from those of the classes that it knows.

    python benchmarks/left_out.py artifacts/features.h5 [--left-out 5] [--folds 3] [--choices 8] [--backbones a b]

leaves out classes drawn at random (and, first, the last ones by name), fits and cross-validates on all others, and
prints the area under the ROC curve of their out-of-fold images against all images of the classes left out: by the
largest of the backbones' averaged probabilities, by the stack's largest probability, by the features' familiarity, and
by the certainty that `predict --reject` goes by, whose weights come from the known classes alone.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from tabulate import tabulate

from stackcls import config, stack, trainingdata, unknowns, validation
from stackcls.decisions import probabilities
from stackcls.familiarity import certain, scores
from stackcls.listener import Silent
from stackcls.report.results import STACK
from stackcls.settings import Settings
from stackcls.store import Store
from stackcls.training import TrainingSet

COLUMNS = ("averaged probability", "stack's probability", "familiarity", "certainty")


def measure(data: TrainingSet, group: NDArray[np.int64], settings: Settings) -> list[float]:
    """Areas under the ROC curve, means over the folds, in the order of `COLUMNS`."""
    kept = np.setdiff1d(np.arange(len(data.class_names)), group)
    away = np.isin(data.y, group)
    known = unknowns.restricted(data, np.flatnonzero(~away), kept)
    validated = validation.cross_validate(known, settings, False, Silent())
    weights = unknowns.look(known, validated, settings, True, Silent())[1].weights
    every = unknowns.restricted(data, np.arange(len(data.y)), kept)
    splitter = stack.splitter(settings.cv.folds, settings.cv.seed, known.groups)
    areas = []
    for _, held_out in splitter.split(known.y, known.y, known.groups):
        test = away.copy()
        test[np.flatnonzero(~away)[held_out]] = True
        part = np.flatnonzero(~test), np.flatnonzero(test)
        said = validation.predict_held_out(every, part, settings, lambda _: None)
        ((_, looks),) = unknowns.familiarities(every, [part], False, lambda _: None)
        shares = probabilities(said[STACK], validated.model.temperature)
        averaged = np.mean([said[name] for name in data.names], axis=0).max(axis=1)
        found = scores(shares, *looks)
        compared = averaged, found[0], found[1], certain(weights, found)
        areas.append([float(roc_auc_score(~away[test], score)) for score in compared])
    means: list[float] = np.mean(areas, axis=0).tolist()
    return means


def choices(n_classes: int, left_out: int, number: int) -> dict[str, NDArray[np.int64]]:
    """The last classes, and as many drawn at random, several times."""
    drawn = {
        f"seed {seed}": np.sort(np.random.default_rng(seed).choice(n_classes, left_out, replace=False))
        for seed in range(number - 1)
    }
    return {"the last": np.arange(n_classes - left_out, n_classes), **drawn}


def load(store: Store, names: list[str] | None, settings: Settings) -> TrainingSet:
    """Features of all labelled images, by the backbones named or by all."""
    return trainingdata.load(store, names or list(store.matrices), settings, Silent()).data


def main() -> None:
    """Measure each choice of classes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("--left-out", type=int, default=5)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--choices", type=int, default=8)
    parser.add_argument("--backbones", nargs="*")
    given = parser.parse_args()
    settings = config.build({"cv": {"folds": given.folds}})
    rows = []
    with Store(given.features) as store:
        data = load(store, given.backbones, settings)
        for name, group in choices(len(data.class_names), given.left_out, given.choices).items():
            rows.append([name, *measure(data, group, settings)])
    rows.append(["mean", *np.mean([row[1:] for row in rows], axis=0)])
    print(tabulate(rows, ["left out", *COLUMNS], tablefmt="pipe", floatfmt=".4f"))


if __name__ == "__main__":
    main()
