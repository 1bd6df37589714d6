"""From image files to features: decoding in threads beside the networks, in order, with bounded memory."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackcls import images
from stackcls.engines import Extractor
from stackcls.errors import UnreadableImage

AHEAD = 2


@dataclass(frozen=True)
class ImageInput:
    """One image to be looked at.

    Attributes
    ----------
    name : str
        What messages call it.
    content : Path or ndarray of uint8, shape (height, width, 3)
    sha256 : str, optional
        What the file's bytes must hash to; where they do not, the image is refused as changed.
    """

    name: str
    content: Path | NDArray[np.uint8]
    sha256: str | None = None


@dataclass(frozen=True)
class Extracted:
    """Features of one batch.

    Attributes
    ----------
    positions : tuple of int
        Which inputs, counted from the first one, the rows belong to.
    features : mapping of str to ndarray of float32, shape (rows, width)
        One matrix per backbone.
    failures : mapping of int to UnreadableImage
        Inputs passed since the last batch that could not be read.
    """

    positions: tuple[int, ...]
    features: Mapping[str, NDArray[np.float32]]
    failures: Mapping[int, UnreadableImage]


Loaded = dict[int, images.Pixels]


def extract(
    inputs: Iterable[ImageInput], extractors: Mapping[str, Extractor], batch_size: int, workers: int | None = None
) -> Iterator[Extracted]:
    """Run every image through every backbone.

    Each image is read and decoded once, by threads that stay a little ahead of the networks. Batches hold readable
    images only, in the order given, so that a bad image never shifts another.

    Parameters
    ----------
    inputs : iterable of ImageInput
        Consumed as needed; may be endless.
    extractors : mapping of str to Extractor
        Prepared for `batch_size`.
    batch_size : int
    workers : int, optional
        Decoding threads; by default as many as there are processors.

    Yields
    ------
    Extracted
        One per batch; the last may hold failures alone.
    """
    sizes = sorted({extractor.input_size for extractor in extractors.values()})
    positions: list[int] = []
    batch: list[Loaded] = []
    failures: dict[int, UnreadableImage] = {}
    for position, loaded in enumerate(_load_ahead(inputs, sizes, (AHEAD + 1) * batch_size, workers)):
        if isinstance(loaded, UnreadableImage):
            failures[position] = loaded
            continue
        positions.append(position)
        batch.append(loaded)
        if len(batch) == batch_size:
            yield Extracted(tuple(positions), _run(batch, extractors), failures)
            positions, batch, failures = [], [], {}
    if batch or failures:
        yield Extracted(tuple(positions), _run(batch, extractors) if batch else {}, failures)


def why_unreadable(item: ImageInput) -> UnreadableImage | None:
    """Read and decode one image alone; say why it cannot be, or return None."""
    loaded = _load(item, ())
    return loaded if isinstance(loaded, UnreadableImage) else None


def _run(batch: Sequence[Loaded], extractors: Mapping[str, Extractor]) -> dict[str, NDArray[np.float32]]:
    stacked = {size: np.stack([loaded[size] for loaded in batch]) for size in batch[0]}
    return {name: extractor(stacked[extractor.input_size]) for name, extractor in extractors.items()}


def _load_ahead(
    inputs: Iterable[ImageInput], sizes: Sequence[int], ahead: int, workers: int | None
) -> Iterator[Loaded | UnreadableImage]:
    """Load in threads, `ahead` images at most before the one that is yielded, in order."""
    remaining = iter(inputs)
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="decode")
    pending: deque[Future[Loaded | UnreadableImage]] = deque()
    try:
        pending.extend(pool.submit(_load, item, sizes) for item in islice(remaining, ahead))
        while pending:
            loaded = pending.popleft().result()
            pending.extend(pool.submit(_load, item, sizes) for item in islice(remaining, 1))
            yield loaded
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _load(item: ImageInput, sizes: Sequence[int]) -> Loaded | UnreadableImage:
    try:
        if isinstance(item.content, np.ndarray):
            image = images.from_array(item.content, item.name)
        else:
            data = images.read_bytes(item.content, item.name)
            if item.sha256 is not None and images.content_hash(data) != item.sha256:
                raise UnreadableImage(item.name, "changed while this run was reading it; run again")
            image = images.decode(data, item.name)
        return {size: images.resize(image, size) for size in sizes}
    except UnreadableImage as error:
        return error
