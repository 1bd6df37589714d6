"""What is looked for beside the scores, from the stored features and the out-of-fold predictions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stackcls import holdouts
from stackcls.listener import Listener
from stackcls.report.findings import Contribution, Duplicates, Suspects, Unknown
from stackcls.report.results import Holdout
from stackcls.settings import Settings
from stackcls.trainingdata import TrainingRows
from stackcls.validation import Validated


@dataclass(frozen=True)
class Findings:
    """What was found, as it goes into the report.

    Attributes
    ----------
    contributions, suspects, duplicates, unknown, holdout
        As in `Report`.
    tables : mapping of Path to str
        Text files to write, rows of images.
    """

    contributions: Mapping[str, Contribution] = field(default_factory=dict)
    suspects: Suspects | None = None
    duplicates: Duplicates | None = None
    unknown: Unknown | None = None
    holdout: Holdout | None = None
    tables: Mapping[Path, str] = field(default_factory=dict)


def find(training: TrainingRows, validated: Validated, settings: Settings, listener: Listener) -> Findings:  # noqa: ARG001
    """Look for all that the settings ask for."""
    tables: dict[Path, str] = {}
    holdout = None
    if training.held is not None:
        holdout, tables[settings.files.holdout] = holdouts.score(training.held, validated.model)
    return Findings(holdout=holdout, tables=tables)
