"""What a cluster's client has here at a time, and what it may leave with the workers."""

import math
import os
import signal
import threading
import time

import pytest
from distributed import KilledWorker, LocalCluster
from threadpoolctl import threadpool_info

from stackcls import cluster, connecting, crew, processes, worker
from stackcls.cluster import TOGETHER, Cluster
from stackcls.clustersettings import ClusterSettings
from stackcls.crew import Crew
from stackcls.errors import ClusterError
from stackcls.listener import Silent
from stackcls.processes import Left


@pytest.fixture(scope="module")
def connected():
    """Workers that are threads of this process."""
    given = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(processes=False, protocol="tcp", host="127.0.0.1", **given) as local,
        connecting.connect(ClusterSettings(address=local.scheduler_address), Silent()) as found,
    ):
        yield found


@pytest.mark.parametrize("n_together", [1, TOGETHER])
def test_only_so_many_results_are_fetched_at_a_time(connected, monkeypatch, n_together):
    met, under_way, most = threading.Barrier(n_together), [], 0
    outcome = Cluster._outcome

    def slow(self, future):
        nonlocal most
        under_way.append(future.key)
        most = max(most, len(under_way))
        met.wait(timeout=30)  # for as many
        found = outcome(self, future)
        under_way.remove(future.key)
        return found

    monkeypatch.setattr(Cluster, "_outcome", slow)
    jobs = iter([(number, (-number,)) for number in range(2 * TOGETHER)])
    results = list(connected.stream(abs, lambda: next(jobs, None), str, n_together=n_together))
    assert sorted(results) == [(number, number) for number in range(2 * TOGETHER)]
    assert most == n_together


class Answering:
    """A client of a scheduler and two workers on two machines, the scheduler on one of them."""

    status = "running"

    def __init__(self, **left):
        self.left, self.scheduler, self.address = left, self, "tcp://a:1"

    def identity(self):
        """Not called, but handed to `sync`."""

    def sync(self, question, *given, callback_timeout, **options):
        assert callback_timeout == 30
        if question.__name__ != "identity":
            return question(*given, **options)
        common = {"status": "running", "resources": {}}
        first = {"memory_limit": 0, "nthreads": 1}
        second = {"memory_limit": 1000, "nthreads": 4, "metrics": {"memory": 100}}  # 700 left till Dask pauses it
        return {"workers": {"tcp://a:2": common | first, "tcp://b:3": common | second}}

    def run(self, function, workers, on_error):
        assert (function, on_error) == (processes.memory_left, "ignore")
        sizes = ((name, size) for name, size in self.left.items() if name != "a1")
        return {f"tcp://{name[0]}:{name[1]}": left(size, on=name[0]) for name, size in sizes}

    def run_on_scheduler(self, function):
        assert function is processes.memory_left
        return left(self.left["a1"])

    def get_task_status(self):
        """Not called, but handed to `sync`."""


def left(machine, own=math.inf, group="", on="a"):
    return Left(on, machine, own, group)


@pytest.fixture(autouse=True)
def light(monkeypatch):
    """Workers that import nothing of weight."""
    monkeypatch.setattr(crew, "IMPORTED", 10)


@pytest.mark.parametrize(
    ("left", "spare"),
    [
        ({"a1": 1000, "a2": 1200, "b3": 1100}, 250),  # two share the first machine
        ({"a1": 1800, "a2": 2000, "b3": 1100}, 350),  # the other's worker may have less than its machine
        ({"a1": 1800, "a2": 2000, "b3": 600}, 300),
        ({"b3": 600}, 300),  # a scheduler without stackcls, and a worker that has gone
        ({}, 350),
    ],
)
def test_half_of_what_the_poorest_has_may_be_kept_on_a_cluster(left, spare):
    assert Crew(Answering(**left), ClusterSettings(address="tcp://a:1"), Silent()).spare(10) == spare


