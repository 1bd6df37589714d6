"""Which files are images, by their names."""

from pathlib import PurePosixPath

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


def is_image_name(name: str) -> bool:
    """Tell whether a file's name says that it is an image of a format that is read."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not name.startswith(".")
