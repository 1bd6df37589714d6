"""`features` on a Dask cluster: the same file as without, and what goes wrong is said."""

import contextlib
import itertools
import os
import re
import sys
import threading
import time

import dask
import pytest
from distributed import LocalCluster, Status

from stackcls import cluster, connecting, crew, tasks
from stackcls.blocks import BlockFolder
from stackcls.clustersettings import ClusterSettings
from stackcls.errors import ClusterError, ConfigError
from stackcls.listener import Silent
from stackcls.stages import features
from stackcls.store import Store
from tests.conftest import FAKE_BACKBONES, make_settings, write_photo, write_photos

PER_BLOCK = 8


@pytest.fixture(scope="module")
def workers(compiled_models):
    """Two workers with the stub; a task that kills one is given up at once."""
    with dask.config.set({"distributed.worker.preload": ["tests.cluster_stub"]}):
        local = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=0)
        local.scheduler.allowed_failures = 0
        with local:
            yield local


@pytest.fixture
def on_cluster(workers, tmp_path, monkeypatch):
    """Settings as `make_settings` makes them, to be run on the workers."""
    monkeypatch.setattr("stackcls.computation.IMAGES_PER_BLOCK", PER_BLOCK)
    monkeypatch.setattr("stackcls.listing.PER_TASK", PER_BLOCK)

    def make(images, **sections):
        where = {"address": workers.scheduler_address, **sections.pop("cluster", {})}
        return make_settings(images, tmp_path / "artifacts", cluster=where, **sections)

    return make


class Hearing(Silent):
    def __init__(self):
        self.said, self.warned, self.counted = [], [], {}

    def say(self, line):
        self.said.append(line)

    def warn(self, line):
        self.warned.append(line)

    @contextlib.contextmanager
    def track(self, what, total, unit):
        self.counted[what] = [total, 0]

        def advance(count):
            self.counted[what][1] += count

        yield advance


def named(name, **given):
    return {"backbones": [{**FAKE_BACKBONES[0], "name": name, **given}]}


def test_a_cluster_makes_the_same_file_and_rejects_the_same_images(photos, on_cluster, tmp_path, fake_engine):
    (photos / "red/empty.png").write_bytes(b"")
    (photos / "red/cut.png").write_bytes((photos / "red/00.png").read_bytes()[:200])
    (photos / "red/folder.png").mkdir()
    (photos / "red/again.png").write_bytes((photos / "blue/03.png").read_bytes())
    settings, heard = on_cluster(photos), Hearing()
    result = features.run(settings, listener=heard)
    assert fake_engine.batches == {}, "no network runs in this process"
    alone = features.run(make_settings(photos, tmp_path / "alone"))
    assert settings.files.features.read_bytes() == alone.path.read_bytes()
    assert dict(result.rejected) == dict(alone.rejected)
    assert list(result.rejected) == list(alone.rejected)
    assert len(result.rejected) == 2
    assert heard.counted == {"hash": [30, 30], "features": [29, 29]}
    assert heard.said.count("engine: fake, float32") == 1
    assert heard.warned == []
    assert [path.name for path in settings.artifacts.iterdir()] == ["features.h5"]


def test_only_what_is_new_is_computed(photos, on_cluster, tmp_path, fake_engine):
    features.run(make_settings(photos, tmp_path / "artifacts"))
    write_photo(photos / "red/new.png", (200, 60, 60), 5)
    heard = Hearing()
    features.run(on_cluster(photos), listener=heard)
    assert heard.counted["features"] == [1, 1]


def test_what_differs_between_workers_is_said_and_recorded(tmp_path, on_cluster):
    settings, heard = on_cluster(write_photos(tmp_path / "many", 40), features=named("mixed")), Hearing()
    features.run(settings, listener=heard)
    assert [line.partition(" (")[0] for line in heard.warned] == ["workers differ"]
    with Store(settings.files.features) as store:
        provenance = store.matrices["mixed"].provenance
    assert len({provenance["processor"], *(item["processor"] for item in provenance["earlier"])}) == 2


def test_an_image_that_takes_too_long_on_a_worker_is_rejected(photos, on_cluster):
    stuck = write_photo(photos / "red/stuck.png", (200, 60, 60), 5)
    result = features.run(on_cluster(photos, features={"image_seconds": 0.3}))
    assert dict(result.rejected) == {
        f"red/{stuck.name}": "took longer than 0.3 s to decode; raise features.image_seconds"
    }


