"""Where images and their labels come from: class folders, manifests, CUB-200-2011 folders, flat folders."""

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from stackcls.errors import SourceError, SourceMissing

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
CUB_FILES = ("images.txt", "image_class_labels.txt", "classes.txt", "images")
MANIFEST_COLUMNS = ("path", "label", "group", "split")

Row = tuple[int, Mapping[str, str | None]]


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
            raise SourceMissing(f"images: {images} does not exist; give a folder of images or a manifest (--images)")
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
            unreadable[Path(error.filename).relative_to(folder).as_posix()] = f"cannot be listed ({error.strerror})"

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
            elif ignored is not None and not name.startswith("."):
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
    for number, line in enumerate(_read_utf8(path).split("\n"), 1):
        key, _, value = line.strip().partition(" ")
        if not key:
            continue
        if not value or key in pairs or "\0" in line:
            raise SourceError(
                f"{path}:{number}: {line!r} must be an identifier not seen before, a space and a value without NUL"
            )
        pairs[key] = value
    return pairs


def _read_utf8(path: Path) -> str:
    try:
        data = path.read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise SourceError(f"{path}: is UTF-16; save it as UTF-8") from None
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceError(f"{path}:{line}: not UTF-8 (byte {data[error.start]:#04x}); save it as UTF-8") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None


def _scan_manifest(path: Path) -> Source:
    if path.suffix.lower() == ".parquet":
        rows = _read_parquet(path)
    elif path.suffix.lower() in {".csv", ".tsv"}:
        rows = _read_csv(path, "\t" if path.suffix.lower() == ".tsv" else ",")
    else:
        raise SourceError(f"images: {path} is a file; only manifests can be: .csv, .tsv or .parquet")
    lines: dict[str, int] = {}
    entries = []
    for number, row in rows:
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
    return ImageEntry(path.as_posix(), *(row.get(column) or None for column in MANIFEST_COLUMNS[1:]))


def _read_csv(path: Path, delimiter: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(_read_utf8(path), newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        _check_columns(path, header)
        for row in reader:
            if row and len(row) != len(header):
                raise SourceError(f"{path}:{reader.line_num}: {len(row)} values for {len(header)} columns")
            if row:
                values = zip(header, row, strict=True)
                yield reader.line_num, {name: value for name, value in values if name in MANIFEST_COLUMNS}
    except csv.Error as error:
        raise SourceError(f"{path}:{reader.line_num}: not valid CSV ({error})") from None


def _read_parquet(path: Path) -> Iterator[Row]:
    """Rows of a Parquet file, numbered from 1; text and whole numbers are taken, nothing else could be a name."""
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path)
        schema = table.schema_arrow
        _check_columns(path, schema.names)
        columns = [name for name in MANIFEST_COLUMNS if name in schema.names]
        for name in columns:
            kind = schema.field(name).type
            kind = kind.value_type if arrow.types.is_dictionary(kind) else kind
            if not any(test(kind) for test in _parquet_kinds(name)):
                raise SourceError(f"{path}: column `{name}` is of type {kind}; only text is allowed, or whole numbers")
        number = 0
        for batch in table.iter_batches(batch_size=1024, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield number, {name: None if value is None else str(value) for name, value in row.items()}
    except UnicodeDecodeError:
        raise SourceError(f"{path}: has text that is not UTF-8; write it again as UTF-8") from None
    except (arrow.ArrowException, OSError, ValueError, MemoryError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path}: not a readable Parquet file ({error})") from None


def _parquet_kinds(name: str) -> tuple[Callable[[object], bool], ...]:
    from pyarrow import types

    text = (types.is_string, types.is_large_string, types.is_string_view)
    return text if name == "path" else (*text, types.is_integer, types.is_null)


def _check_columns(path: Path, header: list[str]) -> None:
    if "path" not in header:
        raise SourceError(f"{path}: has no column `path`; columns are path,label[,group][,split], found {header}")
    if twice := [name for name in MANIFEST_COLUMNS if header.count(name) > 1]:
        raise SourceError(f"{path}: column `{twice[0]}` stands there twice")
