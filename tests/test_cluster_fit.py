"""`fit` on a Dask cluster: the same scores and model as without, each matrix sent once, and what goes wrong is said."""

import sys
from dataclasses import replace

import dask
import numpy as np
import pytest
from distributed import LocalCluster
from distributed.comm.tcp import TCP

from stackcls import basefits, cluster, config, connecting, tuning, unknowns, validation
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
from tests.test_cluster import Hearing
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


def run_all(there, settings):
    """Tuning, folds, linear SVMs, all rows, and other folds: what `fit` does with base learners."""
    search = tuning.search(there, settings, Silent())
    found = validation.cross_validate(there, settings, True, Silent(), stacks=search.stacks)
    again = validation.predict_folds(replace(there, groups=np.arange(len(there.y))), settings, Silent())
    assert set(again.ranking) == {"one", "two", "stack"}
    return found, search.stacks


def test_all_fits_of_a_run_together_send_each_matrix_once(connected, monkeypatch):
    data, settings, sent = wide(), Settings(stack={"tune": 0.001}), Sent(monkeypatch)
    found, stacks = run_all(replace(data, workers=Shipping(connected)), settings)
    assert 2 * data.X.nbytes < sent.bytes < 2.5 * data.X.nbytes
    assert_same(found, validation.cross_validate(data, settings, True, Silent(), stacks=stacks))


def test_large_matrices_are_fitted_side_by_side_where_all_can_be_kept_and_else_in_turn(connected, monkeypatch):
    data, settings, order = wide(width=100), Settings(), []
    monkeypatch.setattr(validation, "LARGE", 0)
    matrix = basefits._matrix
    monkeypatch.setattr(basefits, "_matrix", lambda data, number: order.append(number) or matrix(data, number))
    found = []
    for spare in (data.X.nbytes, data.X.nbytes - 1):
        monkeypatch.setattr(connected.crew, "spare", lambda _, spare=spare: spare)
        there = replace(data, workers=Shipping(connected))
        found.append(validation.cross_validate(there, settings, False, Silent()))
    assert order == [0, 1] * 4 + [0] * 4 + [1] * 4
    assert_same(*found)


def test_any_worker_fits_whatever_networks_need(monkeypatch, tmp_path):
    def connect(settings, _):
        raise ConfigError(str(settings.resources))

    monkeypatch.setattr(connecting, "connect", connect)
    with pytest.raises(ConfigError, match=r"^\{\}$"):
        fit.run(make_settings(tmp_path, tmp_path, cluster={"address": "tcp://host:1", "resources": {"GPU": 1}}))


def test_of_large_matrices_one_at_a_time_is_here_and_each_is_sent_once(connected, monkeypatch):
    data, settings = wide(), Settings(stack={"tune": 0.001}, cv={"folds": 4})
    monkeypatch.setattr(validation, "LARGE", 0)
    fetched, sent = Fetched(data), Sent(monkeypatch)
    found, stacks = run_all(replace(data, X=fetched, workers=Shipping(connected)), settings)
    assert (fetched.most, fetched.alive, fetched.numbers) == (1, 0, [0, 1])
    assert 2 * data.X.nbytes < sent.bytes < 2.8 * data.X.nbytes
    expected = validation.cross_validate(data, settings, True, Silent(), stacks=stacks)
    for name in ("one", "two", "stack"):  # one thread there, all processors here: sums are rounded otherwise
        np.testing.assert_allclose(found.predictions.ranking[name], expected.predictions.ranking[name], atol=1e-4)
    np.testing.assert_allclose(found.baselines.ranking["two"], expected.baselines.ranking["two"], atol=1e-6)


def test_matrices_for_which_the_cluster_has_no_memory_are_let_go_and_sent_again(connected, monkeypatch):
    data, settings = wide(), Settings()
    monkeypatch.setattr(validation, "LARGE", 0)
    monkeypatch.setattr(connected.crew, "spare", lambda _: data.X.nbytes - 1)
    fetched = Fetched(data)
    there = replace(data, X=fetched, workers=Shipping(connected))
    for _ in range(2):
        validation.cross_validate(there, settings, False, Silent())
    assert (fetched.most, fetched.numbers) == (1, [0, 1, 0, 1])


def test_fits_without_some_classes_are_done_by_the_workers_too(connected, monkeypatch):
    data, settings = wide(width=1000), Settings()
    validated = validation.cross_validate(data, settings, False, Silent())
    here, _ = unknowns.look(data, validated, settings, True, Silent())
    monkeypatch.setattr(basefits, "_fit_here", None)
    there, _ = unknowns.look(replace(data, workers=Shipping(connected)), validated, settings, True, Silent())
    assert there == here
    assert here.left_out