def test_images_that_only_workers_cannot_read_are_not_rejected(photos, on_cluster, monkeypatch):
    unseen = write_photo(photos / "red/unseen.png", (200, 60, 60), 5)
    monkeypatch.chdir(photos.parent)
    said = r"red/unseen.png: file not found, says the worker tcp://.*, but this machine can read it.* the same path \("
    with pytest.raises(ClusterError, match=said + re.escape(str(unseen))):
        features.run(on_cluster(photos.name))


def test_an_image_of_which_workers_see_another_file_is_not_rejected(photos, on_cluster):
    write_photo(photos / "blue/--other.png", (60, 60, 200), 5)  # the first, which this machine decodes itself
    with pytest.raises(ClusterError, match=r"blue/--other.png: the worker .* sees another file than this machine"):
        features.run(on_cluster(photos))


def test_images_that_only_workers_cannot_decode_are_not_rejected(photos, on_cluster):
    (photos / "red/cut.png").write_bytes((photos / "red/00.png").read_bytes()[:200])
    write_photo(photos / "red/large.png", (200, 60, 60), 5)
    with pytest.raises(
        ClusterError,
        match=r"red/large.png: not enough memory to decode it, says the worker tcp://.*, but this machine can",
    ):
        features.run(on_cluster(photos))


def test_weights_that_a_worker_lacks_are_sent_to_it(photos, on_cluster, tmp_path, compiled_models, monkeypatch):
    monkeypatch.setattr("stackcls.remotely.PIECE", 1000)
    weights = tmp_path / "some.weights.h5"
    weights.write_bytes(os.urandom(2500))
    settings, heard = on_cluster(photos, features=named("own", weights=str(weights))), Hearing()
    features.run(settings, listener=heard)
    sent = [line for line in heard.said if line.startswith("sending some.weights.h5 to the worker tcp://")]
    assert len(sent) == 1, "both workers keep it in the same folder"
    (kept,) = (compiled_models / "weights").iterdir()
    assert kept.read_bytes() == weights.read_bytes()
    assert kept.name.endswith(".weights.h5"), "Keras reads a file that ends in .h5 alone as one of an older format"
    heard = Hearing()
    features.run(settings.model_copy(update={"artifacts": tmp_path / "again"}), listener=heard)
    assert not [line for line in heard.said if line.startswith("sending")]


def test_pieces_that_are_not_the_file_are_not_kept(compiled_models):
    tasks.receive("0" * 64, ".h5", 0, b"other bytes", True)
    assert not tasks.holds("0" * 64, ".h5")
    assert not list((compiled_models / "weights").glob(f"*{'0' * 64}*"))


def test_a_worker_of_another_version_is_refused(photos, on_cluster, monkeypatch):
    monkeypatch.setattr(cluster, "__version__", "0.0.1")
    with pytest.raises(
        ClusterError, match=r"tcp://.*: this worker has stackcls .*, and the run is by 0\.0\.1: install"
    ):
        features.run(on_cluster(photos))


def test_a_network_that_breaks_on_a_worker_ends_the_run_with_a_message(photos, on_cluster):
    with pytest.raises(
        ClusterError, match=r"a worker cannot do its part \(RuntimeError: a network broke\); scheduler and"
    ):
        features.run(on_cluster(photos, features=named("broken")))


def test_what_kills_every_worker_is_named(photos, on_cluster, monkeypatch):
    monkeypatch.setattr(cluster, "AGAIN", 1)
    for path in sorted(photos.rglob("*.png"))[PER_BLOCK:]:
        path.unlink()
    with pytest.raises(
        ClusterError, match=r"died over it, the last .*That part is these 8 images: blue/00\.png, .*, blue/07\.png$"
    ):
        features.run(on_cluster(photos, features=named("deadly")))


def test_only_as_many_tasks_are_under_way_as_keep_the_workers_busy(on_cluster, photos):
    given, most, got = itertools.count(), 0, []

    def job():
        number = next(given)
        return (number, (number,)) if number < 60 else None

    settings = ClusterSettings(address=on_cluster(photos).cluster.address)
    with connecting.connect(settings, Silent()) as connected:
        for number, result in connected.stream(abs, job, str):
            got.append((number, result))
            under_way = len(connected._client.futures)
            most = max(most, under_way)
    assert sorted(got) == [(number, number) for number in range(60)]
    assert most <= max(crew.AT_LEAST, 2 * crew.AHEAD) + cluster.TOGETHER  # which threads still let go


