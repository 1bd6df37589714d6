"""What a feature file says (HDF5, format version 1): its first line, its table of images, its matrices' descriptions.

Nothing of it is trusted before it was looked at: a file whose checksum holds may still be made by someone else.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stackcls.backbones import Backbone, Identity, check_described
from stackcls.bases import Basis
from stackcls.errors import StoreDamaged, StoreError, StoreMissing
from stackcls.files import digest_file

FORMAT, VERSION = "stackcls-features", 1
USER_BLOCK = 512
NAMED = 3  # of many that are wrong
_SHA256 = "[0-9a-f]{64}"


@dataclass(frozen=True)
class ImageTable:
    """What a store says of its images, row by row, sorted by path.

    Attributes
    ----------
    paths, sha256, splits : tuple of str
        Relative POSIX path, SHA-256 of the file's bytes, and split (empty where none), one per row.
    labels : ndarray of int32
        Index into `class_names`, -1 where unlabelled.
    groups : ndarray of int64
        Index into `group_names`, -1 where none.
    class_names, group_names : tuple of str
    rejected : mapping of str to str
        Images that could not be read, and why.
    source : str
        What the configuration called the source.
    """

    paths: tuple[str, ...]
    sha256: tuple[str, ...]
    splits: tuple[str, ...]
    labels: NDArray[np.int32]
    groups: NDArray[np.int64]
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    rejected: Mapping[str, str]
    source: str

    def equals(self, other: "ImageTable") -> bool:
        """Whether both say the same of the same images in the same order."""
        return all(
            bool(np.array_equal(mine, theirs)) if isinstance(mine, np.ndarray) else mine == theirs
            for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)
        )


@dataclass(frozen=True)
class MatrixInfo:
    """What a store says of one feature matrix.

    Attributes
    ----------
    identity : Identity
    provenance : mapping
    width : int
    basis : Basis or None
        That it was made on, where it has one.
    seen : ndarray of uint64, or None
        Images, by content hash, that its network was fine-tuned on; None for a network that was not.
    """

    identity: Identity
    provenance: Mapping[str, Any]
    width: int
    basis: Basis | None = None
    seen: NDArray[np.uint64] | None = None


def read_header(path: Path) -> str:
    """Read the first line: the SHA-256 of all that follows the user block.

    Raises
    ------
    StoreMissing
        If there is no such file.
    StoreError
        If it is no feature file, or of another version.
    """
    if not path.is_file():
        raise StoreMissing(f"{path}: no feature file there; `stackcls features` makes one")
    with open(path, "rb") as raw:
        header = raw.read(USER_BLOCK).decode("ascii", "replace")
    match = re.fullmatch(rf"{FORMAT} (\d+) sha256=([0-9a-f]{{64}})\n\0*", header)
    if not header:
        raise StoreDamaged(f"{path}: damaged (it is empty); delete it and run `stackcls features`")
    if not match:
        raise StoreError(f"{path}: not a feature file of stackcls, or its first bytes are damaged; move it elsewhere")
    if int(match[1]) != VERSION:
        raise StoreError(f"{path}: format version {match[1]}, this stackcls reads {VERSION}; use a newer stackcls")
    return match[2]


def verify(path: Path) -> str:
    """Check the first line and the checksum that it names; return that."""
    stated = read_header(path)
    if digest_file(path, USER_BLOCK) != stated:
        raise StoreDamaged(f"{path}: damaged (its checksum does not hold); delete it and run `stackcls features`")
    return stated


def read_table(file: h5py.File) -> ImageTable:
    """Read what is said of the images; raise `ValueError`, `KeyError`, `TypeError` or `OSError` where it is not so."""
    paths = _strings(file, "images/path")
    labels, groups = _values(file, "images/label", np.int32), _values(file, "images/group", np.int64)
    sha256, splits = _strings(file, "images/sha256"), _strings(file, "images/split")
    for name, rows in (("label", len(labels)), ("group", len(groups)), ("sha256", len(sha256)), ("split", len(splits))):
        if rows != len(paths):
            raise ValueError(f"images/{name} has {rows} rows, images/path {len(paths)}")
    rejected = _strings(file, "rejected/path"), _strings(file, "rejected/reason")
    table = ImageTable(
        paths=paths,
        sha256=sha256,
        splits=splits,
        labels=labels,
        groups=groups,
        class_names=_class_names(file.attrs["class_names"]),
        group_names=_strings(file, "groups/names"),
        rejected=dict(zip(*rejected, strict=True)),
        source=str(file.attrs["source"]),
    )
    _check_table(table)
    return table


def read_info(file: h5py.File, name: str, n_rows: int) -> MatrixInfo:
    """Read what is said of one matrix; raise as `read_table` does."""
    dataset = _plain(file, f"features/{name}", 2)
    if name == "stack" or not name.isprintable() or not dataset.shape[1]:
        raise ValueError("is no name of a backbone, or has no columns")
    if dataset.dtype != np.float32 or len(dataset) != n_rows:
        raise ValueError(f"is {dataset.dtype} of shape {dataset.shape}; float32 with {n_rows} rows is needed")
    identity, basis = Identity.from_json(dataset.attrs["identity"]), None
    if name in file.get("bases", ()):
        group = file["bases"][name]
        layout = _plain(file, f"bases/{name}/layout", 0).asstr()[()]
        basis = Basis(str(group.attrs["kind"]), layout, _values(file, f"bases/{name}/values", np.float32))
    if (basis.digest if basis else "") != identity.basis:
        raise ValueError("its basis is not the one that its identity names")
    provenance = json.loads(dataset.attrs["provenance"])
    if not isinstance(provenance, dict) or not isinstance(provenance.get("configured"), dict):
        raise ValueError("its provenance does not say which backbone made it")
    check_described(Backbone.from_dict(provenance["configured"]), identity, basis, int(dataset.shape[1]))
    seen = _values(file, f"seen/{name}", np.uint64) if name in file.get("seen", ()) else None
    return MatrixInfo(identity, provenance, int(dataset.shape[1]), basis, seen)


def places(path: Path) -> dict[str, tuple[int, int, str]]:
    """Where each matrix lies in a file that may be damaged: first byte, number of bytes, SHA-256 as stated.

    HDF5 can fail in any way on a damaged file, also not return: call this in a process of its own.
    """
    with h5py.File(path, "r", locking=False) as file:
        found = file["features"].items()
        return {
            name: (dataset.id.get_offset() or 0, dataset.nbytes, str(dataset.attrs["sha256"]))
            for name, dataset in found
        }


def read_digest(file: h5py.File, name: str) -> str:
    """Read the SHA-256 that a matrix is said to have; raise as `read_table` does."""
    stated = str(file["features"][name].attrs["sha256"])
    if not re.fullmatch(_SHA256, stated):
        raise ValueError(f"{stated!r} is no SHA-256")
    return stated


def read_versions(file: h5py.File) -> dict[str, str]:
    """Read which library versions made a file; raise as `read_table` does."""
    versions = json.loads(file.attrs["created_with"])
    if not isinstance(versions, dict) or not all(isinstance(value, str) for value in versions.values()):
        raise ValueError("is no mapping of libraries to versions")
    return versions


def _check_table(table: ImageTable) -> None:
    """Raise `ValueError` where rows, names and numbers contradict one another."""
    for where, names in (
        ("class_names", table.class_names),
        ("groups/names", table.group_names),
        ("images/path", table.paths),
    ):
        if twice := [name for name, count in Counter(names).items() if count > 1 or not name]:
            raise ValueError(f"{where}: empty or more than once: {_some(twice)}")
    if unsorted := [later for path, later in pairwise(table.paths) if later < path]:
        raise ValueError(f"images/path: not sorted at {_some(unsorted)}")
    if both := sorted(table.rejected.keys() & set(table.paths)):
        raise ValueError(f"rejected/path: also among the images: {_some(both)}")
    rows = zip(table.paths, table.sha256, strict=True)
    if bad := [path for path, digest in rows if not re.fullmatch(_SHA256, digest)]:
        raise ValueError(f"images/sha256: no SHA-256 at {_some(bad)}")
    for name, column, names in (
        ("label", table.labels, table.class_names),
        ("group", table.groups, table.group_names),
    ):
        outside = np.flatnonzero((column < -1) | (column >= len(names)))
        if outside.size:
            some = _some([f"{table.paths[row]} ({column[row]})" for row in outside[: NAMED + 1]])
            raise ValueError(f"images/{name}: {outside.size} outside -1..{len(names) - 1}: {some}")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(repr, names[:NAMED])) + more


def _class_names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("class_names is no list of names")
    "".join(names).encode()  # JSON can hold half characters, which no other file can
    return tuple(names)


def _strings(file: h5py.File, where: str) -> tuple[str, ...]:
    return tuple(_plain(file, where, 1).asstr()[:].tolist())


def _values(file: h5py.File, where: str, kind: type[np.generic]) -> NDArray[Any]:
    dataset = _plain(file, where, 1)
    if dataset.dtype != kind:
        raise ValueError(f"{where} is {dataset.dtype}; {np.dtype(kind)} is needed")
    values: NDArray[Any] = dataset[:]
    return values


def _plain(file: h5py.File, where: str, dimensions: int) -> h5py.Dataset:
    """A dataset that lies in the file as it is: not elsewhere, not compressed, not larger than the file."""
    dataset = file[where]
    if not isinstance(dataset, h5py.Dataset) or dataset.file.filename != file.filename:
        raise ValueError(f"{where} is no dataset of this file")
    if dataset.ndim != dimensions or dataset.chunks or dataset.is_virtual or dataset.external:
        raise ValueError(f"{where} is no plain dataset with {dimensions} dimensions")
    text = h5py.check_string_dtype(dataset.dtype)
    # Text of any length lies elsewhere in the file; in its place is a reference of 16 bytes.
    size = dataset.id.get_storage_size()
    if (
        size != dataset.size * (16 if text and not text.length else dataset.dtype.itemsize)
        or size > file.id.get_filesize()
    ):
        raise ValueError(f"{where} has not all the values that it says")
    return dataset
