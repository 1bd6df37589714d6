"""Tar files of samples, as WebDataset has them: which images are in them and where, without unpacking any.

Members of one sample share a name up to the first dot of its last part: `cat/001.jpg`, `cat/001.cls`, `cat/001.json`.
The format: Aizman, Maltby, Breuel, "High Performance I/O For Large Scale Deep Learning", IEEE Big Data 2019.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from stackcls import tarfiles
from stackcls.errors import SourceError, UnreadableFile
from stackcls.imagenames import is_image_name
from stackcls.printable import counted
from stackcls.remote import RemoteFile
from stackcls.settings import Limits
from stackcls.tarfiles import TarMember
from stackcls.urls import Place, Url

PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
LABELS = (".cls", ".json")
LONGEST = 2**20  # bytes of a member that says a label
LONGEST_LABEL = 4096  # characters, of which each image has some
MOST_NAMES = 100_000
BRACES = re.compile(r"\{([^{}]*)\}")


Piece = TarMember | RemoteFile


@dataclass
class Found:
    """What is in shards.

    Attributes
    ----------
    images : dict of str to tuple of (piece, label)
        By `shard.tar/name`.
    rejected : dict of str to str
        What is there and cannot be used, and why.
    ignored : Counter
        Number of members that are neither image nor label, by suffix.
    """

    images: dict[str, tuple[Piece, str | None]] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)


def is_shard(name: str) -> bool:
    """Tell whether a name is that of a tar file, or a pattern of such names."""
    return name.lower().endswith(".tar") or is_packed(name)


def is_packed(name: str) -> bool:
    """Tell whether a name is that of a compressed tar file."""
    return name.lower().endswith(PACKED_SUFFIXES)


def expanded(pattern: str) -> list[str]:
    """All names that a pattern stands for: `{000..009}` and `{a,b}`, as in a shell.

    Raises
    ------
    SourceError
        If it stands for too many.
    """
    parts = BRACES.split(pattern)
    choices = [_choices(part) if number % 2 else [part] for number, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MOST_NAMES:
        raise SourceError(f"images: a pattern stands for {count} shards; {MOST_NAMES} are the most: give their folder")
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _choices(inside: str) -> list[str]:
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if ends is None:
        return inside.split(",") if "," in inside else [f"{{{inside}}}"]
    first, last = int(ends[1]), int(ends[2])
    if not 0 <= last - first < MOST_NAMES:
        raise SourceError(f"images: {{{inside}}} in a name of shards must rise, and by less than {MOST_NAMES}")
    width = max(len(ends[1]), len(ends[2])) if ends[1].startswith("0") or ends[2].startswith("0") else 0
    return [str(number).zfill(width) for number in range(first, last + 1)]


def named(images: Place) -> tuple[Place, list[str]]:
    """The folder of shards that a name or a pattern stands for, and their names in it."""

    def last(root: Place) -> str:
        return unquote(root.name) if isinstance(root, Url) and root.is_http else root.name

    root: Place = images.parent
    text = last(images)
    while "{" in str(root) or "}" in str(root):
        text = f"{last(root)}/{text}"
        root = root.parent
    return root, expanded(text)


def look(shard: Place, name: str, classes: list[str] | None, limits: Limits, found: Found) -> None:
    """Add what is in one shard.

    Parameters
    ----------
    shard : Path or Url
    name : str
        What its images' paths begin with.
    classes : list of str or None
        What the numbers stand for that samples give as their labels; None where they are the labels.
    limits : Limits
    found : Found
        Takes what there is; of a damaged shard what can be read, and a word on the rest.

    Raises
    ------
    SourceError
        If it is compressed.
    SourceAway
        If its server does not answer.
    """
    try:
        file, size = tarfiles.opened(shard, limits)
    except UnreadableFile as error:
        found.rejected[name] = error.reason
        return
    except OSError as error:
        found.rejected[name] = f"cannot be read ({error.strerror or error})"
        return
    files: dict[str, tuple[_Name, int, int]] = {}
    labels: dict[tuple[str, str], _Said] = {}
    with file:
        _refuse_packed(shard, file.read(len(max(PACKED, key=len))))
        file.seek(0)
        try:
            for member in tarfiles.members(file, size):
                path = _path(member.name)
                if path is None:
                    found.rejected[f"{name}/{member.name}"] = (
                        "its name leads out of the shard, or has a NUL character; name it otherwise"
                    )
                elif path.suffix in LABELS:
                    data = tarfiles.content(file, member) if member.size <= LONGEST else None
                    labels[path.key, path.suffix] = _said(data, path.suffix)
                elif f"{name}/{path.text}" in found.images or path.text in files:
                    raise SourceError(
                        f"images: {f'{name}/{path.text}'!r} is there twice; make the shard anew with each name once"
                    )
                elif not path.is_hidden:
                    files[path.text] = (path, member.offset_data, member.size)
        except tarfiles.Damaged as error:
            found.rejected[name] = str(error)
        except UnreadableFile as error:
            found.rejected[name] = error.reason
    _add(shard, name, files, labels, classes, found)


def _refuse_packed(shard: Place, beginning: bytes) -> None:
    for magic, kind in PACKED.items():
        if beginning.startswith(magic):
            raise SourceError(
                f"images: {shard} is compressed ({kind}), so that no image could be read without all before it; "
                "unpack it to a plain .tar (images hardly shrink)"
            )


@dataclass(frozen=True, slots=True)
class _Name:
    """A member's name: the sample's key, and what comes after it."""

    text: str
    key: str

    @property
    def suffix(self) -> str:
        return self.text[len(self.key) :].lower()

    @property
    def is_hidden(self) -> bool:
        return any(part.startswith(".") for part in self.text.split("/"))

    @property
    def is_image(self) -> bool:
        return is_image_name(f"x{self.suffix}")

    @property
    def is_plain(self) -> bool:
        return self.suffix.count(".") == 1


def _path(name: str) -> _Name | None:
    text = name.removeprefix("./")
    parts = text.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in text:
        return None
    return _Name(text, "/".join([*parts[:-1], parts[-1].partition(".")[0]]))


def _add(
    shard: Place,
    name: str,
    files: Mapping[str, tuple[_Name, int, int]],
    labels: Mapping[tuple[str, str], "_Said"],
    classes: list[str] | None,
    found: Found,
) -> None:
    """Add the images of a shard with their labels; beside `1.jpg`, `1.mask.png` is none."""
    plain = {path.key for path, _, _ in files.values() if path.is_image and path.is_plain}
    for text, (path, start, size) in files.items():
        whole = f"{name}/{text}"
        if not path.is_image or (path.key in plain and not path.is_plain):
            found.ignored[path.suffix] += 1
            continue
        try:
            label = _label(path.key, labels, classes)
        except ValueError as error:
            found.rejected[whole] = str(error)
            continue
        piece = RemoteFile(shard, start, size) if isinstance(shard, Url) else TarMember(shard, start, size)
        found.images[whole] = (piece, label)


@dataclass(frozen=True, slots=True)
class _Said:
    """What a member says of its sample: a label, or why it says none that can be used, or nothing."""

    label: str | None = None
    wrong: str | None = None


def _said(data: bytes | None, suffix: str) -> _Said:
    """Keep of a member's content the label alone; None is one that is too long."""
    try:
        if data is None:
            raise ValueError(f"its {suffix} file has more than {LONGEST} bytes; write less into it")
        return _Said(_read_label(data, suffix))
    except ValueError as error:
        return _Said(wrong=str(error))


