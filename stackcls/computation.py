"""Computes the features that are missing, block by block, so that nothing finished is lost."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackcls import costs, extraction, loading
from stackcls.backbones import Located
from stackcls.blocks import Block, BlockFolder
from stackcls.errors import UnreadableImage
from stackcls.extraction import ImageInput
from stackcls.listener import Listener
from stackcls.listing import Listing
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


def reject_unreadable(listing: Listing, located: Sequence[Located], done: Mapping[str, set[str]]) -> None:
    """Reject missing images from the first one on until one can be decoded.

    Where only such are missing as were rejected before, nothing is left to do, and no network need be built.
    """
    begun: set[tuple[str, ...]] = set()  # where an image was found that can be decoded
    while work := {
        names: inputs for names, inputs in _group_work(listing, located, done).items() if names not in begun
    }:
        for names, inputs in work.items():
            bad = extraction.unreadable_first(inputs, listing.limits)
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
    """
    done = {digest: set(hashes) for digest, hashes in done.items()}
    work = _group_work(listing, located, done)
    needed = {name for names in work for name in names}
    if not needed:
        return
    chosen = [item for item in located if item.backbone.name in needed]
    n_images = sum(map(len, work.values()))
    prepared = loading.prepare(chosen, settings.engine, settings.batch_size, n_images, listener, announce=True)
    digests = {item.backbone.name: item.identity.digest for item in chosen}
    made_by = {
        item.identity.digest: {**prepared.made_by[item.backbone.name], "configured": item.backbone.to_dict()}
        for item in chosen
    }
    clocks = {name: costs.Timed(item, prepared.batch_size) for name, item in prepared.extractors.items()}
    while work:  # again only for copies of images whose own file could not be read
        bad: list[UnreadableImage] = []
        with listener.track("features", sum(map(len, work.values())), "image") as advance:
            for names, inputs in work.items():
                subset = {name: clocks[name] for name in names}
                with _Writer(folder, digests, made_by) as writer:
                    for batch in extraction.extract(inputs, subset, prepared.batch_size, listing.limits):
                        hashes = [inputs[position].sha256 or "" for position in batch.positions]
                        writer.add(hashes, batch.features)
                        for name in names:
                            done[digests[name]].update(hashes)
                        bad += batch.failures.values()
                        advance(len(batch.positions) + len(batch.failures))
        listing.reject(bad)
        work = _group_work(listing, located, done)
    made = {name: (digest, prepared.made_by[name]["engine"]) for name, digest in digests.items()}
    costs.keep({key: clocks[name].seconds_per_image for name, key in made.items()})


class _Writer:
    """Gathers batches and writes them as blocks, one at a time, beside the next batches' inference."""

    def __init__(
        self, folder: BlockFolder, digests: Mapping[str, str], made_by: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._folder, self._digests, self._made_by = folder, digests, made_by
        self._parts: list[Part] = []
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

    def add(self, hashes: list[str], features: Mapping[str, NDArray[np.float32]]) -> None:
        """Take one batch; raise what writing the last block raised."""
        self._parts.append((hashes, features))
        if sum(len(part) for part, _ in self._parts) >= IMAGES_PER_BLOCK:
            self._write()

    def _write(self) -> None:
        self._wait()
        if any(hashes for hashes, _ in self._parts):
            block = _block(self._parts, self._digests, self._made_by)
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


def _block(
    parts: Sequence[Part],
    digests: Mapping[str, str],
    made_by: Mapping[str, Mapping[str, Any]],
) -> Block:
    full = [part for part in parts if part[0]]
    hashes = tuple(digest for part, _ in full for digest in part)
    features = {digests[name]: np.concatenate([matrices[name] for _, matrices in full]) for name in full[0][1]}
    return Block(hashes, features, {digest: made_by[digest] for digest in features})
