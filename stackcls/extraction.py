"""From image files to features: decoding in threads beside the networks, in order, with bounded memory."""

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackcls import decoding, images
from stackcls.decoding import TooMuchStuck, Turn
from stackcls.errors import SourceError, UnreadableFile, UnreadableImage
from stackcls.images import Stored
from stackcls.matrices import Matrix
from stackcls.remote import RemoteFile
from stackcls.settings import Limits
from stackcls.urls import Url, place
from stackcls.views import Frame, frame, shown

AHEAD = 2


@dataclass(frozen=True)
class ImageInput:
    """One image to be looked at.

    Attributes
    ----------
    name : str
        What messages call it.
    content : Path, Stored or ndarray of uint8, shape (height, width, 3)
    sha256 : str, optional
        What the file's bytes must hash to; where they do not, the image is refused as changed.
    """

    name: str
    content: Path | Stored | NDArray[np.uint8]
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


Loaded = dict[Frame, images.Pixels]


def as_input(image: "str | Path | Url | NDArray[np.uint8] | ImageInput", number: int = 0) -> ImageInput:
    """An image as a user gives it: a file, one at a URL, or the pixels of the image of that number."""
    if isinstance(image, ImageInput):
        return image
    if isinstance(image, np.ndarray):
        return ImageInput(f"array {number}", image)
    where = place(image)
    return ImageInput(str(where), RemoteFile(where)) if isinstance(where, Url) else ImageInput(str(image), where)


def extract(
    inputs: Iterable[ImageInput],
    matrices: Mapping[str, Matrix],
    batch_size: int,
    limits: Limits | None = None,
    workers: int | None = None,
) -> Iterator[Extracted]:
    """Run every image through every backbone.

    Each image is read and decoded once, by threads that stay a little ahead of the networks. Batches hold readable
    images only, in the order given, so that a bad image never shifts another.

    Parameters
    ----------
    inputs : iterable of ImageInput
        Consumed as needed; may be endless.
    matrices : mapping of str to Matrix
        On networks that were prepared for `batch_size`.
    batch_size : int
    limits : Limits, optional
        What one image may cost; those that cost more are failures.
    workers : int, optional
        Decoding threads; by default as many as there are processors.

    Yields
    ------
    Extracted
        One per batch; the last may hold failures alone.
    """
    frames = sorted({frame(view, one.network.input_size) for one in matrices.values() for view in one.views})
    positions: list[int] = []
    batch: list[Loaded] = []
    failures: dict[int, UnreadableImage] = {}
    for position, loaded in enumerate(load(inputs, frames, (AHEAD + 1) * batch_size, limits, workers)):
        if isinstance(loaded, UnreadableImage):
            failures[position] = loaded
            continue
        positions.append(position)
        batch.append(loaded)
        if len(batch) == batch_size:
            yield Extracted(tuple(positions), _run(batch, matrices), failures)
            positions, batch, failures = [], [], {}
    if batch or failures:
        yield Extracted(tuple(positions), _run(batch, matrices) if batch else {}, failures)


def too_long(limits: Limits) -> str:
    """Why an image is rejected that takes longer than the limit."""
    return f"took longer than {limits.seconds:g} s to decode; raise features.image_seconds"


def unreadable_first(inputs: Sequence[ImageInput], limits: Limits) -> list[UnreadableImage]:
    """Why images cannot be read, from the first one on until one can."""
    bad: list[UnreadableImage] = []
    with closing(load(inputs, (), os.cpu_count() or 1, limits)) as outcomes:
        for loaded in outcomes:
            if not isinstance(loaded, UnreadableImage):
                break
            bad.append(loaded)
    return bad


def _run(batch: Sequence[Loaded], matrices: Mapping[str, Matrix]) -> dict[str, NDArray[np.float32]]:
    """Run each network once per view, whatever the number of matrices that are made of what it gives."""
    stacked = {one: np.stack([loaded[one] for loaded in batch]) for one in batch[0]}
    sharing: dict[int, list[str]] = {}
    for name, matrix in matrices.items():
        sharing.setdefault(id(matrix.network), []).append(name)
    features: dict[str, NDArray[np.float32]] = {}
    for names in sharing.values():
        network = matrices[names[0]].network
        views = dict.fromkeys(view for name in names for view in matrices[name].views)
        seen = {view: network(shown(view, stacked[frame(view, network.input_size)])) for view in views}
        for name in names:
            features[name] = matrices[name].pool([seen[view] for view in matrices[name].views])
    return {name: features[name] for name in matrices}


def load(
    inputs: Iterable[ImageInput],
    frames: Sequence[Frame],
    ahead: int,
    limits: Limits | None = None,
    workers: int | None = None,
) -> Generator[Loaded | UnreadableImage]:
    """Decode images in threads and resize them to every frame, in order, `ahead` at most before the one yielded.

    Raises
    ------
    SourceError
        If images whose decoding does not end hold too much memory.
    """
    limits = limits or Limits()
    names: dict[int, str] = {}

    def jobs() -> Iterator[partial[Loaded | UnreadableImage]]:
        for number, item in enumerate(inputs):
            names[number] = item.name
            yield partial(_load, item, frames, limits)

    def late(number: int) -> UnreadableImage:
        return UnreadableImage(names[number], too_long(limits))

    try:
        for number, loaded in enumerate(decoding.in_order(jobs(), late, limits.seconds, ahead, workers)):
            yield loaded
            del names[number]
    except TooMuchStuck as error:
        paths = ", ".join(sorted({answer.path for answer in error.answers}))
        raise SourceError(
            f"images: {len(error.answers)} took longer than features.image_seconds and keep too much memory: "
            f"remove them, or lower features.max_pixels, and run again: {paths}"
        ) from None


def _load(
    item: ImageInput, frames: Sequence[Frame], limits: Limits, turn: Turn[Loaded | UnreadableImage]
) -> Loaded | UnreadableImage:
    try:
        if isinstance(item.content, np.ndarray):
            image = images.from_array(item.content, item.name)
        else:
            data = images.read_bytes(item.content, item.name, limits, turn.admit_file)
            if item.sha256 is not None and images.content_hash(data) != item.sha256:
                raise UnreadableFile(item.name, "changed while this run was reading it; run again")
            turn.counting = True
            image = images.decode(data, item.name, limits, turn.admit_pixels)
        return {one: images.resize(image, one.side, one.centre) for one in frames}
    except UnreadableImage as error:
        return error
    except MemoryError:
        return UnreadableImage(item.name, "not enough memory to read it")
