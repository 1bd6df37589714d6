"""Processes of a cluster that are killed: workers, the scheduler, the run itself."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import psutil
import pytest

from stackcls import backbones, config
from stackcls.blocks import BlockFolder
from stackcls.errors import ClusterError
from stackcls.stages import features
from tests.conftest import FAKE_BACKBONES, make_settings, write_photos

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")]

ROOT = Path(__file__).resolve().parent.parent
SLEEPY = {"backbones": [{**FAKE_BACKBONES[0], "name": "sleepy"}]}
PER_BLOCK = 8


@pytest.fixture
def sleepy(tmp_path, monkeypatch):
    """Settings of 120 photos and a network that takes its time; the log of what went through it."""
    monkeypatch.setattr("stackcls.computation.IMAGES_PER_BLOCK", PER_BLOCK)
    log = tmp_path / "computed.log"
    log.touch()
    monkeypatch.setenv("STUB_LOG", str(log))
    monkeypatch.setenv("STUB_SECONDS", "0.05")
    photos = write_photos(tmp_path / "photos", 40)

    def make(address):
        return make_settings(photos, tmp_path / "artifacts", features=SLEEPY, cluster={"address": address})

    with dask.config.set({"distributed.worker.preload": ["tests.cluster_stub"]}):
        yield make, log


def assert_undisturbed(settings, tmp_path):
    alone = make_settings(settings.images, tmp_path / "alone", features=SLEEPY)
    features.run(alone)
    assert settings.files.features.read_bytes() == alone.files.features.read_bytes()
    assert [path.name for path in settings.artifacts.iterdir()] == ["features.h5"]


def workers_of(process):
    return [item for item in process.children(recursive=True) if "spawn_main" in " ".join(item.cmdline())]


def test_processes_on_this_machine_make_the_same_file_with_a_real_engine(tmp_path):
    write_photos(tmp_path / "photos", 48)
    (tmp_path / "photos/red/cut.png").write_bytes((tmp_path / "photos/red/00.png").read_bytes()[:200])
    raw = {"images": str(tmp_path / "photos"), "features": {"backbones": ["mini_vgg"]}}
    raw["features"] |= {"engine": "openvino", "pooling": ["average", "covariance"]}
    runs = [
        config.build({**raw, "artifacts": str(tmp_path / str(number)), "cluster": {"address": address}})
        for number, address in enumerate([None, "local:2"])
    ]
    results = [features.run(settings) for settings in runs]
    assert len(backbones.resolve(runs[0].features)) == 2
    assert results[0].path.read_bytes() == results[1].path.read_bytes()
    assert dict(results[0].rejected) == dict(results[1].rejected)


def test_workers_killed_again_and_again_end_no_run(sleepy, tmp_path, fake_engine):
    make, log = sleepy
    kills, over = [], threading.Event()

    def kill():
        rng, this = random.Random(0), psutil.Process()
        while not over.wait(2.0):
            if log.read_text() and (found := workers_of(this)):
                worker = rng.choice(found)
                worker.kill()
                kills.append(worker.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        features.run(make("local:2"))
    finally:
        over.set()
        killer.join()
    computed = sum(map(int, log.read_text().split()))
    assert len(kills) >= 2
    # What a worker that dies had begun, or had finished and not handed over yet, is computed again.
    assert computed <= 120 + len(kills) * 3 * PER_BLOCK
    assert_undisturbed(make(None), tmp_path)


def dask_process(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def test_a_lost_scheduler_is_said_and_the_rerun_goes_on(sleepy, tmp_path, fake_engine):
    make, _ = sleepy
    file = tmp_path / "scheduler.json"
    scheduler = dask_process(
        *("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"),
        *("--scheduler-file", str(file)),
    )
    worker = dask_process(
        *("distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard"),
        *("--no-nanny", "--preload", "tests.cluster_stub", "--death-timeout", "60"),
    )
    try:
        while not file.exists():
            time.sleep(0.1)
        settings = make(str(file))

        def lose():
            while len(BlockFolder(settings.files.blocks)) < 3:
                time.sleep(0.05)
            scheduler.kill()

        loser = threading.Thread(target=lose)
        loser.start()
        with pytest.raises(ClusterError, match=r"scheduler\.json: the scheduler is lost .*: start it again") as caught:
            features.run(settings)
        loser.join()
        assert "the same command goes on from there" in caught.value.__notes__[0]
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
    kept = len(BlockFolder(settings.files.blocks))
    assert kept >= 3
    again = make(None)
    features.run(again)
    assert fake_engine.computed["sleepy"] == 120 - PER_BLOCK * kept
    assert_undisturbed(again, tmp_path)


def test_ctrl_c_ends_the_processes_of_this_machine_too(sleepy, tmp_path):
    make, log = sleepy
    settings = make(None)
    raw = {"images": str(settings.images), "artifacts": str(settings.artifacts), "features": SLEEPY}
    (tmp_path / "pipeline.yaml").write_text(json.dumps(raw))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__WORKER__PRELOAD": "tests.cluster_stub"}
    run = subprocess.Popen(
        [sys.executable, "-m", "stackcls", "features", "--cluster", "local:2"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not log.read_text():
            assert run.poll() is None, run.communicate()
            time.sleep(0.1)
        started = psutil.Process(run.pid).children(recursive=True)
        listening = [
            item.laddr.ip
            for process in (psutil.Process(run.pid), *started)
            for item in process.net_connections("inet")
            if item.status == psutil.CONN_LISTEN
        ]
        assert set(listening) == {"127.0.0.1"}
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        out, err = run.communicate(timeout=60)
    finally:
        run.kill()
    assert (run.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in err
    assert "distributed" not in err
    assert not psutil.wait_procs(started, timeout=10)[1]


def test_processes_that_cannot_be_started_are_said(sleepy):
    make, _ = sleepy
    with (
        dask.config.set({"distributed.worker.preload": ["no.such.module"]}),
        pytest.raises(ClusterError, match=r"'local:1': the processes cannot be started \(.*\); try fewer"),
    ):
        features.run(make("local:1"))
