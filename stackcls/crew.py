"""The workers of a Dask cluster: which there are, what they can take, and what is said while none answers."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pkgutil import resolve_name
from typing import Any

from stackcls import processes
from stackcls.clustersettings import INSTALL, ClusterSettings
from stackcls.errors import ClusterError
from stackcls.listener import Listener
from stackcls.printable import counted

CALL = "stackcls.worker:call"  # what every worker has to know
ABSENT = ImportError, AttributeError
AHEAD = 3  # tasks for each worker: one that runs, one that waits there, and one whose result is being fetched
AT_LEAST = 8  # also where there is no worker yet, so that clusters that grow on demand see a demand
LOOK = 2.0  # seconds between two looks at which workers there are
PATIENCE = 10.0  # seconds without a worker after which the user is told
REMINDING = 60.0  # seconds after which this is said again
QUIET = 300.0  # seconds without a block's features after which the user is told, though there are workers
IMPORTED = 300_000_000  # bytes that a worker takes once it has imported what fits need
PAUSED = 0.8  # share of a worker's memory limit from which on Dask gives it nothing to do
ARRIVING = 0.02  # seconds between two looks whether the scheduler has something


class Crew:
    """Those workers that can do a run's tasks.

    Parameters
    ----------
    client : distributed.Client
    settings : ClusterSettings
    listener : Listener
        Is told where there are no workers.
    """

    def __init__(self, client: Any, settings: ClusterSettings, listener: Listener) -> None:
        self._client, self._settings, self._listener = client, settings, listener
        self._looked, self._heard, self._quiet = 0.0, time.monotonic(), QUIET
        self._beside = self._alone = False
        self._said = -math.inf
        self._threads: dict[str, int] = {}  # of each, by its address
        self._had_any = False
        self._known: set[str] = set()

    def begin(self, beside: bool = False, alone: bool = False, quiet: float | None = None) -> None:
        """Wait for results from now on.

        Parameters
        ----------
        beside : bool
            Of tasks that workers do as many of side by side as they have threads.
        alone : bool
            Of tasks of which a worker does one at a time, and none is to wait at one while another has nothing to do.
        quiet : float, optional
            How many seconds without a result are nothing to tell.
        """
        self._beside, self._alone, self._quiet = beside, alone, QUIET if quiet is None else quiet
        self.heard()

    def heard(self) -> None:
        """Take note that a result came."""
        self._heard = time.monotonic()

    def room(self) -> int:
        """How many tasks may be under way; looks now and then how many workers there are."""
        if time.monotonic() - self._looked > LOOK:
            self.look()
        if self._alone:
            return len(self._threads) + 1
        return max(AT_LEAST, AHEAD * (sum(self._threads.values()) if self._beside else len(self._threads)))

    def least_busy(self, places: Iterable[str | None]) -> str | None:
        """The worker that has least to do: Dask would give all to who has what they share, while it travels far."""
        busy = Counter(places)
        shares = {address: busy[address] / (count if self._beside else 1) for address, count in self._threads.items()}
        return min(shares, key=shares.__getitem__, default=None)

    def compare(self, ask: Callable[[], Mapping[str, str]]) -> None:
        """Say where workers answer other than this process, as with versions of libraries."""
        here: Mapping[str, str] = ask()
        there: dict[str, Mapping[str, str]] = {}
        with suppress(Exception):  # one that has gone meanwhile
            there = self._ask_all(ask)
        others = {(name, each.get(name)) for each in there.values() for name in here if each.get(name) != here[name]}
        if others:
            listed = ", ".join(f"{name} {version}, and {here[name]} here" for name, version in sorted(others, key=str))
            self.warn(f"workers have other libraries ({listed}): scores may differ in the last digits, or fits fail")

    def spare(self, memory: float = math.inf) -> float:
        """Bytes that the scheduler and every worker can keep, with as many to work with; what nobody knows is no limit.

        That is half of what there is for the one that has the least: of its machine's memory and of its control
        group's, which it shares with others there, and of its own limits.

        Parameters
        ----------
        memory : float
            Bytes that processes which were started for this run may take together.
        """
        left: dict[str, processes.Left] = {}
        with suppress(Exception):  # one that has gone meanwhile, or has no stackcls
            left[self._client.scheduler.address] = self._in_time(self._client.run_on_scheduler, processes.memory_left)
        with suppress(Exception):
            left |= self._ask_all(processes.memory_left)
        here = memory if self._settings.processes else math.inf
        on_machine = Counter(found.name for found in left.values())
        in_group = Counter((found.name, found.group) for found in left.values())
        shares = [
            min(min(found.machine, here) / on_machine[found.name], found.own / in_group[found.name, found.group])
            for found in left.values()
        ]
        limits = [
            max(0.0, PAUSED * one["memory_limit"] - max(IMPORTED, one.get("metrics", {}).get("memory", 0)))
            for one in self._offered().values()
            if one["memory_limit"]
        ]
        return min([*limits, *shares], default=math.inf) / 2

    def most_threads(self) -> int:
        """Of one worker."""
        self.look()
        return max(self._threads.values(), default=1)

    def warn(self, line: str) -> None:
        """Say something about the cluster."""
        self._listener.warn(f"{self._settings.address}: {line}")

    def look(self) -> None:
        """See which workers there are; say so where no result comes for long.

        Raises
        ------
        ClusterError
            If the scheduler is lost.
        """
        offered = self._offered()
        able = {address: one for address, one in offered.items() if has_resources(one, self._settings)}
        # One that is paused begins nothing until it has memory again.
        running = {address: one for address, one in able.items() if one["status"] == "running"}
        came_first, self._threads = not self._threads, {address: one["nthreads"] for address, one in running.items()}
        self._greet(came_first)
        n_paused = sum(one["status"] == "paused" for one in able.values())
        self._looked = now = time.monotonic()
        self._had_any = self._had_any or bool(self._threads)
        limit, again = (self._quiet, self._quiet) if self._threads else (PATIENCE, REMINDING)
        if now - self._heard > limit and now - self._said > again:
            self.warn(self._waiting(len(offered), n_paused, now - self._heard))
            self._said = now

    def _greet(self, came_first: bool) -> None:
        """Say how many workers came where there was none, and which that came later lack stackcls."""
        new = self._threads.keys() - self._known
        if not new or not self._looked:  # at first all were asked
            self._known |= new
            return
        self._known |= new
        if came_first:
            self._listener.say(f"{self._settings.address}: {self._there()}")
        answers: dict[str, Any] = {}
        with suppress(Exception):  # gone again, or busy
            answers = self._in_time(self._client.run, resolve_name, CALL, workers=list(new), on_error="return")
        for address, answer in answers.items():
            if isinstance(answer, ABSENT):
                self.warn(
                    f"the worker {address} will end over its first task, since stackcls cannot be imported there "
                    f"({answer}): stop it, or install stackcls there ({INSTALL})"
                )

    def _there(self) -> str:
        return f"{counted(len(self._threads), 'worker')} with {counted(sum(self._threads.values()), 'thread')} in all"

    @property
    def addresses(self) -> list[str]:
        """Of the workers that there were when it was looked last."""
        return list(self._threads)

    def gather(self) -> frozenset[str]:
        """Wait until there is a worker; return the addresses of all."""
        while time.monotonic() - self._looked > LOOK or not self._threads:
            self.look()
            if not self._threads:
                time.sleep(LOOK)
        return frozenset(self._threads)

    def introduce(self) -> None:
        """Say which workers there are."""
        self.look()
        self._listener.say(f"{self._settings.address}: {self._there() if self._threads else 'no worker yet'}")

    def _waiting(self, n_offered: int, n_paused: int, seconds: float) -> str:
        """What is waited for, and what the user can do."""
        paused = (
            f"{n_paused} of {counted(n_offered, 'worker')} paused: give them more memory (`dask worker --memory-limit`)"
        )
        needs = ", ".join(f"{name}={least:g}" for name, least in self._settings.resources.items())
        if self._threads:
            more = f"; {paused}" if n_paused else ""
            return f"no result for {seconds / 60:.0f} minutes: waiting; look into the workers' logs{more}"
        if n_paused:
            return f"for {seconds:.0f} s, waiting: {paused}; the run goes on when they are started again with it"
        if needs:
            return (
                f"{counted(n_offered, 'worker')}, none of them with {needs}: waiting; start some with `dask worker "
                f"--resources '{needs}'`, or mend cluster.resources"
            )
        if self._had_any:
            return (
                f"no worker is left, for {seconds:.0f} s: waiting; start some with `dask worker`; if they end and are "
                "started again, their logs say why, and more memory (`dask worker --memory-limit`) may help"
            )
        return (
            f"there is no worker, for {seconds:.0f} s: waiting; start some with `dask worker`, where stackcls is "
            "installed"
        )

    def _offered(self) -> dict[str, Any]:
        """All workers, by their addresses, as the scheduler describes them."""
        return dict(self._ask(self._client.scheduler.identity, n_workers=-1)["workers"])

    def _ask(self, question: Any, **given: Any) -> Any:
        """What the scheduler answers."""
        if self._client.status != "running":  # where asking would first wait for a new connection
            raise self.lost("the connection is closed")
        try:
            return self._in_time(question, **given)
        except Exception as error:  # noqa: BLE001  (a closed connection shows in many ways)
            raise self.lost(f"{type(error).__name__}: {error}") from None

    def _ask_all(self, question: Callable[[], Any]) -> dict[str, Any]:
        """What those workers that can do the tasks answer, by address."""
        return dict(self._in_time(self._client.run, question, workers=self.addresses, on_error="ignore"))

    def _in_time(self, question: Any, *given: Any, **more: Any) -> Any:
        """An answer, or `TimeoutError`: one that is frozen keeps its connection, and would be waited for."""
        return self._client.sync(question, *given, callback_timeout=self._settings.timeout, **more)

    def wait_for(self, future: Any) -> None:
        """Wait until the scheduler has a task and what goes with it, of which nothing is here any more then.

        One that cannot take it makes the task fail.
        """
        asked, key = self._client.scheduler.get_task_status, future.key
        while future.status == "pending" and not self._ask(asked, keys=[key])[key]:
            time.sleep(ARRIVING)

    def lost(self, why: str) -> ClusterError:
        """An error for a scheduler that is gone."""
        return ClusterError(
            f"{self._settings.address}: the scheduler is lost ({why}): start it again, with its workers, and run the "
            "same command again"
        )


def has_resources(worker: Mapping[str, Any], settings: ClusterSettings) -> bool:
    """Whether a worker, as the scheduler describes it, has what tasks ask for."""
    return all(worker["resources"].get(name, 0) >= least for name, least in settings.resources.items())
