"""A disk that is full, fails or may not be written: no broken artifact, one clear message, and the rerun succeeds."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stackcls.files import WriteError, replacing, together, write_text
from stackcls.stages import features
from tests.test_features_resumed import assert_finished, config_file, small_blocks  # noqa: F401

HERE = Path(__file__).parent
COMPILER = shutil.which("cc")


@pytest.fixture(scope="session")
def failing_disk(tmp_path_factory):
    """The library that stands before the system's own functions; see `failing_disk.c`."""
    if sys.platform != "linux" or not COMPILER:
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("disk") / "failing_disk.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", library, HERE / "failing_disk.c", "-ldl"], check=True)
    return library


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "lasting"), [(errno.ENOSPC, 1), (errno.EIO, 0)], ids=["full from then on", "fails once"]
)
@pytest.mark.parametrize(
    ("scene", "least"), [("features", 50), ("added", 50), ("fit", 30), ("again", 30), ("weights", 8), ("compiled", 8)]
)
def test_every_change_of_a_file_fails_in_turn(failing_disk, tmp_path, scene, least, number, lasting):
    result = run_scene(failing_disk, tmp_path, scene, number, lasting)
    assert result["problems"] == []
    assert result["changes"] >= least
    assert result["failed"] >= 0.6 * result["changes"]  # the rest was done without


@pytest.mark.slow
def test_a_folder_becomes_read_only(failing_disk, tmp_path):
    result = run_scene(failing_disk, tmp_path, "features", errno.EROFS, 1)
    assert result["problems"] == []
    assert result["failed"] == result["changes"]


def run_scene(library, folder, scene, number, lasting):
    command = [sys.executable, HERE / "failing_disk.py", scene, str(number), str(lasting), folder]
    done = subprocess.run(
        command, env={**os.environ, "LD_PRELOAD": str(library)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_file_may_grow_beyond_a_limit(stackcls, settings, fake_engine, tmp_path):
    resource = pytest.importorskip("resource")
    file = config_file(settings, tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    seen = []
    for limit in (0, 100, 2000, 3000, 5000, 9000, 12_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.MonkeyPatch.context() as patched:
                # What is said goes to a file too.
                said = []
                patched.setattr("stackcls.exits.click.echo", lambda line, said=said, **_: said.append(line))
                patched.setattr("stackcls.commands.learning.click.echo", lambda line, said=said, **_: said.append(line))
                patched.setattr("stackcls.console.Console.say", lambda *_: None)
                status = stackcls("features", "-c", file)[0]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        seen.append(status)
        if status:
            assert "cannot be written (File too large): free space there, and run the same command again" in said[-1]
            assert not settings.files.features.exists()
    assert seen[0] == 1
    assert 1 in seen[2:], "the limits met no store"
    features.run(settings)
    assert fake_engine.computed["one"] < 27 * 4  # blocks that could be written were kept
    assert_finished(settings, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system in memory")
def test_a_disk_that_is_really_full(stackcls, settings, fake_engine, tmp_path):
    disk = settings.artifacts
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        file = config_file(settings, tmp_path)
        for size in (8, 12, 16):
            subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
            status, out, err = stackcls("features", "-c", file)
            assert (status, out) == (1, "")
            assert "cannot be written (No space left on device): free space there" in err.splitlines()[-1]
            assert "Traceback" not in err
            assert {path.name for path in disk.iterdir()} <= {".features-blocks"}
        assert err.endswith("and the same command goes on from there\n")
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
        features.run(settings)
        assert_finished(settings, tmp_path)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(stackcls, settings, fake_engine, tmp_path):
    settings.artifacts.mkdir(mode=0o500)
    status, _, err = stackcls("features", "-c", config_file(settings, tmp_path))
    assert status == 2
    assert f"artifacts: {settings.artifacts} cannot be written to (Permission denied); give another folder" in err


def test_files_written_together_appear_together(tmp_path):
    first, last, between = tmp_path / "model", tmp_path / "card", tmp_path / "report"
    with together(first=first, last=last):
        for path in (between, last, first):
            write_text(path, "new")
        assert not any(path.exists() for path in (first, last, between))
    assert {path.name for path in tmp_path.iterdir()} == {"model", "card", "report"}


def test_of_files_written_together_none_appears_where_one_fails(tmp_path):
    (tmp_path / "model").write_text("old")

    def work():
        with together(first=tmp_path / "model", last=tmp_path / "card"):
            write_text(tmp_path / "model", "new")
            with replacing(tmp_path / "card"):
                raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WriteError, match=r"card: cannot be written \(No space left on device\): free space there, and"):
        work()
    assert (tmp_path / "model").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_the_order_of_renames_lets_a_mix_be_found_out(tmp_path, monkeypatch):
    """A kill between two renames leaves a new first file and an old last one, which names the first's hash."""
    order, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (order.append(Path(new).name), replace(old, new)))
    with together(first=tmp_path / "model", last=tmp_path / "card"):
        for name in ("card", "report", "model", "text"):
            write_text(tmp_path / name, name)
    assert order == ["model", "report", "text", "card"]
    write_text(tmp_path / "alone", "")
    assert order[-1] == "alone"


@pytest.mark.parametrize("error", [OSError("reset"), ConnectionResetError(errno.ECONNRESET, "reset")])
def test_other_errors_stay_what_they_are(tmp_path, error):
    def work():
        with replacing(tmp_path / "x"):
            raise error

    with pytest.raises(type(error), match="reset") as caught:
        work()
    assert caught.value is error
