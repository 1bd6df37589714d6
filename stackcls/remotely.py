"""Stage one on a cluster, seen from the one who asks: blocks of images go out as tasks, features come back."""

import os
import pickle
import random
import uuid
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from stackcls import costs, images
from stackcls.cluster import Cluster
from stackcls.errors import ClusterError, UnreadableFile, UnreadableImage
from stackcls.extraction import Extracted, ImageInput, too_long, unreadable_first
from stackcls.inference import Job, MadeBy, Seconds
from stackcls.listener import Listener
from stackcls.settings import Limits
from stackcls.tarfiles import TarMember
from stackcls.tasks import Computed, Hashed, Lacking, Outcome, compute, forget, hashed, holds, receive, size_of

PIECE = 2**24  # bytes of weights that go to a worker at once
WEIGHTS = ".weights.h5"
SENT = 3  # times that the same weights are sent to a worker that says that it lacks them


def hash_on(
    workers: Cluster, blocks: Iterable[list[ImageInput]], limits: Limits
) -> Generator[tuple[int, list[Outcome]]]:
    """Content hashes by the workers, as they come: number of the block, and one outcome per image."""
    waiting = enumerate(blocks)
    asked: dict[int, list[ImageInput]] = {}

    def job() -> tuple[int, tuple[list[ImageInput], Limits]] | None:
        number, items = next(waiting, (0, []))
        if not items:
            return None
        asked[number] = items
        return number, ([_absolute(item) for item in items], limits)

    for number, found in workers.stream(hashed, job, lambda number: _named(asked[number])):
        _check_hashes(asked.pop(number), found, limits)
        yield number, found.outcomes


class OnCluster:
    """Runs backbones on the workers of a cluster, one block of images per task; see `Runner`.

    Parameters
    ----------
    workers : Cluster
    per_block : int
        Images of one task, at most.
    job : Job
    listener : Listener
    """

    def __init__(self, workers: Cluster, per_block: int, job: Job, listener: Listener) -> None:
        self._workers, self._limits, self._listener = workers, job.limits, listener
        self._located = {item.backbone.name: item for item in job.located}
        batch_size = min(job.batch_size, per_block) if job.batch_size else None
        self._per_block = per_block - per_block % (batch_size or 1)  # whole batches
        placed = tuple(replace(item, weights=item.weights and item.weights.absolute()) for item in job.located)
        sent = replace(job, located=placed, batch_size=batch_size, n_images=min(job.n_images, self._per_block))
        self._key, self._job = uuid.uuid4().hex, workers.keep(pickle.dumps(sent))
        self._said: set[tuple[bool, str]] = set()
        self._made_by: dict[str, Mapping[str, str]] = {}
        self._sent: Counter[tuple[str, str]] = Counter()
        self._seconds: dict[costs.Key, float | None] = {}

    def close(self) -> None:
        """Let the workers' networks go."""
        self._workers.everywhere(forget, self._key)

    def pieces(self, names: Sequence[str], inputs: Sequence[ImageInput]) -> Iterator[tuple[Extracted, MadeBy]]:
        """Yield block by block, as they come."""
        starts = iter(range(0, len(inputs), self._per_block))
        again: deque[int] = deque()  # blocks of workers that lacked weights

        def block(start: int) -> Sequence[ImageInput]:
            return inputs[start : start + self._per_block]

        def job() -> tuple[int, tuple[str, Sequence[str], Sequence[ImageInput]]] | None:
            start = again.popleft() if again else next(starts, None)
            return None if start is None else (start, (self._key, names, [_absolute(item) for item in block(start)]))

        for start, answer in self._workers.stream(
            compute, job, lambda start: _named(block(start)), lambda _: self._job
        ):
            if isinstance(answer, Lacking):
                self._send_weights(answer)
                again.append(start)
                continue
            self._hear(answer)
            extracted = answer.extracted
            _check_failures(block(start), extracted.failures, self._limits, answer.worker)
            positions = tuple(start + at for at in extracted.positions)
            failures = {start + at: error for at, error in extracted.failures.items()}
            yield Extracted(positions, extracted.features, failures), answer.made_by

    def seconds(self) -> Seconds:
        """As the worker says whose answer came last."""
        return self._seconds

    def _hear(self, answer: Computed) -> None:
        """Pass on what a worker says, once, and that features are made in more than one way."""
        for warning, line in answer.said:
            if (warning, line) not in self._said:
                self._said.add((warning, line))
                (self._listener.warn if warning else self._listener.say)(line)
        self._seconds |= {key: seconds for key, seconds in answer.seconds.items() if seconds is not None}
        for name, made in answer.made_by.items():
            if (first := self._made_by.setdefault(name, made)) == made:
                continue
            different = ", ".join(
                f"{key}: {first.get(key)} and {made[key]}" for key in made if first.get(key) != made[key]
            )
            line = f"workers differ ({different}): features may differ in the last digits; features.h5 records it"
            if (True, line) not in self._said:
                self._said.add((True, line))
                self._listener.warn(line)

    def _send_weights(self, lacking: Lacking) -> None:
        """Send a worker the files that it did not find; one that is gone meanwhile needs none."""
        files = {self._located[name].weights: self._located[name].identity.weights for name in lacking.names}
        for file, sha256 in files.items():
            # Of several blocks that came back for want of it, the first has it sent.
            if file is None or self._workers.on(lacking.worker, holds, sha256, _ending(file)) is not False:
                continue
            self._sent[lacking.worker, sha256] += 1
            if self._sent[lacking.worker, sha256] > SENT:
                raise ClusterError(
                    f"the worker {lacking.worker} does not keep the weights {file.absolute()} (SHA-256 {sha256}), "
                    f"though they were sent to it {SENT} times: look into its logs, or copy the file there under the "
                    "same path"
                )
            self._listener.say(f"sending {file.name} to the worker {lacking.worker}, which does not have it")
            with open(file, "rb") as content:
                size = os.fstat(content.fileno()).st_size
                for start in range(0, size, PIECE):
                    given = (sha256, _ending(file), start, content.read(PIECE), start + PIECE >= size)
                    self._workers.on(lacking.worker, receive, *given)


