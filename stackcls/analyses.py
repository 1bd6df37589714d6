"""What is looked for beside the scores, from the stored features and the out-of-fold predictions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stackcls import unknowns, validation
from stackcls.familiarity import Familiarity
from stackcls.listener import Listener
from stackcls.report.findings import Contribution, Duplicates, Suspects, Unknown
from stackcls.settings import Settings
from stackcls.training import TrainingSet
from stackcls.trainingdata import TrainingRows
from stackcls.validation import Validated


@dataclass(frozen=True)
class Findings:
    """What was found, as it goes into the report.

    Attributes
    ----------
    contributions, suspects, duplicates, unknown
        As in `Report`.
    familiarity : Familiarity or None
        What the model takes from this, to tell images of no known class.
    tables : mapping of Path to str
        Text files to write, rows of images.
    """

    contributions: Mapping[str, Contribution] = field(default_factory=dict)
    suspects: Suspects | None = None
    duplicates: Duplicates | None = None
    unknown: Unknown | None = None
    familiarity: Familiarity | None = None
    tables: Mapping[Path, str] = field(default_factory=dict)


def is_full(data: TrainingSet, settings: Settings) -> bool:
    """Whether to do what takes further fits: as `report.depth` says; `auto` leaves it out where fits take long."""
    return settings.report.depth == "full" or (settings.report.depth == "auto" and not validation.is_large(data))


def find(training: TrainingRows, validated: Validated, settings: Settings, listener: Listener) -> Findings:
    """Look for all that the settings ask for."""
    full = is_full(training.data, settings)
    unknown, familiarity = unknowns.look(training.data, validated, settings, full, listener)
    return Findings(unknown=unknown, familiarity=familiarity)
