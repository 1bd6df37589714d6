"""The cache of compiled models: found by content, whole or absent, bounded, and never in the way."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from stackcls import backbones, config, loading, processes
from stackcls.backbones import Backbone, Located
from stackcls.engines import cache, keras_models
from stackcls.errors import WeightsError
from stackcls.listener import Silent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache of this test's own."""
    monkeypatch.setenv("STACKCLS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    """Writes an entry and counts how often it had to."""

    def __init__(self, content=b"network", error=None):
        self.content, self.error, self.calls = content, error, 0

    def __call__(self, made):
        self.calls += 1
        (made / "model.bin").write_bytes(self.content)
        if self.error:
            raise self.error
        return {"width": 7}


def test_an_entry_is_made_once(folder):
    make = Maker()
    for _ in range(3):
        path, meta = cache.entry("key", make)
        assert (path / "model.bin").read_bytes() == b"network"
        assert meta == {"width": 7}
    assert make.calls == 1
    assert [item.name for item in folder.iterdir()] == ["key"]


def test_entries_of_other_keys_are_others(folder):
    cache.entry("one", Maker(b"1"))
    path, _ = cache.entry("two", Maker(b"2"))
    assert (path / "model.bin").read_bytes() == b"2"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "model.bin").write_bytes(b"netw0rk"),
        lambda path: (path / "model.bin").unlink(),
        lambda path: (path / "meta.json").write_text("{"),
        lambda path: (path / "meta.json").write_text("[]"),
        lambda path: (path / "meta.json").unlink(),
    ],
)
def test_a_damaged_entry_is_made_again(folder, damage):
    path, _ = cache.entry("key", Maker())
    damage(path)
    make = Maker()
    path, _ = cache.entry("key", make)
    assert make.calls == 1
    assert (path / "model.bin").read_bytes() == b"network"


def test_a_maker_that_fails_leaves_nothing(folder):
    with pytest.raises(ZeroDivisionError):
        cache.entry("key", Maker(error=ZeroDivisionError()))
    assert list(folder.iterdir()) == []


def test_weights_that_cannot_be_read_are_not_blamed_on_the_cache(folder, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Unable to open file")

    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace())
    monkeypatch.setattr(keras_models, "_answering_get_file", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(keras_models, "_call", refuse)
    backbone = Backbone("one", "MobileNet", (), 32, "imagenet", 0, None, "average", "keras")
    with pytest.raises(
        WeightsError, match=r"'one': w.h5 cannot be read \(.*Unable to open file\): allow reading it, or"
    ):
        cache.entry("key", lambda _: keras_models.build(backbone, Path("w.h5")))
    assert list(folder.iterdir()) == []


def test_another_process_may_be_faster_and_keeps_its_files(folder):
    found = {}

    def make(made):
        path, _ = cache._entry(folder / "key", Maker(b"theirs"))  # as another process would, without this one's lock
        found["theirs"] = (path / "model.bin").stat().st_ino
        return Maker(b"mine")(made)

    path, _ = cache.entry("key", make)
    assert (path / "model.bin").read_bytes() == b"theirs"
    assert (path / "model.bin").stat().st_ino == found["theirs"]
    assert [item.name for item in folder.iterdir()] == ["key"]


def test_threads_make_an_entry_once(folder):
    make = Maker()
    with ThreadPoolExecutor(8) as pool:
        assert {path for path, _ in pool.map(lambda _: cache.entry("key", make), range(16))} == {folder / "key"}
    assert make.calls == 1


def test_a_changed_description_is_noticed(folder):
    path, _ = cache.entry("key", Maker())
    record = json.loads((path / "meta.json").read_text())
    record["meta"]["width"] = 8
    (path / "meta.json").write_text(json.dumps(record))
    assert cache.entry("key", Maker())[1] == {"width": 7}


def test_a_cache_of_another_user_can_be_read(folder, monkeypatch):
    cache.entry("key", Maker())

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    make = Maker()
    cache.entry("key", make)
    assert make.calls == 0


def test_what_killed_processes_left_behind_goes(folder):
    cache.entry("key", Maker())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    began = processes.started(dead.pid) or 0.0
    dead.wait()
    elsewhere = "0123456789ab-1-1"
    kept = [f"{cache.BEGUN}a.{processes.mark()}", f"{cache.BEGUN}b.{elsewhere}"]
    gone = [f"{cache.BEGUN}c.{processes.this_machine()}-{dead.pid}-{began:.0f}", f"{cache.BEGUN}d.{elsewhere}"]
    for name in kept + gone:
        (folder / name).mkdir()
    os.utime(folder / gone[1], (time.time() - 2 * processes.ABANDONED,) * 2)
    cache.entry("another", Maker())
    assert sorted(item.name for item in folder.iterdir()) == [*kept, "another", "key"]


def test_what_was_used_longest_ago_goes_first(folder, monkeypatch):
    for age, key in enumerate(["new", "old", "older"]):
        path, _ = cache.entry(key, Maker(b"x" * 1000))
        os.utime(path / "meta.json", (1e9 - age, 1e9 - age))
    cache.entry("older", Maker())  # used again
    monkeypatch.setattr(cache, "LIMIT", 3900)
    cache.entry("newest", Maker(b"x" * 1000))
    assert sorted(item.name for item in folder.iterdir()) == ["new", "newest", "older"]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STACKCLS_CACHE", str(tmp_path / "file"))
    path, meta = cache.entry("key", Maker())
    assert (path / "model.bin").read_bytes() == b"network"
    assert meta == {"width": 7}
    assert cache.complaint().startswith(f"{tmp_path / 'file'} cannot be used (")
    assert cache.complaint() is None


class Hearing(Silent):
    def __init__(self):
        self.warnings = []

    def warn(self, line):
        self.warnings.append(line)


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_told_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STACKCLS_CACHE", str(tmp_path / "file"))
    backbone = {"name": "small", "architecture": "mini_vgg"}
    settings = config.build({"features": {"backbones": [backbone, {**backbone, "name": "other", "pooling": "max"}]}})
    hearing = Hearing()
    located = loading.locate(backbones.resolve(settings.features), settings, True, hearing)
    prepared = loading.prepare(located, "auto", 2, 2, hearing, announce=False)
    assert list(prepared.extractors) == ["small", "other"]
    (line,) = hearing.warnings
    assert line.startswith(f"the cache of compiled models, {tmp_path / 'file'} cannot be used (")
    assert line.endswith("let STACKCLS_CACHE name another folder")


def test_the_folder_is_the_user_s_unless_the_variable_says_otherwise(folder, monkeypatch):
    assert cache.cache_folder() == folder
    monkeypatch.delenv("STACKCLS_CACHE")
    assert cache.cache_folder().name in {"stackcls", "Cache"}


def test_a_key_is_all_that_decides_what_the_network_computes():
    backbone = backbones.resolve(config.build({"features": {"backbones": [{"name": "vgg16"}]}}).features)[0]
    located = Located(backbone, None, backbone.identity("0" * 64, "float32"))
    key = cache.key_of(located, form="a")
    assert key == cache.key_of(replace(located, backbone=replace(backbone, name="another")), form="a")
    assert key != cache.key_of(located, form="b")
    elsewhere = {"resize", "views", "precision", "pooling", "basis"}
    for field in json.loads(located.identity.to_json()):
        changed = replace(located, identity=replace(located.identity, **{field: "x"}))
        assert key != cache.key_of(replace(located, backbone=replace(backbone, weights="a.h5")), form="a")
        assert (cache.key_of(changed, form="a") == key) == (field in elsewhere), field