def _ending(file: Path) -> str:
    """Of a file's name what Keras goes by: it reads `.weights.h5` otherwise than `.h5`."""
    return WEIGHTS if file.name.endswith(WEIGHTS) else file.suffix


def _named(items: Sequence[ImageInput]) -> str:
    """What messages call a block of images: all of them, so that the one at fault is among them."""
    which = "this image" if len(items) == 1 else f"these {len(items)} images"
    return f"{which}: {', '.join(item.name for item in items)}"


def _absolute(item: ImageInput) -> ImageInput:
    """The same image for a worker, which runs in another folder."""
    content = item.content
    if isinstance(content, TarMember):
        return replace(item, content=replace(content, shard=content.shard.absolute()))
    return replace(item, content=content.absolute()) if isinstance(content, Path) else item


def _place(item: ImageInput) -> Path | str:
    content = item.content.shard if isinstance(item.content, TarMember) else item.content
    return content.absolute() if isinstance(content, Path) else item.name


def _check_failures(
    items: Sequence[ImageInput], failures: Mapping[int, UnreadableImage], limits: Limits, worker: str
) -> None:
    """Refuse to reject an image for a worker's own trouble; one that took too long may hang here too."""
    for at, error in failures.items():
        if isinstance(error, UnreadableFile):
            _check_absent(items[at], error, limits, worker)
    undecoded = [
        at
        for at, error in failures.items()
        if not isinstance(error, UnreadableFile) and error.reason != too_long(limits)
    ]
    n_bad = len(unreadable_first([items[at] for at in undecoded], limits))
    if n_bad < len(undecoded):
        raise ClusterError(
            f"{failures[undecoded[n_bad]]}, says the worker {worker}, but this machine can decode it: give every "
            "worker as much memory, and the same libraries (Pillow with the same formats)"
        )


def _check_absent(item: ImageInput, error: UnreadableFile, limits: Limits, worker: str) -> None:
    """Refuse to reject an image whose file a worker cannot read and this machine can."""
    try:
        found = images.hash_file(cast(Any, item.content), item.name, limits)
    except UnreadableImage:
        return  # then it is as it would be without a cluster
    if item.sha256 not in (None, found):
        raise _differing(item, worker)
    raise ClusterError(
        f"{error}, says the worker {worker}, but this machine can read it: let every worker see the images under "
        f"the same path ({_place(item)}), or at the same address, with what that asks for"
    )


def _check_hashes(items: Sequence[ImageInput], found: Hashed, limits: Limits) -> None:
    """See whether a worker has the same files: that they are as large, and that one of them has the same content."""
    same = []
    for item, outcome, size in zip(items, found.outcomes, found.sizes, strict=True):
        if isinstance(outcome, UnreadableFile):
            _check_absent(item, outcome, limits, found.worker)
        if size is None or isinstance(outcome, UnreadableImage):
            continue
        if size_of(item) not in (None, size):
            raise _differing(item, found.worker)
        same.append((item, outcome))
    if not same:
        return
    item, outcome = random.choice(same)  # noqa: S311  (any will do)
    with suppress(UnreadableImage):
        if images.hash_file(cast(Any, item.content), item.name, limits) != outcome:
            raise _differing(item, found.worker)


def check_hashed(items: Sequence[ImageInput], errors: Sequence[UnreadableImage], limits: Limits) -> None:
    """Refuse to reject an image that changed only in that a worker, which hashed it, sees another file.

    Parameters
    ----------
    items : sequence of ImageInput
    errors : sequence of UnreadableImage
        Why this machine cannot read some of them.
    limits : Limits

    Raises
    ------
    ClusterError
        If a file is there, with another content than was hashed.
    """
    known = {item.name: item for item in items}
    for error in errors:
        if isinstance(error, UnreadableFile):
            item = known[error.path]
            with suppress(UnreadableImage):
                if images.hash_file(cast(Any, item.content), item.name, limits) != item.sha256:
                    raise _differing(item, "that hashed it")


def _differing(item: ImageInput, worker: str) -> ClusterError:
    return ClusterError(
        f"{item.name}: the worker {worker}, or one before it, sees another file than this machine, or the file "
        f"changes: let every worker see the same images under the same path ({_place(item)}), leave them alone while "
        "they are read, and run the same command again"
    )
