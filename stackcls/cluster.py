"""Work on other processes and machines through Dask: a bounded stream of tasks, and what can go wrong with it."""

import asyncio
import concurrent.futures
import pickle
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from stackcls import __version__, crew, worker
from stackcls.clustersettings import INSTALL, ClusterSettings
from stackcls.crew import Crew
from stackcls.errors import ClusterError, StackclsError
from stackcls.listener import Listener

TOGETHER = 4  # results that are fetched at a time, since each waits for its way here, and that may wait here
SMALL = 1 << 16  # bytes; names, places and hashes of a block's images are 20 kB
FETCH = 600.0  # seconds for a result that is there to arrive; else whoever has it is gone, and nobody says so
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
    place: str | None  # the worker that it was meant for


@dataclass(frozen=True)
class _Killed:
    error: BaseException


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
        self._client, self._address = client, settings.address
        self._resources = dict(settings.resources) or None
        self._run, self._numbers = f"stackcls-{uuid.uuid4().hex[:8]}", count()
        self.crew = Crew(client, settings, listener)

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
            key = (f"{self._run}-kept", next(self._numbers))
            # Where tasks may be: on another worker it might not even be possible to unpickle it.
            kept = self._client.submit(worker.same, value, key=key, resources=self._resources, pure=False)
        self.crew.wait_for(kept)  # else what is sent after it would be here beside it
        if kept.status in ("error", "cancelled"):
            raise self.failure(self._exception(kept))
        return kept

    def stream(
        self,
        function: Callable[..., T],
        job: Callable[[], tuple[int, tuple[Any, ...]] | None],
        named: Callable[[int], str],
        kept: Callable[[int], Any] = lambda _: None,
        beside: bool = False,
        alone: bool = False,
        n_together: int = TOGETHER,
        quiet: float | None = None,
    ) -> Iterator[tuple[int, T]]:
        """Run a function on the workers, and yield each job's number with its result as it comes.

        Parameters
        ----------
        function : callable
            Of a module, so that workers find it.
        job : callable
            Gives number and arguments of the next task, None where there is none now; asked again after every result.
            Only so many tasks are under way as keep the workers busy.
        named : callable
            From a number to what messages call that job.
        kept : callable, optional
            From a number to what `keep` gave, which is the first argument of that call.
        beside : bool
            Whether workers do as many jobs side by side as they have threads.
        alone : bool
            Whether none is to wait at a worker that is busy.
        n_together : int
            Results that are fetched, or wait here to be taken, at a time.
        quiet : float, optional
            Seconds without a result that are nothing to tell the user.

        Raises
        ------
        ClusterError
            If the scheduler is lost, a task kills one worker after the other, or fails as none should.
        StackclsError
            Whatever the function raises on purpose.
        """
        done: SimpleQueue[Any] = SimpleQueue()
        flying: dict[Any, _Flying] = {}
        fetching: dict[Future[Any], _Flying] = {}

        def send(number: int, arguments: tuple[Any, ...], deaths: int = 0) -> None:
            shared = kept(number)
            places = (one.place for one in flying.values())
            place = self.crew.least_busy(places) if hasattr(shared, "key") else None
            future = self._client.submit(
                worker.call,
                __version__,
                pickle.dumps((function, arguments)),
                shared,
                key=(f"{self._run}-{function.__name__}", next(self._numbers)),
                resources=self._resources,
                workers=place,
                allow_other_workers=place is not None,
                pure=False,
            )
            flying[future.key] = _Flying(future, number, arguments, deaths, place)
            future.add_done_callback(lambda ended: done.put(ended.key))

        self.crew.begin(beside, alone, quiet)
        pool = ThreadPoolExecutor(n_together, "stackcls-fetching")
        try:
            while True:
                while len(flying) + len(fetching) < self.crew.room() and (given := job()) is not None:
                    send(*given)
                if not flying and not fetching:
                    return
                with suppress(Empty):
                    while len(fetching) < n_together:
                        one = flying.pop(done.get(timeout=0 if fetching else crew.LOOK))
                        fetching[pool.submit(self._outcome, one.future)] = one
                for fetched in wait(fetching, crew.LOOK, FIRST_COMPLETED).done if fetching else ():
                    one, outcome = fetching.pop(fetched), fetched.result()
                    if not isinstance(outcome, _Killed):
                        yield one.number, outcome
                    elif one.deaths < AGAIN:
                        send(one.number, one.arguments, one.deaths + 1)
                    else:
                        raise self.killing(outcome.error, named(one.number))
                    del one, fetched, outcome  # so that the cluster forgets it
                    self.crew.heard()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            flying.clear()
            fetching.clear()

    def on(self, address: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function on one worker, beside its tasks; None where it is gone."""
        try:
            return self._client.run(function, *arguments, workers=[address])[address]
        except StackclsError as error:
            error.add_note(f"on the worker {address}")
            raise
        except (OSError, ValueError, KeyError):
            return None

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run a coroutine function on all workers that can do the run's tasks, and wait for none."""
        with suppress(Exception):
            if self._client.status == "running":  # else it would wait for a new connection
                self._client.run(function, *arguments, workers=self.crew.addresses, wait=False)

    def killing(self, error: BaseException, name: str) -> ClusterError:
        """An error for a job over which one worker after the other died."""
        last = getattr(getattr(error, "last_worker", None), "address", "unknown")
        return ClusterError(
            f"{self._address}: every worker that was given one part of the work died over it, the last one {last}: "
            "look into their logs, give the workers more memory (`dask worker --memory-limit`), install stackcls where "
            f"one lacks it, or take out what is at fault, and run the same command again. That part is {name}"
        )

    def failure(self, error: BaseException) -> ClusterError:
        """An error for a job that failed otherwise, and not on purpose."""
        if self._client.status != "running" or isinstance(error, CANCELLED):
            return self.crew.lost(f"{type(error).__name__}: {error}")
        return ClusterError(
            f"{self._address}: a worker cannot do its part ({type(error).__name__}: {error}); scheduler "
            f"and workers need what this machine has: stackcls {__version__} and the same libraries ({INSTALL})"
        )

    def _outcome(self, future: Any) -> Any:
        """A task's result, or that Dask gave it up because workers died."""
        from distributed import KilledWorker

        while True:
            if future.status == "cancelled":
                raise self.crew.lost("the connection is closed")
            if future.status == "error":
                error = self._exception(future)
                if isinstance(error, KilledWorker):
                    return _Killed(error)
                raise (error if isinstance(error, StackclsError) else self.failure(error)) from error.__cause__
            try:
                return future.result(timeout=FETCH)
            except TimeoutError as error:
                if future.done():
                    raise self.crew.lost(f"{type(error).__name__}: {error}") from None
                # Lost with the worker that had it: it is computed again, which may take as long as it took.
            except (*CANCELLED, OSError) as error:
                raise self.crew.lost(f"{type(error).__name__}: {error}") from None
            except Exception:
                if future.status != "error":  # which it may become when it is computed again
                    raise

    def _exception(self, future: Any) -> Any:
        try:
            return future.exception()
        except Exception as error:  # noqa: BLE001  (one that cannot be unpickled here)
            return error
