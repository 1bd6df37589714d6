"""Images as batches of pixels, decoded as features are: kept in memory where they fit, decoded again where not."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from stackcls import extraction, images
from stackcls.errors import UnreadableImage
from stackcls.extraction import ImageInput
from stackcls.settings import Limits
from stackcls.views import Frame

AHEAD = 3  # batches that are decoded while one is learned from

Ints = NDArray[np.int64]


class Pictures:
    """Images that are gone through again and again.

    Parameters
    ----------
    inputs : sequence of ImageInput
    size : int
        Side length in pixels.
    limits : Limits
    memory : int
        Bytes of decoded images that may be kept.

    Attributes
    ----------
    failures : dict of str to str
        Images that could not be read so far, and why.
    kept : bool
        Whether all are kept in memory once they are decoded.
    n_bytes : int
        What that takes; 0 where they are not kept.
    """

    def __init__(self, inputs: Sequence[ImageInput], size: int, limits: Limits, memory: int) -> None:
        self._inputs, self._size, self._limits = inputs, size, limits
        self.kept = len(inputs) * size * size * 3 <= memory
        self._pixels = np.empty((len(inputs) if self.kept else 0, size, size, 3), np.uint8)
        self.n_bytes = self._pixels.nbytes
        self._tried = np.zeros(len(inputs), dtype=bool)
        self._bad = np.zeros(len(inputs), dtype=bool)
        self.failures: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._inputs)

    def batches(self, order: Ints, batch_size: int) -> Iterator[tuple[Ints, images.Pixels]]:
        """Yield rows and their pixels, uint8 of shape (n, size, size, 3), in order; what cannot be read is left out.

        Batches differ by one image at most, so that none is so small that its gradient is mostly noise.
        """
        with closing(self._in_order(order, AHEAD * batch_size)) as found:
            for rows in np.array_split(order, max(1, -(-len(order) // batch_size))):
                good = [(row, pixels) for row, pixels in islice(found, len(rows)) if pixels is not None]
                if good:
                    numbers, batch = zip(*good, strict=True)
                    yield np.array(numbers), np.stack(batch)

    def _in_order(self, order: Ints, ahead: int) -> Generator[tuple[int, images.Pixels | None]]:
        if self.kept and self._tried[order].all():
            for row in order.tolist():
                yield row, None if self._bad[row] else self._pixels[row]
            return
        inputs = (self._inputs[row] for row in order)
        with closing(extraction.load(inputs, (Frame(self._size),), ahead, self._limits)) as outcomes:
            for row, outcome in zip(order.tolist(), outcomes, strict=True):
                self._tried[row] = True
                if isinstance(outcome, UnreadableImage):
                    self._bad[row] = True
                    self.failures[outcome.path] = outcome.reason
                    yield row, None
                    continue
                if self.kept:
                    self._pixels[row] = outcome[Frame(self._size)]
                yield row, outcome[Frame(self._size)]


@dataclass(frozen=True)
class Labelled:
    """Images and their classes, as numbers."""

    pictures: Pictures
    y: Ints