def test_processes_of_this_run_share_what_it_may_take(monkeypatch):
    monkeypatch.setattr(Answering, "run", lambda *_, **__: {"tcp://a:2": left(9000), "tcp://a:3": left(9000)})
    answering = Answering(a1=9000)
    assert Crew(answering, ClusterSettings(address="local:2"), Silent()).spare(1200) == 200
    assert Crew(answering, ClusterSettings(address="tcp://a:1"), Silent()).spare(1200) == 350


class Hearing(Silent):
    def __init__(self):
        self.warned, self.said = [], []

    def say(self, line):
        self.said.append(line)

    def warn(self, line):
        self.warned.append(line)


def test_a_run_says_at_once_how_many_workers_there_are():
    heard = Hearing()
    Crew(Answering(), ClusterSettings(address="tcp://a:1"), heard).introduce()
    Crew(Answering(), ClusterSettings(address="tcp://a:1", resources={"GPU": 1}), heard).introduce()
    assert heard.said == ["tcp://a:1: 2 workers with 5 threads in all", "tcp://a:1: no worker yet"]


def test_waiting_is_said_again_and_again_and_that_there_were_workers(monkeypatch):
    now, heard = [100.0], Hearing()
    monkeypatch.setattr(crew.time, "monotonic", lambda: now[0])
    them = Crew(Answering(), ClusterSettings(address="tcp://a:1"), heard)
    them.begin()
    them.look()
    monkeypatch.setattr(Answering, "sync", lambda *_, **__: {"workers": {}})
    for now[0] in range(101, 241):
        them.room()
    assert [line.partition(": waiting")[0] for line in heard.warned] == [
        f"tcp://a:1: no worker is left, for {seconds} s" for seconds in (12, 75, 138)
    ]
    assert "their logs say why" in heard.warned[0]


def test_a_worker_that_comes_later_without_stackcls_is_said(monkeypatch):
    now, heard = [100.0], Hearing()
    monkeypatch.setattr(crew.time, "monotonic", lambda: now[0])
    them = Crew(Answering(), ClusterSettings(address="tcp://a:1"), heard)
    common = {"status": "running", "resources": {}, "memory_limit": 0, "nthreads": 2}

    def sync(_, question, *given, **options):
        if question.__name__ == "identity":
            return {"workers": {} if now[0] < 103 else {"tcp://c:4": common}}
        assert options["workers"] == ["tcp://c:4"]
        return {"tcp://c:4": ModuleNotFoundError("No module named 'stackcls'")}

    monkeypatch.setattr(Answering, "sync", sync)
    them.introduce()
    now[0] = 104.0
    assert them.room() == crew.AT_LEAST
    now[0] = 110.0
    them.room()
    assert heard.said == ["tcp://a:1: no worker yet", "tcp://a:1: 1 worker with 2 threads in all"]
    (line,) = heard.warned
    assert line.startswith("tcp://a:1: the worker tcp://c:4 will end over its first task, since stackcls cannot be")


def test_of_tasks_that_want_a_worker_alone_one_is_ahead():
    them = Crew(Answering(), ClusterSettings(address="tcp://a:1"), Silent())
    them.begin(alone=True)
    assert them.room() == 3
    them.begin()
    assert them.room() == crew.AT_LEAST


def test_workers_with_other_libraries_are_said(monkeypatch):
    there = {"tcp://a:2": {"numpy": "2.0", "scipy": "1.1"}, "tcp://b:3": {"scipy": "1.0"}}
    monkeypatch.setattr(Answering, "run", lambda *_, **__: there)
    heard, settings = Hearing(), ClusterSettings(address="tcp://a:1")
    Crew(Answering(), settings, heard).compare(lambda: {"numpy": "2.0", "scipy": "1.0"})
    assert heard.warned == [
        "tcp://a:1: workers have other libraries (numpy None, and 2.0 here, scipy 1.1, and 1.0 here): scores may "
        "differ in the last digits, or fits fail"
    ]
    there["tcp://a:2"] = there["tcp://b:3"] = {"numpy": "2.0", "scipy": "1.0"}
    Crew(Answering(), settings, heard).compare(lambda: {"numpy": "2.0", "scipy": "1.0"})
    assert len(heard.warned) == 1