def _read_label(data: bytes, suffix: str) -> str | None:
    said: object
    if suffix == ".cls":
        said = _text(data, suffix).strip()
        if not said:
            raise ValueError("its .cls file is empty; write a label into it")
    else:
        text = _text(data, suffix)
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("its .json file is not valid JSON; write it anew") from None
        said = record.get("label", record.get("class")) if isinstance(record, dict) else None
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, str | int):
        raise ValueError('the label in its .json file must be text or a whole number ("label" or "class")')
    label = str(said)
    if len(label) > LONGEST_LABEL:
        raise ValueError(f"its label has {len(label)} characters; {LONGEST_LABEL} are the most")
    if "\0" in label:
        raise ValueError("its label has a NUL character; write another")
    return label


def _label(key: str, labels: Mapping[tuple[str, str], _Said], classes: list[str] | None) -> str | None:
    """What a sample says of itself, else the folder that it is in."""
    said = labels.get((key, ".cls")) or labels.get((key, ".json")) or _Said()
    if said.wrong is not None:
        raise ValueError(said.wrong)
    text = said.label
    if text is None:
        folder, separator, _ = key.partition("/")
        return folder if separator else None
    if classes is None or not text.isdecimal():
        return text
    if int(text) >= len(classes):
        raise ValueError(f"its label is {text}, and classes.txt has {counted(len(classes), 'line')}, counted from 0")
    return classes[int(text)]


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"its {what} file is not UTF-8; write it anew") from None
