"""`stackcls fit`: `features.h5` in, the model and its report out."""

import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stackcls import (
    analyses,
    connecting,
    loading,
    locks,
    modelfile,
    page,
    reporting,
    runtables,
    seen,
    sources,
    trainingdata,
    tuning,
    validation,
    versions,
)
from stackcls.analyses import Findings
from stackcls.artifacts import Artifacts
from stackcls.backbones import Backbone
from stackcls.cluster import Cluster
from stackcls.errors import ConfigError, TrainingError
from stackcls.files import begins_with, replacing, together, write_text
from stackcls.listener import Listener, Silent
from stackcls.model import StackModel
from stackcls.modelbackbone import ModelBackbone
from stackcls.report import html, maps, pictures, results, text
from stackcls.report.results import Report
from stackcls.runtables import Tables
from stackcls.safemodel import Origin
from stackcls.settings import Settings
from stackcls.shipping import Shipping
from stackcls.store import MatrixInfo, Store
from stackcls.training import check_classes
from stackcls.trainingdata import TrainingRows
from stackcls.validation import Validated

BASELINES = ("linear-svm",)


@dataclass(frozen=True)
class FitResult:
    """The report, and the files that were written."""

    report: Report
    files: tuple[Path, ...]


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
        If the baseline is not one of those, or a table or page would take the place of a file that is none.
    StoreError
        If there is no usable feature file, or it lacks a backbone that the settings name.
    ArtifactsInUse, WriteError
        If another run works in the folder, or it cannot be written to.
    TrainingError
        If the labels do not allow the folds.
    ClusterError
        If the cluster cannot be reached, is lost, or its workers cannot do their part.
    """
    if baseline not in (None, *BASELINES):
        raise ConfigError(f"baseline: {baseline!r} is not one of {', '.join(BASELINES)}")
    with locks.held(settings.artifacts) as lock:
        _check_outputs(settings.files)
        listener = listener or Silent()
        # What `cluster.resources` asks for is for networks; any worker can fit.
        plain = settings.cluster.model_copy(update={"resources": {}})
        with connecting.connect(plain, listener) as workers:
            return _run(settings, baseline, listener, lock, workers)


def _check_outputs(files: Artifacts) -> None:
    """Refuse what is there and not of `fit`, before hours of work: tables are replaced, and removed, by their names."""
    columns = {
        files.suspects: runtables.SUSPECTS,
        files.duplicates: runtables.DUPLICATES,
        files.holdout: runtables.HELD_OUT,
        files.predictions: runtables.COLUMNS,
    }
    known = {path: runtables.begins(path, names) for path, names in columns.items()}
    known[files.page] = html.is_page(files.page)
    known[files.report] = begins_with(files.report, results.BEGINNING)
    known[files.report_text] = begins_with(files.report_text, text.TITLE)
    # Those of before have no mark, but a report beside them.
    known[files.confusion] = pictures.is_sheet(files.confusion, pictures.CONFUSION) or known[files.report]
    for path, ours in known.items():
        if os.path.lexists(path) and not ours:
            raise ConfigError(
                f"artifacts: {path} is there, and not written by `stackcls fit`, which would replace it; "
                "move it away, or give another folder"
            )


def _run(
    settings: Settings, baseline: str | None, listener: Listener, lock: locks.Lock, workers: Cluster | None
) -> FitResult:
    start = time.perf_counter()
    with Store(settings.files.features) as store:
        chosen = trainingdata.choose(store, settings)
        training = _placed(trainingdata.load(store, list(chosen), settings, listener), workers, listener)
        matrices = {name: store.matrices[name] for name in chosen}
        digests = store.digest, {name: store.digests[name] for name in chosen}
        _check(training, settings)
        full = analyses.is_full(training.data, settings)
        search = tuning.search(training.data, settings, listener) if settings.stack.tune else None
        stacks, temperatures = (search.stacks, search.temperatures) if search else (None, ())
        svm = baseline == BASELINES[0] and _svm_fits(training, listener)
        validated = validation.cross_validate(training.data, settings, svm, listener, full, stacks, temperatures)
        tuned = None
        if search:
            untuned = validation.predict_folds(training.data, settings, listener)
            tuned = reporting.tuning(search, validated, untuned, settings.stack)
        fitted = settings.model_copy(update={"stack": validated.stacks[-1]})
        findings = analyses.find(training, validated, fitted, listener)
        for line in training.read():
            listener.say(line)
    notes = training.notes + [
        f"a logistic regression on {name} stopped at the limit of iterations" for name in validated.unconverged
    ]
    notes += reporting.temperature_notes(training.data, validated)
    report = reporting.report(training.data, validated, findings, fitted, notes, time.perf_counter() - start)
    means = {name: score.mean for name, score in report.scores.items()}
    origin = Origin(report.n_images, means, *digests)
    tables = reporting.tables(training, validated, findings, settings.files)
    report = dataclasses.replace(report, tables=runtables.digests(tables), tuning=tuned)
    findings = dataclasses.replace(findings, tables={**findings.tables, **_page(report, tables, settings, listener)})
    lock.verify()
    written = _write(settings, training, validated, findings, report, origin, chosen, matrices)
    if maps.is_csv(settings.files.map_table):
        listener.warn(
            f"{settings.files.map_table} and the maps beside it are older than this: run `stackcls map` again"
        )
    return FitResult(report, written)


def _check(training: TrainingRows, settings: Settings) -> None:
    """Say of classes that are too rare why they are, where fine-tuning took their images."""
    try:
        check_classes(training.data, settings)
    except TrainingError as error:
        if training.seen.size:
            error.add_note(
                "what fine-tuning saw was left out before: fine-tune on fewer (finetune --share), or leave that "
                "backbone out (features.backbones)"
            )
        raise


def _placed(training: TrainingRows, workers: Cluster | None, listener: Listener) -> TrainingRows:
    """The same rows, to be fitted on the workers where there are some."""
    if workers is None:
        return training
    for number in sorted(training.data.streamed):
        listener.say(f"{training.data.names[number]}: fitted here and not on the cluster, since it is read in blocks")
    workers.crew.compare(versions.created_with)
    shipping = Shipping(workers, training.data.memory)
    return dataclasses.replace(training, data=dataclasses.replace(training.data, workers=shipping))


def _svm_fits(training: TrainingRows, listener: Listener) -> bool:
    if training.data.streamed:
        training.notes.append("linear SVMs on single backbones were left out: they need whole matrices in memory")
        listener.warn(training.notes[-1])
    return not training.data.streamed


def _page(report: Report, tables: Tables, settings: Settings, listener: Listener) -> dict[Path, str]:
    """The page, or nothing where it cannot be made."""
    if sources.root_of(settings.images) is None:
        listener.warn(
            f"report.html has no pictures: {settings.images} is not there (`stackcls report --html` adds them)"
        )
    try:
        return {settings.files.page: page.make(report, tables, settings, settings.files)}
    except Exception as error:  # noqa: BLE001  (whatever it is, hours of work before it must not be lost)
        listener.warn(f"{settings.files.page}: not made ({type(error).__name__}: {error}); all else is")
        return {}


def _write(
    settings: Settings,
    training: TrainingRows,
    validated: Validated,
    findings: Findings,
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
        trained_on=np.union1d(seen.short_hashes([training.table.sha256[row] for row in training.rows]), training.seen),
        created_with=report.created_with,
        familiarity=findings.familiarity,
    )
    of_an_earlier_fit = {files.suspects, files.duplicates, files.holdout, files.page} - set(findings.tables)
    with together(first=files.safe_model, last=files.model_card, stale=of_an_earlier_fit):
        # Both models come before the report: with an old card, a new model is refused and an old report is not.
        modelfile.save(fitted, files, report.recipe, origin)
        report.save(files.report)
        write_text(files.report_text, text.document(report))
        pictures.save_confusion(report, files.confusion)
        write_text(files.predictions, reporting.predictions_csv(training, validated))
        with replacing(files.probabilities) as temporary, open(temporary, "wb") as file:
            np.save(file, validated.shares.astype(np.float32))
        for path, content in findings.tables.items():
            write_text(path, content)
    return (
        files.safe_model,
        files.model,
        files.model_card,
        files.report,
        files.report_text,
        files.confusion,
        files.predictions,
        files.probabilities,
        *findings.tables,
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
