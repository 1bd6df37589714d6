"""Which process made something, and whether it is gone: where that cannot be known, it counts as alive for long."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stackcls import files, locks, processes, weightfiles
from stackcls.errors import ArtifactsInUse, WeightsError
from stackcls.stages import features
from tests.test_locks import HOLDER, OTHER_MACHINE, dead_process, leave, names

__all__ = ["dead_process"]  # a fixture

linux = pytest.mark.skipif(sys.platform != "linux", reason="tells as Linux does")


def test_the_number_of_a_dead_process_may_have_been_given_again(tmp_path):
    path = leave(tmp_path, started=locks._myself().started - 60)
    with pytest.raises(ArtifactsInUse, match=r"passed over 300 s after its last sign of life"):
        locks.held(tmp_path).__enter__()
    os.utime(path, (time.time() - locks.SILENT_FOR - 30,) * 2)
    with locks.held(tmp_path):
        pass
    leave(tmp_path)
    with pytest.raises(ArtifactsInUse, match="is in use by"), locks.held(tmp_path):
        pass


@linux
def test_a_clock_that_is_set_makes_no_living_process_dead(tmp_path, monkeypatch):
    path = leave(tmp_path)
    os.utime(path, (1, 1))
    # What psutil makes of the ticks moves with the clock.
    monkeypatch.setattr("psutil.Process.create_time", lambda _: time.time() + 3600)
    monkeypatch.setattr("psutil.boot_time", lambda: 1.0)
    processes._mark.cache_clear()
    with pytest.raises(ArtifactsInUse, match="is in use by"):
        locks.held(tmp_path).__enter__()


@linux
def test_a_process_that_cannot_be_seen_is_alive_while_it_gives_signs_of_life(tmp_path, monkeypatch):
    """Another user's, where `/proc` is mounted so that it shows one's own alone."""

    def refuse(pid, number):
        assert (pid, number) == (4711, 0)
        raise PermissionError

    path = leave(tmp_path, pid=4711)
    mine = processes.mark()
    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(processes, "PROC", tmp_path / "nothing there")
    assert processes.is_gone(processes.this_machine(), 4711, 7.0) is None
    monkeypatch.setattr(locks, "_myself", lambda: dataclasses.replace(HOLDER, token="mine"))
    with pytest.raises(ArtifactsInUse, match=r"is in use by .*passed over 300 s after its last sign of life"):
        locks.held(tmp_path).__enter__()
    os.utime(path, (time.time() - locks.SILENT_FOR - 30,) * 2)
    with locks.held(tmp_path):
        assert processes.mark() == mine


@linux
@pytest.mark.parametrize("name", ["python", "a) b (c", ") R 1 2 3"])
def test_when_a_process_began_is_read_behind_its_name(tmp_path, monkeypatch, name):
    stat = (Path("/proc") / str(os.getpid()) / "stat").read_text()
    began = processes.started(os.getpid())
    (tmp_path / str(os.getpid())).mkdir()
    (tmp_path / str(os.getpid()) / "stat").write_text(f"{os.getpid()} ({name}{stat[stat.rindex(')') :]}")
    monkeypatch.setattr(processes, "PROC", tmp_path)
    assert processes.started(os.getpid()) == began > 0


@linux
def test_a_process_that_was_killed_and_not_waited_for_is_dead(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = processes.started(process.pid)
    leave(tmp_path, pid=process.pid, started=began)
    with pytest.raises(ArtifactsInUse, match="is in use by"), locks.held(tmp_path):
        pass
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with locks.held(tmp_path):
        pass
    process.communicate()


def test_what_dead_writers_left_is_removed_and_of_the_living_nothing(settings, fake_engine, dead_process):
    settings.artifacts.mkdir()
    dead = f"{processes.this_machine()}-{dead_process['pid']}-{dead_process['started']:.0f}"
    elsewhere = f"{OTHER_MACHINE}-{dead_process['pid']}-7"
    old = settings.artifacts / f".old.json.{elsewhere}.tmp"
    kept = [f".x.json.{processes.mark()}.tmp", f".y.json.{elsewhere}.tmp", ".mine.tmp", ".a.b.tmp", "notes.txt"]
    gone = [f".features.h5.{dead}.tmp", f".model.joblib.{dead}.tmp", f".lock.f00.{dead}.tmp", old.name]
    for name in kept + gone:
        (settings.artifacts / name).write_bytes(b"half")
    for path in (old, settings.artifacts / ".a.b.tmp"):
        os.utime(path, (1, 1))
    features.run(settings)
    assert names(settings.artifacts) == sorted([*kept, "features.h5"])


def test_a_download_removes_what_a_killed_one_left(tmp_path, dead_process, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    dead = f"{processes.this_machine()}-{dead_process['pid']}-{dead_process['started']:.0f}"
    (tmp_path / "models").mkdir()
    (tmp_path / f"models/.w.h5.{dead}.tmp").write_bytes(b"half")
    (tmp_path / f"models/.v.h5.{processes.mark()}.tmp").write_bytes(b"half")
    with pytest.raises(WeightsError, match="cannot be reached"):
        weightfiles.fetch(weightfiles.Download("w.h5", "", ""), "http://127.0.0.1:9", 1, lambda *_: lambda _: None)
    assert names(tmp_path / "models") == [f".v.h5.{processes.mark()}.tmp"]


def test_temporary_names_tell_their_writer(tmp_path):
    with files.replacing(tmp_path / "x.json") as temporary:
        temporary.write_bytes(b"")
        assert temporary.name == f".x.json.{processes.mark()}.tmp"
        assert not processes.is_left_behind(temporary, processes.mark())
    assert not processes.is_left_behind(Path("not there"), "someone")
