"""Images that neither the folds nor the final model see, and the scores on them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stackcls import buffers, runtables, scoring, splits
from stackcls.decisions import probabilities
from stackcls.errors import TrainingError
from stackcls.inspect.duplicates import Found
from stackcls.learners import FittedBase
from stackcls.printable import counted
from stackcls.report import tables
from stackcls.report.results import STACK, Holdout, Mistake
from stackcls.scoring import Predictions
from stackcls.stack import StackedClassifier
from stackcls.store import ImageTable
from stackcls.training import TrainingSet

NAMED = 5
MOST_MISTAKES = 100

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class HeldOut:
    """Rows that are scored once, when all is fitted.

    Attributes
    ----------
    how : str
    data : TrainingSet
        Their labels, as indices of the training set's classes, and features.
    paths : tuple of str
    left_out : int
        Rows that are not learned from because a copy of theirs, exact or near, or one of their group, is held out.
    """

    how: str
    data: TrainingSet
    paths: tuple[str, ...]
    left_out: int


def choose(table: ImageTable, how: Literal["split"] | float) -> Mask:
    """Which images are held out, of those that have a label, since no other can be scored.

    Parameters
    ----------
    table : ImageTable
    how : 'split' or float
        Those whose split says so, or this share, by a hash of the relative path; by one of the group's name where an
        image has a group, which so is on one side as a whole.

    Raises
    ------
    TrainingError
        If a split's name does not say what it is for, or no labelled image is held out, or all are.
    """
    if how == "split":
        if strange := sorted({split for split in table.splits if not splits.is_known(split)}):
            raise TrainingError(
                f"cv.holdout: 'split' does not know the split {', '.join(map(repr, strange[:NAMED]))}: known are "
                f"{', '.join(sorted(splits.LEARNED_FROM - {''}))} (learned from) and "
                f"{', '.join(sorted(splits.KEPT_BACK))} (held out)"
            )
        held = np.array([splits.is_kept_back(split) for split in table.splits], dtype=bool)
    else:
        names = [
            table.group_names[group] if group >= 0 else path
            for group, path in zip(table.groups.tolist(), table.paths, strict=True)
        ]
        held = np.array([splits.place(name) < how for name in names], dtype=bool)
    labelled = table.labels >= 0
    if not (held & labelled).any():
        remedy = (
            "a manifest's column `split`, or a CUB folder's train_test_split.txt, says test" if how == "split" else ""
        )
        raise TrainingError(
            f"cv.holdout: {how!r} holds out none of {counted(int(labelled.sum()), 'labelled image')}: "
            + (f"it takes those of which {remedy}; or give a share, 0.1" if remedy else "give a larger share")
        )
    if not (~held & labelled).any():
        raise TrainingError(f"cv.holdout: {how!r} holds out every labelled image: none is left to learn from")
    return held & labelled


def relatives(found: Found, held: Mask, groups: Ints | None) -> Mask:
    """Images that are not held out, and of which a copy, exact or near, or one of the same group, is."""
    related = np.isin(found.group, found.group[held])
    if groups is not None:
        related |= np.isin(groups, groups[held])
    return related & ~held


def score(held: HeldOut, model: StackedClassifier) -> tuple[Holdout, str]:
    """Score the final model, and each of its base learners, on what was held out.

    Returns
    -------
    Holdout
    str
        `holdout_predictions.csv`: a row per image.
    """
    data = held.data
    rows = np.arange(len(data.y))
    ranking = {}
    average = buffers.zeros((len(rows), len(data.class_names)))
    for number, (name, base) in enumerate(zip(data.names, model.bases_, strict=True)):
        ranking[name] = FittedBase(base.estimator, True).predict_proba(data.matrix(number, rows))
        average += ranking[name] / len(data.names)
    ranking[STACK] = model.meta_decisions(average)
    predictions = Predictions(data.y, np.zeros(len(rows), dtype=np.int64), ranking)
    shares = probabilities(ranking[STACK], model.temperature)
    scores = {name: scoring.score(predictions, name) for name in ranking}
    labels = np.array(data.class_names, dtype=object)
    given, predicted, sure = labels[data.y], labels[predictions.predicted(STACK)], shares.max(axis=1)
    wrong = np.flatnonzero(~predictions.correct(STACK))
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    found = Holdout(
        how=held.how,
        n_images=len(rows),
        scores=scores,
        gain=scoring.gain(predictions, scores),
        calibration=scoring.calibration(shares, data.y, model.temperature),
        left_out=held.left_out,
        wrong=len(wrong),
        mistakes=[
            Mistake(held.paths[row], given[row], predicted[row], float(sure[row])) for row in wrong[:MOST_MISTAKES]
        ],
    )
    columns = [labels[predictions.predicted(name)] for name in data.names]
    cells = zip(held.paths, given, predicted, (f"{value:.6f}" for value in sure), *columns, strict=True)
    return found, tables.comma_separated([[*runtables.HELD_OUT, *data.names], *cells])
