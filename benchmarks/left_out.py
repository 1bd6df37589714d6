"""How well a stack that was fitted without some classes tells their images from those of the classes that it knows.

    python benchmarks/left_out.py artifacts/features.h5 [--left-out 5] [--folds 3] [--choices 8] [--backbones a b]

leaves out classes drawn at random (and, first, the last ones by name), fits and cross-validates on all others, and
prints the area under the ROC curve of their out-of-fold images against all images of the classes left out: by the
largest of the backbones' averaged probabilities, by the stack's largest probability, by the features' familiarity, and
by the certainty that `predict --reject` goes by, whose weights come from the known classes alone.

    python benchmarks/left_out.py artifacts/features.h5 --apart

also keeps a quarter of the known images apart from the whole fit, and prints what the report says of `predict --reject`
beside what the fitted model does with what was kept apart.
"""

import argparse
from dataclasses import replace
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


def some(data: TrainingSet, rows: NDArray[np.int64]) -> TrainingSet:
    """Some rows of a set."""
    features = np.hstack([data.block(number, rows) for number in range(len(data.names))])
    return replace(data, X=features, y=data.y[rows], groups=None if data.groups is None else data.groups[rows])


def measure(data: TrainingSet, group: NDArray[np.int64], settings: Settings) -> list[float]:
    """Areas under the ROC curve, means over the folds, in the order of `COLUMNS`."""
    kept = np.setdiff1d(np.arange(len(data.class_names)), group)
    away = np.isin(data.y, group)
    known = some(unknowns.restricted(data, kept), np.flatnonzero(~away))
    validated = validation.cross_validate(known, settings, False, Silent())
    weights = unknowns.look(known, validated, settings, True, Silent())[1].weights
    every = unknowns.restricted(data, kept)
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


def apart(data: TrainingSet, left_out: int, settings: Settings, seed: int, reject: float) -> dict[str, float]:
    """What the report says of a threshold, and what the model does with classes and images that no fit saw."""
    rng = np.random.default_rng(100 + seed)
    group = np.sort(rng.permutation(len(data.class_names))[:left_out])
    kept = np.setdiff1d(np.arange(len(data.class_names)), group)
    strange = np.isin(data.y, group)
    seen = ~strange & (rng.random(len(data.y)) >= 0.25)
    known = some(unknowns.restricted(data, kept), np.flatnonzero(seen))
    validated = validation.cross_validate(known, settings, False, Silent())
    report, familiarity = unknowns.look(known, validated, settings, True, Silent())
    rows = np.flatnonzero(~seen)
    features = [data.block(number, rows) for number in range(len(data.names))]
    shares = validated.model.predict_proba(np.hstack(features))
    sure, new = familiarity.certainty(shares, features), strange[rows]
    (trade,) = [trade for trade in report.trades if trade.reject == reject]
    if trade.unknown_rejected is None or report.auroc is None:
        raise SystemExit("the classes are too few, or the groups too large, to leave any out")
    return {
        "labelled, said": trade.coverage,
        "labelled, apart": float((sure[~new] >= reject).mean()),
        "rejected, said": trade.unknown_rejected,
        "rejected, apart": float((sure[new] < reject).mean()),
        "area, said": report.auroc,
        "area, apart": float(roc_auc_score(~new, sure)),
        "of the largest probability": float(roc_auc_score(~new, shares.max(axis=1))),
    }


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
    parser.add_argument("--apart", type=float, nargs="?", const=0.5, metavar="P")
    given = parser.parse_args()
    settings = config.build({"cv": {"folds": given.folds}})
    with Store(given.features) as store:
        data = load(store, given.backbones, settings)
        if given.apart:
            found = {seed: apart(data, given.left_out, settings, seed, given.apart) for seed in range(given.choices)}
            rows = [[f"seed {seed}", *item.values()] for seed, item in found.items()]
            columns = list(found[0])
        else:
            groups = choices(len(data.class_names), given.left_out, given.choices)
            rows, columns = [[name, *measure(data, group, settings)] for name, group in groups.items()], list(COLUMNS)
    rows.append(["mean", *np.mean([row[1:] for row in rows], axis=0)])
    print(tabulate(rows, ["left out", *columns], tablefmt="pipe", floatfmt=".4f"))


if __name__ == "__main__":
    main()
