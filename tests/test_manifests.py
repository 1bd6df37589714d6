"""Manifests: what their rows mean, and which are refused."""

import pyarrow as arrow
import pytest
from pyarrow import parquet

from stackcls import manifests, sources
from stackcls.errors import SourceError
from stackcls.sources import ImageEntry
from tests.test_sources import listed


def manifest(tmp_path, text, name="manifest.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


FULL = [
    ImageEntry("a/1.jpg", "犬", "g2", "train"),
    ImageEntry("b, c.jpg", 'say "miau"\r\nloud', None, "test"),
    ImageEntry("猫.jpg", None, "g1", None),
    ImageEntry("ציפור.jpg", "عصفور", None, None),
]
QUOTED = (
    "path,label,group,split,remark\r\n"
    '猫.jpg,,g1,,x\r\n"b, c.jpg","say ""miau""\r\nloud",,test,\r\n\r\na/1.jpg,犬,g2,train,y\r\nציפור.jpg,عصفور,,,\r\n'
)


def in_order(entries):
    return tuple(sorted(entries, key=lambda entry: entry.path))


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_csv(tmp_path, bom):
    source = sources.scan(manifest(tmp_path, bom + QUOTED))
    assert (source.kind, source.root) == ("manifest", tmp_path)
    assert source.entries == in_order(FULL)


def test_tsv_keeps_commas(tmp_path):
    source = sources.scan(manifest(tmp_path, "label\tpath\n犬, gross\tb.jpg\n猫\ta,1.jpg\n", "m.TSV"))
    assert listed(source) == [("a,1.jpg", "猫"), ("b.jpg", "犬, gross")]


def test_parquet(tmp_path):
    columns = {name: [getattr(entry, name) for entry in FULL] for name in manifests.COLUMNS}
    parquet.write_table(arrow.table({**columns, "remark": [1, 2, 3, 4]}), tmp_path / "m.parquet")
    assert sources.scan(tmp_path / "m.parquet").entries == in_order(FULL)


def test_parquet_numbers_become_text(tmp_path):
    parquet.write_table(arrow.table({"path": ["a.jpg", "b.jpg"], "label": [3, None]}), tmp_path / "m.parquet")
    assert listed(sources.scan(tmp_path / "m.parquet")) == [("a.jpg", "3"), ("b.jpg", None)]


def test_only_a_path_is_needed(tmp_path):
    assert sources.scan(manifest(tmp_path, "path\na.jpg\n")).entries == (ImageEntry("a.jpg"),)


def test_absolute_paths_below_the_manifest_become_relative(tmp_path):
    source = sources.scan(manifest(tmp_path, f"path\n{tmp_path}/a/1.jpg\n./b.jpg\n/elsewhere/c.jpg\n"))
    assert [entry.path for entry in source.entries] == ["/elsewhere/c.jpg", "a/1.jpg", "b.jpg"]


def test_nothing_is_read_as_a_number_or_as_missing(tmp_path):
    text = "path,label\na.jpg,007\nb.jpg,nan\nc.jpg,NA\nd.jpg,1e3\ne.jpg, x \nf.jpg,None\n"
    labels = [entry.label for entry in sources.scan(manifest(tmp_path, text)).entries]
    assert labels == ["007", "nan", "NA", "1e3", " x ", "None"]


BAD_MANIFESTS = {
    "no path column": ("m.csv", "file,label\na.jpg,x\n", r"no column `path`; .*found \['file', 'label'\]"),
    "empty": ("m.csv", "", r"no column `path`; .*found \[\]"),
    "header alone": ("m.csv", "path,label\n", "no images in"),
    "column twice": ("m.csv", "path,label,label\na.jpg,x,y\n", "column `label` stands there twice"),
    "row twice": (
        "m.csv",
        "path,label\na.jpg,x\na.jpg,x\n",
        r"m\.csv:3: 'a\.jpg' is listed twice, first on line 2; keep",
    ),
    "row twice, other spelling": ("m.csv", "path,label\na.jpg,x\n./a.jpg,y\n", r"'a\.jpg' is listed twice"),
    "row twice, roundabout": (
        "m.csv",
        "path,label\na.jpg,x\nb/../a.jpg,y\n",
        r"'b/\.\./a\.jpg' is listed twice, .* 2;",
    ),
    "row twice, from the root": ("m.csv", "path,label\n../a.jpg,x\n/../a.jpg,y\n/a.jpg,y\n", "is listed twice, .* 3;"),
    "too many values": ("m.csv", "path,label\na.jpg,x\nb.jpg,y,z\n", r"m\.csv:3: 3 values for 2 columns"),
    "too few values": ("m.csv", "path,label\na.jpg\n", r"m\.csv:2: 1 value for 2 columns"),
    "no path": ("m.csv", "path,label\na.jpg,x\n,x\n", r"m\.csv:3: '' is no usable path"),
    "nul": ("m.csv", "path,label\na\0.jpg,x\n", r"m\.csv:2: ('a\\x00\.jpg' is no usable path|not valid CSV)"),
    "nul in a label": ("m.csv", "path,label\na.jpg,x\0\n", r"m\.csv:2: ('a\.jpg' is no usable path|not valid CSV)"),
    "latin-1": ("m.csv", "path\ncaf\xe9.jpg\n".encode("latin-1"), r"m\.csv:2: not UTF-8 \(byte 0xe9\); save it"),
    "utf-16": ("m.csv", "path\na.jpg\n".encode("utf-16"), r"m\.csv: is UTF-16; save it as UTF-8"),
    "utf-16, big": ("m.csv", b"\xfe\xff" + "path\na.jpg\n".encode("utf-16-be"), "is UTF-16"),
    "huge field": ("m.csv", f"path,label\na.jpg,{'x' * 200_000}\n", r"m\.csv:2: not valid CSV \(field larger"),
    "bytes alone": ("m.csv", bytes(range(256)), r"m\.csv:\d+: not UTF-8"),
    "open quote": ("m.csv", 'path,label\n"a.jpg,x\n', r"m\.csv:2: not valid CSV"),
    "other suffix": ("m.json", "[]", r"only manifests can be: \.csv, \.tsv or \.parquet"),
    "no parquet": ("m.parquet", "path\n", "not a readable Parquet file"),
    "empty parquet": ("m.parquet", "", "not a readable Parquet file"),
    "parquet's marks alone": ("m.parquet", b"PAR1" + b"\xff" * 64 + b"PAR1", "not a readable Parquet file"),
}


@pytest.mark.parametrize(("name", "text", "message"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_bad_manifests_are_refused(tmp_path, name, text, message):
    with pytest.raises(SourceError, match=message):
        sources.scan(manifest(tmp_path, text, name))


def test_a_parquet_file_without_paths_is_refused(tmp_path):
    parquet.write_table(arrow.table({"file": ["a.jpg"]}), tmp_path / "m.parquet")
    with pytest.raises(SourceError, match=r"m\.parquet: has no column `path`"):
        sources.scan(tmp_path / "m.parquet")


PARQUET = {
    "bytes": ({"path": [b"a.jpg"]}, r"column `path` is of type binary; only text is allowed"),
    "lists": ({"path": [["a.jpg"]]}, r"column `path` is of type list"),
    "numbers as paths": ({"path": [1]}, r"column `path` is of type int64"),
    "fractions as labels": ({"path": ["a.jpg"], "label": [1.5]}, r"column `label` is of type double"),
    "nested labels": ({"path": ["a.jpg"], "label": [{"a": 1}]}, r"column `label` is of type struct"),
    "twice": ({"path": ["a.jpg", "b.jpg", "a.jpg"]}, r"m\.parquet:3: 'a\.jpg' is listed twice, first on line 1"),
    "no path": ({"path": ["a.jpg", None]}, r"m\.parquet:2: None is no usable path"),
}


@pytest.mark.parametrize(("columns", "message"), PARQUET.values(), ids=PARQUET)
def test_bad_parquet_manifests_are_refused(tmp_path, columns, message):
    parquet.write_table(arrow.table(columns), tmp_path / "m.parquet")
    with pytest.raises(SourceError, match=message):
        sources.scan(tmp_path / "m.parquet")


def test_parquet_with_text_that_is_not_utf8_is_refused(tmp_path):
    ends = arrow.array([0, 8], arrow.int32()).buffers()[1]
    text = arrow.StringArray.from_buffers(1, ends, arrow.py_buffer(b"caf\xe9.jpg"))
    parquet.write_table(arrow.table({"path": text}), tmp_path / "m.parquet")
    with pytest.raises(SourceError, match=r"m\.parquet: has text that is not UTF-8"):
        sources.scan(tmp_path / "m.parquet")


def test_text_that_a_spreadsheet_or_terminal_would_act_on_is_kept_as_it_is(tmp_path):
    labels = ["=1+1", "@SUM(A1)", "+1", "-1", "\x1b[2J", "\u202egpj.exe", "a\rb", "#", "'", " "]
    parquet.write_table(
        arrow.table({"path": [f"{number}.jpg" for number in range(len(labels))], "label": labels}),
        tmp_path / "m.parquet",
    )
    assert [entry.label for entry in sources.scan(tmp_path / "m.parquet").entries] == labels


def test_a_manifest_that_is_no_file_is_refused(tmp_path):
    (tmp_path / "m.csv").mkdir()
    with pytest.raises(SourceError, match="no images in"):
        sources.scan(tmp_path / "m.csv")


def test_ten_thousand_classes(tmp_path):
    text = "path,label\n" + "".join(f"{number}.jpg,class {number // 2}\n" for number in range(20_000))
    assert len(sources.scan(manifest(tmp_path, text)).class_names) == 10_000
