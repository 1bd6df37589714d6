"""What a fine-tuning goes on from when it was interrupted: one file for each finished epoch, whole or absent."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackcls.blocks import member
from stackcls.files import replacing
from stackcls.report.tuned import Epoch

Weights = list[NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """State after an epoch.

    Attributes
    ----------
    digest : str
        Of what decides the outcome; another run does not go on from it.
    history : tuple of Epoch
        The epochs that are done.
    best : int
        Number of the best of them, from 1.
    failures : mapping of str to str
        Images that could not be read, and why.
    weights, optimizer, best_weights : list of ndarray
        As they are now; what the optimizer remembers; as they were after the best epoch.
    """

    digest: str
    history: tuple[Epoch, ...]
    best: int
    failures: Mapping[str, str]
    weights: Weights = field(repr=False)
    optimizer: Weights = field(repr=False)
    best_weights: Weights = field(repr=False)


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write it whole, or not at all."""
    said = {
        "digest": checkpoint.digest,
        "history": [asdict(epoch) for epoch in checkpoint.history],
        "best": checkpoint.best,
        "failures": dict(checkpoint.failures),
        "counts": [len(checkpoint.weights), len(checkpoint.optimizer), len(checkpoint.best_weights)],
    }
    arrays = [*checkpoint.weights, *checkpoint.optimizer, *checkpoint.best_weights]
    text = np.frombuffer(json.dumps(said).encode(), np.uint8)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, text, *arrays, allow_pickle=False)


def load(path: Path) -> Checkpoint | None:
    """Read what `save` wrote; None where there is nothing, or it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            said = json.loads(member(archive, "arr_0").tobytes())
            first, second, third = said["counts"]
            arrays = [member(archive, f"arr_{number}") for number in range(1, 1 + first + second + third)]
            return Checkpoint(
                digest=said["digest"],
                history=tuple(Epoch(**epoch) for epoch in said["history"]),
                best=said["best"],
                failures=said["failures"],
                weights=arrays[:first],
                optimizer=arrays[first : first + second],
                best_weights=arrays[first + second :],
            )
    except Exception:  # noqa: BLE001  (damage raises nearly every type; the run begins anew)
        return None
