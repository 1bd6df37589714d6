"""Work on other processes and machines through Dask: a bounded stream of tasks, and what can go wrong with it."""

import asyncio
import concurrent.futures
import pickle
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from stackcls import __version__
from stackcls.clustersettings import INSTALL, ClusterSettings
from stackcls.errors import ClusterError, StackclsError
from stackcls.listener import Listener
from stackcls.printable import counted

AHEAD = 3  # tasks for each worker: one that runs, one that waits there, and one whose result is being fetched
AT_LEAST = 8  # also where there is no worker yet, so that clusters that grow on demand see a demand
SMALL = 1 << 16  # bytes; names, places and hashes of a block's images are 20 kB
LOOK = 2.0  # seconds between two looks at which workers there are
FETCH = 600.0  # seconds for a result that is there to arrive; else whoever has it is gone, and nobody says so
PATIENCE = 10.0  # seconds without a worker after which the user is told
QUIET = 300.0  # seconds without a result after which the user is told, though there are workers
# A worker's death counts against every task that it held, at fault or not. What Dask gives up (after four deaths) is
# asked for again, so that a task that kills every worker ends a run, and workers that are killed all the time do not.
AGAIN = 2
CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)

T = TypeVar("T")


@dataclass(frozen=True)
class _Flying:
    future: Any
    number: int
    arguments: tuple[Any, ...]
    deaths: int


