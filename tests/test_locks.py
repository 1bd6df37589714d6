"""One run at a time in a folder; locks of dead processes are taken over, those of living ones never."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from stackcls import locks, processes
from stackcls.errors import ArtifactsInUse, ConfigError, WriteError
from stackcls.stages import features, fit
from stackcls.store import Store
from tests.test_features_resumed import config_file

OTHER_MACHINE = "0123456789ab"


HOLDER = locks._myself()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def leave(folder, **changes):
    """A lock as a process leaves it that was killed."""
    folder.mkdir(exist_ok=True)
    holder = dataclasses.replace(locks._myself(), token="theirs", **changes)
    (folder / ".lock").write_text(json.dumps(dataclasses.asdict(holder)))
    return folder / ".lock"


@pytest.fixture
def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    began = processes.started(process.pid) or 0.0
    process.wait()
    return {"pid": process.pid, "started": began}


def test_a_lock_is_there_while_it_is_held_and_says_by_whom(tmp_path):
    with locks.held(tmp_path / "new"):
        holder = json.loads((tmp_path / "new/.lock").read_text())
        assert holder["pid"] == os.getpid()
        assert names(tmp_path / "new") == [".lock"]
    # A folder that it made itself and that stays empty goes with it.
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError("stop"), KeyboardInterrupt("stop"), SystemExit("stop")])
def test_it_is_given_back_on_errors(tmp_path, error):
    def work():
        with locks.held(tmp_path):
            raise error

    with pytest.raises(type(error), match="stop"):
        work()
    assert names(tmp_path) == []


def test_a_second_run_says_who_holds_it_and_does_nothing(stackcls, settings, fake_engine, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/stackcls", "features", "--images", "my photos"])
    file = config_file(settings, tmp_path)
    with locks.held(settings.artifacts):
        for verb in ("features", "fit"):
            status, out, err = stackcls(verb, "-c", file)
            assert (status, out) == (1, "")
            assert err.startswith(
                f"error: {settings.artifacts}: is in use by `stackcls features --images 'my photos'` "
                f"(process {os.getpid()} on "
            )
            assert err.endswith("+00:00); wait until it has ended, or stop it\n")
        # Reading needs no lock.
        assert stackcls("features", "-c", file, "--dry-run")[0] == 0
        assert stackcls("predict", settings.images, "--artifacts", settings.artifacts)[0] == 1  # for want of a model
        assert names(settings.artifacts) == [".lock"]
    assert fake_engine.computed == {}


def test_reading_goes_on_beside_a_run(stackcls, settings, fake_engine, tmp_path):
    file = config_file(settings, tmp_path)
    features.run(settings)
    fit.run(settings)
    before = names(settings.artifacts)
    with locks.held(settings.artifacts):
        assert stackcls("report", "-c", file)[0] == 0
        assert stackcls("predict", settings.images, "-c", file)[0] == 0
        assert stackcls("features", "-c", file, "--dry-run")[0] == 0
    assert names(settings.artifacts) == before


def test_every_verb_gives_the_lock_back(settings, fake_engine, monkeypatch):
    features.run(settings)
    assert names(settings.artifacts) == ["features.h5"]
    monkeypatch.setattr("stackcls.storewriter.write", lambda *_: 1 / 0)
    (settings.images / "red/00.png").rename(settings.images / "red/zz.png")
    with pytest.raises(ZeroDivisionError):
        features.run(settings)
    monkeypatch.setattr("stackcls.validation.cross_validate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit.run(settings)
    assert names(settings.artifacts) == ["features.h5"]


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, dead_process):
    path = leave(tmp_path, **dead_process)
    with locks.held(tmp_path) as lock:
        assert json.loads(path.read_text())["token"] == lock.mine.token
        assert names(tmp_path) == [".lock"]
    assert names(tmp_path) == []


def test_another_machine_is_dead_when_its_signs_of_life_stop(tmp_path, dead_process):
    path = leave(tmp_path, machine=OTHER_MACHINE, host="büro-7", **dead_process)
    with pytest.raises(ArtifactsInUse, match=r"on büro-7, since .* passed over 300 s after .*or delete .*\.lock"):
        locks.held(tmp_path).__enter__()
    os.utime(path, (time.time() - locks.SILENT_FOR + 30,) * 2)
    with pytest.raises(ArtifactsInUse, match=r"which was 2[67]\d s ago"):
        locks.held(tmp_path).__enter__()
    os.utime(path, (time.time() - locks.SILENT_FOR - 30,) * 2)
    with locks.held(tmp_path):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"pid": 3}', json.dumps({**dataclasses.asdict(HOLDER), "pid": "3"})]
)
def test_a_lock_that_says_nothing_is_passed_over_in_time(tmp_path, content):
    path = tmp_path / ".lock"
    path.write_text(content)
    with pytest.raises(ArtifactsInUse, match="does not say by whom; if nothing runs there, delete that file"):
        locks.held(tmp_path).__enter__()
    os.utime(path, (time.time() - locks.SILENT_FOR - 30,) * 2)
    with locks.held(tmp_path):
        pass


def test_a_lock_is_kept_fresh(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.01)
    with locks.held(tmp_path):
        os.utime(tmp_path / ".lock", (1, 1))
        for _ in range(1000):
            if (tmp_path / ".lock").stat().st_mtime > 1:
                break
            time.sleep(0.01)
        assert (tmp_path / ".lock").stat().st_mtime > 1


def test_who_was_passed_over_finds_out_before_writing(settings, fake_engine):
    def take_over(*_):
        leave(settings.artifacts, machine=OTHER_MACHINE, host="büro-7", command="stackcls fit")
        return {}

    extract = features.computation.compute
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(features.computation, "compute", lambda *given: (extract(*given), take_over()))
        with pytest.raises(ArtifactsInUse, match=r"was taken over by `stackcls fit` \(process \d+ on büro-7"):
            features.run(settings)
    # Its lock is left alone.
    assert names(settings.artifacts) == [".features-blocks", ".lock"]


def test_without_hard_links(tmp_path, monkeypatch, dead_process):
    def refuse(*_):
        raise PermissionError("no links on this file system")

    monkeypatch.setattr(os, "link", refuse)
    leave(tmp_path, **dead_process)
    with locks.held(tmp_path), pytest.raises(ArtifactsInUse, match="is in use by"):
        locks.held(tmp_path).__enter__()
    with locks.held(tmp_path):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt("stop")])
def test_without_hard_links_a_lock_that_cannot_be_written_goes(tmp_path, monkeypatch, error):
    def refuse(*_):
        raise PermissionError("no links on this file system")

    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def write(self, _):
            raise error

    def opened(path, mode, **options):
        open(path, mode, **options).close()
        return Full()

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(locks, "open", opened, raising=False)
    with pytest.raises((WriteError, KeyboardInterrupt), match=r"No space left on device|stop"):
        locks.held(tmp_path).__enter__()
    assert names(tmp_path) == []


def test_a_lock_out_of_reach_for_a_moment_is_not_taken_for_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PAUSE", 0.0)
    with locks.held(tmp_path) as lock:
        answers = [None, None, lock.mine]
        with monkeypatch.context() as patched:
            patched.setattr(locks, "_read", lambda _: answers.pop(0))
            lock.verify()
        assert answers == []
        lock.path.unlink()
        with pytest.raises(ArtifactsInUse, match="was taken over and then given back"):
            lock.verify()


def test_a_server_that_answers_twice_is_understood(tmp_path, monkeypatch):
    """Over a network file system, a link that was made may be reported as one that was there."""
    link = os.link

    def twice(*arguments):
        link(*arguments)
        link(*arguments)

    monkeypatch.setattr(os, "link", twice)
    with locks.held(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert names(tmp_path) == []


@pytest.mark.parametrize("dies", [False, True])
def test_of_many_who_find_a_dead_lock_one_takes_over(tmp_path, dead_process, dies):
    leave(tmp_path, **dead_process)
    if dies:  # somebody was killed who was taking over
        (tmp_path / ".lock").rename(tmp_path / ".lock-taking")
        leave(tmp_path, **dead_process)
    holding, most, refused, done = 0, 0, 0, threading.Barrier(8)
    guard = threading.Lock()

    def contend():
        nonlocal holding, most, refused
        done.wait()
        for _ in range(10):
            try:
                with locks.held(tmp_path):
                    with guard:
                        holding += 1
                        most = max(most, holding)
                    time.sleep(0.002)
                    with guard:
                        holding -= 1
            except ArtifactsInUse:
                refused += 1

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert refused < 80
    assert names(tmp_path) == []


def test_a_folder_that_is_read_only(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ConfigError, match=r"cannot be written to \(Read-only file system\); give another folder"):
        locks.held(tmp_path).__enter__()


def test_hdf5_s_own_locks_are_not_used(settings, fake_engine):
    """Where they do not work, as on many network file systems, they must not be asked for."""
    fcntl = pytest.importorskip("fcntl")
    features.run(settings)
    with open(settings.files.features, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with Store(settings.files.features) as store:
            assert len(store.table.paths) == 27
