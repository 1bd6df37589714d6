"""What runs on a worker of a cluster around each task, and what a task may ask about the worker that it is on."""

import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from joblib import parallel_config
from threadpoolctl import threadpool_limits

from stackcls import __version__
from stackcls.errors import ClusterError, StackclsError

T = TypeVar("T")


def call(version: str, packed: bytes, kept: Any) -> Any:
    """Run one task; what it needs is unpickled here alone, and only by the version that pickled it."""
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
        if not isinstance(error, ClusterError):
            error.add_note(
                f"so says the worker {here()}: workers need what this machine has, the same files and libraries, and "
                "addresses and credentials in the environment that they are started in"
            )
        raise


def same(value: T) -> T:
    """A task whose result is what it was given, so that it stays with the workers."""
    return value


def threads() -> int:
    """The threads that the worker was started with, which stand for processors that are its own."""
    from distributed import get_worker

    return int(get_worker().state.nthreads)


def here() -> str:
    """Its address."""
    from distributed import get_worker

    return str(get_worker().address)


class _Limits:
    """Of the threads of linear algebra, which are for the whole process.

    Jobs that overlap would set back what another one has set: the last one does, to what it was before the first.
    """

    def __init__(self) -> None:
        self._lock, self._jobs, self._first = threading.Lock(), 0, threadpool_limits()

    @contextmanager
    def to(self, count: int) -> Iterator[None]:
        """For one job."""
        with self._lock:
            limits = threadpool_limits(count)
            if not self._jobs:
                self._first = limits
            self._jobs += 1
        try:
            yield
        finally:
            with self._lock:
                self._jobs -= 1
                if not self._jobs:
                    self._first.restore_original_limits()


_ONE_AT_A_TIME, _LIMITS = threading.Lock(), _Limits()


@contextmanager
def at_work(alone: bool) -> Iterator[None]:
    """Do one job beside others, with a thread each, or `alone` with all threads of the worker."""
    with (
        parallel_config(backend="sequential"),  # joblib's threads would only get in the way of other jobs
        _ONE_AT_A_TIME if alone else nullcontext(),
        _LIMITS.to(threads() if alone else 1),
    ):
        yield
