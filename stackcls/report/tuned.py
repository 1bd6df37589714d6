"""What a fine-tuning found out, as frozen data; its `report.json` is this, written down."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from stackcls.errors import SourceError, SourceMissing
from stackcls.files import write_text
from stackcls.report.results import FORMAT

KIND = "finetune"


@dataclass(frozen=True)
class Epoch:
    """Once through the images.

    Attributes
    ----------
    epoch : int
        From 1.
    loss, accuracy : float
        Over the varied images that were learned from, while the weights changed.
    validation_loss, validation_accuracy : float
        At its end, on the images kept for that.
    rate : float
        Of learning, at its end.
    seconds : float
    """

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    rate: float
    seconds: float


@dataclass(frozen=True)
class Tuned:
    """All of one fine-tuning.

    Attributes
    ----------
    name, backbone : str
        Of the result, and what it was made from.
    start, unfreeze : str
        `imagenet`, `random` or a file's name; and what learned: `all`, `none` (the head alone), or the first layer.
    classes : list of str
    n_train, n_validation, n_rest : int
        Images that were learned from, that told the best epoch, and that are left for the stack.
    history : list of Epoch
    best : int
        The epoch whose weights were kept.
    accuracy : float or None
        On the images that are left; None where none is. That on validation images favours the epoch picked by it.
    learned : int
        Number of weights that learned.
    seconds : float
    entry : mapping of str to str
        The result as an entry of `features.backbones`.
    digest : str
        SHA-256 of what decides the outcome: images, labels, weights to start from, settings.
    settings : mapping of str to str
    created_with : mapping of str to str
        Library versions.
    rejected : mapping of str to str
        Images that could not be read, and why.
    notes : list of str
        Which labelled images were in no part, and why.
    rest : str
        SHA-256 of what was left out: images and labels.
    sha256 : str
        Of `model.keras`.
    """

    name: str
    backbone: str
    start: str
    unfreeze: str
    classes: list[str]
    n_train: int
    n_validation: int
    n_rest: int
    history: list[Epoch]
    best: int
    accuracy: float | None
    learned: int
    seconds: float
    entry: Mapping[str, str]
    digest: str
    settings: Mapping[str, str]
    created_with: Mapping[str, str]
    rejected: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rest: str = ""
    sha256: str = ""
    kind: str = KIND
    format: int = FORMAT

    @property
    def validation_accuracy(self) -> float:
        """Of the epoch that was kept."""
        return self.history[self.best - 1].validation_accuracy

    def save(self, path: Path) -> None:
        """Write `report.json` whole, or not at all."""
        write_text(path, _ADAPTER.dump_json(self, indent=2).decode() + "\n")

    @staticmethod
    def load(path: Path) -> "Tuned":
        """Read what `save` wrote; raise `SourceError` where it is not that."""
        try:
            found = _ADAPTER.validate_json(path.read_bytes())
        except FileNotFoundError:
            raise SourceMissing(f"{path}: no report there; `stackcls finetune` writes one") from None
        except (OSError, ValidationError) as error:
            raise SourceError(f"{path}: not a report of `stackcls finetune` ({type(error).__name__})") from None
        if (found.kind, found.format) != (KIND, FORMAT) or not 1 <= found.best <= len(found.history):
            raise SourceError(f"{path}: {found.kind!r} of format {found.format} is no report of `stackcls finetune`")
        return found


def is_tuned(path: Path) -> bool:
    """Whether a file says that it is the report of a fine-tuning."""
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and said.get("kind") == KIND


_ADAPTER = TypeAdapter(Tuned)
