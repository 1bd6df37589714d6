"""The only writer of feature files (HDF5, format version 1)."""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stackcls.bases import Basis
from stackcls.errors import StoreError
from stackcls.files import digest_file, replacing
from stackcls.store import ROWS
from stackcls.storeformat import FORMAT, USER_BLOCK, VERSION, ImageTable, MatrixInfo

RowChunks = Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]]


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
        raw = _Patient(temporary, "w+b")
        _apart(raw, lambda: _write(raw, table, matrices, rows_of, created_with))
        header = f"{FORMAT} {VERSION} sha256={digest_file(temporary, USER_BLOCK)}\n"
        with open(temporary, "rb+") as again:
            again.write(header.encode().ljust(USER_BLOCK, b"\0"))


def _apart(raw: "_Patient", work: Callable[[], None]) -> None:
    """Work in a thread of its own: what a signal raises in the main thread can then not be raised within HDF5."""
    with ThreadPoolExecutor(1, "store") as pool:
        future = pool.submit(work)
        try:
            future.result()
        except BaseException as error:
            raw.failed = raw.failed or error  # the thread ends soon, if it has not
            raise


def _write(
    raw: "_Patient",
    table: ImageTable,
    matrices: Mapping[str, MatrixInfo],
    rows_of: Mapping[str, RowChunks],
    created_with: Mapping[str, str],
) -> None:
    with raw, _creating(raw) as file:
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        file.attrs["created_with"] = json.dumps(dict(created_with), sort_keys=True)
        _write_table(file, table)
        group = _create_group(file, "features")
        for name in sorted(matrices):
            _write_matrix(group, name, len(table.paths), matrices[name], raw.while_well(rows_of[name]))
        _write_bases(file, {name: info.basis for name, info in matrices.items() if info.basis is not None})
        _write_seen(file, {name: info.seen for name, info in matrices.items() if info.seen is not None})


class _Patient(io.FileIO):
    """A file that remembers the first failure and goes on as if it had not been.

    HDF5 can neither go on nor be closed in order after a failed write, and would end the process later.
    """

    failed: BaseException | None = None

    def write(self, data: Any, /) -> int:
        """Write all of it: what a disk that is almost full takes first may be less."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view) and not self.failed:
                done += super().write(view[done:])
        except BaseException as error:  # noqa: BLE001  (also want of memory: HDF5 would lose it)
            self.failed = error
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        """Set the size."""
        try:
            return super().truncate(size)
        except BaseException as error:  # noqa: BLE001
            self.failed = self.failed or error
            return size or 0

    def readinto(self, buffer: Any, /) -> int:
        """Read; what was never written is zero."""
        view, found = memoryview(buffer).cast("B"), 0
        try:
            found = super().readinto(view)
        except BaseException as error:  # noqa: BLE001
            self.failed = self.failed or error
        view[found:] = bytes(len(view) - found)
        return len(view)

    def while_well(self, chunks: RowChunks) -> RowChunks:
        """Pass on chunks until a write has failed."""
        for chunk in chunks:
            if self.failed:
                raise self.failed
            yield chunk


@contextmanager
def _creating(raw: _Patient) -> Iterator[h5py.File]:
    """An empty file, filled by the block; what failed in writing it is raised at the end."""
    try:
        with _create_file(raw) as file:
            yield file
    finally:
        if raw.failed:  # whatever HDF5 makes of a file that was not written
            raise raw.failed


def _create_file(raw: _Patient) -> h5py.File:
    """An empty file; h5py would write times into it, and equal content would not give equal bytes."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_userblock(USER_BLOCK)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, raw)
    return h5py.File(h5py.h5f.create(repr(raw).encode("ascii", "replace"), h5py.h5f.ACC_TRUNC, creation, access))


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
        ordered, space = features[order], dataset.id.get_space()
        starts = np.flatnonzero(np.diff(rows[order], prepend=-2) != 1)
        for start, end in pairwise([*starts.tolist(), len(order)]):
            # As `dataset[a:b] = ...` does, at a tenth of the time: rows of repeated content lie far apart.
            shape = (end - start, info.width)
            space.select_hyperslab((int(rows[order[start]]), 0), shape)
            dataset.id.write(h5py.h5s.create_simple(shape), space, ordered[start:end])
        np.add.at(written, rows, 1)
    if not (written == 1).all():
        raise StoreError(f"{name}: {int((written != 1).sum())} of {n_rows} rows were not given exactly once")
    state = hashlib.sha256()
    for start in range(0, n_rows, ROWS):
        state.update(dataset[start : start + ROWS].tobytes())
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


def _write_seen(file: h5py.File, seen: Mapping[str, NDArray[np.uint64]]) -> None:
    if not seen:
        return
    group = _create_group(file, "seen")
    for name in sorted(seen):
        group.create_dataset(name, data=seen[name].astype(np.uint64))
