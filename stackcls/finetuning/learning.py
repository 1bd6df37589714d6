"""Epoch after epoch: learning, looking at validation images, keeping the best, and stopping when it gets no better.

Imports Keras, so it is imported when training begins.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from scipy.special import log_softmax

from stackcls.engines import pad
from stackcls.errors import TrainingError
from stackcls.finetuning import checkpoints, networks
from stackcls.finetuning.checkpoints import Checkpoint
from stackcls.finetuning.logs import EventLog
from stackcls.finetuning.networks import Augmentation, Network
from stackcls.finetuning.pictures import Labelled
from stackcls.listener import Listener
from stackcls.report.tuned import Epoch
from stackcls.settings import FinetuneSettings


def train(
    network: Network,
    train_set: Labelled,
    validation: Labelled,
    settings: FinetuneSettings,
    start: Checkpoint,
    kept: Path,
    logs: EventLog,
    listener: Listener,
) -> Checkpoint:
    """Learn until the epochs are over, or so many in a row were no better than the best.

    Every epoch is one file as soon as it is done; from it, the run goes on as if it had not been interrupted, since
    what is drawn at random in an epoch follows from the seed and the epoch's number.

    Parameters
    ----------
    network : Network
    train_set, validation : Labelled
    settings : FinetuneSettings
    start : Checkpoint
        Without epochs, or of a run that was interrupted.
    kept : Path
        The file of the checkpoint.
    logs : EventLog
    listener : Listener

    Returns
    -------
    Checkpoint
        The last; `network` has its best weights.
    """
    state, augmentation = start, Augmentation(settings.augment)
    if state.history:
        network.restore(list(state.weights), list(state.optimizer))
    with listener.track(
        "learn", (settings.epochs - len(state.history)) * (len(train_set.y) + len(validation.y)), "image"
    ) as advance:
        while not _is_over(state, settings):
            epoch = _one_epoch(network, augmentation, train_set, validation, settings, len(state.history) + 1, advance)
            failures = {**state.failures, **train_set.pictures.failures, **validation.pictures.failures}
            state = _after(state, epoch, network, failures)
            checkpoints.save(state, kept)
            logs.add(epoch)
            listener.say(_line(epoch, settings.epochs, state.best))
    if (done := len(state.history)) < settings.epochs:
        listener.say(
            f"stopped after epoch {done} of {settings.epochs}: none was better since epoch {state.best}; a larger "
            "finetune.patience goes on longer, as random weights may need before they learn anything"
        )
    network.model.set_weights(list(state.best_weights))
    return state


def score(network: Network, images: Labelled, batch_size: int, advance: Callable[[int], None]) -> tuple[float, float]:
    """Loss and accuracy on images as they are."""
    right, loss, count = 0, 0.0, 0
    for rows, pixels in images.pictures.batches(np.arange(len(images.y)), batch_size):
        batch = keras.ops.cast(pad(pixels, batch_size), "float32")
        logits = network.model.predict_on_batch(network.preprocess(batch))[: len(rows)]
        given = images.y[rows]
        loss -= float(log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(rows)), given].sum())
        right += int((logits.argmax(axis=1) == given).sum())
        count += len(rows)
        advance(len(rows))
    return loss / max(count, 1), right / max(count, 1)


def _one_epoch(
    network: Network,
    augmentation: Augmentation,
    train_set: Labelled,
    validation: Labelled,
    settings: FinetuneSettings,
    number: int,
    advance: Callable[[int], None],
) -> Epoch:
    begin = time.perf_counter()
    rng = np.random.default_rng((settings.seed, number))
    networks.seed(network, augmentation, rng)
    targets = np.eye(network.model.output_shape[-1], dtype=np.float32)
    sums, count = np.zeros(2), 0
    for rows, pixels in train_set.pictures.batches(rng.permutation(len(train_set.y)), settings.batch_size):
        given = keras.ops.convert_to_tensor(targets[train_set.y[rows]])
        varied, given = augmentation(keras.ops.cast(pixels, "float32"), given)
        said = network.model.train_on_batch(network.preprocess(varied), given, return_dict=True)
        sums += len(rows) * np.array([said["loss"], said["accuracy"]], dtype=np.float64)
        count += len(rows)
        advance(len(rows))
    loss, accuracy = sums / max(count, 1)
    if not count or not np.isfinite(loss):
        reason = "no image can be read" if not count else "the loss is no number any more: lower finetune.rate"
        raise TrainingError(f"epoch {number}: {reason}")
    validated = score(network, validation, settings.batch_size, advance)
    rate = float(network.model.optimizer.learning_rate)
    return Epoch(number, float(loss), float(accuracy), *validated, rate, time.perf_counter() - begin)


def _after(state: Checkpoint, epoch: Epoch, network: Network, failures: Mapping[str, str]) -> Checkpoint:
    history = (*state.history, epoch)
    better = not state.best or _merit(epoch) > _merit(history[state.best - 1])
    weights = network.weights
    return replace(
        state,
        history=history,
        best=epoch.epoch if better else state.best,
        failures=dict(failures),
        weights=weights,
        optimizer=network.state,
        best_weights=weights if better else state.best_weights,
    )


def _merit(epoch: Epoch) -> tuple[float, float]:
    """What makes an epoch better: more validation images right, or as many and more surely so."""
    return epoch.validation_accuracy, -epoch.validation_loss


def _is_over(state: Checkpoint, settings: FinetuneSettings) -> bool:
    done = len(state.history)
    return done >= settings.epochs or (done > 0 and done - state.best >= settings.patience)


def _line(epoch: Epoch, epochs: int, best: int) -> str:
    return (
        f"epoch {epoch.epoch} of {epochs}: loss {epoch.loss:.3f}, accuracy {100 * epoch.accuracy:.1f} %; validation "
        f"loss {epoch.validation_loss:.3f}, accuracy {100 * epoch.validation_accuracy:.1f} %"
        f"{', the best so far' if epoch.epoch == best else f' (best: epoch {best})'}; {epoch.seconds:.0f} s"
    )
