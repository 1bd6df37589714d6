"""From a file's bytes to 8-bit RGB pixels, by one stated rule for every kind of image."""

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from stackcls.errors import UnreadableFile, UnreadableImage
from stackcls.files import digest_stream
from stackcls.settings import Limits

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
# Pixels that are converted at once: beside the image as decoded and the result, nothing of the image's size is held.
STRIP = 2**22
# Of each side, what is outside the centre: as much as where 224 pixels are cut out of 256.
MARGIN = 1 / 16
REMEDY = "make it smaller, or raise features.max_pixels"
TRANSLUCENT_MODES = frozenset({"RGBA", "RGBa", "LA", "La", "PA"})

Pixels = NDArray[np.uint8]


class Stored(Protocol):
    """What is no file of its own, and reads itself."""

    def read(self, name: str, limits: Limits, admit: Callable[[int], None] | None = None) -> bytes:
        """Read all bytes; raise `UnreadableFile` under `name` where that cannot be done."""


# Pillow registers its readers on first use, and not safely when several threads come first together.
Image.init()


def content_hash(data: bytes) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data, usedforsecurity=False).hexdigest()


@contextmanager
def opened(path: Path, name: str, limits: Limits) -> Iterator[BinaryIO]:
    """Open an image file; raise `UnreadableFile` under `name` where it, or what is done with it, cannot be read."""
    try:
        # A pipe or a device is not even opened; one that takes a file's place just now is not waited for.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnreadableFile(name, "is a folder or a device, not a file")
        with open(path, "rb", opener=_without_waiting) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limits.max_bytes:
                raise UnreadableFile(
                    name, f"the file's {size} bytes are more than an image within features.max_pixels needs; raise that"
                )
            yield file
    except FileNotFoundError:
        raise UnreadableFile(name, "file not found") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character
        if isinstance(error, UnreadableImage):
            raise
        raise UnreadableFile(name, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_bytes(
    path: Path | Stored,
    name: str | None = None,
    limits: Limits | None = None,
    admit: Callable[[int], None] | None = None,
) -> bytes:
    """Read an image file; raise `UnreadableFile` under `name` where that cannot be done.

    Parameters
    ----------
    path : Path or Stored
    name : str, optional
    limits : Limits, optional
        A file that is larger than any image within them is not read.
    admit : callable, optional
        Called with the number of bytes before they are read; may wait.
    """
    if not isinstance(path, Path):
        return path.read(name or str(path), limits or Limits(), admit)
    with opened(path, name or str(path), limits or Limits()) as file:
        size = os.fstat(file.fileno()).st_size
        if admit is not None:
            admit(size)
        return file.read(size)


def hash_file(path: Path | Stored, name: str, limits: Limits, admit: Callable[[int], None] | None = None) -> str:
    """Content hash of an image file, read piece by piece where it is one; raises as `read_bytes`."""
    if not isinstance(path, Path):
        return content_hash(path.read(name, limits, admit))
    with opened(path, name, limits) as file:
        return digest_stream(file)


def decode(
    data: bytes,
    name: str,
    limits: Limits | None = None,
    admit: Callable[[int], None] | None = None,
    draft: int | None = None,
) -> Image.Image:
    """Decode one image to 8-bit RGB, upright.

    Parameters
    ----------
    data : bytes
        A JPEG, PNG, WebP, BMP, TIFF or GIF file; of several frames the first counts.
    name : str
        What error messages call it.
    limits : Limits, optional
        Of which `max_pixels` is kept here.
    admit : callable, optional
        Called with the number of pixels before they are decoded; may wait.
    draft : int, optional
        Sides that are enough: a larger JPEG may come out smaller, in less time, but no side below this.

    Returns
    -------
    PIL.Image.Image
        Mode RGB. EXIF orientation is applied; transparency is laid over white; palettes, grey and CMYK are converted;
        16-bit grey is scaled by 255/65535.

    Raises
    ------
    UnreadableImage
        If the data is no such file, is cut short, damaged, or larger than the limit.
    """
    limits = limits or Limits()
    if limits.max_pixels > Limits.max_pixels and Image.MAX_IMAGE_PIXELS is not None:
        # Pillow has a limit of its own, for the whole process; whoever sets a higher one here means that too.
        Image.MAX_IMAGE_PIXELS = max(limits.max_pixels, Image.MAX_IMAGE_PIXELS)
    if not data:
        raise UnreadableImage(name, "the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check(image, name, limits)
            if draft is not None:
                image.draft(None, (draft, draft))
            if admit is not None:
                admit(image.width * image.height)
            image.load()
            return _to_rgb(_upright(image))
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(name, f"not an image that can be read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise UnreadableImage(name, f"more than {limits.max_pixels} pixels: {REMEDY}") from None
    except MemoryError:
        raise UnreadableImage(name, "not enough memory to decode it") from None
    except Exception as error:  # noqa: BLE001  (Pillow's plugins raise nearly every type on damaged data)
        raise UnreadableImage(name, f"damaged or cut short ({error})") from None


def from_array(array: NDArray[np.generic], name: str) -> Image.Image:
    """Take RGB pixels as an image.

    Parameters
    ----------
    array : ndarray of uint8, shape (height, width, 3)
    name : str
        What error messages call it.

    Raises
    ------
    UnreadableImage
        If shape or type differ.
    """
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise UnreadableImage(
            name, f"an array must be uint8 of shape (height, width, 3), not {array.dtype} of {array.shape}"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def resize(image: Image.Image, size: int, centre: bool = False) -> Pixels:
    """Squash an RGB image, or its centre alone, to a square, by Pillow's bilinear filter with antialiasing.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
    """
    x, y = (image.width * MARGIN, image.height * MARGIN) if centre else (0.0, 0.0)
    box = (x, y, image.width - x, image.height - y)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box), dtype=np.uint8)


def _check(image: Image.Image, name: str, limits: Limits) -> None:
    """Refuse what the header says already."""
    if image.width * image.height > limits.max_pixels:
        raise UnreadableImage(name, f"{image.width}x{image.height} pixels are over {limits.max_pixels}: {REMEDY}")
    if image.mode == "F":
        raise UnreadableImage(name, "floating-point pixels are not supported, since their range is not stated")


def _upright(image: Image.Image) -> Image.Image:
    """Apply EXIF orientation; a broken EXIF block says nothing, and the image stays as it lies."""
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image  # which exif_transpose would copy
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  (the parser raises many types on damaged metadata; pixels are fine)
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert strip by strip; every pixel is converted for itself."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    rows = max(1, STRIP // image.width)
    if rows >= image.height:
        return _convert(image)
    result = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        result.paste(_convert(strip), (0, top))
    return result


def _convert(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode.startswith("I"):
        values = np.clip(np.asarray(image, dtype=np.float64), 0, 65535)
        return Image.fromarray(np.rint(values * (255 / 65535)).astype(np.uint8)).convert("RGB")
    if mode in TRANSLUCENT_MODES or "transparency" in image.info:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return image.convert("RGB")
