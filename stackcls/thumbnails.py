"""Small pictures of images, made in threads: as pixels for contact sheets, as WebP for pages."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stackcls import decoding, images
from stackcls.decoding import TooMuchStuck, Turn
from stackcls.errors import SourceError, UnreadableImage
from stackcls.images import Stored
from stackcls.settings import Limits

AHEAD = 16
QUALITY, METHOD = 70, 2  # the next method takes twice the time for a twentieth of the bytes

T = TypeVar("T")


def thumbnails(files: Sequence[Path | Stored], limits: Limits, side: int) -> list[bytes | None]:
    """Make small pictures of image files for a page.

    Parameters
    ----------
    files : sequence of Path or Stored
    limits : Limits
        What one image may cost.
    side : int
        The longer one, at most; smaller images keep their size.

    Returns
    -------
    list of bytes or None
        WebP; None for an image that cannot be read.
    """
    return _in_threads(files, limits, side, _webp)


def pixels(files: Sequence[Path | Stored], limits: Limits, side: int) -> list[NDArray[np.uint8] | None]:
    """Make small pictures as `thumbnails` does, of shape (height, width, 3)."""
    return _in_threads(files, limits, side, lambda image: np.asarray(image, dtype=np.uint8))


def _in_threads(
    files: Sequence[Path | Stored], limits: Limits, side: int, finish: Callable[[Image.Image], T]
) -> list[T | None]:
    def job(file: Path | Stored) -> Callable[[Turn[T | None]], T | None]:
        return lambda turn: _one(file, limits, side, finish, turn)

    found: list[T | None] = []
    try:
        for item in decoding.in_order(map(job, files), lambda _: None, limits.seconds, AHEAD):
            found.append(item)
    except (TooMuchStuck, SourceError):  # a picture is worth no wait, also for a server
        found += [None] * (len(files) - len(found))
    return found


def _one(
    file: Path | Stored, limits: Limits, side: int, finish: Callable[[Image.Image], T], turn: Turn[Any]
) -> T | None:
    turn.counting = True
    try:
        data = images.read_bytes(file, "picture", limits, turn.admit_file)
        image = images.decode(data, "picture", limits, turn.admit_pixels, side)
    except UnreadableImage:
        return None
    image.thumbnail((side, side))
    return finish(image)


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=METHOD)
    return buffer.getvalue()
