"""What views and covariances are worth, and what they cost.

    python benchmarks/richer.py --folder build/richer birds20.yaml flowers17.yaml

Each file is a `pipeline.yaml` that names images and backbones. Features are computed three times, unless they are
there: plain, with both poolings, and with both poolings and four views. All stacks are then scored on the same folds,
for every seed. Time is the processor's, of all threads, since the machine may be shared.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import set_config

from stackcls import config, stack
from stackcls.learners import FittedBase
from stackcls.settings import VIEWS, Settings, StackSettings
from stackcls.stages import features
from stackcls.store import Store

FOLDS = 3
KINDS = {"plain": (False, ("average",)), "views": (True, ("average",)), "covariance": (False, ("covariance",))}
KINDS |= {
    "average and covariance": (False, ("average", "covariance")),
    "views, average and covariance": (True, ("average", "covariance")),
}

Matrices = Mapping[str, NDArray[np.float32]]


def errors(matrices: Matrices, y: NDArray[np.int64], stacks: Mapping[str, Sequence[str]], seed: int) -> dict[str, int]:
    """Count the images that each stack, given by its matrices' names, gets wrong; a matrix is fitted once per fold."""
    wrong = dict.fromkeys(stacks, 0)
    unfitted = stack.from_settings(StackSettings(), (), seed)
    for train, test in stack.splitter(FOLDS, seed, None).split(y, y):
        fitted = {name: unfitted.fit_base(X[train], y[train]) for name, X in matrices.items()}
        held_out = {name: _proba(base, matrices[name][test]) for name, (base, _) in fitted.items()}
        for name, members in stacks.items():
            seen = np.mean([fitted[member][1] for member in members], axis=0)
            decider = stack.unfitted_like(unfitted).fit_meta(seen, y[train])
            decisions = decider.meta_decisions(np.mean([held_out[member] for member in members], axis=0))
            wrong[name] += int((decisions.argmax(axis=1) != y[test]).sum())
    return wrong


def _proba(base: FittedBase, X: NDArray[np.float32]) -> NDArray[np.floating]:
    return base.predict_proba(X)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds, and half the width of its 95 % t interval."""
    spread = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1)) * spread


def computed(settings: Settings, folder: Path, **changed: Sequence[str]) -> tuple[Settings, float]:
    """Settings of features that are there now, and the seconds that they took (0 where they were there before)."""
    chosen = settings.model_copy(update={"features": settings.features.model_copy(update=changed), "artifacts": folder})
    start = time.process_time()
    result = features.run(chosen)
    return chosen, time.process_time() - start if result.written else 0.0


def loaded(settings: Settings) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Name, pooling and values of each matrix."""
    with Store(settings.files.features) as store:
        for name, info in store.matrices.items():
            yield name, info.identity.pooling, store.read_rows(name, np.arange(len(store.table.paths)))


def measure(file: Path, folder: Path, seeds: Sequence[int]) -> dict[str, object]:
    """Everything that is said of one data set."""
    settings = config.read(file)
    matrices: dict[str, NDArray[np.float32]] = {}
    members: dict[str, list[str]] = {kind: [] for kind in KINDS}
    both, bytes_of = ("average", "covariance"), dict.fromkeys(KINDS, 0)
    _, took = computed(settings, folder / f"{file.stem}-plain", pooling=both[:1], views=VIEWS[:1])
    seconds = {"plain": took}
    for views in (False, True):
        name = "views, both poolings" if views else "both poolings"
        seen = VIEWS if views else VIEWS[:1]
        chosen, seconds[name] = computed(settings, folder / f"{file.stem}-{len(seen)}", pooling=both, views=seen)
        for name, pooling, values in loaded(chosen):
            key = f"{name} {views}"
            matrices[key] = values
            for kind, (with_views, poolings) in KINDS.items():
                if with_views == views and pooling in poolings:
                    members[kind].append(key)
                    bytes_of[kind] += values.nbytes
    with Store(chosen.files.features) as store:
        y = store.table.labels.astype(np.int64)
    counts = [errors(matrices, y, members, seed) for seed in seeds]
    return {
        "images": len(y),
        "errors": {kind: [count[kind] for count in counts] for kind in KINDS},
        "seconds": seconds,
        "megabytes": {kind: size / 1e6 for kind, size in bytes_of.items()},
    }


def table(results: Mapping[str, dict]) -> str:
    """Markdown: a row per kind of stack."""
    lines = ["| | " + " | ".join(f"{name}: errors | of plain | MB" for name in results) + " |"]
    lines.append("|---" * (1 + 3 * len(results)) + "|")
    for kind in KINDS:
        cells = []
        for result in results.values():
            mean, half = interval(result["errors"][kind])
            plain, _ = interval(result["errors"]["plain"])
            cells += [f"{mean:.1f} ± {half:.1f}", f"{mean / plain - 1:+.0%}", f"{result['megabytes'][kind]:.0f}"]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write `results.json`, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    set_config(assume_finite=True)
    results = {file.stem: measure(file, given.folder, range(given.seeds)) for file in given.files}
    given.folder.mkdir(parents=True, exist_ok=True)
    (given.folder / "results.json").write_text(json.dumps(results, indent=2))
    print(table(results))
    for name, result in results.items():
        print(name, result["images"], "images; seconds:", result["seconds"])


if __name__ == "__main__":
    main()
