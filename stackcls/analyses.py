"""What is looked for beside the scores, from the stored features and the out-of-fold predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackcls import buffers, grouping, holdouts, runtables, scoring, unknowns, validation
from stackcls.familiarity import Familiarity
from stackcls.inspect import neighbours, suspects
from stackcls.listener import Listener
from stackcls.rejecting import UNKNOWN
from stackcls.report import tables
from stackcls.report.findings import Contribution, Duplicates, Suspects, Unknown
from stackcls.report.results import Holdout
from stackcls.settings import Settings
from stackcls.training import TrainingSet
from stackcls.trainingdata import TrainingRows
from stackcls.validation import Validated

PAIRS = 5e11  # multiplications to compare all images with each other, from which on that takes ten seconds and more
_LEFT_OUT = (
    "what takes long was left out (what each backbone adds, what neighbours say of labels, how well classes never "
    "seen are told from known ones)"
)
LEFT_OUT = f"{_LEFT_OUT}: `fit --report full` does it"
NO_ROOM = f"{_LEFT_OUT}: matrices do not fit into memory (stack.memory)"

TUNED = (
    "folds that do not know the duplicates were not scored: the tuned stack was chosen from all images, and would be "
    "judged by some that it was chosen by; `fit` without --tune scores them"
)
NO_REJECTION = (
    f"a class is called {UNKNOWN!r}, as images of no known class would be: `predict --reject` is refused until that "
    "class has another name"
)


@dataclass(frozen=True)
class Findings:
    """What was found, as it goes into the report.

    Attributes
    ----------
    contributions, suspects, duplicates, unknown, holdout
        As in `Report`.
    familiarity : Familiarity or None
        What the model takes from this, to tell images of no known class.
    tables : mapping of Path to str
        Text files to write, rows of images.
    notes : sequence of str
        What a careful reader should know.
    """

    contributions: Mapping[str, Contribution] = field(default_factory=dict)
    suspects: Suspects | None = None
    duplicates: Duplicates | None = None
    unknown: Unknown | None = None
    holdout: Holdout | None = None
    familiarity: Familiarity | None = None
    tables: Mapping[Path, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def is_full(data: TrainingSet, settings: Settings) -> bool:
    """Whether to do what takes further fits: as `report.depth` says; `auto` leaves it out where that takes long.

    Of matrices that do not fit into memory it never is.
    """
    if data.streamed:
        return False
    if settings.report.depth == "auto":
        return not validation.is_large(data) and len(data.y) ** 2 * sum(data.widths) < PAIRS
    return settings.report.depth == "full"


def find(training: TrainingRows, validated: Validated, settings: Settings, listener: Listener) -> Findings:
    """Look for all that the settings ask for."""
    full = is_full(training.data, settings)
    tables: dict[Path, str] = {}
    found, tables[settings.files.suspects] = _suspects(training, validated, full)
    held_out = None
    if training.held is not None:
        held_out, tables[settings.files.holdout] = holdouts.score(training.held, validated.model)
    copies, tables[settings.files.duplicates] = _duplicates(training, validated, settings, listener)
    unknown, familiarity = unknowns.look(training.data, validated, settings, full, listener)
    refused = UNKNOWN in training.data.class_names
    left_out = NO_ROOM if training.data.streamed else LEFT_OUT
    unscored = settings.cv.groups == "duplicates" and bool(validated.temperatures)
    said = ((left_out, not full), (NO_REJECTION, refused), (TUNED, unscored))
    notes = [note for note, applies in said if applies]
    return Findings(
        contributions=scoring.contributions(validated.predictions, validated.without, training.seconds_per_image),
        suspects=found,
        duplicates=copies,
        unknown=None if refused else unknown,
        familiarity=familiarity,
        holdout=held_out,
        tables=tables,
        notes=notes,
    )


def _suspects(training: TrainingRows, validated: Validated, full: bool) -> tuple[Suspects, str]:
    """Rank labels, and write the table of the most suspicious ones."""
    data, ranking = training.data, validated.predictions.ranking
    # Not the stack's own probabilities: its SVM sharpens them, and wrong labels hide among its mistakes.
    shares = suspects.mean([ranking[name] for name in data.names])
    method = "confident learning (Northcutt et al. 2021) on the base learners' mean out-of-fold probabilities"
    if full:
        # Copies of one image were given their label together: they are no witnesses for each other.
        groups = grouping.merged(data.groups, training.duplicates)
        shares = suspects.with_neighbours(shares, data.y, _unit(data), groups)
        method += f" times the votes of the {suspects.NEIGHBOURS} most similar images"
    ranked = suspects.rank(shares, data.y)
    names, paths = data.class_names, training.table.paths
    rows = zip(
        ranked.rows,
        ranked.given_probability,
        ranked.suggested,
        ranked.suggested_probability,
        np.where(ranked.wrong, "yes", "no").tolist(),
        strict=True,
    )
    lines = [
        (place, paths[training.rows[row]], names[data.y[row]], f"{own:.6f}", names[other], f"{share:.6f}", flagged)
        for place, (row, own, other, share, flagged) in enumerate(rows, 1)
    ]
    table = tables.comma_separated([runtables.SUSPECTS, *lines])
    return Suspects(ranked.flagged, len(ranked.rows), method), table


def _duplicates(
    training: TrainingRows, validated: Validated, settings: Settings, listener: Listener
) -> tuple[Duplicates, str]:
    """Count and list duplicates; where each group was kept in one fold, also score folds that do not know them."""
    data, fold, ungrouped = training.data, validated.predictions.fold, None
    if settings.cv.groups == "duplicates":
        plain = replace(data, groups=training.given_groups)
        fold, ungrouped = validation.fold_numbers(plain, settings), {}
        if not validated.temperatures:  # a tuned stack was chosen on all images: other folds would flatter it
            predictions = validation.predict_folds(plain, settings, listener)
            ungrouped = {name: scoring.score(predictions, name).mean for name in predictions.ranking}
    paths = [training.table.paths[row] for row in training.rows]
    listed = grouping.listed(training.duplicates, paths, [data.class_names[label] for label in data.y])
    return grouping.summary(training.duplicates, data.y, fold, ungrouped), grouping.to_csv(listed)


def _unit(data: TrainingSet) -> NDArray[np.float32]:
    """All features side by side, rows of length one, each backbone weighing the same; read one matrix at a time."""
    every = np.arange(len(data.y))
    wide = buffers.zeros((len(every), sum(data.widths)))
    start = 0
    for number, width in enumerate(data.widths):
        wide[:, start : start + width] = neighbours.unit([data.block(number, every)])
        start += width
    wide /= np.float32(np.sqrt(len(data.widths)))
    return wide
