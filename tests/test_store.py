"""Feature files: their layout, their checksum, and that they are whole or absent."""

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest

from stackcls import store, storewriter
from stackcls.backbones import Backbone
from stackcls.errors import StoreError
from stackcls.store import ImageTable, MatrixInfo, Store

N = 5
TABLE = ImageTable(
    paths=("a b.png", "x/é.jpg", "犬/1.jpg", "猫/1.jpg", "猫/2.jpg"),
    sha256=tuple(f"{row:064x}" for row in range(N)),
    splits=("", "train", "test", "train", "überprüfung"),
    labels=np.array([-1, 0, 1, 2, 2], dtype=np.int32),
    groups=np.array([-1, 0, 1, 1, -1], dtype=np.int64),
    class_names=("x", "犬", "猫"),
    group_names=("bird 7", "鳥"),
    rejected={"猫/kaputt.jpg": "the file is empty", "z.jpg": "file not found"},
    source="data/猫",
)
ONE = Backbone("one", "MobileNet", (), 32, "random", 1, None, "average", "keras")
TWO = replace(ONE, name="zwei 2", seed=2)
IDENTITY = ONE.identity("random:1", "float32")
PROVENANCE = {"engine": "fake", "configured": ONE.to_dict()}
FEATURES = {
    "one": np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32),
    "zwei 2": np.random.default_rng(1).normal(size=(N, 3)).astype(np.float32),
}
INFOS = {
    "one": MatrixInfo(IDENTITY, PROVENANCE, 4),
    "zwei 2": MatrixInfo(TWO.identity("random:2", "float32"), {"configured": TWO.to_dict()}, 3),
}
ROWS = np.arange(N)


def write(target, table=TABLE, features=FEATURES, chunks=None):
    infos = {name: INFOS[name] for name in features}
    given = chunks or {name: [(np.arange(len(table.paths)), matrix)] for name, matrix in features.items()}
    storewriter.write(target, table, infos, given, {"numpy": "2.0", "stackcls": "0.1"})
    return target


@pytest.fixture
def written(tmp_path):
    return write(tmp_path / "artifacts" / "features.h5")


@pytest.mark.parametrize("rows", [[], [0], [4], [1, 2, 4], [0, 1, 2, 3, 4]])
def test_some_rows_are_read(written, monkeypatch, rows):
    monkeypatch.setattr(store, "ROWS", 2)
    with Store(written) as opened:
        found = opened.read_rows("one", np.array(rows, dtype=np.int64))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, FEATURES["one"][rows])


def test_what_was_written_is_read(written):
    with Store(written) as opened:
        assert opened.table.equals(TABLE)
        assert opened.matrices == INFOS
        assert opened.created_with == {"numpy": "2.0", "stackcls": "0.1"}
        for name, matrix in FEATURES.items():
            found = np.empty_like(matrix)
            opened.read_into(name, found)
            assert np.array_equal(found, matrix)
            assert np.array_equal(np.concatenate([part for _, part in opened.chunks(name)]), matrix)


def test_the_file_begins_with_its_format_and_checksum(written):
    data = written.read_bytes()
    line, rest = data[:512].split(b"\n", 1)
    assert line.decode() == f"stackcls-features 1 sha256={hashlib.sha256(data[512:]).hexdigest()}"
    assert not rest.strip(b"\0")
    assert data[512:520] == b"\x89HDF\r\n\x1a\n"


def test_the_layout_is_the_documented_one(written):
    with h5py.File(written, "r") as file:
        assert file.userblock_size == 512
        attributes = dict(file.attrs)
        names = []
        file.visit(names.append)
        dtypes = {name: file[f"images/{name}"].dtype for name in ("label", "group")}
        rows = {name: [item.decode() for item in file[f"images/{name}"][:]] for name in ("path", "sha256", "split")}
        rejected = [[item.decode() for item in file[f"rejected/{name}"][:]] for name in ("path", "reason")]
        encodings = {name: h5py.check_string_dtype(file[f"images/{name}"].dtype) for name in ("path", "split")}
        groups = [item.decode() for item in file["groups/names"][:]]
    assert set(names) == {
        *("features", "features/one", "features/zwei 2", "groups", "groups/names", "rejected"),
        *("images", "images/path", "images/label", "images/sha256", "images/group", "images/split"),
        *("rejected/path", "rejected/reason"),
    }
    assert (attributes["format"], attributes["version"]) == ("stackcls-features", 1)
    assert attributes["source"] == TABLE.source
    assert attributes["class_names"] == '["x", "犬", "猫"]'
    assert json.loads(attributes["created_with"]) == {"numpy": "2.0", "stackcls": "0.1"}
    assert dtypes == {"label": np.dtype("int32"), "group": np.dtype("int64")}
    assert rows == {"path": list(TABLE.paths), "sha256": list(TABLE.sha256), "split": list(TABLE.splits)}
    assert {item.encoding for item in encodings.values()} == {"utf-8"}
    assert rejected == [list(TABLE.rejected), list(TABLE.rejected.values())]
    assert groups == list(TABLE.group_names)


def test_a_matrix_is_contiguous_and_says_how_it_was_made(written):
    with h5py.File(written, "r") as file:
        dataset = file["features/one"]
        assert (dataset.dtype, dataset.shape, dataset.chunks) == (np.float32, (N, 4), None)
        assert dataset.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
        assert dataset.compression is None
        assert dataset.attrs["identity"] == IDENTITY.to_json()
        assert json.loads(dataset.attrs["provenance"]) == PROVENANCE
        assert dataset.attrs["sha256"] == hashlib.sha256(FEATURES["one"].tobytes()).hexdigest()


