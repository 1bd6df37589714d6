"""What a cluster's client has here at a time, and what it may leave with the workers."""

import threading

import pytest
from distributed import LocalCluster

from stackcls import cluster, connecting, processes
from stackcls.cluster import TOGETHER, Cluster
from stackcls.clustersettings import ClusterSettings
from stackcls.errors import ClusterError
from stackcls.listener import Silent


@pytest.fixture(scope="module")
def connected():
    """Workers that are threads of this process."""
    given = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(processes=False, protocol="tcp", host="127.0.0.1", **given) as local,
        connecting.connect(ClusterSettings(address=local.scheduler_address), Silent()) as found,
    ):
        yield found


@pytest.mark.parametrize("beside", [False, True])
def test_a_few_results_are_fetched_at_a_time_and_of_large_ones_one(connected, monkeypatch, beside):
    met, under_way, most = threading.Barrier(TOGETHER), [], 0
    outcome = Cluster._outcome

    def slow(self, future):
        nonlocal most
        under_way.append(future.key)
        most = max(most, len(under_way))
        if not beside:
            met.wait(timeout=30)  # which it only is while as many others are here
        found = outcome(self, future)
        under_way.remove(future.key)
        return found

    monkeypatch.setattr(Cluster, "_outcome", slow)
    jobs = iter([(number, (-number,)) for number in range(2 * TOGETHER)])
    results = list(connected.stream(abs, lambda: next(jobs, None), str, beside=beside))
    assert sorted(results) == [(number, number) for number in range(2 * TOGETHER)]
    assert most == (1 if beside else TOGETHER)


class Answering:
    """A client of a scheduler and two workers on two machines."""

    status = "running"

    def __init__(self, failing=False):
        self.failing = failing
        self.scheduler = self

    def identity(self):
        """Not called, but handed to `sync`."""

    def sync(self, *_, **__):
        if self.failing:
            raise OSError("gone")
        workers = {"tcp://a:2": {"memory_limit": 0}, "tcp://b:3": {"memory_limit": 700}}
        return {"address": "tcp://a:1", "workers": workers}

    def run(self, function):
        assert function is processes.available_memory
        return {"tcp://a:2": 1000, "tcp://b:3": 1100}

    def run_on_scheduler(self, function):
        assert function is processes.available_memory
        return 1000


def spare(client):
    return Cluster(client, ClusterSettings(address="tcp://a:1"), Silent()).spare()


def test_half_of_what_the_poorest_has_may_be_kept_on_a_cluster(monkeypatch):
    # Two share the first machine; the other's worker may have less than its machine.
    assert spare(Answering()) == 250
    monkeypatch.setattr(Answering, "run", lambda *_: {"tcp://a:2": 2000, "tcp://b:3": 1100})
    monkeypatch.setattr(Answering, "run_on_scheduler", lambda *_: 1800)
    assert spare(Answering()) == 350


def test_where_nobody_says_how_much_memory_there_is_nothing_is_kept():
    assert spare(Answering(failing=True)) == 0


def test_a_scheduler_that_is_lost_while_it_is_asked_for_memory_is_said(monkeypatch):
    monkeypatch.setattr(Answering, "status", "closed")
    with pytest.raises(ClusterError, match=r"the scheduler is lost \(OSError: gone\)"):
        spare(Answering(failing=True))


def test_a_real_cluster_says_how_much_it_can_keep(connected):
    assert 0 < connected.spare() < processes.available_memory() / 5
    assert cluster._machine("tcp://127.0.0.1:80") == "tcp://127.0.0.1"
