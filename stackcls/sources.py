"""Where images and their labels come from: class folders, manifests, CUB-200-2011, flat folders, shards of these."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from stackcls import entries, folders, manifests, remote, shards, waiting
from stackcls.entries import CUB_FILES
from stackcls.entries import ImageEntry as ImageEntry
from stackcls.errors import FileMissing, SourceError, SourceMissing, UnreadableFile
from stackcls.folders import walk as walk
from stackcls.imagenames import SUFFIXES as SUFFIXES
from stackcls.imagenames import is_image_name as is_image_name
from stackcls.remote import RemoteFile
from stackcls.settings import Limits
from stackcls.shards import Found
from stackcls.tarfiles import TarMember
from stackcls.urls import Place, Url

Content = Path | RemoteFile | TarMember
ANOTHER = "(images in pipeline.yaml, --images, or --set images=...)"


@dataclass(frozen=True)
class Source:
    """All images of one source, sorted by path (code points).

    Attributes
    ----------
    root : Path or Url
        The folder that the entries' paths are relative to.
    kind : str
        `class folders`, `flat folder`, `manifest`, `CUB-200-2011` or `shards`.
    entries : tuple of ImageEntry
    rejected : mapping of str to str
        Paths that were listed but cannot be named or used, and why.
    ignored : mapping of str to int
        Number of files that are not of a format that is read, by suffix.
    members : mapping of str to TarMember or RemoteFile
        Where images lie within shards, by path.
    outside : mapping of str to str
        Links that lead out of the root, which are followed, and where to.
    copies : callable, optional
        From a path to where a copy of what is at a URL may lie on this machine.
    """

    root: Place
    kind: str
    entries: tuple[ImageEntry, ...]
    rejected: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)
    members: Mapping[str, TarMember | RemoteFile] = field(default_factory=dict)
    outside: Mapping[str, str] = field(default_factory=dict)
    copies: Callable[[str], Path] | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """All labels, sorted by code points."""
        return tuple(sorted({entry.label for entry in self.entries if entry.label is not None}))

    def locate(self, entry: ImageEntry) -> Content:
        """What an entry's bytes are read from: its file, or what reads itself."""
        return self.content(entry.path)

    def content(self, path: str) -> Content:
        """What the bytes of the image of that path are read from."""
        found: Content | None = self.members.get(path)
        if found is None:
            found = self.root / path if isinstance(self.root, Path) else RemoteFile(self.root / path)
        if isinstance(found, RemoteFile) and self.copies is not None:
            return replace(found, copy=self.copies(path))
        return found


def scan(images: Place, limits: Limits | None = None) -> Source:
    """List what a source holds, without opening an image.

    Parameters
    ----------
    images : Path or Url
        A folder with one subfolder per class, a CUB-200-2011 folder, a folder of unlabelled images, or a manifest
        (`.csv`, `.tsv` or `.parquet` with columns `path,label[,group][,split]`, paths relative to the manifest); or
        tar files of samples: one, a folder of them, or a pattern of names.
    limits : Limits, optional
        How patient to be with a server.

    Returns
    -------
    Source

    Raises
    ------
    SourceMissing
        If there is nothing at `images`.
    SourceAway
        If its server does not answer.
    SourceError
        If there is something, and it holds no images or contradicts itself.
    """
    limits = limits or Limits()
    if isinstance(images, Url):
        waiting.tell("listing", f"listing {images}")
    try:
        source = _scan_url(images, limits) if isinstance(images, Url) else _scan_path(images, limits)
    except UnreadableFile as error:
        let = "" if isinstance(error, FileMissing) else "let it be read (docs/sources.md says by what credentials), or "
        raise SourceMissing(
            f"images: {images}: {error.reason}; {let}give another folder or manifest {ANOTHER}"
        ) from None
    except (OSError, ValueError) as error:  # a name too long, a NUL in it, a folder that vanishes meanwhile
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"images: {images} cannot be listed ({error}); give another folder (--images)") from None
    rejected = {_writable(path): _writable(reason) for path, reason in source.rejected.items()}
    source = replace(source, rejected=rejected)
    if not source.entries:
        why = "".join(f"; {path}: {reason}" for path, reason in list(source.rejected.items())[:1])
        raise SourceError(f"images: no images in {images}; looked for {', '.join(sorted(SUFFIXES))}{why}")
    return source


