"""What is looked for beside the scores, from the stored features and the out-of-fold predictions."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from stackcls import grouping, holdouts, scoring, validation
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


def find(training: TrainingRows, validated: Validated, settings: Settings, listener: Listener) -> Findings:
    """Look for all that the settings ask for."""
    tables: dict[Path, str] = {}
    holdout = None
    if training.held is not None:
        holdout, tables[settings.files.holdout] = holdouts.score(training.held, validated.model)
    duplicates, tables[settings.files.duplicates] = _duplicates(training, validated, settings, listener)
    return Findings(duplicates=duplicates, holdout=holdout, tables=tables)


def _duplicates(
    training: TrainingRows, validated: Validated, settings: Settings, listener: Listener
) -> tuple[Duplicates, str]:
    """Count and list duplicates; where each group was kept in one fold, also score folds that do not know them."""
    data, fold, ungrouped = training.data, validated.predictions.fold, None
    if settings.cv.groups == "duplicates":
        predictions = validation.predict_folds(replace(data, groups=training.given_groups), settings, listener)
        ungrouped = {name: scoring.score(predictions, name).mean for name in predictions.ranking}
        fold = predictions.fold
    paths = [training.table.paths[row] for row in training.rows]
    listed = grouping.listed(training.duplicates, paths, [data.class_names[label] for label in data.y])
    return grouping.summary(training.duplicates, data.y, fold, ungrouped), grouping.to_csv(listed)
