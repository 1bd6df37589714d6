"""Stage one on a cluster, seen from a worker: what it is asked, and what it answers."""

import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from stackcls import cores, decoding, images, loading, processes, worker
from stackcls.backbones import Located
from stackcls.decoding import Turn
from stackcls.engines.cache import cache_folder
from stackcls.errors import UnreadableImage, WeightsError
from stackcls.extraction import Extracted, ImageInput
from stackcls.files import digest_file, explained, sweep
from stackcls.inference import Inference, Job, MadeBy, Seconds
from stackcls.listener import Silent
from stackcls.settings import Limits
from stackcls.tarfiles import TarMember

READY = 2  # jobs whose networks a worker keeps: those of two users, say

HASHING = 8  # images that a worker hashes at a time

Outcome = str | UnreadableImage


@dataclass(frozen=True)
class Lacking:
    """A worker's answer where it does not find the weights of some backbones."""

    worker: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Computed:
    """A worker's answer: the features of one block, what made them, what was said, and the time that it took."""

    worker: str
    extracted: Extracted
    made_by: MadeBy
    said: tuple[tuple[bool, str], ...]
    seconds: Seconds


@dataclass
class _Noting(Silent):
    """Keeps what is said, and whether it was a warning, for the one who asked."""

    said: list[tuple[bool, str]] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.said.append((False, line))

    def warn(self, line: str) -> None:
        self.said.append((True, line))


@dataclass(frozen=True)
class _Ready:
    inference: Inference
    noting: _Noting


_READY: OrderedDict[str, _Ready] = OrderedDict()  # in a worker's process, by the key of the run
# An engine keeps all processors busy that the worker has, so that a second task beside it would only take memory.
_ONE_AT_A_TIME = threading.Lock()


def compute(job: bytes, key: str, names: Sequence[str], inputs: Sequence[ImageInput]) -> Computed | Lacking:
    """On a worker: compute one block."""
    with _ONE_AT_A_TIME:
        if key not in _READY:
            ready = _prepare(pickle.loads(job))  # noqa: S301  (from the client, who may run anything here)
            if isinstance(ready, Lacking):
                return ready
            while len(_READY) >= READY:
                _READY.popitem(last=False)
            _READY[key] = ready
        _READY.move_to_end(key)
        ready = _READY[key]
        batches = list(ready.inference.pieces(names, inputs))
    made_by: MadeBy = batches[0][1] if batches else {}
    whole = _joined([batch for batch, _ in batches], names)
    return Computed(worker.here(), whole, made_by, tuple(ready.noting.said), ready.inference.seconds())


async def forget(key: str) -> None:
    """On a worker: let the networks of a run go. A coroutine, since only such are run without waiting for them."""
    _READY.pop(key, None)


@dataclass(frozen=True)
class Hashed:
    """A worker's answer: what `hash_block` finds in some images, and how large the files are that it sees."""

    worker: str
    outcomes: list[Outcome]
    sizes: list[int | None]


def hashed(items: Sequence[ImageInput], limits: Limits) -> Hashed:
    """On a worker: hash some images."""
    return Hashed(worker.here(), hash_block(items, limits), [size_of(item) for item in items])


def size_of(item: ImageInput) -> int | None:
    """Bytes of an image's file, or of the shard that it is in, as this machine sees it; None of what is elsewhere."""
    place = item.content.shard if isinstance(item.content, TarMember) else item.content
    try:
        return place.stat().st_size if isinstance(place, Path) else None
    except OSError:
        return None


def hash_block(items: Sequence[ImageInput], limits: Limits) -> list[Outcome]:
    """Content hashes of some images, or why they cannot be read."""

    def one(item: ImageInput, turn: Turn[Outcome]) -> Outcome:
        try:
            return images.hash_file(cast(Any, item.content), item.name, limits, turn.admit_file)
        except UnreadableImage as error:
            return error

    def late(number: int) -> Outcome:
        return UnreadableImage(items[number].name, "was not waited for")

    jobs = (partial(one, item) for item in items)
    with closing(decoding.in_order(jobs, late, limits.seconds, 4 * HASHING, HASHING)) as outcomes:
        return list(outcomes)


def holds(sha256: str, suffix: str) -> bool:
    """On a worker: whether a file of weights was sent to this machine, whole."""
    target = _weights_folder() / f"{sha256}{suffix}"
    return target.is_file() and digest_file(target) == sha256


def receive(sha256: str, suffix: str, start: int, piece: bytes, last: bool) -> None:
    """On a worker: take a piece of a file of weights; it appears with the last one, if it is what it should be."""
    target = _weights_folder() / f"{sha256}{suffix}"
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        part = target.with_name(f".{target.name}.{processes.mark()}.tmp")
        with open(part, "r+b" if start else "wb") as file:
            file.seek(start)
            file.write(piece)
        if last and digest_file(part) == sha256:
            os.replace(part, target)
        elif last:
            part.unlink()


def _prepare(job: Job) -> _Ready | Lacking:
    cores.grant(worker.threads())
    found = {item.backbone.name: _placed(item) for item in job.located}
    if lacking := tuple(name for name, item in found.items() if item is None):
        return Lacking(worker.here(), lacking)
    located = tuple(item for item in found.values() if item is not None)
    noting = _Noting()
    inference = Inference(replace(job, located=located), noting, workers=cores.available())
    return _Ready(inference, noting)


def _placed(item: Located) -> Located | None:
    """A backbone with its weights where they lie on this machine, by their content; None where they do not."""
    if item.weights is None:
        return item
    try:
        hints = [str(item.weights)]
        return replace(item, weights=loading.find_recorded(item.backbone.name, item.identity, hints, _weights_folder()))
    except WeightsError:
        return None


def _weights_folder() -> Path:
    return cache_folder() / "weights"


def _joined(batches: Sequence[Extracted], names: Sequence[str]) -> Extracted:
    """One batch of several."""
    full = [batch for batch in batches if batch.positions]
    features = {name: np.concatenate([batch.features[name] for batch in full]) for name in names if full}
    positions = tuple(position for batch in batches for position in batch.positions)
    return Extracted(positions, features, {at: error for batch in batches for at, error in batch.failures.items()})
