"""Joblib's jobs on a Dask cluster; the large arrays that they share are sent there once, and not with every job."""

import pickle
import threading
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from joblib import Parallel, delayed, parallel_config
from joblib.parallel import get_active_backend
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from stackcls import __version__, cluster
from stackcls.cluster import AGAIN, Cluster
from stackcls.errors import StackclsError

_ONE_AT_A_TIME = threading.Lock()


class Shipped:
    """Arrays on the workers, and the jobs that take one of them.

    Each array travels once from here; workers get it from each other. An array that is lost, since every worker died
    that had it, is sent again.

    Parameters
    ----------
    workers : Cluster
    arrays : sequence of ndarray
    """

    def __init__(self, workers: Cluster, arrays: Sequence[NDArray[Any]]) -> None:
        self._workers, self._arrays = workers, arrays
        self._backend: Any = None

    def run(
        self, function: Callable[..., Any], calls: Iterable[tuple[int, tuple[Any, ...]]], named: str
    ) -> Iterator[Any]:
        """Call a function with one of the arrays and further arguments; yield results in order.

        Parameters
        ----------
        function : callable
            Of a module, so that workers find it.
        calls : iterable of int and tuple
            Number of the array, and the arguments after it.
        named : str
            What messages call one such call.

        Raises
        ------
        ClusterError
            If there is no worker, the scheduler is lost, or jobs kill one worker after the other.
        StackclsError
            Whatever the function raises on purpose.
        """
        left, deaths = deque(calls), 0
        while left:
            try:
                with closing(self._parallel()(self._jobs(function, tuple(left)))) as results:
                    for result in results:
                        left.popleft()
                        deaths = 0
                        yield result
            except StackclsError:
                raise
            except (Exception, CancelledError) as error:
                self.release()
                if not self._workers.may_be_asked_again(error):
                    raise self._workers.failure(error) from error
                if (deaths := deaths + 1) > AGAIN:
                    raise self._workers.killing(error, named) from error

    def release(self) -> None:
        """Let the workers forget the arrays; they are sent again where there is another job."""
        if self._backend is not None:
            self._backend.data_futures.clear()
            self._backend = None

    def _jobs(self, function: Callable[..., Any], calls: Iterable[tuple[int, tuple[Any, ...]]]) -> Iterator[Any]:
        # Arguments as bytes: Joblib would send their arrays as it does the large ones, and they could be lost alike.
        for number, arguments in calls:
            yield delayed(cluster.call)(__version__, pickle.dumps((function, arguments)), self._arrays[number])

    def _parallel(self) -> Parallel:
        if self._backend is None:
            # Kept, as what was scattered is known to this backend alone.
            with parallel_config(backend="dask", scatter=list(self._arrays), **self._workers.for_joblib()):
                self._backend, _ = get_active_backend()
        return Parallel(n_jobs=-1, backend=self._backend, return_as="generator", batch_size=1)


class Shipping:
    """What is on the workers of a cluster, for all fits of a run.

    Parameters
    ----------
    workers : Cluster
    """

    def __init__(self, workers: Cluster) -> None:
        self._workers = workers
        self._of: object = None
        self._kept: Shipped | None = None

    def all_of(self, source: object, load: Callable[[], Sequence[NDArray[Any]]]) -> Shipped:
        """The arrays of a source, which stay there for all that is fitted on it."""
        if self._kept is None or self._of is not source:
            self._of, self._kept = source, Shipped(self._workers, load())
        return self._kept

    @contextmanager
    def one(self, array: NDArray[Any]) -> Iterator[Shipped]:
        """One array that is too large to be kept here and there."""
        shipped = Shipped(self._workers, [array])
        try:
            yield shipped
        finally:
            shipped.release()


@contextmanager
def at_work(alone: bool) -> Iterator[None]:
    """On a worker: do one job beside others, with a thread each, or `alone` with all threads of the worker.

    Set for the whole process and never back, since jobs that overlap would set back what another one has set.
    """
    with parallel_config(backend="sequential"):  # else Joblib would hand what is inside to the cluster too
        if not alone:
            threadpool_limits(1)
            yield
            return
        with _ONE_AT_A_TIME:
            threadpool_limits(cluster.threads())
            yield
