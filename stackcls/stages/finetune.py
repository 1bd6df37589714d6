"""`stackcls finetune`: one backbone trained further on a share of the images, as an entry of `features.backbones`."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackcls import loading, locks, seen, sources
from stackcls.artifacts import Finetuned
from stackcls.errors import ConfigError, SourceError, WeightsError
from stackcls.extraction import ImageInput
from stackcls.files import digest_file, together, write_text
from stackcls.finetuning import checkpoints, jobs
from stackcls.finetuning.checkpoints import Checkpoint
from stackcls.finetuning.jobs import Job
from stackcls.finetuning.logs import EventLog
from stackcls.finetuning.pictures import Labelled, Pictures
from stackcls.listener import Listener, Silent
from stackcls.listing import hash_all
from stackcls.printable import counted
from stackcls.report import curves
from stackcls.report.tuned import Tuned
from stackcls.settings import Settings
from stackcls.sources import ImageEntry
from stackcls.versions import created_with

MIB = 2**20


def run(
    settings: Settings,
    backbone: str,
    *,
    name: str | None = None,
    offline: bool = False,
    replace: bool = False,
    listener: Listener | None = None,
) -> Tuned:
    """Train one backbone further, and write it with all that is known of the training.

    A run that was interrupted goes on after its last epoch; one that is finished is not repeated.

    Parameters
    ----------
    settings : Settings
        Of which `finetune` says how.
    backbone : str
        An entry of `features.backbones`, or what could be one.
    name : str, optional
        Of the result; by default the backbone's with `-tuned`, `-head` or `-scratch`.
    offline : bool
        Never fetch weights.
    replace : bool
        Let the result of another run with this name go.
    listener : Listener, optional

    Returns
    -------
    Tuned

    Raises
    ------
    SourceError, ConfigError, WeightsError
        If images, settings or weights cannot be used.
    TrainingError
        If the images that are drawn cannot be learned from.
    ArtifactsInUse, WriteError
        If another run has the same name, or its folder cannot be written to.
    """
    listener = listener or Silent()
    listing = hash_all(sources.scan(settings.images, settings.features.limits), listener, settings.features.limits)
    return _run(jobs.make(settings, backbone, name, listing, offline, listener), replace, listener)


def compare(
    settings: Settings,
    backbone: str,
    *,
    name: str | None = None,
    offline: bool = False,
    replace: bool = False,
    listener: Listener | None = None,
) -> tuple[list[Tuned], Path]:
    """Train from scratch, the head alone, and as the settings say, on the same images; takes what `run` takes.

    Returns
    -------
    list of Tuned
    Path
        A picture of their curves.
    """
    listener = listener or Silent()
    listing = hash_all(sources.scan(settings.images, settings.features.limits), listener, settings.features.limits)
    made = jobs.make_all(settings, backbone, name, listing, offline, listener)
    picture = settings.files.comparison(name or backbone)
    if picture.exists() and not curves.is_ours(picture):
        raise ConfigError(f"{picture}: is there, and no picture of training curves; give another --name")
    tuned = made[-1]
    if tuned.names_layers:
        _check_layers(tuned)  # its turn comes last, hours from now
    runs = []
    for job in made:
        listener.say(f"{job.name}:")
        runs.append(_run(job, replace, listener))
    curves.save(runs, picture)
    return runs, picture


def _check_layers(job: Job) -> None:
    from stackcls.engines.graphs import import_tensorflow

    import_tensorflow()  # without its greeting
    from stackcls.finetuning import networks

    networks.check_layers(job.located, job.tuning)


def _run(job: Job, replaces: bool, listener: Listener) -> Tuned:
    with locks.held(job.files.folder) as lock:
        found = _found(job.files, job.digest, replaces)
        if isinstance(found, Tuned):
            listener.say(f"{job.files.folder}: is finished, nothing to do")
            if found.rest != job.plan.rest_digest(job.listing):
                listener.warn(
                    f"{job.files.folder}: its accuracy is of the {counted(found.n_rest, 'image')} left out when it was "
                    f"trained; now it would be of {len(job.plan.rest)} others: --replace trains anew, and scores those"
                )
            return found
        if found.history:
            listener.say(f"{job.files.folder}: goes on after epoch {len(found.history)}")
        with _telling_what_is_kept(job.files.checkpoint):
            report = _train(job, found, lock, listener)
    return report


def _found(files: Finetuned, digest: str, replaces: bool) -> Tuned | Checkpoint:
    """What an earlier run of the same name left: its result, or what to go on from."""
    checkpoint, finished = checkpoints.load(files.checkpoint), _finished(files)
    matches = finished is not None and files.model.is_file() and digest_file(files.model) == finished.sha256
    if finished is not None and finished.digest == digest and matches:
        if checkpoint is not None and checkpoint.digest == digest:
            files.checkpoint.unlink()  # of a run that was killed when all was written
        return finished
    if not matches and files.model.exists() and not _is_ours(files.model):
        raise ConfigError(
            f"{files.model}: was not written by `stackcls finetune`; give another --name, or move it away"
        )
    if checkpoint is not None and checkpoint.digest == digest:
        return checkpoint
    if finished is None and checkpoint is None:
        for path in (files.model, files.history, files.curves):
            if path.exists():
                raise ConfigError(f"{path}: was not written by `stackcls finetune`; give another --name")
        return Checkpoint(digest, (), 0, {}, [], [], [])
    if not replaces:
        is_same = finished is not None and finished.digest == digest
        raise ConfigError(_why_not_replaced(files, is_same))
    return Checkpoint(digest, (), 0, {}, [], [], [])


def _finished(files: Finetuned) -> Tuned | None:
    if not files.report.exists():
        return None
    try:
        return Tuned.load(files.report)
    except SourceError as error:
        raise ConfigError(f"{error}; it is not replaced: move it away, or give another --name") from None


def _why_not_replaced(files: Finetuned, is_same: bool) -> str:
    if is_same:
        return (
            f"{files.model}: is gone, or not what {files.report.name} tells of; put that file back, give another "
            "--name, or --replace to train anew"
        )
    return (
        f"{files.folder}: holds a fine-tuning of other images, weights or settings; give another --name, or "
        "--replace to begin anew"
    )


def _is_ours(model: Path) -> bool:
    """Whether a file is of some run of this command: it has the record that Keras would not keep."""
    try:
        return seen.read(model) is not None
    except WeightsError:
        return False


@contextmanager
def _telling_what_is_kept(checkpoint: Path) -> Iterator[None]:
    """Add to whatever ends the work early what was finished until then."""
    try:
        yield
    except BaseException as error:
        if checkpoint.is_file():
            error.add_note(f"finished epochs are kept in {checkpoint}, and the same command goes on from there")
        raise


def _train(job: Job, start: Checkpoint, lock: locks.Lock, listener: Listener) -> Tuned:
    from stackcls.engines.graphs import import_tensorflow

    import_tensorflow()  # without its greeting
    from stackcls.finetuning import learning, networks

    tuning, plan = job.tuning, job.plan
    listener.say(
        f"{counted(len(plan.train), 'image')} of {len(plan.classes)} classes to learn from, {len(plan.validation)} "
        f"to tell the best epoch, {len(plan.rest)} left out"
    )
    for note in plan.notes:
        listener.warn(note)
    n_steps = -(-len(plan.train) // tuning.batch_size)
    token = job.digest[: seen.DIGITS]
    steps = n_steps, n_steps * tuning.epochs
    with networks.built(job.located, job.fresh, len(plan.classes), tuning, seen.mark(token), steps) as network:
        if job.located.weights is not None:
            loading.check_unchanged(job.located.weights, job.located.identity.weights)
        train_set, validation = _sets(job, network.input_size)
        with closing(EventLog(job.files.logs, start.history)) as logs:
            done = learning.train(network, train_set, validation, tuning, start, job.files.checkpoint, logs, listener)
        accuracy, failures = None, done.failures
        if plan.rest:
            rest = _labelled(job, plan.rest, network.input_size, 0)
            with listener.track("score", len(plan.rest), "image") as advance:
                _, accuracy = learning.score(network, rest, tuning.batch_size, advance)
            failures = {**failures, **rest.pictures.failures}
        lock.verify()
        done = dataclasses.replace(done, failures=failures)
        report = _report(job, done, accuracy, network.learned, network.entry)
        with together(first=job.files.model, last=job.files.report):
            saved = networks.save(network, job.files.model, _saw(job), token)
            report = dataclasses.replace(report, sha256=saved)
            write_text(job.files.history, curves.history_csv(report.history))
            curves.save([report], job.files.curves)
            report.save(job.files.report)
    job.files.checkpoint.unlink(missing_ok=True)
    return report


def _sets(job: Job, size: int) -> tuple[Labelled, Labelled]:
    """What is learned from, and what tells the best epoch; those of which all fit share the memory."""
    memory = job.tuning.memory * MIB
    train = _labelled(job, job.plan.train, size, memory)
    return train, _labelled(job, job.plan.validation, size, memory - train.pictures.n_bytes)


def _labelled(job: Job, entries: Sequence[ImageEntry], size: int, memory: int) -> Labelled:
    listing = job.listing
    inputs = [ImageInput(entry.path, listing.source.locate(entry), listing.sha256[entry.path]) for entry in entries]
    index = {name: number for number, name in enumerate(job.plan.classes)}
    y = np.array([index[entry.label or ""] for entry in entries], dtype=np.int64)
    return Labelled(Pictures(inputs, size, listing.limits, memory), y)


def _saw(job: Job) -> NDArray[np.uint64]:
    """Images that decided the weights, also before this run."""
    mine = [job.listing.sha256[entry.path] for entry in (*job.plan.train, *job.plan.validation)]
    before = None if job.fresh else job.located.seen
    return np.union1d(seen.short_hashes(mine), np.empty(0, np.uint64) if before is None else before)


def _report(job: Job, done: Checkpoint, accuracy: float | None, learned: int, said: Mapping[str, str]) -> Tuned:
    how = job.tuning.model_dump(mode="json", exclude={"memory", "start", "unfreeze"})
    return Tuned(
        name=job.name,
        backbone=job.backbone,
        start=job.start,
        unfreeze=job.tuning.unfreeze,
        classes=list(job.plan.classes),
        n_train=len(job.plan.train),
        n_validation=len(job.plan.validation),
        n_rest=len(job.plan.rest),
        notes=list(job.plan.notes),
        history=list(done.history),
        best=done.best,
        accuracy=accuracy,
        learned=learned,
        seconds=sum(epoch.seconds for epoch in done.history),
        entry={"name": job.name, "model": job.files.model.absolute().as_posix(), **said},
        digest=job.digest,
        rest=job.plan.rest_digest(job.listing),
        settings={key: str(value) for key, value in how.items()},
        created_with=created_with(),
        rejected={**job.listing.rejected, **done.failures},
    )
