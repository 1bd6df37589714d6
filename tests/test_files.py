"""Files are whole or absent, and digests tell them apart."""

import hashlib
import io
import os
import tracemalloc

import pytest

from stackcls import files
from stackcls.errors import WriteError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "folder" / "x.bin"
    with files.replacing(target) as temporary:
        assert temporary.parent == target.parent
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert names(target.parent) == ["x.bin"]


def test_the_old_file_stays_until_then(tmp_path):
    target = tmp_path / "x"
    target.write_bytes(b"old")
    with files.replacing(target) as temporary:
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("stopped"), KeyboardInterrupt("stopped"), SystemExit("stopped")])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_failed_write_leaves_what_was_there(tmp_path, error, old):
    target = tmp_path / "x"
    if old:
        target.write_bytes(old)

    def write():
        with files.replacing(target) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error), match="stopped"):
        write()
    assert names(tmp_path) == (["x"] if old else [])
    assert not old or target.read_bytes() == old


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    def write():
        with files.replacing(tmp_path / "x"):
            pass

    with pytest.raises(FileNotFoundError, match="No such file"):
        write()
    assert names(tmp_path) == []


def test_a_rename_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("disk on fire")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk on fire"):
        files.write_text(tmp_path / "x", "text")
    assert names(tmp_path) == []


def test_content_is_synced_before_the_rename(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("sync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names)))
    files.write_text(tmp_path / "x", "text")
    assert calls[:2] == ["sync", "replace"]


def test_stale_files_go_when_all_new_ones_are_written(tmp_path):
    (tmp_path / "old").write_text("old")
    with files.together(tmp_path / "a", tmp_path / "a", stale=[tmp_path / "old", tmp_path / "absent"]):
        files.write_text(tmp_path / "a", "new")
        assert names(tmp_path)[-1] == "old"
    assert names(tmp_path) == ["a"]


def test_stale_files_that_cannot_go_keep_all_as_it_was(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "folder").mkdir()

    def write():
        with files.together(tmp_path / "a", tmp_path / "a", stale=[tmp_path / "folder"]):
            files.write_text(tmp_path / "a", "new")

    with pytest.raises(WriteError, match="folder: cannot be written"):
        write()
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a", "folder"]


@pytest.mark.parametrize("text", ["", "猫\n", "a\r\nb\n", "no end"])
def test_text_is_written_as_given(tmp_path, text):
    files.write_text(tmp_path / "x", text)
    assert (tmp_path / "x").read_bytes() == text.encode()


@pytest.mark.parametrize("size", [0, 1, files.CHUNK - 1, files.CHUNK, 2 * files.CHUNK + 5])
def test_digests_are_those_of_the_standard_library(tmp_path, size):
    data = (b"0123456789" * (size // 10 + 1))[:size]
    (tmp_path / "x").write_bytes(data)
    assert files.digest_file(tmp_path / "x") == hashlib.sha256(data).hexdigest()
    assert files.digest_file(tmp_path / "x", 7) == hashlib.sha256(data[7:]).hexdigest()
    assert files.digest_stream(io.BytesIO(data), "md5") == hashlib.md5(data).hexdigest()


def test_the_digest_of_a_small_file_takes_little_memory(tmp_path):
    path = tmp_path / "small"
    path.write_bytes(b"x" * 1000)
    tracemalloc.start()
    assert files.digest_file(path) == hashlib.sha256(b"x" * 1000).hexdigest()
    assert files.digest_file(path, 990) == hashlib.sha256(b"x" * 10).hexdigest()
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_the_digest_of_a_stream_without_a_file():
    assert files.digest_stream(io.BytesIO(b"abc")) == hashlib.sha256(b"abc").hexdigest()
