"""From what lists images to entries: manifests, and the tables of CUB-200-2011."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stackcls import manifests
from stackcls.errors import SourceError
from stackcls.urls import Place, Url, cleaned, is_url

CUB_FILES = ("images.txt", "image_class_labels.txt", "classes.txt", "images")


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One image as its source lists it, before anything was read from it.

    Attributes
    ----------
    path : str
        Relative to the source's root, with forward slashes; unique in a source.
    label, group, split : str or None
        What the source says of the image; None where it says nothing.
    """

    path: str
    label: str | None = None
    group: str | None = None
    split: str | None = None


def of_cub(folder: Place, read: Callable[[str], bytes], names: Mapping[str, object]) -> list[ImageEntry]:
    """Entries of a CUB-200-2011 folder.

    Parameters
    ----------
    folder : Path or Url
        What messages call it.
    read : callable
        From a file's name to what is in it.
    names : mapping
        Has the names of the files that are there.
    """

    def pairs(name: str) -> dict[str, str]:
        return _pairs(folder / name, read(name))

    paths, classes, labels = pairs("images.txt"), pairs("classes.txt"), pairs("image_class_labels.txt")
    is_training = pairs("train_test_split.txt") if "train_test_split.txt" in names else {}
    entries = []
    for number, path in paths.items():
        if number not in labels or labels[number] not in classes:
            raise SourceError(f"{folder}: image {number} ({path}) has no class in image_class_labels.txt, classes.txt")
        if _leads_out(path):
            raise SourceError(
                f"{folder / 'images.txt'}: {path!r} leads out of the folder images; only paths below it are allowed"
            )
        split = {"1": "train", "0": "test"}.get(is_training.get(number, ""))
        entries.append(ImageEntry(PurePosixPath(path).as_posix(), classes[labels[number]], None, split))
    return entries


def _leads_out(path: str) -> bool:
    """Whether a path may lead out of the folder that it is relative to."""
    return path.startswith("/") or bool(Path(path).anchor) or ".." in re.split(r"[/\\]", path)


def _pairs(path: Place, data: bytes) -> dict[str, str]:
    """Read lines of an identifier, a space and a value."""
    pairs = {}
    for number, line in enumerate(manifests.read_utf8(path, data).split("\n"), 1):
        key, _, value = line.strip().partition(" ")
        if not key:
            continue
        if not value or key in pairs or "\0" in line:
            raise SourceError(
                f"{path}:{number}: {line!r} must be an identifier not seen before, a space and a value without NUL"
            )
        pairs[key] = value
    return pairs


def of_manifest(path: Place, data: bytes | None = None) -> list[ImageEntry]:
    """Entries of a manifest, which is read here unless its content is given."""
    lines: dict[str, int] = {}
    base = "" if isinstance(path, Url) else os.path.abspath(path.parent)
    entries = []
    for number, row in manifests.rows(path, data):
        entry = _manifest_entry(row, path, number)
        # One file may be spelt in several ways: `a.jpg`, `b/../a.jpg`, and its absolute path.
        spelt = entry.path if isinstance(path, Url) else os.path.normpath(os.path.join(base, entry.path))
        if (first := lines.setdefault(spelt, number)) != number:
            raise SourceError(
                f"{path}:{number}: {entry.path!r} is listed twice, first on line {first}; keep one row for each image"
            )
        entries.append(entry)
    return entries


def _manifest_entry(row: Mapping[str, str | None], manifest: Place, number: int) -> ImageEntry:
    """Turn one row into an entry; an absolute path below the manifest's folder is made relative to it."""
    given = row.get("path")
    if not given or "\0" in "".join(value or "" for value in row.values()):
        raise SourceError(f"{manifest}:{number}: {given!r} is no usable path; name an image, or remove the row")
    if is_url(given):
        raise SourceError(
            f"{manifest}:{number}: {cleaned(given)!r} is a URL; paths are relative to the manifest: put it beside the "
            "images, and give its own URL as `images`"
        )
    if isinstance(manifest, Url):
        path = PurePosixPath(given).as_posix()
        if _leads_out(path):
            raise SourceError(
                f"{manifest}:{number}: {given!r} leads out of its folder; only paths below it are allowed"
            )
    else:
        local = Path(given)
        if local.is_absolute() and local.is_relative_to(manifest.parent.absolute()):
            local = local.relative_to(manifest.parent.absolute())
        path = local.as_posix()
    return ImageEntry(path, *(row.get(column) or None for column in manifests.COLUMNS[1:]))
