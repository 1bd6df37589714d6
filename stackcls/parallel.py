"""Work side by side without threads getting in each other's way."""

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from joblib import Parallel
from threadpoolctl import threadpool_limits


def in_parallel(jobs: Iterable[Any], n_jobs: int | None, blas_threads: int = 1) -> Iterator[Any]:
    """Run joblib jobs in threads, and yield their results in order.

    On small matrices BLAS threads get in each other's way, while whole fits side by side do not. Large matrices take
    memory, so that one fit at a time is better, with all BLAS threads.

    Parameters
    ----------
    jobs : iterable of joblib's delayed calls
    n_jobs : int, optional
        So many at a time; -1 for as many as there are processors.
    blas_threads : int
        Threads of each job's linear algebra.
    """
    with threadpool_limits(blas_threads), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Liblinear failed to converge")  # as it does on tiny data
        yield from Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(jobs)
