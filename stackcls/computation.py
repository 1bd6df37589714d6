"""Computes the features that are missing, block by block, so that nothing finished is lost."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from stackcls import costs, extraction
from stackcls.backbones import Located
from stackcls.blocks import Block, BlockFolder
from stackcls.cluster import Cluster
from stackcls.errors import UnreadableImage
from stackcls.extraction import ImageInput
from stackcls.inference import Inference, Job, MadeBy, Runner
from stackcls.listener import Listener
from stackcls.listing import Listing
from stackcls.remotely import OnCluster, check_hashed
from stackcls.settings import FeatureSettings
from stackcls.store import Store

IMAGES_PER_BLOCK = 128

Part = tuple[list[str], Mapping[str, NDArray[np.float32]]]


def finished(located: Sequence[Located], old: Store | None, folder: BlockFolder) -> dict[str, set[str]]:
    """Content hashes whose features exist in the old store or in blocks, by digest of the identity."""
    done: dict[str, set[str]] = {item.identity.digest: set() for item in located}
    if old is not None:
        for info in old.matrices.values():
            if info.identity.digest in done:
                done[info.identity.digest].update(old.table.sha256)
    for block in folder.read():
        for digest in done.keys() & block.features.keys():
            done[digest].update(block.sha256)
    return done


def reject_unreadable(
    listing: Listing, located: Sequence[Located], done: Mapping[str, set[str]], by_workers: bool = False
) -> None:
    """Reject missing images from the first one on until one can be decoded.

    Where only such are missing as were rejected before, nothing is left to do, and no network need be built. Where
    workers hashed them, `ClusterError` is raised if what they saw is not what is here.
    """
    begun: set[tuple[str, ...]] = set()  # where an image was found that can be decoded
    while work := {
        names: inputs for names, inputs in _group_work(listing, located, done).items() if names not in begun
    }:
        for names, inputs in work.items():
            bad = extraction.unreadable_first(inputs, listing.limits)
            if by_workers:
                check_hashed(inputs, bad, listing.limits)
            if len(bad) < len(inputs):
                begun.add(names)
            listing.reject(bad)


def compute(
    listing: Listing,
    located: Sequence[Located],
    done: Mapping[str, set[str]],
    settings: FeatureSettings,
    folder: BlockFolder,
    listener: Listener,
    cluster: Cluster | None = None,
) -> None:
    """Compute what is missing and write it as blocks; images that cannot be decoded are added to the rejected.

    Parameters
    ----------
    listing : Listing
    located : sequence of Located
    done : mapping of str to set of str
        From `finished`.
    settings : FeatureSettings
    folder : BlockFolder
    listener : Listener
    cluster : Cluster, optional
        Where networks run; without one, in this process.
    """
    done = {digest: set(hashes) for digest, hashes in done.items()}
    work = _group_work(listing, located, done)
    needed = {name for names in work for name in names}
    if not needed:
        return
    chosen = [item for item in located if item.backbone.name in needed]
    job = Job(tuple(chosen), settings.engine, settings.batch_size, sum(map(len, work.values())), listing.limits)
    runner: Runner = (
        Inference(job, listener) if cluster is None else OnCluster(cluster, IMAGES_PER_BLOCK, job, listener)
    )
    try:
        _compute(listing, located, done, work, runner, folder, listener)
    finally:
        runner.close()
    costs.keep(runner.seconds())


def _compute(
    listing: Listing,
    located: Sequence[Located],
    done: dict[str, set[str]],
    work: dict[tuple[str, ...], list[ImageInput]],
    runner: Runner,
    folder: BlockFolder,
    listener: Listener,
) -> None:
    known = {item.backbone.name: item for item in located}
    while work:  # again only for copies of images whose own file could not be read
        bad: list[UnreadableImage] = []
        with listener.track("features", sum(map(len, work.values())), "image") as advance:
            for names, inputs in work.items():
                with _Writer(folder, known) as writer:
                    for batch, made_by in runner.pieces(names, inputs):
                        hashes = [inputs[position].sha256 or "" for position in batch.positions]
                        writer.add(hashes, batch.features, made_by)
                        for name in names:
                            done[known[name].identity.digest].update(hashes)
                        bad += batch.failures.values()
                        advance(len(batch.positions) + len(batch.failures))
        listing.reject(bad)
        work = _group_work(listing, located, done)


class _Writer:
    """Gathers batches and writes them as blocks, one at a time, beside the next batches' inference."""

    def __init__(self, folder: BlockFolder, known: Mapping[str, Located]) -> None:
        self._folder, self._known = folder, known
        self._parts: list[Part] = []
        self._made_by: MadeBy = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._written: Future[None] | None = None

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._write()  # an interrupted run keeps what it has shown as done
            self._wait()
        finally:
            self._pool.shutdown()

    def add(self, hashes: list[str], features: Mapping[str, NDArray[np.float32]], made_by: MadeBy) -> None:
        """Take one batch; raise what writing the last block raised. A block is made in one way."""
        if self._parts and made_by != self._made_by:
            self._write()
        self._made_by = made_by
        self._parts.append((hashes, features))
        if sum(len(part) for part, _ in self._parts) >= IMAGES_PER_BLOCK:
            self._write()

    def _write(self) -> None:
        self._wait()
        if any(hashes for hashes, _ in self._parts):
            block = _block(self._parts, self._known, self._made_by)
            self._written, self._parts = self._pool.submit(self._folder.add, block), []

    def _wait(self) -> None:
        written, self._written = self._written, None
        if written is not None:
            written.result()


def _group_work(
    listing: Listing, located: Sequence[Located], done: Mapping[str, set[str]]
) -> dict[tuple[str, ...], list[ImageInput]]:
    """Images by the backbones that they still need; images of equal content are computed once."""
    work: dict[tuple[str, ...], list[ImageInput]] = {}
    seen: set[str] = set()
    there = {item.backbone.name: done[item.identity.digest] for item in located}
    for entry in listing.source.entries:
        digest = listing.sha256.get(entry.path)
        if digest is None or digest in seen:
            continue
        seen.add(digest)
        names = tuple(name for name, digests in there.items() if digest not in digests)
        if names:
            work.setdefault(names, []).append(ImageInput(entry.path, listing.source.locate(entry), digest))
    return work


def _block(parts: Sequence[Part], known: Mapping[str, Located], made_by: MadeBy) -> Block:
    full = [part for part in parts if part[0]]
    hashes = tuple(digest for part, _ in full for digest in part)
    digests = {name: known[name].identity.digest for name in full[0][1]}
    features = {digest: np.concatenate([matrices[name] for _, matrices in full]) for name, digest in digests.items()}
    provenance = {
        digest: {**made_by[name], "configured": known[name].backbone.to_dict()} for name, digest in digests.items()
    }
    return Block(hashes, features, provenance)
