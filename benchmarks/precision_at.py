"""Share of each image's nearest images that have its label, by backbone, by all of them, and by the stack.

    python benchmarks/precision_at.py -c pipeline.yaml [-k 10]

needs the features and the fit of that configuration. What the stack says is of images that it was not fitted on.
"""

import argparse
from pathlib import Path

import numpy as np

from stackcls import config, spaces
from stackcls.inspect import neighbours
from stackcls.listener import Silent
from stackcls.store import Store


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path)
    parser.add_argument("-k", type=int, default=10)
    arguments = parser.parse_args()
    settings = config.read(arguments.config, ())
    with Store(settings.files.features) as store:
        labels = store.table.labels
        chosen = [(name, name, False) for name in store.matrices] + [("all", None, False), ("stack", None, True)]
        for name, backbone, stack in chosen:
            space = spaces.choose(store, settings, backbone, stack, Silent())
            unit = space.rows(np.arange(len(labels)))
            rows, _ = neighbours.nearest(unit, spaces.chunks(space, len(labels)), arguments.k + 1)
            others = [row[row != number][: arguments.k] for number, row in enumerate(rows)]
            print(f"{name}: {np.mean(labels[others] == labels[:, None]):.4f}")


if __name__ == "__main__":
    main()
