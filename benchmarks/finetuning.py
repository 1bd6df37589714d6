"""What fine-tuning one backbone is worth: by itself, and in a stack.

    python benchmarks/finetuning.py pipeline.yaml mn50 --late conv_dw_11 --folder build/finetuning [--seeds 3]

The file names images and backbones; `mn50` is one of them. For every seed a new head alone, the layers from `--late`
on, and all layers are trained, on the same share of the images. Then, on the images that none of them saw, stacks of
the other backbones and one of these networks are scored on the same folds, for five seeds of the folds. Beside them
stands the stack that needs no image for fine-tuning: all of them frozen, each fold's stack also told the images that
the networks were trained on. What is finished is not repeated.
"""

import argparse
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from numpy.typing import NDArray

from stackcls import config, seen, stack
from stackcls.console import Console
from stackcls.report import curves
from stackcls.report.tables import table
from stackcls.report.tuned import Tuned
from stackcls.settings import BackboneEntry, Settings, StackSettings
from stackcls.stages import features, finetune
from stackcls.store import Store

FOLDS, FOLD_SEEDS = 3, 5
ALONE, WITH_SEEN = "the others", "all frozen, fitted on the images of the fine-tuning too"

Matrices = Mapping[str, NDArray[np.float32]]


def tune(settings: Settings, backbone: str, late: str, seeds: int) -> dict[str, list[Tuned]]:
    """Train every way with every seed, and draw the curves of each seed together."""
    ways = {"head": "none", "late": late, "all": "all"}
    runs: dict[str, list[Tuned]] = {way: [] for way in ways}
    for seed in range(seeds):
        for way, unfreeze in ways.items():
            tuning = settings.finetune.model_copy(update={"seed": seed, "unfreeze": unfreeze})
            chosen = settings.model_copy(update={"finetune": tuning})
            runs[way].append(finetune.run(chosen, backbone, name=f"{way}-{seed}", listener=Console()))
        curves.save([runs[way][seed] for way in ways], settings.files.comparison(f"seed-{seed}"))
    return runs


def extract(settings: Settings, runs: Mapping[str, Sequence[Tuned]]) -> Settings:
    """Features of the frozen backbones and of all networks that were trained."""
    tuned = [BackboneEntry.model_validate(dict(run.entry)) for group in runs.values() for run in group]
    entries = (*settings.features.backbones, *tuned)
    chosen = settings.model_copy(update={"features": settings.features.model_copy(update={"backbones": entries})})
    features.run(chosen, listener=Console())
    return chosen


def score(
    matrices: Matrices, frozen: Sequence[str], backbone: str, y: NDArray[np.int64], rest: NDArray[np.bool_], seed: int
) -> dict[str, float]:
    """Accuracy of each stack on the images that are left, by the name of its last member."""
    left, trained_on = np.flatnonzero(rest), np.flatnonzero(~rest)
    others = [name for name in frozen if name != backbone]
    stacks = {ALONE: others, WITH_SEEN: list(frozen)} | {
        name: [*others, name] for name in matrices if name not in others
    }
    right = dict.fromkeys(stacks, 0)
    unfitted = stack.from_settings(StackSettings(), (), seed)
    for train, test in stack.splitter(FOLDS, seed, None).split(y[left], y[left]):
        held_out = left[test]
        for more in (False, True):
            rows = np.concatenate([left[train], trained_on]) if more else left[train]
            chosen = {name: members for name, members in stacks.items() if (name == WITH_SEEN) == more}
            needed = dict.fromkeys(member for members in chosen.values() for member in members)
            fitted = {name: unfitted.fit_base(matrices[name][rows], y[rows]) for name in needed}
            for name, members in chosen.items():
                learned_from = np.mean([fitted[member][1] for member in members], axis=0)
                said = np.mean([fitted[member][0].predict_proba(matrices[member][held_out]) for member in members], 0)
                decider = stack.unfitted_like(unfitted).fit_meta(learned_from, y[rows])
                right[name] += int((decider.meta_decisions(said).argmax(axis=1) == y[held_out]).sum())
    return {name: count / len(left) for name, count in right.items()}


def stacked(
    settings: Settings, runs: Mapping[str, Sequence[Tuned]], frozen: Sequence[str], backbone: str
) -> dict[str, list[float]]:
    """Mean accuracy over the folds' seeds; for networks that were trained, one for each seed of the training."""
    saw = seen.read(settings.files.finetuned(runs["head"][0].name).model)
    with Store(settings.files.features) as store:
        rows = np.arange(len(store.table.paths))
        matrices = {name: store.read_rows(name, rows) for name in store.matrices}
        rest = ~np.isin(seen.short_hashes(store.table.sha256), saw if saw is not None else [])
        y = store.table.labels.astype(np.int64)
    scores = [score(matrices, frozen, backbone, y, rest, seed) for seed in range(FOLD_SEEDS)]
    means = {name: statistics.mean(one[name] for one in scores) for name in scores[0]}
    found = {name: [means[name]] for name in (ALONE, WITH_SEEN)}
    found[f"the others and {backbone}, frozen"] = [means[backbone]]
    for way, group in runs.items():
        found[f"the others and {way}"] = [means[run.name] for run in group]
    return found


def _row(name: str, values: Sequence[float]) -> list[str]:
    each = " ".join(f"{100 * value:.1f}" for value in values) if len(values) > 1 else ""
    return [name, f"{100 * statistics.mean(values):.1f}", each]


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("backbone")
    parser.add_argument("--late", required=True, metavar="LAYER")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    settings = config.read(given.file).model_copy(update={"artifacts": given.folder})
    runs = tune(settings, given.backbone, given.late, given.seeds)
    print(curves.side_by_side([run for group in runs.values() for run in group]))
    for what in ("validation_accuracy", "accuracy"):
        rows = [_row(way, [getattr(run, what) for run in group]) for way, group in runs.items()]
        print(table([f"{given.backbone}, {what} in %", "mean", "each seed"], rows) + "\n")
    frozen = [entry.name for entry in settings.features.backbones]
    scores = stacked(extract(settings, runs), runs, frozen, given.backbone)
    print(table(["stack of, accuracy in %", "mean", "each seed"], [_row(*item) for item in scores.items()]))


if __name__ == "__main__":
    main()
