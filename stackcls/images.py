"""From a file's bytes to 8-bit RGB pixels, by one stated rule for every kind of image."""

import hashlib
import io
import os
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from stackcls.errors import UnreadableImage

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 178_956_970
TRANSLUCENT_MODES = frozenset({"RGBA", "RGBa", "LA", "La", "PA"})

Pixels = NDArray[np.uint8]

# Pillow registers its readers on first use, and not safely when several threads come first together.
Image.init()


def content_hash(data: bytes) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data, usedforsecurity=False).hexdigest()


def read_bytes(path: Path, name: str | None = None) -> bytes:
    """Read an image file; raise `UnreadableImage` under `name` where that cannot be done."""
    shown = name or str(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnreadableImage(shown, "is a folder or a device, not a file")
        return path.read_bytes()
    except FileNotFoundError:
        raise UnreadableImage(shown, "file not found") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character
        raise UnreadableImage(shown, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None


def decode(data: bytes, name: str) -> Image.Image:
    """Decode one image to 8-bit RGB, upright.

    Parameters
    ----------
    data : bytes
        A JPEG, PNG, WebP, BMP, TIFF or GIF file; of several frames the first counts.
    name : str
        What error messages call it.

    Returns
    -------
    PIL.Image.Image
        Mode RGB. EXIF orientation is applied; transparency is laid over white; palettes, grey and CMYK are converted;
        16-bit grey is scaled by 255/65535.

    Raises
    ------
    UnreadableImage
        If the data is no such file, is cut short, damaged, or larger than 178,956,970 pixels.
    """
    if not data:
        raise UnreadableImage(name, "the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImage(name, f"{image.width}x{image.height} pixels are over {MAX_PIXELS}")
            if image.mode == "F":
                raise UnreadableImage(name, "floating-point pixels are not supported, since their range is not stated")
            image.load()
            return _to_rgb(_upright(image))
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(name, f"not an image that can be read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise UnreadableImage(name, f"more than {MAX_PIXELS} pixels") from None
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


def resize(image: Image.Image, size: int) -> Pixels:
    """Squash an RGB image to a square, by Pillow's bilinear filter with antialiasing.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
    """
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)


def _upright(image: Image.Image) -> Image.Image:
    """Apply EXIF orientation; a broken EXIF block says nothing, and the image stays as it lies."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  (the parser raises many types on damaged metadata; pixels are fine)
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode.startswith("I"):
        values = np.clip(np.asarray(image, dtype=np.float64), 0, 65535)
        return Image.fromarray(np.rint(values * (255 / 65535)).astype(np.uint8)).convert("RGB")
    if mode in TRANSLUCENT_MODES or "transparency" in image.info:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return image.convert("RGB")
