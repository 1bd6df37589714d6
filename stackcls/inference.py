"""Backbones ready to run in this process, from images to features, with the time that each takes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from stackcls import costs, extraction, loading
from stackcls.backbones import Located
from stackcls.extraction import Extracted, ImageInput
from stackcls.listener import Listener
from stackcls.settings import Limits

MadeBy = Mapping[str, Mapping[str, str]]
Seconds = Mapping[costs.Key, float | None]


@dataclass(frozen=True)
class Job:
    """What is to run, wherever that is.

    Attributes
    ----------
    located : tuple of Located
    engine : str
        As configured.
    batch_size : int or None
    n_images : int
        A batch is not larger than this.
    limits : Limits
    """

    located: tuple[Located, ...]
    engine: str
    batch_size: int | None
    n_images: int
    limits: Limits


class Runner(Protocol):
    """Something that turns images into features, here or elsewhere."""

    def pieces(self, names: Sequence[str], inputs: Sequence[ImageInput]) -> Iterator[tuple[Extracted, MadeBy]]:
        """Yield the features of some images by the backbones of those names, and what made them, in any order."""

    def seconds(self) -> Seconds:
        """What an image was measured to take, by digest of the identity and engine."""

    def close(self) -> None:
        """Let the networks go."""


class Inference:
    """Runs backbones in this process; see `Runner`.

    Parameters
    ----------
    job : Job
    listener : Listener
        Hears which engine was taken.
    workers : int, optional
        Decoding threads; by default as many as there are processors.
    """

    def __init__(self, job: Job, listener: Listener, workers: int | None = None) -> None:
        prepared = loading.prepare(job.located, job.engine, job.batch_size, job.n_images, listener, announce=True)
        self._batch_size, self._limits, self._workers = prepared.batch_size, job.limits, workers
        networks = {id(item.network): item.network for item in prepared.extractors.values()}
        clocks = {key: costs.Timed(network, prepared.batch_size) for key, network in networks.items()}
        self._clocks = {name: clocks[id(item.network)] for name, item in prepared.extractors.items()}
        self._timed = {
            name: replace(item, network=clocks[id(item.network)]) for name, item in prepared.extractors.items()
        }
        self._digests = {item.backbone.name: item.identity.digest for item in job.located}
        self._made_by = prepared.made_by

    def pieces(self, names: Sequence[str], inputs: Sequence[ImageInput]) -> Iterator[tuple[Extracted, MadeBy]]:
        """Yield batch by batch, in order."""
        subset = {name: self._timed[name] for name in names}
        made_by = {name: self._made_by[name] for name in names}
        given = (inputs, subset, self._batch_size, self._limits, self._workers)
        for batch in extraction.extract(*given):
            yield batch, made_by

    def seconds(self) -> Seconds:
        """Of matrices that share a network, each would cost the whole of it alone."""
        return {
            (self._digests[name], self._made_by[name]["engine"]): clock.seconds(len(self._timed[name].views))
            for name, clock in self._clocks.items()
        }

    def close(self) -> None:
        """Nothing: they go with this object."""