def test_threads_of_linear_algebra_are_set_back_when_the_last_job_ends():
    def n_threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    before, limits = n_threads(), worker._Limits()
    assert before != {1}
    first, second = limits.to(1), limits.to(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert n_threads() == {1}
    second.__exit__(None, None, None)
    assert n_threads() == before


@pytest.mark.parametrize(("groups", "spare"), [("abc", 150), ("aab", 75), ("aaa", 50)])
def test_processes_of_one_control_group_share_its_limit_and_others_of_the_machine_do_not(monkeypatch, groups, spare):
    first, *others = (left(2700, 300, group) for group in groups)
    monkeypatch.setattr(Answering, "run_on_scheduler", lambda *_: first)
    monkeypatch.setattr(Answering, "run", lambda *_, **__: dict(zip(["tcp://a:2", "tcp://a:3"], others, strict=True)))
    assert Crew(Answering(), ClusterSettings(address="tcp://a:1"), Silent()).spare() == spare


def test_a_scheduler_that_is_lost_while_it_is_asked_for_memory_is_said(monkeypatch):
    monkeypatch.setattr(Answering, "status", "closed")
    with pytest.raises(ClusterError, match="the scheduler is lost"):
        Crew(Answering(), ClusterSettings(address="tcp://a:1"), Silent()).spare()


def test_a_real_cluster_says_how_much_it_can_keep(connected):
    assert 0 < connected.crew.spare() < processes.available_memory() / 5


def test_a_result_that_is_lost_and_then_given_up_counts_as_killed(connected):
    class Lost:
        status, error = "finished", KilledWorker("a task", None, 1)

        def result(self, timeout):
            self.status = "error"
            raise self.error

        def exception(self):
            return self.error

    assert connected._outcome(Lost()).error is Lost.error


class Unwelcome:
    """What cannot be unpickled, as between versions of NumPy."""

    def __reduce__(self):
        return int, ("no number",)


def test_what_the_scheduler_cannot_unpickle_fails_and_is_not_waited_for(connected):
    with (
        connecting.connect(ClusterSettings(address=connected.crew._settings.address), Silent()) as other,
        pytest.raises(ClusterError, match=r"(?s)cannot do its part \(.*deserialization"),
    ):
        other.keep(Unwelcome())


def test_what_tasks_share_is_kept_where_they_may_be():
    given = []

    class Submitting(Answering):
        def submit(self, *_, **options):
            given.append(options["resources"])
            return type("Kept", (), {"key": "a", "status": "finished"})

    Cluster(Submitting(), ClusterSettings(address="tcp://a:1", resources={"GPU": 1}), Silent()).keep([1])
    assert given == [{"GPU": 1.0}]


@pytest.mark.slow
def test_a_result_that_is_lost_with_its_worker_is_waited_for_again(monkeypatch):
    """However long it takes to compute it again, as long as somebody does."""
    monkeypatch.setattr(cluster, "FETCH", 0.5)
    outcome, killed = Cluster._outcome, []
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=0) as local,
        connecting.connect(ClusterSettings(address=local.scheduler_address), Silent()) as connected,
    ):

        def losing(self, future):
            if not killed:
                killed.append(local.workers[0].pid)
                os.kill(killed[0], signal.SIGKILL)
                while local.scheduler_info["workers"]:
                    time.sleep(0.05)
            return outcome(self, future)

        monkeypatch.setattr(Cluster, "_outcome", losing)
        jobs = iter([(0, (2.0,))])
        assert list(connected.stream(time.sleep, lambda: next(jobs, None), str)) == [(0, None)]
    assert killed
