"""`fit` on a Dask cluster: the same scores and model as without, each matrix sent once, and what goes wrong is said."""

import sys
from dataclasses import replace

import dask
import numpy as np
import pytest
from distributed import LocalCluster
from distributed.comm.tcp import TCP

from stackcls import cluster, config, connecting, tuning, validation
from stackcls.clustersettings import ClusterSettings
from stackcls.errors import ClusterError, ConfigError
from stackcls.listener import Silent
from stackcls.settings import Settings
from stackcls.shipping import Shipped, Shipping
from stackcls.stages import fit
from stackcls.training import TrainingSet
from tests import cluster_stub
from tests.clusters import assert_same_fit
from tests.conftest import make_settings
from tests.test_validation import Fetched


@pytest.fixture(scope="module")
def workers(compiled_models):
    """Two workers; Dask itself gives a job that kills one to another worker once."""
    preload = {"distributed.worker.preload": ["tests.cluster_stub"], "distributed.scheduler.allowed-failures": 0}
    with (
        dask.config.set(preload),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=0) as local,
    ):
        yield local


@pytest.fixture
def connected(workers):
    with connecting.connect(ClusterSettings(address=workers.scheduler_address), Silent()) as found:
        yield found


def wide(seed=0, n=240, width=10_000):
    """Matrices that are much larger than all else."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 3)
    X = rng.normal(size=(n, 2 * width)).astype(np.float32)
    X[:, :3] += 3 * np.eye(3)[y]
    return TrainingSet(X, ("one", "two"), (width, width), y, tuple("abc"), None)


class Sent:
    """Counts the bytes that this process sends: the client's, and the scheduler's to the first worker."""

    def __init__(self, monkeypatch):
        self.bytes, write = 0, TCP.write

        async def counted(comm, *given, **options):
            count = await write(comm, *given, **options)
            self.bytes += count
            return count

        monkeypatch.setattr(TCP, "write", counted)


def assert_same(one, other):
    for name in ("one", "two", "stack"):
        np.testing.assert_array_equal(one.predictions.ranking[name], other.predictions.ranking[name])
    np.testing.assert_array_equal(one.shares, other.shares)
    for left, right in zip(one.model.bases_, other.model.bases_, strict=True):
        np.testing.assert_array_equal(left.estimator.coef_, right.estimator.coef_)
    np.testing.assert_array_equal(one.model.meta_.coef_, other.model.meta_.coef_)


@pytest.mark.parametrize(
    "sections",
    [
        {"stack": {"tune": 0.001}, "report": {"depth": "quick"}},
        {"stack": {"recipe": "out-of-fold", "class_weight": "balanced"}, "cv": {"holdout": "0.2", "folds": 2}},
    ],
)
def test_a_cluster_gives_the_same_model_and_report(hard, workers, tmp_path, sections):
    found = []
    for name, address in (("here", None), ("there", workers.scheduler_address)):
        settings = make_settings(hard.images, tmp_path / name, cluster={"address": address}, **sections)
        settings.artifacts.mkdir()
        settings.files.features.write_bytes(hard.files.features.read_bytes())
        fit.run(settings, baseline="linear-svm")
        found.append(settings.files)
    assert_same_fit(*found)


def test_all_fits_of_a_run_together_send_each_matrix_once(connected, monkeypatch):
    data, settings, sent = wide(), Settings(stack={"tune": 0.001}), Sent(monkeypatch)
    there = replace(data, workers=Shipping(connected))
    search = tuning.search(there, settings, Silent())
    found = validation.cross_validate(there, settings, True, Silent(), stacks=search.stacks)
    again = validation.predict_folds(replace(there, groups=np.arange(len(data.y))), settings, Silent())
    assert 2 * data.X.nbytes < sent.bytes < 2.5 * data.X.nbytes
    assert_same(found, validation.cross_validate(data, settings, True, Silent(), stacks=search.stacks))
    assert set(again.ranking) == {"one", "two", "stack"}


def test_of_large_matrices_one_is_here_and_sent_once_for_all_folds(connected, monkeypatch):
    data, settings = wide(), Settings(cv={"folds": 4})
    monkeypatch.setattr(validation, "LARGE", 0)
    expected = validation.cross_validate(data, settings, False, Silent())
    fetched, sent = Fetched(data), Sent(monkeypatch)
    there = replace(data, X=fetched, workers=Shipping(connected))
    found = validation.cross_validate(there, settings, False, Silent())
    assert (fetched.most, fetched.alive, fetched.numbers) == (1, 0, [0, 1])
    assert 2 * data.X.nbytes < sent.bytes < 2.8 * data.X.nbytes
    for name in ("one", "two", "stack"):  # one thread there, all processors here: sums are rounded otherwise
        np.testing.assert_allclose(found.predictions.ranking[name], expected.predictions.ranking[name], atol=1e-4)
    there = replace(there, workers=Shipping(connected))
    baselines = validation.cross_validate(there, settings, True, Silent()).baselines
    plain = validation.cross_validate(data, settings, True, Silent()).baselines
    np.testing.assert_allclose(baselines.ranking["two"], plain.ranking["two"], atol=1e-6)


def test_what_is_read_in_blocks_is_fitted_here(hard, workers, tmp_path):
    from stackcls import trainingdata
    from stackcls.store import Store
    from tests.test_cluster import Hearing

    def streamed(settings, names):
        training = trainingdata.load(Store(settings.files.features).__enter__(), names, settings, Silent())
        return replace(training, data=replace(training.data, streamed=frozenset({1})))

    with connecting.connect(ClusterSettings(address=workers.scheduler_address), Silent()) as connected:
        heard, training = Hearing(), streamed(hard, ["one", "two"])
        there = fit._placed(training, connected, heard).data
        assert heard.said == ["two: fitted here and not on the cluster, since it is read in blocks"]
        found = validation.cross_validate(there, hard, False, Silent())
    assert_same(found, validation.cross_validate(training.data, hard, False, Silent()))
    assert there.X.traffic[1].bytes > 0
    assert there.X.traffic[0].bytes == 0


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_what_a_worker_takes_with_it_is_sent_again(count, tmp_path, compiled_models):
    with dask.config.set({"distributed.worker.preload": ["tests.cluster_stub"]}):
        settings = ClusterSettings(address=f"local:{count}")
        with connecting.connect(settings, Silent()) as connected:
            shipped = Shipped(connected, [np.arange(5.0), np.arange(7.0, 9.0)])
            calls = [(number % 2, (number, str(tmp_path))) for number in range(8)]
            results = list(shipped.run(cluster_stub.die_once, calls, "a job"))
    assert results == [7 * (number % 2) + number for number in range(8)]
    assert (tmp_path / "died").exists()


def test_what_kills_one_worker_after_the_other_ends_the_run(connected, monkeypatch):
    monkeypatch.setattr(cluster, "AGAIN", 1)
    shipped = Shipped(connected, [np.arange(5.0)])
    with pytest.raises(
        ClusterError, match=r"every worker that was given a fit died over it, the last one tcp://.*: look"
    ):
        list(shipped.run(cluster_stub.die, [(0, (1,))], "a fit"))


@pytest.mark.parametrize(
    ("job", "error", "message"),
    [
        (cluster_stub.refuse, ConfigError, "that is not allowed"),
        (cluster_stub.fail, ClusterError, r"cannot do its part \(RuntimeError: a job broke\); scheduler and"),
    ],
)
def test_a_job_that_fails_ends_the_run(connected, job, error, message):
    with pytest.raises(error, match=message):
        list(Shipped(connected, [np.arange(5.0)]).run(job, [(0, (1,))], "a fit"))


def test_a_worker_of_another_version_is_refused(connected, monkeypatch):
    monkeypatch.setattr(cluster, "__version__", "0.0.1")
    with pytest.raises(ClusterError, match=r"this worker has stackcls .*, and the run is by 0\.0\.1: install"):
        list(Shipped(connected, [np.arange(5.0)]).run(cluster_stub.first_number, [(0, (1,))], "a fit"))


def test_without_dask_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"'local:2' needs Dask, .*: pip install 'stackcls\[cluster\]'"):
        fit.run(config.build({"artifacts": str(tmp_path), "cluster": {"address": "local:2"}}))


def test_the_option_is_the_setting(tmp_path, monkeypatch, stackcls):
    given = []

    def run(settings, **_):
        given.append(settings.cluster.address)
        raise ConfigError("enough")

    monkeypatch.setattr(fit, "run", run)
    assert stackcls("fit", "--artifacts", tmp_path, "--cluster", "tcp://host:1")[0] == 2
    assert given == ["tcp://host:1"]
