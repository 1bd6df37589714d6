"""Jobs on a Dask cluster; the large arrays that they share are sent there once, and not with every job."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from joblib import parallel_config
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from stackcls import cluster
from stackcls.cluster import Cluster

_ONE_AT_A_TIME = threading.Lock()


class Shipped:
    """Arrays on the workers, and the jobs that take one of them.

    Each array travels once from here, and is not kept here; workers get it from each other, and from the scheduler
    where all died that had it.

    Parameters
    ----------
    workers : Cluster
    arrays : sequence of ndarray
    """

    def __init__(self, workers: Cluster, arrays: Sequence[NDArray[Any]]) -> None:
        self._workers, self._kept = workers, [workers.keep(array) for array in arrays]

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
            If the scheduler is lost, or a job kills one worker after the other.
        StackclsError
            Whatever the function raises on purpose.
        """
        arrays: dict[int, int] = {}
        waiting = enumerate(calls)

        def job() -> tuple[int, tuple[Any, ...]] | None:
            position, given = next(waiting, (0, None))
            if given is None:
                return None
            arrays[position], arguments = given
            return position, arguments

        stream = self._workers.stream(
            function, job, lambda _: named, lambda position: self._kept[arrays[position]], beside=True
        )
        found: dict[int, Any] = {}
        following = 0
        for position, result in stream:
            found[position] = result
            while following in found:
                yield found.pop(following)
                following += 1

    def close(self) -> None:
        """Let the cluster forget the arrays."""
        self._kept.clear()


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
            shipped.close()


@contextmanager
def at_work(alone: bool) -> Iterator[None]:
    """On a worker: do one job beside others, with a thread each, or `alone` with all threads of the worker.

    Set for the whole process and never back, since jobs that overlap would set back what another one has set.
    """
    with parallel_config(backend="sequential"):  # threads would only get in the way of other jobs
        if not alone:
            threadpool_limits(1)
            yield
            return
        with _ONE_AT_A_TIME:
            threadpool_limits(cluster.threads())
            yield
