"""The only reader and writer of feature files (HDF5, format version 1): complete or absent, and checked when opened."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
from numpy.typing import NDArray

from stackcls import storeformat
from stackcls.bases import Basis
from stackcls.errors import StoreError
from stackcls.files import digest_file, replacing
from stackcls.storeformat import FORMAT, USER_BLOCK, VERSION
from stackcls.storeformat import ImageTable as ImageTable
from stackcls.storeformat import MatrixInfo as MatrixInfo

CHUNK_ROWS = 4096
READ_ROWS = 512

Features = NDArray[np.float32]
RowChunks = Iterable[tuple[NDArray[np.int64], Features]]


class Store:
    """An open feature file, verified against its own checksum.

    Parameters
    ----------
    path : Path
        A file that `write` made.

    Attributes
    ----------
    table : ImageTable
    matrices : dict of str to MatrixInfo
    digest : str
        SHA-256 of the file's content.
    digests : dict of str to str
        SHA-256 of each matrix, as stated.
    created_with : dict of str to str

    Raises
    ------
    StoreMissing
        If there is no such file.
    StoreError
        If it is no feature file, of a newer version, or differs from what was written.
    """

    def __init__(self, path: Path) -> None:
        self.digest = storeformat.verify(path)
        self.path = path
        place = "its images"
        try:
            self._file = h5py.File(path, "r", locking=False)
            self.table = storeformat.read_table(self._file)
            self.matrices: dict[str, MatrixInfo] = {}
            self.digests: dict[str, str] = {}
            for name in self._file["features"]:
                place = f"features/{name}"
                self.matrices[name] = storeformat.read_info(self._file, name, len(self.table.paths))
                self.digests[name] = str(self._file[place].attrs["sha256"])
            place = "created_with"
            self.created_with: dict[str, str] = dict(json.loads(self._file.attrs["created_with"]))
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            if hasattr(self, "_file"):
                self._file.close()
            message = f"{path}: the checksum holds, but the content is not as format 1 says: {place}: {error}"
            raise StoreError(message) from None

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def read_into(self, name: str, target: Features) -> None:
        """Read a whole matrix into `target`, float32 of shape (rows, width)."""
        dataset = self._file["features"][name]
        for start in range(0, len(dataset), CHUNK_ROWS):
            target[start : start + CHUNK_ROWS] = dataset[start : start + CHUNK_ROWS]

    def read_rows(self, name: str, rows: NDArray[np.int64]) -> Features:
        """Read some rows of a matrix, which ascend, shape (rows, width); never holds them twice."""
        dataset = self._file["features"][name]
        found = np.empty((len(rows), dataset.shape[1]), dtype=np.float32)
        for start in range(0, len(dataset), READ_ROWS):
            low, high = np.searchsorted(rows, (start, start + READ_ROWS))
            if low < high:
                found[low:high] = dataset[start : start + READ_ROWS][rows[low:high] - start]
        return found

    def chunks(self, name: str) -> Iterator[tuple[int, Features]]:
        """Yield a matrix in order, as (first row, rows) with bounded memory."""
        dataset = self._file["features"][name]
        for start in range(0, len(dataset), CHUNK_ROWS):
            yield start, dataset[start : start + CHUNK_ROWS]


def write(
    target: Path,
    table: ImageTable,
    matrices: Mapping[str, MatrixInfo],
    rows_of: Mapping[str, RowChunks],
    created_with: Mapping[str, str],
) -> None:
    """Write a feature file whole, or not at all.

    Parameters
    ----------
    target : Path
        Where it shall lie.
    table : ImageTable
        The images, sorted by path.
    matrices : mapping of str to MatrixInfo
        What is said of each matrix.
    rows_of : mapping of str to iterable of (ndarray of int64, ndarray of float32)
        For each matrix, chunks of row numbers and the features of those rows; together they give every row once.
    created_with : mapping of str to str
        Library versions.

    Raises
    ------
    StoreError
        If the chunks do not give every row exactly once.
    """
    with replacing(target) as temporary:
        with _create_file(temporary) as file:
            file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
            file.attrs["created_with"] = json.dumps(dict(created_with), sort_keys=True)
            _write_table(file, table)
            group = _create_group(file, "features")
            for name in sorted(matrices):
                _write_matrix(group, name, len(table.paths), matrices[name], rows_of[name])
            _write_bases(file, {name: info.basis for name, info in matrices.items() if info.basis is not None})
        header = f"{FORMAT} {VERSION} sha256={digest_file(temporary, USER_BLOCK)}\n"
        with open(temporary, "rb+") as raw:
            raw.write(header.encode().ljust(USER_BLOCK, b"\0"))


def _create_file(path: Path) -> h5py.File:
    """An empty file; h5py would write times into it, and equal content would not give equal bytes."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_userblock(USER_BLOCK)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, creation, access))


def _create_group(parent: h5py.Group, name: str) -> h5py.Group:
    """A group without times."""
    creation = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    return h5py.Group(h5py.h5g.create(parent.id, name.encode(), gcpl=creation))


def _write_table(file: h5py.File, table: ImageTable) -> None:
    text, digest = h5py.string_dtype("utf-8"), h5py.string_dtype("ascii", 64)
    file.attrs["class_names"] = json.dumps(table.class_names, ensure_ascii=False)
    file.attrs["source"] = table.source
    images = _create_group(file, "images")
    images.create_dataset("path", data=np.array(table.paths, dtype=object), dtype=text)
    images.create_dataset("sha256", data=np.array(table.sha256, dtype="S64"), dtype=digest)
    images.create_dataset("split", data=np.array(table.splits, dtype=object), dtype=text)
    images.create_dataset("label", data=table.labels.astype(np.int32))
    images.create_dataset("group", data=table.groups.astype(np.int64))
    _create_group(file, "groups").create_dataset("names", data=np.array(table.group_names, dtype=object), dtype=text)
    rejected = _create_group(file, "rejected")
    for key, values in (("path", table.rejected.keys()), ("reason", table.rejected.values())):
        rejected.create_dataset(key, data=np.array(list(values), dtype=object), dtype=text)


def _write_matrix(group: h5py.Group, name: str, n_rows: int, info: MatrixInfo, chunks: RowChunks) -> None:
    dataset = group.create_dataset(name, (n_rows, info.width), np.float32)
    written = np.zeros(n_rows, dtype=np.int64)
    for rows, features in chunks:
        order = np.argsort(rows, kind="stable")
        for run in np.split(order, np.flatnonzero(np.diff(rows[order]) != 1) + 1):
            if run.size:
                dataset[rows[run[0]] : rows[run[-1]] + 1] = features[run]
        np.add.at(written, rows, 1)
    if not (written == 1).all():
        raise StoreError(f"{name}: {int((written != 1).sum())} of {n_rows} rows were not given exactly once")
    state = hashlib.sha256()
    for start in range(0, n_rows, CHUNK_ROWS):
        state.update(dataset[start : start + CHUNK_ROWS].tobytes())
    dataset.attrs["identity"] = info.identity.to_json()
    dataset.attrs["provenance"] = json.dumps(dict(info.provenance), sort_keys=True)
    dataset.attrs["sha256"] = state.hexdigest()


def _write_bases(file: h5py.File, bases: Mapping[str, Basis]) -> None:
    if not bases:
        return
    parent = _create_group(file, "bases")
    for name in sorted(bases):
        group, basis = _create_group(parent, name), bases[name]
        group.attrs["kind"] = basis.kind
        group.create_dataset("layout", data=basis.layout, dtype=h5py.string_dtype("utf-8"))
        group.create_dataset("values", data=basis.values.astype(np.float32))
