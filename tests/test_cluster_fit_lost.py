"""`stackcls fit --cluster`, and processes that are killed: workers, the scheduler, the run itself."""

import json
import os

import dask
import pytest

from stackcls import cluster
from stackcls.stages import fit
from tests.cluster_stub import noted
from tests.clusters import Here, assert_same_fit, content, interrupt, killing, losing, start
from tests.conftest import FAKE_BACKBONES, make_settings

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")]

QUICK = {"report": {"depth": "quick"}}


@pytest.fixture
def scene(hard, tmp_path, monkeypatch):
    """A folder with a feature file and an earlier model; what happens to fits on workers, and the log of these."""
    raw = {"images": str(hard.images), "artifacts": str(hard.artifacts), "features": {"backbones": FAKE_BACKBONES}}
    (tmp_path / "pipeline.yaml").write_text(json.dumps({**raw, **QUICK}))
    fit.run(hard.model_copy(update={"cv": hard.cv.model_copy(update={"seed": 7})}))
    happens, log = tmp_path / "happens", tmp_path / "fits.log"
    log.touch()
    for name, value in (("STUB_FIT", happens), ("STUB_LOG", log)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", "tests.cluster_stub")  # for processes
    monkeypatch.chdir(tmp_path)
    with dask.config.set({"distributed.worker.preload": ["tests.cluster_stub"]}):
        yield hard, happens, log


def assert_undisturbed(settings, tmp_path):
    """The folder holds what a fit without a cluster gives."""
    alone = make_settings(settings.images, tmp_path / "alone", **QUICK)
    alone.artifacts.mkdir()
    alone.files.features.write_bytes(settings.files.features.read_bytes())
    fit.run(alone)
    assert_same_fit(settings.files, alone.files)
    assert content(settings.artifacts).keys() == content(alone.artifacts).keys()


def test_workers_killed_again_and_again_change_nothing(scene, stackcls, tmp_path):
    settings, happens, log = scene
    happens.write_text("0.7")
    with killing(log, "fit", 2) as kills:
        status, _, err = stackcls("fit", "--cluster", "local:2")
    assert (status, "error" in err) == (0, False)
    assert len(kills) >= 2
    assert_undisturbed(settings, tmp_path)


def test_a_lost_scheduler_is_said_and_leaves_the_earlier_model(scene, stackcls, tmp_path):
    settings, happens, log = scene
    happens.write_text("0.2")
    before = content(settings.artifacts)
    with Here(tmp_path) as there:
        there.worker()
        with losing(there, lambda: len(noted(log, "fit")) >= 3):
            status, out, err = stackcls("fit", "--cluster", there.file)
    assert (status, out) == (1, "")
    assert f"error: {there.file}: the scheduler is lost (" in err
    assert "start it again, with its workers, and run the same command again" in err
    assert "Traceback" not in err
    assert content(settings.artifacts) == before
    happens.write_text("0")
    there.file.unlink()
    with Here(tmp_path) as there:
        there.worker()
        assert stackcls("fit", "--cluster", there.file)[0] == 0
    assert_undisturbed(settings, tmp_path)


def test_ctrl_c_leaves_the_earlier_model_and_no_process(scene, stackcls, tmp_path):
    settings, happens, log = scene
    happens.write_text("0.5")
    before = content(settings.artifacts)
    err = interrupt(start("fit", "--cluster", "local:2", cwd=tmp_path), lambda: len(noted(log, "fit")) >= 3)
    assert err.splitlines()[-1] == "interrupted"
    assert content(settings.artifacts) == before
    happens.write_text("0")
    assert stackcls("fit")[0] == 0
    assert_undisturbed(settings, tmp_path)


def test_a_fit_that_kills_every_worker_ends_the_run(scene, stackcls, monkeypatch):
    settings, happens, _ = scene
    happens.write_text("die")
    monkeypatch.setattr(cluster, "AGAIN", 1)
    before = content(settings.artifacts)
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        status, out, err = stackcls("fit", "--cluster", "local:1")
    assert (status, out) == (1, "")
    assert "error: local:1: every worker that was given one part of the work died over it, the last one t" in err
    assert content(settings.artifacts) == before