def test_a_resource_that_no_worker_has_is_said(photos, on_cluster, monkeypatch):
    monkeypatch.setattr(crew, "PATIENCE", 0.0)
    monkeypatch.setattr(crew, "LOOK", 0.1)

    class Stopping(Silent):
        def warn(self, line):
            raise KeyboardInterrupt(line)

    with pytest.raises(
        KeyboardInterrupt, match=r"[0-2] workers?, none of them with GPU=1: waiting; start some with `dask worker"
    ):
        features.run(on_cluster(photos, cluster={"resources": {"GPU": 1}}), listener=Stopping())


def set_status(name, dask_worker):
    """On a worker: what it does itself where memory is short."""
    dask_worker.status = Status[name]


def test_workers_that_are_paused_are_said(workers, monkeypatch):
    monkeypatch.setattr(crew, "PATIENCE", 0.2)
    monkeypatch.setattr(crew, "LOOK", 0.1)
    settings, heard, jobs = ClusterSettings(address=workers.scheduler_address), Hearing(), iter([(0, (-3,))])
    with connecting.connect(settings, heard) as connected:
        connected._client.run(set_status, "paused")
        resuming = threading.Timer(2.0, connected._client.run, (set_status, "running"))
        resuming.start()
        try:
            assert list(connected.stream(abs, lambda: next(jobs, None), str)) == [(0, 3)]
        finally:
            resuming.join()
    # Others may still come back from an earlier test.
    assert any("workers paused: give them more memory (`dask worker --memory-limit`)" in x for x in heard.warned)


def test_that_no_result_comes_is_said(workers, monkeypatch):
    monkeypatch.setattr(crew, "QUIET", 0.3)
    monkeypatch.setattr(crew, "LOOK", 0.1)
    settings, heard, jobs = ClusterSettings(address=workers.scheduler_address), Hearing(), iter([(0, (1.0,))])
    with connecting.connect(settings, heard) as connected:
        assert list(connected.stream(time.sleep, lambda: next(jobs, None), str)) == [(0, None)]
    assert any(": no result for 0 minutes: waiting; look into the workers' logs" in line for line in heard.warned)


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        ("tcp://127.0.0.1:9", ClusterError, r"no scheduler answers at .* within 0\.3 s"),
        ("tls://127.0.0.1:9", ConfigError, r"tls://127\.0\.0\.1:9 cannot be used .* needs certificates"),
        ("http://127.0.0.1:9", ConfigError, r"address is 'http.*:9'; allowed are a scheduler's address \(tcp://"),
    ],
)
def test_an_address_where_nobody_answers_is_said(photos, tmp_path, address, kind, message):
    with pytest.raises(kind, match=message):
        features.run(make_settings(photos, tmp_path / "artifacts", cluster={"address": address, "timeout": 0.3}))
    assert not list((tmp_path / "artifacts").glob("*"))


def test_without_dask_the_message_says_how_to_get_it(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"'local:2' needs Dask, .*: pip install 'stackcls\[cluster\]'"):
        features.run(make_settings(photos, tmp_path / "artifacts", cluster={"address": "local:2"}))


def test_a_run_that_is_stopped_keeps_its_blocks(photos, on_cluster, tmp_path, fake_engine, monkeypatch):
    monkeypatch.setenv("STUB_SECONDS", "0")

    class Stopping(Hearing):
        @contextlib.contextmanager
        def track(self, what, total, unit):
            def advance(count):
                if what == "features":
                    raise KeyboardInterrupt

            yield advance

    settings = on_cluster(photos)
    with pytest.raises(KeyboardInterrupt):
        features.run(settings, listener=Stopping())
    (block,) = BlockFolder(settings.files.blocks).read()
    assert len(block.sha256) in {PER_BLOCK, 27 % PER_BLOCK}
    features.run(settings)
    alone = features.run(make_settings(photos, tmp_path / "alone"))
    assert settings.files.features.read_bytes() == alone.path.read_bytes()
