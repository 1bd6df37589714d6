"""Variants of an image that features are averaged over; the image is decoded once for all of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Frame(NamedTuple):
    """What is squashed to a square: a whole image or its centre, and the square's side."""

    side: int
    centre: bool = False


def frame(view: str, side: int) -> Frame:
    """Which pixels a view shows."""
    return Frame(side, view.startswith("center_crop"))


def shown(view: str, framed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels of a view, shape (n, side, side, 3), from those of its frame."""
    return framed[:, :, ::-1] if view.endswith("hflip") else framed
