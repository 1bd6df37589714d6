"""`features --cluster` on workers started elsewhere: found by file or by configuration, by TLS, with a GPU."""

import json

import dask
import pytest
import yaml
from distributed import Client
from distributed.security import Security

from stackcls.stages import features
from tests.clusters import Here, start
from tests.conftest import FAKE_BACKBONES, make_settings, write_photos

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Dask's configuration of who may talk to the cluster."""
    folder, made = tmp_path_factory.mktemp("tls"), Security.temporary()
    for name, text in (("ca", made.tls_ca_file), ("cert", made.tls_client_cert), ("key", made.tls_client_key)):
        (folder / name).write_text(text)
    both = {"cert": str(folder / "cert"), "key": str(folder / "key")}
    return {"ca-file": str(folder / "ca"), "scheduler": both, "worker": both, "client": both}


def allowed(tls):
    """As Dask's configuration in this process."""
    keys = {"ca-file": tls["ca-file"], **{f"client.{name}": file for name, file in tls["client"].items()}}
    return dask.config.set({f"distributed.comm.tls.{name}": file for name, file in keys.items()})


@pytest.fixture(scope="module")
def elsewhere(compiled_models, tls, tmp_path_factory):
    """A cluster by TLS, in a folder of its own: a worker with a GPU and two threads, one without; and their log."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "done.log").touch()
    options = ("--protocol", "tls", "--tls-ca-file", tls["ca-file"])
    options += ("--tls-cert", tls["client"]["cert"], "--tls-key", tls["client"]["key"])
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("STUB_LOG", str(folder / "done.log"))
        with Here(folder, options) as cluster:
            yield (
                cluster,
                cluster.worker("--nthreads", "2", "--resources", "GPU=1"),
                cluster.worker(),
                folder / "done.log",
            )


@pytest.fixture
def work(tmp_path, fake_engine, monkeypatch):
    """Settings with relative paths, where the workers are not; and what a run without a cluster makes of them."""
    monkeypatch.setattr("stackcls.computation.IMAGES_PER_BLOCK", 8)
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", 9)
    raw = {"images": "photos", "artifacts": "artifacts", "features": {"backbones": FAKE_BACKBONES, "batch_size": 4}}
    (tmp_path / "pipeline.yaml").write_text(json.dumps(raw))
    alone = make_settings("photos", "alone")
    features.run(alone)
    return raw, alone.files.features.read_bytes()


def test_only_workers_with_a_gpu_compute_and_make_each_network_once(elsewhere, tls, work, stackcls, tmp_path):
    cluster, with_gpu, _, log = elsewhere
    (tmp_path / "pipeline.yaml").write_text(json.dumps({**work[0], "cluster": {"resources": {"GPU": 1}}}))
    before = len(log.read_text().splitlines())
    with allowed(tls):
        assert stackcls("features", "--cluster", cluster.file)[0] == 0
    done = log.read_text().splitlines()[before:]
    assert {line.split()[-1] for line in done} == {str(with_gpu.pid)}
    assert sum(line.startswith("prepare") for line in done) == len(FAKE_BACKBONES)
    assert sum(line.startswith("run") for line in done) > 2 * len(FAKE_BACKBONES)
    assert (tmp_path / "artifacts/features.h5").read_bytes() == work[1]


@pytest.mark.parametrize("place", ["environment", "file"])
def test_what_dask_itself_is_told_is_enough(elsewhere, tls, work, tmp_path, monkeypatch, place):
    address = json.loads(elsewhere[0].file.read_text())["address"]
    assert address.startswith("tls://")
    if place == "environment":
        where = "dask"
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
        for name, file in (
            ("CA_FILE", tls["ca-file"]),
            *((f"CLIENT__{k.upper()}", v) for k, v in tls["client"].items()),
        ):
            monkeypatch.setenv(f"DASK_DISTRIBUTED__COMM__TLS__{name}", file)
    else:
        where = "dask.yaml"
        configuration = {"scheduler-address": address, "distributed": {"comm": {"tls": tls}}}
        (tmp_path / where).write_text(yaml.safe_dump(configuration))
    run = start("features", "--cluster", where, cwd=tmp_path)
    assert run.wait(120) == 0, run.communicate()
    assert (tmp_path / "artifacts/features.h5").read_bytes() == work[1]


def test_without_certificates_the_message_says_where_dask_looks_for_them(elsewhere, work, stackcls):
    status, _, err = stackcls("features", "--cluster", elsewhere[0].file, "--set", "cluster.timeout=5")
    assert status == 2
    assert "tls:// needs certificates, by Dask's configuration (distributed.comm.tls)" in err


def test_a_worker_without_stackcls_is_named_before_it_ends(elsewhere, tls, work, stackcls):
    cluster, *_ = elsewhere
    with allowed(tls):
        with Client(json.loads(cluster.file.read_text())["address"]) as client:
            there = wait_for_workers(client, 2)
            bare = cluster.bare()
            (address,) = wait_for_workers(client, 3) - there
        status, _, err = stackcls("features", "--cluster", cluster.file)
        assert status == 1
        assert f"stackcls cannot be imported at {address} (" in err
        assert "where scheduler and workers are started (pip install 'stackcls[cluster]')" in err
        status, _, err = stackcls("features", "--cluster", cluster.file, "--set", "cluster.resources={GPU: 1}")
        assert status == 0, "who is given nothing needs nothing"
        bare.kill()


def wait_for_workers(client, number):
    client.wait_for_workers(number, timeout=60)
    return set(client.scheduler_info(n_workers=-1)["workers"])
