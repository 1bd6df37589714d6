"""Rows of a manifest: a table of images as CSV, TSV or Parquet."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from stackcls.errors import SourceError
from stackcls.printable import counted
from stackcls.urls import Place

COLUMNS = ("path", "label", "group", "split")

Row = tuple[int, Mapping[str, str | None]]


def is_manifest(name: str) -> bool:
    """Tell whether a name is that of a manifest."""
    return PurePosixPath(name).suffix.lower() in {".csv", ".tsv", ".parquet"}


def rows(path: Place, data: bytes | None = None) -> Iterator[Row]:
    """Each row's number (of its line, in text) and its values by column; raise `SourceError` where it has none.

    Parameters
    ----------
    path : Path or Url
    data : bytes, optional
        What is in it, where it was read already.
    """
    suffix = PurePosixPath(path.name).suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path, data)
    if suffix in {".csv", ".tsv"}:
        return _read_csv(path, "\t" if suffix == ".tsv" else ",", data)
    raise SourceError(f"images: {path} is a file; only manifests can be: .csv, .tsv or .parquet, and shards: .tar")


def read_utf8(path: Place, data: bytes | None = None) -> str:
    """Text of a file, which must be UTF-8."""
    try:
        given = Path(str(path)).read_bytes() if data is None else data
        return given.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if given.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise SourceError(f"{path}: is UTF-16; save it as UTF-8") from None
        line = given.count(b"\n", 0, error.start) + 1
        raise SourceError(f"{path}:{line}: not UTF-8 (byte {given[error.start]:#04x}); save it as UTF-8") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None


def _read_csv(path: Place, delimiter: str, data: bytes | None) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(read_utf8(path, data), newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        _check_columns(path, header)
        for row in reader:
            if row and len(row) != len(header):
                raise SourceError(
                    f"{path}:{reader.line_num}: {counted(len(row), 'value')} for {counted(len(header), 'column')}"
                )
            if row:
                values = zip(header, row, strict=True)
                yield reader.line_num, {name: value for name, value in values if name in COLUMNS}
    except csv.Error as error:
        raise SourceError(f"{path}:{reader.line_num}: not valid CSV ({error})") from None


def _read_parquet(path: Place, data: bytes | None) -> Iterator[Row]:
    """Rows of a Parquet file, numbered from 1; text and whole numbers are taken, nothing else could be a name."""
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path if data is None else io.BytesIO(data))
        schema = table.schema_arrow
        _check_columns(path, schema.names)
        columns = [name for name in COLUMNS if name in schema.names]
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


def _check_columns(path: Place, header: list[str]) -> None:
    if "path" not in header:
        raise SourceError(f"{path}: has no column `path`; columns are path,label[,group][,split], found {header}")
    if twice := [name for name in COLUMNS if header.count(name) > 1]:
        raise SourceError(f"{path}: column `{twice[0]}` stands there twice")