class Cluster:
    """A connection to a scheduler.

    Parameters
    ----------
    client : distributed.Client
    settings : ClusterSettings
    listener : Listener
        Is told where there are no workers.
    """

    def __init__(self, client: Any, settings: ClusterSettings, listener: Listener) -> None:
        self._client, self._settings, self._listener = client, settings, listener
        self._run, self._numbers = f"stackcls-{uuid.uuid4().hex[:8]}", count()
        self._n_workers, self._n_threads, self._looked, self._heard = 0, 0, 0.0, time.monotonic()

    def keep(self, value: Any) -> Any:
        """Give the cluster what many tasks take; each worker gets it once, also one that comes later.

        What is small goes with each task instead: Dask gives the first tasks to who has what they take, so that one
        worker of a hundred would get nearly all of them.
        """
        if isinstance(value, bytes) and len(value) <= SMALL:
            return value
        with warnings.catch_warnings():
            # Through the scheduler, for else it would be lost with the worker that has it.
            warnings.filterwarnings("ignore", "Sending large graph")
            return self._client.submit(_same, value, key=(f"{self._run}-kept", next(self._numbers)), pure=False)

    def stream(
        self,
        function: Callable[..., T],
        job: Callable[[], tuple[int, tuple[Any, ...]] | None],
        named: Callable[[int], str],
        kept: Callable[[int], Any] = lambda _: None,
        beside: bool = False,
    ) -> Iterator[tuple[int, T]]:
        """Run a function on the workers, and yield each job's number with its result as it comes.

        Parameters
        ----------
        function : callable
            Of a module, so that workers find it.
        job : callable
            Gives number and arguments of the next task, None where there is none now; asked again after every result.
            Only so many tasks are under way as keep the workers busy, and only one result at a time is fetched.
        named : callable
            From a number to what messages call that job.
        kept : callable, optional
            From a number to what `keep` gave, which is the first argument of that call.
        beside : bool
            Whether workers do as many jobs side by side as they have threads.

        Raises
        ------
        ClusterError
            If the scheduler is lost, a task kills one worker after the other, or fails as none should.
        StackclsError
            Whatever the function raises on purpose.
        """
        done: SimpleQueue[Any] = SimpleQueue()
        flying: dict[Any, _Flying] = {}

        def send(number: int, arguments: tuple[Any, ...], deaths: int = 0) -> None:
            future = self._client.submit(
                call,
                __version__,
                pickle.dumps((function, arguments)),
                kept(number),
                key=(f"{self._run}-{function.__name__}", next(self._numbers)),
                resources=dict(self._settings.resources) or None,
                pure=False,
            )
            flying[future.key] = _Flying(future, number, arguments, deaths)
            future.add_done_callback(lambda ended: done.put(ended.key))

        self._heard = time.monotonic()
        try:
            while True:
                while len(flying) < self._room(beside) and (given := job()) is not None:
                    send(*given)
                if not flying:
                    return
                try:
                    one = flying.pop(done.get(timeout=LOOK))
                except Empty:
                    continue
                if not self._was_killed(one.future):
                    yield one.number, self._result(one.future)
                elif one.deaths < AGAIN:
                    send(one.number, one.arguments, one.deaths + 1)
                else:
                    raise self.killing(self._exception(one.future), named(one.number))
                del one  # so that the cluster forgets it
                self._heard = time.monotonic()
        finally:
            flying.clear()

    def on(self, worker: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function on one worker, beside its tasks; None where it is gone."""
        try:
            return self._client.run(function, *arguments, workers=[worker])[worker]
        except StackclsError as error:
            error.add_note(f"on the worker {worker}")
            raise
        except (OSError, ValueError, KeyError):
            return None

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run a coroutine function on all workers, and wait for none."""
        with suppress(Exception):
            if self._client.status == "running":  # else it would wait for a new connection
                self._client.run(function, *arguments, wait=False)

    def _room(self, beside: bool) -> int:
        """How many tasks may be under way; looks now and then how many workers there are."""
        if time.monotonic() - self._looked > LOOK:
            self._look()
        return max(AT_LEAST, AHEAD * (self._n_threads if beside else self._n_workers))

    def _look(self) -> None:
        if self._client.status != "running":  # where asking would first wait for a new connection
            raise self._lost("the connection is closed")
        try:
            workers = self._client.sync(self._client.scheduler.identity, n_workers=-1, callback_timeout=self._timeout)
        except Exception as error:  # noqa: BLE001  (a closed connection shows in many ways)
            raise self._lost(f"{type(error).__name__}: {error}") from None
        wanted = self._settings.resources.items()
        offered = list(workers["workers"].values())
        able = [one for one in offered if all(one["resources"].get(name, 0) >= least for name, least in wanted)]
        # One that is paused begins nothing until it has memory again.
        running = [one for one in able if one["status"] == "running"]
        self._n_workers, self._n_threads = len(running), sum(one["nthreads"] for one in running)
        n_paused = sum(one["status"] == "paused" for one in able)
        self._looked = now = time.monotonic()
        if now - self._heard > (QUIET if self._n_workers else PATIENCE):
            self._listener.warn(f"{self._settings.address}: {self._waiting(len(offered), n_paused, now - self._heard)}")
            self._heard = now + 60 * PATIENCE  # not again for a while

    def _waiting(self, n_offered: int, n_paused: int, seconds: float) -> str:
        """What is waited for, and what the user can do."""
        paused = (
            f"{n_paused} of {counted(n_offered, 'worker')} are paused: give them more memory "
            "(`dask worker --memory-limit`)"
        )
        needs = ", ".join(f"{name}={least:g}" for name, least in self._settings.resources.items())
        if self._n_workers:
            more = f"; {paused}" if n_paused else ""
            return f"no result for {seconds / 60:.0f} minutes: waiting; look into the workers' logs{more}"
        if n_paused:
            return f"waiting: {paused}"
        if needs:
            return (
                f"{counted(n_offered, 'worker')}, none of them with {needs}: waiting; start some with `dask worker "
                f"--resources '{needs}'`, or mend cluster.resources"
            )
        return "there is no worker: waiting; start some with `dask worker`"

    @property
    def _timeout(self) -> float:
        return self._settings.timeout

    def killing(self, error: BaseException, name: str) -> ClusterError:
        """An error for a job over which one worker after the other died."""
        last = getattr(getattr(error, "last_worker", None), "address", "unknown")
        return ClusterError(
            f"{self._settings.address}: every worker that was given {name} died over it, the last one {last}: look "
            "into the workers' logs (too little memory?), take out what is at fault, and run the same command again"
        )

    def failure(self, error: BaseException) -> ClusterError:
        """An error for a job that failed otherwise, and not on purpose."""
        if self._client.status != "running" or isinstance(error, CANCELLED):
            return self._lost(f"{type(error).__name__}: {error}")
        return ClusterError(
            f"{self._settings.address}: a worker cannot do its part ({type(error).__name__}: {error}); scheduler "
            f"and workers need what this machine has: stackcls {__version__} and the same libraries ({INSTALL})"
        )

    def _was_killed(self, future: Any) -> bool:
        from distributed import KilledWorker

        return bool(future.status == "error") and isinstance(self._exception(future), KilledWorker)

    def _result(self, future: Any) -> Any:
        if future.status == "cancelled":
            raise self._lost("the connection is closed")
        if future.status == "error":
            error = self._exception(future)
            raise (error if isinstance(error, StackclsError) else self.failure(error)) from error.__cause__
        try:
            return future.result(timeout=FETCH)
        except (*CANCELLED, OSError, TimeoutError) as error:
            raise self._lost(f"{type(error).__name__}: {error}") from None

    def _exception(self, future: Any) -> Any:
        try:
            return future.exception()
        except Exception as error:  # noqa: BLE001  (one that cannot be unpickled here)
            return error

    def _lost(self, why: str) -> ClusterError:
        return ClusterError(
            f"{self._settings.address}: the scheduler is lost ({why}): start it again, with its workers, and run the "
            "same command again"
        )


def threads() -> int:
    """On a worker: the threads that it was started with, which stand for processors that are its own."""
    from distributed import get_worker

    return int(get_worker().state.nthreads)


def here() -> str:
    """On a worker: its address."""
    from distributed import get_worker

    return str(get_worker().address)


def _same(value: Any) -> Any:
    return value


def call(version: str, packed: bytes, kept: Any) -> Any:
    """On a worker: run one task; what it needs is unpickled here alone, and only by the version that pickled it."""
    if version != __version__:
        raise ClusterError(
            f"{here()}: this worker has stackcls {__version__}, and the run is by {version}: install that on every "
            "worker and the scheduler"
        )
    function, arguments = pickle.loads(packed)  # noqa: S301  (of whoever may run anything here)
    try:
        return function(*arguments) if kept is None else function(kept, *arguments)
    except StackclsError as error:
        # Dask would send what led to it along, and both are lost where that cannot be pickled.
        error.__cause__ = error.__context__ = None
        raise
