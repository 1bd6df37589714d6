"""Processes of a cluster that are killed: workers, the scheduler, the run itself."""

import json
import os

import dask
import pytest

from stackcls import backbones, config
from stackcls.blocks import BlockFolder
from stackcls.errors import ClusterError
from stackcls.stages import features
from tests.cluster_stub import noted
from tests.clusters import Here, interrupt, killing, losing, start
from tests.conftest import FAKE_BACKBONES, make_settings, write_photos

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")]

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
    with killing(log, "run", 4) as kills:
        features.run(make("local:2"))
    computed = sum(number for number, _ in noted(log, "run"))
    assert len(kills) >= 2
    # What a worker that dies had begun, or had finished and not handed over yet, is computed again.
    assert computed <= 120 + len(kills) * 3 * PER_BLOCK
    assert_undisturbed(make(None), tmp_path)


def test_a_lost_scheduler_is_said_and_the_rerun_goes_on(sleepy, tmp_path, fake_engine):
    make, _ = sleepy
    with Here(tmp_path) as cluster:
        cluster.worker()
        settings = make(str(cluster.file))
        with (
            losing(cluster, lambda: len(BlockFolder(settings.files.blocks)) >= 3),
            pytest.raises(ClusterError, match=r"scheduler\.json: the scheduler is lost .*: start it again") as caught,
        ):
            features.run(settings)
        assert "the same command goes on from there" in caught.value.__notes__[0]
    kept = len(BlockFolder(settings.files.blocks))
    assert kept >= 3
    again = make(None)
    features.run(again)
    assert fake_engine.computed["sleepy"] == 120 - PER_BLOCK * kept
    assert_undisturbed(again, tmp_path)


def test_ctrl_c_ends_the_processes_of_this_machine_too(sleepy, tmp_path, monkeypatch):
    make, log = sleepy
    settings = make(None)
    raw = {"images": str(settings.images), "artifacts": str(settings.artifacts), "features": SLEEPY}
    (tmp_path / "pipeline.yaml").write_text(json.dumps(raw))
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", "tests.cluster_stub")
    err = interrupt(start("features", "--cluster", "local:2", cwd=tmp_path), lambda: noted(log, "run"))
    assert err.splitlines()[-1].startswith("interrupted")


def test_processes_that_cannot_be_started_are_said(sleepy):
    make, _ = sleepy
    with (
        dask.config.set({"distributed.worker.preload": ["no.such.module"]}),
        pytest.raises(ClusterError, match=r"'local:1': the processes cannot be started \(.*\); try fewer"),
    ):
        features.run(make("local:1"))
