"""Jobs on a Dask cluster; the large arrays that they share are sent there once, and not with every job."""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from numpy.typing import NDArray

from stackcls.cluster import Cluster

FEW = 2  # results that are here at a time, which may be large; one may have to be computed again
LONG = 3600.0  # seconds that a fit may well take


class Shipped:
    """An array on the workers, as long as this is kept.

    It travels once from here, and is not kept here; workers get it from each other, and from the scheduler where all
    died that had it.

    Parameters
    ----------
    workers : Cluster
    array : ndarray
    """

    def __init__(self, workers: Cluster, array: NDArray[Any]) -> None:
        self.kept, self.size = workers.keep(array), array.nbytes


class Shipping:
    """What is on the workers of a cluster, for all fits of a run, and jobs on it.

    Parameters
    ----------
    workers : Cluster
    memory : float
        Bytes that workers which were started for this run may take, all together.
    """

    def __init__(self, workers: Cluster, memory: float = math.inf) -> None:
        self._workers, self._memory = workers, memory
        self._of: object = None
        self._shipped: OrderedDict[int, Shipped] = OrderedDict()
        self._said: set[str] = set()
        self._there: frozenset[str] = frozenset()
        self._room = 0.0

    @property
    def _spare(self) -> float:
        """What the cluster has for matrices; asked again when its workers are others."""
        there = self._workers.crew.gather()
        if there != self._there:
            self._there, self._room = there, self._workers.crew.spare(self._memory)
        return self._room

    def holds(self, name: str, size: int, work: int) -> bool:
        """Whether the cluster has memory for matrices, and for work on them beside; says so, once, where it has not.

        Parameters
        ----------
        name : str
            What messages call them.
        size, work : int
            Bytes, both at the scheduler and at every worker.
        """
        if fits := max(size, work) <= self._spare:
            return fits
        if name not in self._said:
            self._said.add(name)
            self._workers.crew.warn(
                f"{name}: {size / 1e6:.1f} MB, and {work / 1e6:.1f} MB to work with, do not fit into the "
                f"{2 * self._spare / 1e6:.1f} MB that the scheduler or a worker has: fitted here and not on the cluster"
            )
        return fits

    def keeps(self, size: int) -> bool:
        """Whether the cluster has memory for matrices of so many bytes in all."""
        return size <= self._spare

    @property
    def threads(self) -> int:
        """The most that a worker has."""
        return self._workers.crew.most_threads()

    def matrix(self, source: object, number: int, load: Callable[[int], NDArray[Any]]) -> Shipped:
        """A matrix of a source, by its number; it stays there while the cluster has memory for it.

        Where it has not, those that were longest not asked for are let go, and sent again when they are.

        Parameters
        ----------
        source : object
            Matrices of one source at a time are kept.
        number : int
        load : callable
            From the number to the matrix, whenever it has to be sent.
        """
        if self._of is not source:
            self._of, self._shipped = source, OrderedDict()
        if number not in self._shipped:
            self._let_go_for(array := load(number))
            self._shipped[number] = Shipped(self._workers, array)
        self._shipped.move_to_end(number)
        return self._shipped[number]

    def _let_go_for(self, array: NDArray[Any]) -> None:
        taken = array.nbytes + sum(shipped.size for shipped in self._shipped.values())
        while self._shipped and taken > self._spare:
            taken -= self._shipped.popitem(last=False)[1].size

    def run(
        self,
        function: Callable[..., Any],
        calls: Iterable[tuple[Shipped, tuple[Any, ...]]],
        named: Callable[[int], str],
        beside: bool,
    ) -> Iterator[Any]:
        """Call a function with an array and further arguments; yield results in order.

        Parameters
        ----------
        function : callable
            Of a module, so that workers find it.
        calls : iterable of Shipped and tuple
            The array, and the arguments after it.
        named : callable
            From the position of a call to what messages call it.
        beside : bool
            Whether workers do as many side by side as they have threads.

        Raises
        ------
        ClusterError
            If the scheduler is lost, or a job kills one worker after the other.
        StackclsError
            Whatever the function raises on purpose.
        """
        arrays: dict[int, Any] = {}
        waiting = enumerate(calls)

        def job() -> tuple[int, tuple[Any, ...]] | None:
            position, given = next(waiting, (0, None))
            if given is None:
                return None
            arrays[position], arguments = given[0].kept, given[1]
            return position, arguments

        stream = self._workers.stream(function, job, named, arrays.__getitem__, beside, not beside, FEW, LONG)
        found: dict[int, Any] = {}
        following = 0
        for position, result in stream:
            found[position] = result
            del arrays[position]
            while following in found:
                yield found.pop(following)
                following += 1
