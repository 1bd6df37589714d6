"""From what cross-validation gave to the report and the table of predictions."""

import math
from collections.abc import Sequence

import numpy as np

from stackcls import runtables, scoring, strengths
from stackcls.analyses import Findings
from stackcls.artifacts import Artifacts
from stackcls.report.results import STACK, UNTUNED, Report, Tuning
from stackcls.report.tables import comma_separated
from stackcls.runtables import Tables
from stackcls.scoring import Predictions
from stackcls.settings import Settings, StackSettings
from stackcls.training import TrainingSet
from stackcls.trainingdata import TrainingRows
from stackcls.tuning import Search
from stackcls.validation import Validated
from stackcls.versions import created_with


def report(
    data: TrainingSet, validated: Validated, findings: Findings, settings: Settings, notes: list[str], seconds: float
) -> Report:
    """Score what was predicted of images held out."""
    predictions = validated.predictions
    scores = {name: scoring.score(predictions, name) for name in (*data.names, STACK)}
    baselines = {}
    if validated.baselines is not None:
        baselines["linear-svm"] = {name: scoring.score(validated.baselines, name) for name in data.names}
    return Report(
        recipe=settings.stack.recipe,
        folds=settings.cv.folds,
        seed=settings.cv.seed,
        n_images=len(data.y),
        classes=list(data.class_names),
        scores=scores,
        gain=scoring.gain(predictions, scores),
        confusion=scoring.confusion(predictions, len(data.class_names)),
        per_class=scoring.per_class_scores(predictions, data.class_names),
        calibration=scoring.calibration(validated.shares, data.y, validated.model.temperature),
        seconds=seconds,
        created_with=created_with(),
        baselines=baselines,
        contributions=findings.contributions,
        suspects=findings.suspects,
        duplicates=findings.duplicates,
        unknown=findings.unknown,
        holdout=findings.holdout,
        notes=[*notes, *findings.notes],
        settings={
            "base.C": str(settings.stack.base.C),
            "meta.kind": settings.stack.meta.kind,
            "meta.C": str(settings.stack.meta.C),
            "class_weight": str(settings.stack.class_weight),
            "splits": "stratified" if data.groups is None else "stratified, grouped",
        },
    )


def temperature_notes(data: TrainingSet, validated: Validated) -> list[str]:
    """What to say of the model's temperature, if there is anything."""
    return scoring.temperature_notes(validated.predictions.ranking[STACK], data.y, validated.model.temperature)


def tuning(search: Search, validated: Validated, untuned: Predictions, settings: StackSettings) -> Tuning:
    """Compare the tuned stack with the one that is configured, both on images held out, of the same folds.

    By the accuracy that the choice was made by: with `class_weight: balanced` all classes weigh the same.
    """
    tuned, balanced = validated.predictions, settings.class_weight == "balanced"
    both = Predictions(tuned.given, tuned.fold, {UNTUNED: untuned.ranking[STACK], STACK: tuned.ranking[STACK]})
    scores = {name: (scoring.balanced if balanced else scoring.score)(both, name) for name in both.ranking}
    return Tuning(
        minutes=settings.tune or 0.0,
        seconds=search.seconds,
        base_factors=list(search.base_factors),
        meta_factors=list(search.meta_factors),
        untried=list(search.untried),
        choices=list(search.choices),
        untuned=scores[UNTUNED],
        gain=scoring.gain(both, scores),
        balanced=balanced,
        edges=_edges(search, settings),
    )


def _edges(search: Search, settings: StackSettings) -> dict[str, float]:
    """Each C of the model that is the largest or smallest tried, and not the configured one."""
    chosen = search.choices[-1]
    configured = strengths.of(settings.base, list(chosen.base_C))
    pairs = zip(chosen.base_C.items(), configured, strict=True)
    found = {name: C for (name, C), before in pairs if _ends(C / before, search.base_factors)}
    if chosen.meta != "average" and _ends(chosen.meta_C / settings.meta.C, search.meta_factors):
        found[STACK] = chosen.meta_C
    return found


def _ends(factor: float, tried: Sequence[float]) -> bool:
    return not math.isclose(factor, 1) and any(math.isclose(factor, end) for end in (min(tried), max(tried)))


def predictions_csv(training: TrainingRows, validated: Validated) -> str:
    """`cv_predictions.csv`: a row per image of the training set."""
    data, predictions = training.data, validated.predictions
    labels = np.array(data.class_names, dtype=object)
    columns = (
        [training.table.paths[row] for row in training.rows],
        labels[data.y],
        predictions.fold.tolist(),
        labels[predictions.predicted(STACK)],
        [f"{value:.6f}" for value in validated.shares.max(axis=1)],
        *(labels[predictions.predicted(name)] for name in data.names),
    )
    header = [*runtables.COLUMNS, *data.names]
    return comma_separated([header, *zip(*columns, strict=True)])


def tables(training: TrainingRows, validated: Validated, findings: Findings, files: Artifacts) -> Tables:
    """The tables that are written beside the report."""
    return Tables(
        predictions=predictions_csv(training, validated),
        probabilities=validated.shares,
        suspects=findings.tables.get(files.suspects),
        duplicates=findings.tables.get(files.duplicates),
        holdout=findings.tables.get(files.holdout),
    )