def test_what_is_read_in_blocks_is_fitted_here(hard, workers, tmp_path):
    from stackcls import trainingdata
    from stackcls.store import Store

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
    slow = {"distributed.deploy.lost-worker-timeout": "10 ms"}  # than which the next process takes longer to start
    with dask.config.set({"distributed.worker.preload": ["tests.cluster_stub"], **slow}):
        settings = ClusterSettings(address=f"local:{count}")
        with connecting.connect(settings, Silent()) as connected:
            shipped = [Shipped(connected, array) for array in (np.arange(5.0), np.arange(7.0, 9.0))]
            calls = [(shipped[number % 2], (number, str(tmp_path))) for number in range(8)]
            results = list(Shipping(connected).run(cluster_stub.die_once, calls, str, True))
    assert results == [7 * (number % 2) + number for number in range(8)]
    assert (tmp_path / "died").exists()


def test_jobs_of_one_large_matrix_are_shared_among_the_workers(workers, connected, monkeypatch):
    monkeypatch.setattr(workers.scheduler, "bandwidth", 1.0)  # so that the way seems longer to Dask than any wait
    matrix = Shipped(connected, np.zeros(10**6))
    calls = [(matrix, (0.2,))] * 4
    places = list(Shipping(connected).run(cluster_stub.place, calls, str, beside=False))
    assert len(set(places)) == 2


@pytest.mark.parametrize("large", [False, True])
def test_what_the_cluster_has_no_memory_for_is_fitted_here_and_said(workers, monkeypatch, large):
    data, settings, heard = wide(width=1000), Settings(), Hearing()
    if large:
        monkeypatch.setattr(validation, "LARGE", 0)
    with connecting.connect(ClusterSettings(address=workers.scheduler_address), heard) as connected:
        monkeypatch.setattr(connected.crew, "spare", lambda _: data.X.nbytes // 2 - 1)
        monkeypatch.setattr(Shipping, "matrix", None)
        there = replace(data, workers=Shipping(connected))
        found = validation.cross_validate(there, settings, True, Silent())
    assert_same(found, validation.cross_validate(data, settings, True, Silent()))
    assert [line.partition(": ")[2] for line in heard.warned] == [
        f"{name} MB, and 1.3 MB to work with, do not fit into the 1.9 MB that the scheduler or a worker has: "
        "fitted here and not on the cluster"
        for name in (["one: 1.0", "two: 1.0"] if large else ["all matrices: 1.9"])
    ]


def test_every_thread_of_a_worker_needs_memory_for_its_own_rows(connected, monkeypatch):
    data = replace(wide(n=30, width=10), workers=Shipping(connected))  # 1.2 kB each
    monkeypatch.setattr(connected.crew, "spare", lambda _: 10_000)  # 4.8 kB of rows, and 5.1 kB for steps
    assert basefits._all_go(data, 4, 9)
    monkeypatch.setattr(connected.crew, "most_threads", lambda: 5)
    assert not basefits._all_go(data, 4, 9)
    assert basefits._all_go(data, 4, 1), "one fit needs no more than one thread"
    assert basefits._goes(data, 0, 4), "one at a time"


def run_one(connected, job):
    return list(Shipping(connected).run(job, [(Shipped(connected, np.arange(5.0)), (1,))], lambda _: "a fit", True))


def test_what_kills_one_worker_after_the_other_ends_the_run(connected, monkeypatch):
    monkeypatch.setattr(cluster, "AGAIN", 1)
    with pytest.raises(
        ClusterError,
        match=r"died over it, the last one tcp://.*: look into their logs.* That part is a fit$",
    ):
        run_one(connected, cluster_stub.die)


@pytest.mark.parametrize(
    ("job", "error", "message"),
    [
        (cluster_stub.refuse, ConfigError, "that is not allowed"),
        (cluster_stub.fail, ClusterError, r"cannot do its part \(RuntimeError: a job broke\); scheduler and"),
    ],
)
def test_a_job_that_fails_ends_the_run(connected, job, error, message):
    with pytest.raises(error, match=message):
        run_one(connected, job)


def test_a_worker_of_another_version_is_refused(connected, monkeypatch):
    monkeypatch.setattr(cluster, "__version__", "0.0.1")
    with pytest.raises(ClusterError, match=r"this worker has stackcls .*, and the run is by 0\.0\.1: install"):
        run_one(connected, cluster_stub.first_number)


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
