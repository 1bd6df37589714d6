"""The only reader of feature files (HDF5, format version 1): complete or absent, and checked when opened."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
from numpy.typing import NDArray

from stackcls import buffers, storeformat
from stackcls.errors import StoreError
from stackcls.storeformat import ImageTable as ImageTable
from stackcls.storeformat import MatrixInfo as MatrixInfo

ROWS = 128  # at a time

Features = NDArray[np.float32]


class Store:
    """An open feature file, verified against its own checksum.

    Parameters
    ----------
    path : Path
        A file that `storewriter.write` made.

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
                self.digests[name] = storeformat.read_digest(self._file, name)
            place = "created_with"
            self.created_with = storeformat.read_versions(self._file)
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, MemoryError) as error:
            if hasattr(self, "_file"):
                self._file.close()
            message = f"{path}: the checksum holds, but the content is not as format 1 says: {place}: {error}"
            message += "; delete it and run `stackcls features`, or ask who made it"
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
        for start in range(0, len(dataset), ROWS):
            target[start : start + ROWS] = dataset[start : start + ROWS]

    def read_rows(self, name: str, rows: NDArray[np.int64]) -> Features:
        """Read some rows of a matrix, which ascend, shape (rows, width); never holds them twice."""
        found: Features = buffers.zeros((len(rows), self.matrices[name].width))
        self.read_rows_into(name, rows, found)
        return found

    def read_rows_into(self, name: str, rows: NDArray[np.int64], target: Features) -> int:
        """Read some rows of a matrix, which ascend, into `target`; return how many bytes were read."""
        dataset, read = self._file["features"][name], 0
        some = np.empty((min(ROWS, len(dataset)), dataset.shape[1]), np.float32)
        for start in np.unique(rows // ROWS).tolist():
            first = start * ROWS
            low, high = np.searchsorted(rows, (first, first + ROWS))
            wanted = rows[low:high]
            begin, end = int(wanted[0]), int(wanted[-1]) + 1
            read += (end - begin) * dataset.shape[1] * some.itemsize
            if end - begin == high - low:
                dataset.read_direct(target, np.s_[begin:end], np.s_[low:high])
                continue
            dataset.read_direct(some, np.s_[begin:end], np.s_[: end - begin])
            np.take(some, wanted - begin, axis=0, out=target[low:high], mode="clip")  # which copies once
        return read

    def chunks(self, name: str) -> Iterator[tuple[int, Features]]:
        """Yield a matrix in order, as (first row, rows) with bounded memory."""
        dataset = self._file["features"][name]
        for start in range(0, len(dataset), ROWS):
            yield start, dataset[start : start + ROWS]