def test_the_same_content_gives_the_same_bytes(tmp_path, written):
    # HDF5 can note times in whole seconds; let the clock go on to the next.
    time.sleep(1.01 - time.time() % 1)
    again = write(tmp_path / "again.h5", features=dict(reversed(FEATURES.items())))
    assert again.read_bytes() == written.read_bytes()


def test_chunks_may_come_in_any_order(tmp_path, written):
    order = [3, 0, 4, 2, 1]
    chunks = {
        name: [(np.array(order[:3]), matrix[order[:3]]), (np.array(order[3:]), matrix[order[3:]])]
        for name, matrix in FEATURES.items()
    }
    assert write(tmp_path / "shuffled.h5", chunks=chunks).read_bytes() == written.read_bytes()


@pytest.mark.parametrize(
    ("rows", "count"), [([0, 1, 2, 3], 1), ([0, 1, 2, 3, 4, 4], 1), ([], 5), ([0, 0, 2, 3, 4], 2), ([0, 1, 1, 2, 2], 4)]
)
def test_rows_missing_or_given_twice_are_an_error(tmp_path, rows, count):
    chunks = {"one": [(np.array(rows, dtype=np.int64), FEATURES["one"][rows])]}
    with pytest.raises(StoreError, match=f"one: {count} of 5 rows were not given exactly once"):
        write(tmp_path / "f.h5", features={"one": FEATURES["one"]}, chunks=chunks)
    assert list(tmp_path.iterdir()) == []


def test_a_row_given_twice_in_two_chunks_is_an_error(tmp_path):
    matrix = FEATURES["one"]
    with pytest.raises(StoreError, match="one: 1 of 5 rows"):
        write(tmp_path / "f.h5", features={"one": matrix}, chunks={"one": [(ROWS, matrix), (ROWS[:1], matrix[:1])]})


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt("disk full")])
def test_a_write_that_fails_leaves_what_was_there(written, error):
    def failing():
        yield ROWS[:2], FEATURES["one"][:2]
        raise error

    before = written.read_bytes()
    with pytest.raises(type(error), match="disk full"):
        write(written, features={"one": FEATURES["one"]}, chunks={"one": failing()})
    assert [path.name for path in written.parent.iterdir()] == ["features.h5"]
    assert written.read_bytes() == before


SIGNALLED = """
import os, signal, sys, time
from pathlib import Path
from stackcls import storewriter
from tests.test_store import write
class Stopped(BaseException):
    pass
def stop(*_):
    raise Stopped
def counted(whole):
    def call(self, *given):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        return whole(self, *given)
    return call
calls = 0
signal.signal(signal.SIGTERM, stop)
for name in ("write", "truncate", "readinto"):
    setattr(storewriter._Patient, name, counted(getattr(storewriter._Patient, name)))
try:
    write(Path(sys.argv[1]))
except Stopped:
    print("stopped")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("call", [3, 24, 30])  # of some fifty
def test_a_signal_within_hdf5_is_not_lost(written, call):
    """In a process of its own: h5py finds its way by chance where it did so before."""
    before = written.read_bytes()
    command = [sys.executable, "-c", SIGNALLED, str(written), str(call)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")
    assert [path.name for path in written.parent.iterdir()] == ["features.h5"]
    assert written.read_bytes() == before


def test_whatever_fails_within_hdf5_is_remembered(tmp_path):
    patient = storewriter._Patient(tmp_path / "x", "w+b")
    patient.close()  # so that everything fails, with no OSError
    assert (patient.write(b"ab"), patient.truncate(1), patient.readinto(bytearray(3))) == (2, 1, 3)
    assert isinstance(patient.failed, ValueError)


def test_ten_thousand_long_class_names_fit(tmp_path):
    names = tuple(f"{number:05d} 猫 {'long ' * 30}" for number in range(10_000))
    with Store(write(tmp_path / "f.h5", replace(TABLE, class_names=names))) as opened:
        assert opened.table.class_names == names


def test_no_group_no_rejected_image_and_no_matrix_is_fine(tmp_path):
    none = np.full(N, -1)
    table = replace(TABLE, labels=none, groups=none, group_names=(), rejected={}, class_names=())
    with Store(write(tmp_path / "f.h5", table, features={}, chunks={})) as opened:
        assert opened.table.equals(table)
        assert opened.matrices == {}


def test_many_rows_are_read_in_bounded_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROWS", 2)
    with Store(write(tmp_path / "f.h5")) as opened:
        assert [(start, len(part)) for start, part in opened.chunks("one")] == [(0, 2), (2, 2), (4, 1)]
        found = np.empty_like(FEATURES["one"])
        opened.read_into("one", found)
    assert np.array_equal(found, FEATURES["one"])


@pytest.mark.parametrize(
    "change",
    [
        {"paths": ("a b.png", "x/é.jpg", "犬/1.jpg", "猫/1.jpg", "猫/3.jpg")},
        {"labels": np.array([-1, 0, 1, 2, 1], dtype=np.int32)},
        {"groups": np.array([-1, 0, 1, 1, 0], dtype=np.int64)},
        {"splits": ("", "train", "test", "train", "")},
        {"class_names": ("x", "犬", "鳥")},
        {"rejected": {}},
        {"source": "elsewhere"},
    ],
)
def test_tables_that_differ_are_not_equal(change):
    assert TABLE.equals(replace(TABLE))
    assert not TABLE.equals(replace(TABLE, **change))
