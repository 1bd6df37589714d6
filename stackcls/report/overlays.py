"""Maps of what matters, laid over the pictures that they are of."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, PngImagePlugin

from stackcls.errors import ConfigError
from stackcls.files import replacing
from stackcls.report import pictures

MARK = "stackcls explanation"
LONGEST_NAME = 40  # bytes: with all that is added to it, a name fits every file system
SMOOTH = 0.03  # of a map's side
COLOURS = "inferno"
OPAQUE = 0.65
QUALITY = 80

Pixels = NDArray[np.uint8]


def laid_over(picture: Pixels, heat: NDArray[np.floating[Any]]) -> Pixels:
    """Colour a grey copy of a picture: bright is what speaks for a class, dark what does not, or speaks against it.

    Parameters
    ----------
    picture : ndarray of uint8, shape (height, width, 3)
    heat : ndarray of float, shape (rows, columns)
        Stretched over the picture; brightest where it is largest.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    from matplotlib import colormaps

    positive = np.maximum(heat, 0)
    scaled = Image.fromarray(np.rint(255 * positive / (positive.max() or 1)).astype(np.uint8))
    smooth = scaled.filter(ImageFilter.GaussianBlur(SMOOTH * max(heat.shape)))
    full = smooth.resize((picture.shape[1], picture.shape[0]), Image.Resampling.BILINEAR)
    colours = Image.fromarray(np.rint(255 * colormaps[COLOURS](np.asarray(full))[..., :3]).astype(np.uint8))
    grey = Image.fromarray(picture).convert("L").convert("RGB")
    return np.asarray(Image.blend(grey, colours, OPAQUE))


def enlarged(picture: Pixels, side: int) -> Pixels:
    """A picture whose longer side is at least `side`, so that a map laid over it is smooth."""
    image = Image.fromarray(picture)
    factor = max(1.0, side / max(image.size))
    return np.asarray(
        image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
    )


def webp(picture: Pixels, side: int) -> bytes:
    """A small copy, its longer side `side` at most, as WebP."""
    image, buffer = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((side, side))
    image.save(buffer, "WEBP", quality=QUALITY)
    return buffer.getvalue()


def save_png(picture: Pixels, path: Path, mark: str) -> None:
    """Write a picture as PNG, whole or not at all, with a mark by which `pictures.is_sheet` knows it again."""
    said = PngImagePlugin.PngInfo()
    said.add_text("Title", mark)
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, "PNG", pnginfo=said)


def targets(stems: Sequence[str], folder: Path) -> list[Path]:
    """A file for each, none twice; whatever is there must be from this command, since it may be a photo otherwise."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output: {folder} is a file; name a folder for the pictures")
    taken: dict[str, Path] = {}
    found = []
    for stem in stems:
        plain, number = _plain(stem), 1
        while (name := plain if number == 1 else f"{plain}-{number}").casefold() in taken:
            number += 1
        taken[name.casefold()] = path = folder / f"{name}.png"
        if path.exists() and not pictures.is_sheet(path, MARK):
            raise ConfigError(f"--output: {path} is there, and not written by this command; name another folder")
        found.append(path)
    return found


def short(stem: str) -> str:
    """The beginning of a name, to which something is to be added."""
    return _cut(stem, LONGEST_NAME)


def _cut(text: str, size: int) -> str:
    """So many bytes of a name at most, as file systems count, and whole characters; half ones are none."""
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def _plain(stem: str) -> str:
    """A name of letters, digits, dots and dashes; names of files and layers come from elsewhere."""
    return _cut(re.sub(r"[^\w.-]", "_", stem), 3 * LONGEST_NAME).lstrip(".") or "_"
