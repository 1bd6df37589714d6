"""The only reader of feature files (HDF5, format version 1): complete or absent, and checked when opened."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stackcls import buffers
from stackcls.backbones import Identity
from stackcls.bases import Basis
from stackcls.errors import StoreDamaged, StoreError, StoreMissing
from stackcls.files import digest_file

FORMAT, VERSION = "stackcls-features", 1
USER_BLOCK = 512
ROWS = 128  # at a time

Features = NDArray[np.float32]
RowChunks = Iterable[tuple[NDArray[np.int64], Features]]


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
    """What a store says of one feature matrix, and the basis that it was made on, where it has one."""

    identity: Identity
    provenance: Mapping[str, Any]
    width: int
    basis: Basis | None = None


class Store:
    """An open feature file, verified against its own checksum.

    Parameters
    ----------
    path : Path
        A file that `storewriter.write` made.

    Raises
    ------
    StoreMissing
        If there is no such file.
    StoreError
        If it is no feature file, of a newer version, or differs from what was written.
    """

    def __init__(self, path: Path) -> None:
        _verify(path)
        self.path = path
        try:
            self._file = h5py.File(path, "r", locking=False)
            self.table = _read_table(self._file)
            self.matrices = {name: _read_info(self._file, name) for name in self._file["features"]}
            self.created_with: dict[str, str] = json.loads(self._file.attrs["created_with"])
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise StoreError(f"{path}: the checksum holds, but the content is not as format 1 says: {error}") from None

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def read_into(self, name: str, target: Features) -> None:
        """Read a whole matrix into `target`, float32 of shape (rows, width)."""
        dataset = self._file["features"][name]
        for start in range(0, len(dataset), ROWS):
            target[start : start + ROWS] = dataset[start : start + ROWS]

    def read_rows(self, name: str, rows: NDArray[np.int64]) -> Features:
        """Read some rows of a matrix, which ascend, shape (rows, width); never holds them twice."""
        dataset = self._file["features"][name]
        found: Features = buffers.zeros((len(rows), dataset.shape[1]))
        for start in range(0, len(dataset), ROWS):
            low, high = np.searchsorted(rows, (start, start + ROWS))
            if low < high:
                found[low:high] = dataset[start : start + ROWS][rows[low:high] - start]
        return found

    def chunks(self, name: str) -> Iterator[tuple[int, Features]]:
        """Yield a matrix in order, as (first row, rows) with bounded memory."""
        dataset = self._file["features"][name]
        for start in range(0, len(dataset), ROWS):
            yield start, dataset[start : start + ROWS]


def _verify(path: Path) -> None:
    """Check the first line and the checksum that it names."""
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
    if digest_file(path, USER_BLOCK) != match[2]:
        raise StoreDamaged(f"{path}: damaged (its checksum does not hold); delete it and run `stackcls features`")


def _read_table(file: h5py.File) -> ImageTable:
    images = file["images"]
    rejected = file["rejected"]
    return ImageTable(
        paths=_strings(images["path"]),
        sha256=_strings(images["sha256"]),
        splits=_strings(images["split"]),
        labels=images["label"][:],
        groups=images["group"][:],
        class_names=tuple(json.loads(file.attrs["class_names"])),
        group_names=_strings(file["groups/names"]),
        rejected=dict(zip(_strings(rejected["path"]), _strings(rejected["reason"]), strict=True)),
        source=str(file.attrs["source"]),
    )


def _strings(dataset: h5py.Dataset) -> tuple[str, ...]:
    return tuple(dataset.asstr()[:].tolist())


def _read_info(file: h5py.File, name: str) -> MatrixInfo:
    dataset, basis = file["features"][name], None
    identity = Identity.from_json(dataset.attrs["identity"])
    if name in file.get("bases", ()):
        group = file["bases"][name]
        basis = Basis(str(group.attrs["kind"]), group["layout"].asstr()[()], group["values"][:])
    if (basis.digest if basis else "") != identity.basis:
        raise ValueError(f"the basis of {name!r} is not the one that its identity names")
    return MatrixInfo(identity, json.loads(dataset.attrs["provenance"]), int(dataset.shape[1]), basis)
