"""`stackcls fit`: `features.h5` in, the model and its report out."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stackcls import backbones, loading, locks, model, modelfile, scoring, validation
from stackcls.backbones import Backbone
from stackcls.errors import ConfigError, IdentityMismatch, StoreError, TrainingError
from stackcls.files import digest_file, together, write_text
from stackcls.listener import Listener, Silent
from stackcls.model import ModelBackbone, StackModel
from stackcls.report import pictures, text
from stackcls.report.results import STACK, Report
from stackcls.safemodel import Origin
from stackcls.settings import Settings
from stackcls.store import ImageTable, MatrixInfo, Store
from stackcls.training import TrainingSet, class_counts, images_needed
from stackcls.validation import Validated
from stackcls.versions import created_with

BASELINES = ("linear-svm",)


@dataclass(frozen=True)
class FitResult:
    """The report, and the files that were written."""

    report: Report
    files: tuple[Path, ...]


@dataclass(frozen=True)
class _Rows:
    """The training set, and which rows of the store it is."""

    data: TrainingSet
    table: ImageTable
    rows: np.ndarray
    notes: list[str]


def run(settings: Settings, *, baseline: str | None = None, listener: Listener | None = None) -> FitResult:
    """Cross-validate singles and stack on the same folds, fit the final model on all rows, write model and report.

    Parameters
    ----------
    settings : Settings
    baseline : {'linear-svm'}, optional
        Also score this straight on each backbone's features.
    listener : Listener, optional

    Returns
    -------
    FitResult

    Raises
    ------
    ConfigError
        If the baseline is not one of those.
    StoreError
        If there is no usable feature file, or it lacks a backbone that the settings name.
    ArtifactsInUse, WriteError
        If another run works in the folder, or it cannot be written to.
    TrainingError
        If the labels do not allow the folds.
    """
    if baseline not in (None, *BASELINES):
        raise ConfigError(f"baseline: {baseline!r} is not one of {', '.join(BASELINES)}")
    with locks.held(settings.artifacts) as lock:
        return _run(settings, baseline, listener or Silent(), lock)


def _run(settings: Settings, baseline: str | None, listener: Listener, lock: locks.Lock) -> FitResult:
    start = time.perf_counter()
    with Store(settings.files.features) as store:
        chosen = _choose(store, settings)
        training = _load(store, list(chosen), settings, listener)
        matrices = {name: store.matrices[name] for name in chosen}
        digests = store.digest, {name: store.digests[name] for name in chosen}
        validated = validation.cross_validate(training.data, settings, baseline == "linear-svm", listener)
    notes = training.notes + [
        f"a logistic regression on {name} stopped at the limit of iterations" for name in validated.unconverged
    ]
    report = _report(training.data, validated, settings, notes, time.perf_counter() - start)
    means = {name: score.mean for name, score in report.scores.items()}
    origin = Origin(report.n_images, means, *digests)
    lock.verify()
    return FitResult(report, _write(settings, training, validated, report, origin, chosen, matrices))


def _choose(store: Store, settings: Settings) -> dict[str, Backbone]:
    """Matrices to learn from: those that the settings name, or all of the store where they name none."""
    named = {item.name: item for item in backbones.resolve(settings.features)}
    found = store.matrices
    if "backbones" not in settings.features.model_fields_set:
        # An identity may have been computed first under another name, which its provenance then has.
        return {
            name: replace(Backbone.from_dict(info.provenance["configured"]), name=name) for name, info in found.items()
        }
    if absent := [name for name in named if name not in found]:
        raise StoreError(
            f"{store.path}: has features of {', '.join(sorted(found))}, not of {', '.join(absent)}: "
            "run `stackcls features` with this configuration first"
        )
    for name, item in named.items():
        stored = found[name].identity
        weights = digest_file(item.file) if item.file is not None and item.file.is_file() else stored.weights
        wanted = replace(
            item.identity(f"random:{item.seed}" if item.weights == "random" else weights, settings.features.precision),
            basis=stored.basis,
        )
        if differences := stored.differences(wanted):
            raise IdentityMismatch(
                f"{store.path}: {name!r} was made otherwise than configured ({'; '.join(differences)}): "
                "run `stackcls features --replace`, or change the configuration"
            )
    return named


def _load(store: Store, names: Sequence[str], settings: Settings, listener: Listener) -> _Rows:
    """Read labelled rows; leave out unlabelled ones, and rare classes where the settings say so."""
    table = store.table
    if not (table.labels >= 0).any():
        raise TrainingError(
            f"{store.path}: none of the {len(table.paths)} images has a label; `fit` needs class folders, or a "
            "manifest with a `label` column (path,label[,group][,split])"
        )
    notes = []
    keep = table.labels >= 0
    if not keep.all():
        notes.append(f"{int((~keep).sum())} images without a label were left out")
    groups = None
    if (table.groups >= 0).any():
        alone = len(table.group_names) + np.arange(len(table.groups))
        groups = np.where(table.groups >= 0, table.groups, alone)
        notes.append("images of one group were kept in one fold")
    if settings.cv.rare == "drop":
        own_groups = None if groups is None else groups[keep]
        counts = class_counts(table.labels[keep].astype(np.int64), own_groups, len(table.class_names))
        rare = np.flatnonzero(counts < images_needed(settings))
        if rare.size:
            keep &= ~np.isin(table.labels, rare)
            listed = ", ".join(table.class_names[index] for index in rare)
            notes.append(f"classes too rare for the folds were left out: {listed}")
    precisions = {name: store.matrices[name].identity.precision for name in names}
    if len(set(precisions.values())) > 1:
        listed = ", ".join(f"{name} {precision}" for name, precision in precisions.items())
        notes.append(f"features of different precision were stacked: {listed}")
    for note in notes:
        listener.warn(note)
    rows = np.flatnonzero(keep)
    present, y = np.unique(table.labels[rows], return_inverse=True)
    widths = tuple(store.matrices[name].width for name in names)
    data = TrainingSet(
        X=_Stored(store, tuple(names), rows),
        names=tuple(names),
        widths=widths,
        y=y.astype(np.int64),
        class_names=tuple(table.class_names[index] for index in present),
        groups=None if groups is None else groups[rows],
    )
    if not all(np.isfinite(values).all() for name in names for _, values in store.chunks(name)):
        raise StoreError(f"{store.path}: has features that are not finite; delete it and run `stackcls features`")
    return _Rows(data, table, rows, notes)


@dataclass(frozen=True)
class _Stored:
    """Feature matrices that stay in the store until they are needed: together they may be larger than memory."""

    store: Store
    names: tuple[str, ...]
    rows: np.ndarray

    def block(self, number: int, rows: np.ndarray) -> np.ndarray:
        """Read some of the labelled rows of one matrix."""
        return self.store.read_rows(self.names[number], self.rows[rows])


def _report(data: TrainingSet, validated: Validated, settings: Settings, notes: list[str], seconds: float) -> Report:
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
        notes=notes,
        settings={
            "base.C": str(settings.stack.base.C),
            "meta.C": str(settings.stack.meta.C),
            "class_weight": str(settings.stack.class_weight),
            "splits": "stratified" if data.groups is None else "stratified, grouped",
        },
    )


def _write(
    settings: Settings,
    training: _Rows,
    validated: Validated,
    report: Report,
    origin: Origin,
    chosen: dict[str, Backbone],
    matrices: dict[str, MatrixInfo],
) -> tuple[Path, ...]:
    files, data = settings.files, training.data
    items = [
        ModelBackbone(
            chosen[name], matrices[name].identity, width, _hints(chosen[name], files.folder), matrices[name].basis
        )
        for name, width in zip(data.names, data.widths, strict=True)
    ]
    fitted = StackModel(
        classifier=validated.model,
        class_names=data.class_names,
        backbones=items,
        engine=settings.features.engine,
        batch_size=settings.features.batch_size,
        trained_on=model.short_hashes([training.table.sha256[row] for row in training.rows]),
        created_with=report.created_with,
    )
    with together(first=files.safe_model, last=files.model_card):
        # Both models come before the report: with an old card, a new model is refused and an old report is not.
        modelfile.save(fitted, files, report.recipe, origin)
        report.save(files.report)
        write_text(files.report_text, text.document(report))
        pictures.save_confusion(report, files.confusion)
        write_text(files.predictions, _predictions_csv(training, validated))
    return (
        files.safe_model,
        files.model,
        files.model_card,
        files.report,
        files.report_text,
        files.confusion,
        files.predictions,
    )


def _hints(backbone: Backbone, folder: Path) -> tuple[str, ...]:
    """Where a weights file is: relative to the model, then absolute."""
    file = loading.find(backbone, must_exist=False)
    if file is None:
        return ()
    absolute = os.path.abspath(file)
    try:
        return os.path.relpath(absolute, folder), absolute
    except ValueError:  # on Windows, another drive
        return (absolute,)


def _predictions_csv(training: _Rows, validated: Validated) -> str:
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
    header = ["path", "label", "fold", "predicted", "probability", *data.names]
    return text.comma_separated([header, *zip(*columns, strict=True)])
