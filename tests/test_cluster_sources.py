"""`features` on a cluster, of images that are not plain files here: the same file as without."""

import dask
import pytest
from distributed import LocalCluster

from stackcls.errors import SourceAway
from stackcls.stages import features
from tests.conftest import make_settings
from tests.test_remote_features import contents, there
from tests.test_shards import in_shards


@pytest.fixture
def start(compiled_models):
    """Start a worker, with the environment that there is by then."""
    with dask.config.set({"distributed.worker.preload": ["tests.cluster_stub"]}):
        started = []

        def begin():
            started.append(LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"))
            return {"address": started[-1].scheduler_address}

        yield begin
        for cluster in started:
            cluster.close()


def test_shards_by_a_relative_path(photos, start, tmp_path, fake_engine, monkeypatch):
    in_shards(photos, tmp_path / "work" / "shards")
    where = start()
    monkeypatch.chdir(tmp_path / "work")  # where the worker is not
    here, there_ = (
        make_settings("shards", tmp_path / "here"),
        make_settings("shards", tmp_path / "there", cluster=where),
    )
    features.run(here)
    before = dict(fake_engine.computed)
    result = features.run(there_)
    assert dict(result.rejected) == {}
    assert fake_engine.computed == before, "no network runs in this process"
    assert here.files.features.read_bytes() == there_.files.features.read_bytes()


def test_a_bucket(photos, bucket, start, tmp_path, fake_engine):
    url = bucket.fill(photos)
    (photos / "red/cut.png").write_bytes((photos / "red/00.png").read_bytes()[:200])
    bucket.put("photos/red/cut.png", (photos / "red/cut.png").read_bytes())
    where = start()
    here, away = make_settings(photos, tmp_path / "here"), there(url, tmp_path, cluster=where)
    first, second = features.run(here), features.run(away)
    assert dict(first.rejected) == dict(second.rejected)
    assert len(first.rejected) == 1
    assert contents(here.files.features) == contents(away.files.features)
    # A server that is away while workers ask ends the run as it does without a cluster.
    bucket.trouble.after = bucket.trouble.answered
    again = there(url, tmp_path / "again", cluster=where, features={"read_tries": 1})
    with pytest.raises(SourceAway, match=r"is not answered") as raised:
        features.run(again)
    assert "so says the worker tcp://" in raised.value.__notes__[0]
    assert "credentials in the environment that they are started in" in raised.value.__notes__[0]
    assert not again.files.features.exists()