def _writable(text: str) -> str:
    """A name, or what is said of it, as UTF-8 can have it, and text in HDF5, which ends at a NUL."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def _scan_path(images: Path, limits: Limits) -> Source:
    if not images.exists():
        if "{" in str(images) and shards.is_shard(images.name):
            return _scan_shards(images, limits)
        raise SourceMissing(f"images: {images} does not exist; give a folder of images or a manifest {ANOTHER}")
    if images.is_file():
        if shards.is_shard(images.name):
            return _scan_shards(images, limits)
        return _build(images.parent, "manifest", entries.of_manifest(images))
    if all((images / name).exists() for name in CUB_FILES):
        names = [path.name for path in images.iterdir()]
        found = entries.of_cub(images, lambda name: _read(images / name), dict.fromkeys(names))
        return _build(images / "images", "CUB-200-2011", found)
    ignored, unreadable = Counter[str](), dict[str, str]()
    source = _of_folder(images, walk(images, ignored, unreadable), ignored, unreadable)
    source = replace(source, outside=folders.links_out(images, (entry.path for entry in source.entries)))
    tars = sorted(path.name for path in images.iterdir() if shards.is_shard(path.name)) if not source.entries else []
    return _scan_shards(images, limits, tars) if tars else source


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None


def _scan_url(images: Url, limits: Limits) -> Source:
    if shards.is_shard(images.name):
        return _scan_shards(images, limits)
    if (signature := images.alone) is not None:
        raise SourceError(
            f"images: {images} is signed for this one file ({signature}), so that its server would refuse the images "
            "beside it; give the bucket (s3://, gs://) with credentials, a token that is good for the whole folder, or "
            "shards, which may be signed one by one"
        )
    if manifests.is_manifest(images.name):
        data = remote.read_whole(images, limits)
        return _build(images.parent, "manifest", entries.of_manifest(images, data))
    sizes = remote.find(images, limits)
    if not sizes:
        links = " (its page has no links to images or folders below it)" if images.is_http else ""
        raise SourceMissing(
            f"images: there is nothing at {images}{links}; give a folder of images or a manifest {ANOTHER}"
        )
    if all(name in sizes for name in CUB_FILES[:3]) and any(path.startswith("images/") for path in sizes):
        found = entries.of_cub(images, lambda name: remote.read_whole(images / name, limits), sizes)
        return _build(images / "images", "CUB-200-2011", found)
    ignored, bad = Counter[str](), dict[str, str]()
    source = _of_folder(images, folders.images_of(sizes, ignored, bad), ignored, bad)
    tars = [path for path in sorted(sizes) if "/" not in path and shards.is_shard(path)] if not source.entries else []
    return _scan_shards(images, limits, tars, set(sizes)) if tars else source


def _scan_shards(
    images: Place, limits: Limits, names: list[str] | None = None, there: set[str] | None = None
) -> Source:
    """List what is in tar files: those named, or all that a pattern of names stands for."""
    root, is_signed = images, False
    if names is None:
        root, names = shards.named(images)
        is_signed = isinstance(images, Url) and images.query != ""
    found = Found()
    classes = None if is_signed else _classes(root, limits, there)  # since it may be the shard alone that is signed
    for name in names:
        place = root / name
        if isinstance(place, Path) and not place.is_file():
            raise SourceMissing(f"images: {place} does not exist; name shards that do {ANOTHER}")
        shards.look(place, name, classes, limits, found)
    listed = [ImageEntry(path, label) for path, (_, label) in found.images.items()]
    members = {path: piece for path, (piece, _) in found.images.items()}
    source = _build(root, "shards", listed)
    rejected = {**source.rejected, **found.rejected}
    return replace(source, rejected=rejected, ignored=found.ignored, members=members)


def _classes(root: Place, limits: Limits, there: set[str] | None) -> list[str] | None:
    """Lines of the `classes.txt` beside shards, if there is one."""
    name = "classes.txt"
    if isinstance(root, Path):
        if not (root / name).is_file():
            return None
        text = manifests.read_utf8(root / name)
    else:
        if there is not None and name not in there:
            return None
        try:
            text = manifests.read_utf8(root / name, remote.read_whole(root / name, limits))
        except FileMissing:
            return None
        except UnreadableFile as error:
            raise SourceError(
                f"images: {root / name} {error.reason}: labels that are numbers stand for its lines where it is there; "
                "let it be read, or put an empty one there"
            ) from None
    return [line.strip() for line in text.rstrip().split("\n")] if text.strip() else None


def root_of(images: Place) -> Place | None:
    """The folder that a source's paths are relative to, without listing it; None where there is nothing."""
    try:
        if isinstance(images, Url):
            return images
        if shards.is_shard(images.name) and not images.is_dir():
            root, names = shards.named(images)
            return root if all((root / name).is_file() for name in names) else None  # type: ignore[union-attr]
        if images.is_file():
            return images.parent
        root = images / "images" if all((images / name).exists() for name in CUB_FILES) else images
        return root if root.is_dir() else None
    except (OSError, ValueError):  # a name too long, a NUL in it
        return None


def reachable(images: Place, limits: Limits | None = None) -> Source | None:
    """A source that gives images by their paths, without entries where that needs no listing; None if there is none."""
    if isinstance(images, Path) and not shards.is_shard(images.name):
        root = root_of(images)
        if root is None or not images.is_dir() or not _has_shards(images):
            return None if root is None else Source(root, "", ())
    try:
        return scan(images, limits)
    except SourceError:
        return None


def _has_shards(folder: Path) -> bool:
    return any(shards.is_shard(path.name) for path in folder.iterdir())


def _build(root: Place, kind: str, listed: Iterable[ImageEntry]) -> Source:
    """Sort entries, and set aside those whose names cannot be written down."""
    good, rejected = [], {}
    for entry in listed:
        try:
            written = "".join(filter(None, (entry.path, entry.label, entry.group, entry.split))).encode("utf-8")
        except UnicodeEncodeError:
            rejected[entry.path] = "its name is not valid UTF-8; rename the file"
            continue
        if b"\0" in written:
            rejected[entry.path] = "its name or label has a NUL character; write another"
        else:
            good.append(entry)
    good.sort(key=lambda entry: entry.path)
    for before, after in zip(good, good[1:], strict=False):
        if before.path == after.path:
            raise SourceError(f"images: {after.path!r} is listed twice; keep one row for each image")
    return Source(root, kind, tuple(good), rejected)


def _of_folder(root: Place, paths: Iterable[str], ignored: Counter[str], unreadable: Mapping[str, str]) -> Source:
    found = []
    for path in paths:
        first, separator, _ = path.partition("/")
        found.append(ImageEntry(path, first if separator else None))
    labelled = any(entry.label is not None for entry in found)
    source = _build(root, "class folders" if labelled else "flat folder", found)
    return replace(source, rejected={**source.rejected, **unreadable}, ignored=ignored)
