"""Pictures decoded one ahead: each whole, and as a copy about as large as networks see it."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stackcls import decoding, extraction, images
from stackcls.decoding import TooMuchStuck, Turn
from stackcls.errors import SourceError, UnreadableImage
from stackcls.extraction import ImageInput
from stackcls.settings import Limits

Picture = str | Path | ImageInput
Decoded = tuple[images.Pixels, Image.Image]

LONGEST = 4  # times the shorter side; what is longer is squashed, as the networks would squash it anyway


def decoded(paths: Sequence[Picture], side: int, limits: Limits) -> Iterator[Decoded | UnreadableImage]:
    """Decode pictures one ahead, with a copy of each whose shorter side is at most `side`."""
    jobs = (partial(_decode, extraction.as_input(path), side, limits) for path in paths)

    def late(number: int) -> UnreadableImage:
        return UnreadableImage(extraction.as_input(paths[number]).name, extraction.too_long(limits))

    try:
        yield from decoding.in_order(jobs, late, limits.seconds, 1)
    except TooMuchStuck as error:
        names = ", ".join(sorted({answer.path for answer in error.answers}))
        raise SourceError(f"images whose decoding does not end keep too much memory; leave them out: {names}") from None


def _decode(item: ImageInput, side: int, limits: Limits, turn: Turn[Any]) -> Decoded | UnreadableImage:
    try:
        assert not isinstance(item.content, np.ndarray)
        data = images.read_bytes(item.content, item.name, limits, turn.admit_file)
        turn.counting = True
        image = images.decode(data, item.name, limits, turn.admit_pixels)
        factor = min(1.0, side / min(image.size))
        width, height = (max(1, min(round(length * factor), LONGEST * side)) for length in image.size)
        return np.asarray(image), image.resize((width, height), Image.Resampling.BILINEAR)
    except UnreadableImage as error:
        return error
    except MemoryError:
        return UnreadableImage(item.name, "not enough memory to read it")
