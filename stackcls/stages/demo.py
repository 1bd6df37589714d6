"""`stackcls demo`: the whole job, offline, on scikit-learn's digits and the four small backbones of the package."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stackcls import config
from stackcls.backbones import BUNDLED
from stackcls.errors import ConfigError
from stackcls.files import write_text
from stackcls.settings import Settings

MARKER = "this folder was made by stackcls demo"
SCALE = 255 / 16
SIDE = 32
KEPT_BACK = 1


@dataclass(frozen=True)
class DemoData:
    """Folders of the demo: images to learn from, a few kept back for predicting, and the settings."""

    images: Path
    new_images: Path
    settings: Settings


def prepare(folder: Path) -> DemoData:
    """Write scikit-learn's handwritten digits as PNG files, one folder per class, and keep one of each back.

    Parameters
    ----------
    folder : Path
        Created if it is not there; must be empty, or have been made by an earlier demo.

    Raises
    ------
    ConfigError
        If the folder holds something else.
    """
    marker = folder / ".stackcls-demo"
    if folder.exists() and not (folder.is_dir() and (marker.exists() or not any(folder.iterdir()))):
        raise ConfigError(f"--folder {folder}: is not empty and not of an earlier demo; give a new one")
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(MARKER + "\n")
    images, new = folder / "images", folder / "new"
    for folder_name, file_name, picture, is_new in _digits():
        parent = new if is_new else images / folder_name
        parent.mkdir(parents=True, exist_ok=True)
        picture.save(parent / file_name)  # not synced one by one: a demo that was cut short writes them all again
    write_text(folder / "pipeline.yaml", PIPELINE)
    return DemoData(images, new, config.read(folder / "pipeline.yaml"))


def _digits() -> Iterator[tuple[str, str, Image.Image, bool]]:
    """Class folder, file name and picture of each digit, and whether it is kept back."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    counts = [0] * 10
    for values, label in zip(digits.images, digits.target, strict=True):
        pixels = np.rint(values * SCALE).astype(np.uint8)
        picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        yield f"digit {label}", f"{label}-{counts[label]:03d}.png", picture, counts[label] < KEPT_BACK
        counts[label] += 1


PIPELINE = f"""\
# Settings of the demo: the four small backbones that come with stackcls, on handwritten digits.
images: images
artifacts: artifacts
features:
  backbones: [{", ".join(BUNDLED)}]
  batch_size: 64
"""

CLOSING = """\
That was the whole job. For your own photos, with one folder per class:

    stackcls features --images path/to/photos
    stackcls fit --cv 3
    stackcls predict new-photo.jpg

The first command fetches ImageNet weights of four networks once, and says how much before it does.
"""
