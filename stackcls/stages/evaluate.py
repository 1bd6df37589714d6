"""`stackcls evaluate`: a model and labelled images that it never saw in, the same scores as a report out."""

import time
from pathlib import Path

import numpy as np

from stackcls import extraction, modelfile, scoring, sources
from stackcls.decisions import per_class, probabilities
from stackcls.errors import ConfigError, SourceError, TrainingError, UnreadableImage
from stackcls.extraction import ImageInput
from stackcls.listener import Listener, Silent
from stackcls.listing import Listing, hash_all
from stackcls.model import StackModel
from stackcls.printable import counted, were
from stackcls.report.results import STACK, Report
from stackcls.scoring import Predictions
from stackcls.settings import FeatureSettings, Limits
from stackcls.sources import ImageEntry
from stackcls.urls import Place, place
from stackcls.versions import created_with


def run(
    images: Place | str,
    model_path: Path,
    *,
    features: FeatureSettings | None = None,
    output: Path | None = None,
    listener: Listener | None = None,
) -> tuple[Report, dict[str, str]]:
    """Score a model, and each of its single backbones, on labelled images.

    Parameters
    ----------
    images : Path, Url or str
        Class folders, a manifest, a CUB-200-2011 folder or tar shards, here or at a URL.
    model_path : Path
        `model.safetensors` or `model.joblib`.
    features : FeatureSettings, optional
        Engine and batch size, where they name one, instead of those at fitting, and what one image may cost; all else
        is the model's own.
    output : Path, optional
        Also write the report to this `.json` file.
    listener : Listener, optional

    Returns
    -------
    report : Report
    rejected : dict of str to str
        Images that could not be read, and why.

    Raises
    ------
    ConfigError
        If the file to write has another suffix, or is there and no report.
    TrainingError
        If no image is left whose class the model knows and that it was not fitted on.
    """
    listener = listener or Silent()
    start = time.perf_counter()
    if output is not None:
        _check_output(output)
    fitted = modelfile.load(model_path, listener)
    fitted.run_as(features, listener)
    limits = features.limits if features else Limits()
    listing = hash_all(sources.scan(place(images), limits), listener, limits)
    notes: list[str] = []
    entries = _unseen(fitted, listing, notes)
    ranking, labels = _rank(fitted, listing, entries, listener)
    for note in notes:
        listener.warn(note)
    report = _report(fitted, ranking, labels, notes, time.perf_counter() - start)
    if output is not None:
        report.save(output)
    return report, listing.rejected


def _check_output(path: Path) -> None:
    """Refuse a file that is there and no report: it may be hours of work."""
    if path.suffix != ".json":
        raise ConfigError(f"--output: {path} is no .json file; give a name that ends so")
    try:
        if path.exists():
            Report.load(path)
    except SourceError as error:
        raise ConfigError(f"--output: {path} is there, and no report of stackcls; give another name") from error


def _unseen(fitted: StackModel, listing: Listing, notes: list[str]) -> list[ImageEntry]:
    """Entries that can be scored honestly: labelled, of a known class, not among the model's training images."""
    known = set(fitted.classes_.tolist())
    labelled = [entry for entry in listing.kept if entry.label is not None]
    entries = [entry for entry in labelled if entry.label in known]
    if len(entries) < len(labelled):
        strange = sorted({entry.label for entry in labelled if entry.label not in known and entry.label})
        count = len(labelled) - len(entries)
        notes.append(
            f"{counted(count, 'image')} of classes that the model does not know {were(count)} left out: "
            f"{', '.join(strange[:5])}"
        )
    seen = fitted.seen([listing.sha256[entry.path] for entry in entries])
    if seen.any():
        count = int(seen.sum())
        notes.append(f"{counted(count, 'image')} that the model was fitted on {were(count)} left out")
    unseen = [entry for entry, is_seen in zip(entries, seen, strict=True) if not is_seen]
    if not unseen:
        reason = "; ".join(notes) or "there are no labels: class folders or a manifest with a `label` column are needed"
        raise TrainingError(f"no image to evaluate on in {listing.source.root} ({reason})")
    return unseen


def _rank(
    fitted: StackModel, listing: Listing, entries: list[ImageEntry], listener: Listener
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Decisions of the stack and probabilities of its bases, with the labels, for the images that can be read."""
    inputs = [ImageInput(entry.path, listing.source.locate(entry), listing.sha256[entry.path]) for entry in entries]
    names = [item.backbone.name for item in fitted.backbones]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*names, STACK)}
    index = {name: number for number, name in enumerate(fitted.classes_.tolist())}
    labels: list[int] = []
    bad: list[UnreadableImage] = []
    prepared = fitted.prepared(len(inputs), listener)
    with listener.track("evaluate", len(inputs), "image") as advance:
        for batch in extraction.extract(inputs, prepared.extractors, prepared.batch_size, listing.limits):
            bad += batch.failures.values()
            advance(len(batch.positions) + len(batch.failures))
            if batch.positions:
                X = np.hstack([batch.features[name] for name in names])
                for name, base in zip(names, fitted.classifier.bases_, strict=True):
                    parts[name].append(base.predict_proba(X))
                parts[STACK].append(per_class(fitted.classifier.decision_function(X)))
                labels += [index[entries[at].label or ""] for at in batch.positions]
    listing.reject(bad)
    if not labels:
        raise UnreadableImage(*next(iter(listing.rejected.items())))
    return {name: np.concatenate(rows) for name, rows in parts.items()}, np.array(labels)


def _report(
    fitted: StackModel, ranking: dict[str, np.ndarray], labels: np.ndarray, notes: list[str], seconds: float
) -> Report:
    predictions = Predictions(labels, np.zeros(len(labels), dtype=np.int64), ranking)
    scores = {name: scoring.score(predictions, name) for name in ranking}
    classifier, names = fitted.classifier, fitted.classes_.tolist()
    shares = probabilities(ranking[STACK], classifier.temperature)
    return Report(
        recipe=classifier.recipe,
        folds=1,
        seed=classifier.random_state,
        n_images=len(labels),
        classes=names,
        scores=scores,
        gain=scoring.gain(predictions, scores),
        confusion=scoring.confusion(predictions, len(names)),
        per_class=scoring.per_class_scores(predictions, names),
        calibration=scoring.calibration(shares, labels, classifier.temperature),
        seconds=seconds,
        created_with=created_with(),
        kind="evaluation",
        notes=notes,
    )
