"""Where images and their labels come from: class folders, manifests, CUB-200-2011 folders, flat folders."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from stackcls import manifests
from stackcls.errors import SourceError, SourceMissing

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
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


@dataclass(frozen=True)
class Source:
    """All images of one source, sorted by path (code points).

    Attributes
    ----------
    root : Path
        The folder that the entries' paths are relative to.
    kind : str
        `class folders`, `flat folder`, `manifest` or `CUB-200-2011`.
    entries : tuple of ImageEntry
    rejected : mapping of str to str
        Paths that were listed but cannot be named or used, and why.
    ignored : mapping of str to int
        Number of files that are not of a format that is read, by suffix.
    """

    root: Path
    kind: str
    entries: tuple[ImageEntry, ...]
    rejected: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """All labels, sorted by code points."""
        return tuple(sorted({entry.label for entry in self.entries if entry.label is not None}))

    def locate(self, entry: ImageEntry) -> Path:
        """Path of an entry's file."""
        return self.root / entry.path


def scan(images: Path) -> Source:
    """List what a source holds, without opening an image.

    Parameters
    ----------
    images : Path
        A folder with one subfolder per class, a CUB-200-2011 folder, a folder of unlabelled images, or a manifest
        (`.csv`, `.tsv` or `.parquet` with columns `path,label[,group][,split]`, paths relative to the manifest).

    Returns
    -------
    Source

    Raises
    ------
    SourceMissing
        If there is nothing at `images`.
    SourceError
        If there is, and it holds no images or contradicts itself.
    """
    try:
        if not images.exists():
            raise SourceMissing(
                f"images: {images} does not exist; give a folder of images or a manifest (images in pipeline.yaml, "
                "--images, or --set images=...)"
            )
        if images.is_file():
            source = _scan_manifest(images)
        elif all((images / name).exists() for name in CUB_FILES):
            source = _scan_cub(images)
        else:
            source = _scan_folder(images)
    except (OSError, ValueError) as error:  # a name too long, a NUL in it, a folder that vanishes meanwhile
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"images: {images} cannot be listed ({error}); give another folder (--images)") from None
    if not source.entries:
        raise SourceError(f"images: no images in {images}; looked for {', '.join(sorted(SUFFIXES))}")
    return source


def root_of(images: Path) -> Path | None:
    """The folder that a source's paths are relative to, without listing it; None where there is nothing."""
    try:
        if images.is_file():
            return images.parent
        root = images / "images" if all((images / name).exists() for name in CUB_FILES) else images
        return root if root.is_dir() else None
    except (OSError, ValueError):  # a name too long, a NUL in it
        return None


def is_image_name(name: str) -> bool:
    """Tell whether a file's name says that it is an image of a format that is read."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def walk(folder: Path, ignored: Counter[str] | None = None, unreadable: dict[str, str] | None = None) -> Iterator[str]:
    """Yield the relative POSIX paths of all image files below a folder; hidden ones and link loops are left out.

    Parameters
    ----------
    folder : Path
    ignored : Counter, optional
        Counts the suffixes of files that are no images.
    unreadable : dict of str to str, optional
        Takes folders that cannot be listed, and why.
    """

    def note(error: OSError) -> None:
        if unreadable is not None:
            name = Path(error.filename).relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()
            unreadable[name] = f"cannot be listed ({error.strerror})"

    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, onerror=note, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        base = Path(parent).relative_to(folder)
        for name in files:
            if is_image_name(name):
                yield (base / name).as_posix()
            elif name.startswith("."):
                continue
            elif not os.path.exists(place := os.path.join(parent, name)):  # noqa: PTH110  (Path.exists may raise)
                note(FileNotFoundError(0, "a link that leads nowhere", place))
            elif ignored is not None:
                ignored[PurePosixPath(name).suffix.lower()] += 1


def _build(root: Path, kind: str, entries: Iterable[ImageEntry]) -> Source:
    """Sort entries, and set aside those whose names cannot be written down as UTF-8."""
    good, rejected = [], {}
    for entry in entries:
        try:
            "".join(filter(None, (entry.path, entry.label, entry.group, entry.split))).encode("utf-8")
            good.append(entry)
        except UnicodeEncodeError:
            readable = entry.path.encode("utf-8", "backslashreplace").decode("utf-8")
            rejected[readable] = "its name is not valid UTF-8; rename the file"
    good.sort(key=lambda entry: entry.path)
    for before, after in zip(good, good[1:], strict=False):
        if before.path == after.path:
            raise SourceError(f"images: {after.path!r} is listed twice; keep one row for each image")
    return Source(root, kind, tuple(good), rejected)


def _scan_folder(folder: Path) -> Source:
    entries, ignored, unreadable = [], Counter[str](), dict[str, str]()
    for path in walk(folder, ignored, unreadable):
        first, separator, _ = path.partition("/")
        entries.append(ImageEntry(path, first if separator else None))
    labelled = any(entry.label is not None for entry in entries)
    source = _build(folder, "class folders" if labelled else "flat folder", entries)
    return replace(source, rejected={**source.rejected, **unreadable}, ignored=ignored)


def _scan_cub(folder: Path) -> Source:
    paths = _read_pairs(folder / "images.txt")
    names = _read_pairs(folder / "classes.txt")
    labels = _read_pairs(folder / "image_class_labels.txt")
    split_file = folder / "train_test_split.txt"
    is_training = _read_pairs(split_file) if split_file.exists() else {}
    entries = []
    for number, path in paths.items():
        if number not in labels or labels[number] not in names:
            raise SourceError(f"{folder}: image {number} ({path}) has no class in image_class_labels.txt, classes.txt")
        split = {"1": "train", "0": "test"}.get(is_training.get(number, ""))
        entries.append(ImageEntry(path, names[labels[number]], None, split))
    return _build(folder / "images", "CUB-200-2011", entries)


def _read_pairs(path: Path) -> dict[str, str]:
    """Read lines of an identifier, a space and a value."""
    pairs = {}
    for number, line in enumerate(manifests.read_utf8(path).split("\n"), 1):
        key, _, value = line.strip().partition(" ")
        if not key:
            continue
        if not value or key in pairs or "\0" in line:
            raise SourceError(
                f"{path}:{number}: {line!r} must be an identifier not seen before, a space and a value without NUL"
            )
        pairs[key] = value
    return pairs


def _scan_manifest(path: Path) -> Source:
    lines: dict[str, int] = {}
    entries = []
    for number, row in manifests.rows(path):
        entry = _manifest_entry(row, path, number)
        if (first := lines.setdefault(entry.path, number)) != number:
            raise SourceError(
                f"{path}:{number}: {entry.path!r} is listed twice, first on line {first}; keep one row for each image"
            )
        entries.append(entry)
    return _build(path.parent, "manifest", entries)


def _manifest_entry(row: Mapping[str, str | None], manifest: Path, number: int) -> ImageEntry:
    """Turn one row into an entry; an absolute path below the manifest's folder is made relative to it."""
    given = row.get("path")
    if not given or "\0" in "".join(value or "" for value in row.values()):
        raise SourceError(f"{manifest}:{number}: {given!r} is no usable path; name an image, or remove the row")
    path = Path(given)
    if path.is_absolute() and path.is_relative_to(manifest.parent.absolute()):
        path = path.relative_to(manifest.parent.absolute())
    return ImageEntry(path.as_posix(), *(row.get(column) or None for column in manifests.COLUMNS[1:]))
