"""Jobs in threads, a few ahead and in order, with bounded memory; one that takes too long is given up."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from functools import partial
from itertools import count, islice
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

# What all jobs of a run hold together at most, unless a single one needs more: photos of 24 megapixels, five at once.
FILE_BYTES = 2**28
PIXELS = 2**27
# A limit is counted in ticks of the thread that waits, so that the time during which all are halted (a suspended
# laptop, Ctrl-Z) counts as one at most.
TICKS = 20
ENDING = 5.0
# What jobs that were given up and have not ended hold together at most, unless it is a single one. A pixel is reckoned
# as decoded and as RGB, a thread as its stack and what libraries keep for it.
STUCK_BYTES = 2**31
BYTES_PER_PIXEL = 4
BYTES_PER_THREAD = 2**24

T = TypeVar("T")


class GivenUp(BaseException):
    """Ends a job that nobody waits for any more; no Exception, since none that is met on the way may be tried again."""


class TooMuchStuck(Exception):
    """Ends work whose jobs hang one after the other, since each keeps its memory.

    Parameters
    ----------
    answers : list
        What was given in place of the jobs' results.
    """

    def __init__(self, answers: list[Any]) -> None:
        super().__init__(f"{len(answers)} jobs do not end")
        self.answers = answers


class Turn(Generic[T]):
    """One job on its way through a thread.

    Attributes
    ----------
    counting : bool
        Whether its time is running: set by the job itself, and off while it waits for memory.
    """

    def __init__(self, job: "Callable[[Turn[T]], T]", late: Callable[[], T], shares: "tuple[_Share, _Share]") -> None:
        self._job, self._late, (self._bytes, self._pixels) = job, late, shares
        self._outcome: T | None = None
        self._error: BaseException | None = None
        self.done = threading.Event()
        self.counting = self.given_up = False
        self.seconds = 0.0
        self.holds = 0  # bytes, while it does not end
        self.answer: T | None = None

    def admit_file(self, size: int) -> None:
        """Wait until so many bytes may be read."""
        self._take(self._bytes, size)
        self.holds += size

    def admit_pixels(self, count: int) -> None:
        """Wait until so many pixels may be decoded; no job may ask for bytes after that."""
        self._take(self._pixels, count)
        self.holds += BYTES_PER_PIXEL * count

    def run(self) -> None:
        """Do the job; keep what it gives or raises."""
        try:
            self._outcome = self._job(self)
        except BaseException as error:  # noqa: BLE001  (raised again where the result is asked for)
            self._error = error
        finally:
            self.counting = False
            self._give_back()
            self.done.set()

    def result(self) -> T:
        """What the job gave, or what is given in its place; raises what it raised."""
        if self.given_up:
            return self.answer  # type: ignore[return-value]
        if self._error is not None:
            raise self._error
        return self._outcome  # type: ignore[return-value]

    def give_up(self) -> None:
        """Wait for this job no longer, and let others have its share."""
        self.answer = self._late()
        self.given_up = True
        self._give_back()

    def _give_back(self) -> None:
        self._pixels.give_back(self)
        self._bytes.give_back(self)

    def _take(self, share: "_Share", amount: int) -> None:
        counting, self.counting = self.counting, False
        share.take(self, amount)
        self.counting = counting


# Of the whole process, since threads that are stuck outlive the work that gave them up.
_stuck: list[Turn[Any]] = []
_noting = threading.Lock()


class _Share:
    """What jobs hold parts of: at most `total` together, or one job alone."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._held: dict[object, int] = {}
        self._changed = threading.Condition()

    def take(self, turn: "Turn[T]", amount: int) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: turn.given_up or not self._held or sum(self._held.values()) + amount <= self._total
            )
            if turn.given_up:
                raise GivenUp
            self._held[turn] = amount

    def give_back(self, turn: "Turn[T]") -> None:
        with self._changed:
            self._held.pop(turn, None)
            self._changed.notify_all()


def in_order(
    jobs: Iterable[Callable[[Turn[T]], T]],
    late: Callable[[int], T],
    seconds: float,
    ahead: int,
    workers: int | None = None,
) -> Generator[T]:
    """Run jobs in threads and yield what they give, in order.

    A thread that is stuck in a library's code cannot be ended. Its job is answered for, another thread takes its place,
    and none of them is waited for when the process ends.

    Parameters
    ----------
    jobs : iterable of callables
        Consumed as needed, `ahead` at most before the one whose result is yielded; may be endless.
    late : callable
        From a job's number to what is yielded in place of a job that takes too long.
    seconds : float
        How long that is.
    ahead : int
    workers : int, optional
        Threads; by default as many as there are processors.

    Raises
    ------
    TooMuchStuck
        If jobs that were given up hold too much memory.
    """
    remaining = iter(jobs)
    pool: _Pool[T] = _Pool(workers or os.cpu_count() or 1, seconds, late)
    try:
        pool.submit(islice(remaining, ahead))
        while pool.pending:
            turn = pool.pending[0]
            pool.wait(turn)
            pool.pending.popleft()
            pool.submit(islice(remaining, 1))
            yield turn.result()
    finally:
        pool.close()


class _Pool(Generic[T]):
    """Threads that do not keep the process from ending, as those of `concurrent.futures` do."""

    def __init__(self, workers: int, seconds: float, late: Callable[[int], T]) -> None:
        self._seconds, self._late, self._numbers = seconds, late, count()
        self._shares = (_Share(FILE_BYTES), _Share(PIXELS))
        self._queue: SimpleQueue[Turn[T] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self.pending: deque[Turn[T]] = deque()
        for _ in range(workers):
            self._start()

    def submit(self, jobs: Iterable[Callable[[Turn[T]], T]]) -> None:
        for job in jobs:
            turn = Turn(job, partial(self._late, next(self._numbers)), self._shares)
            self.pending.append(turn)
            self._queue.put(turn)

    def wait(self, turn: Turn[T]) -> None:
        """Wait until a job, which is pending, has ended or is given up."""
        tick = self._seconds / TICKS
        while not turn.given_up and not turn.done.wait(tick):
            # Later ones too: one that hangs may hold the memory that this one waits for.
            for one in self.pending:
                one.seconds += tick * one.counting
                if one.counting and one.seconds >= self._seconds and not one.given_up:
                    one.give_up()
                    _note_stuck([one])
                    self._start()
        if turn.given_up:
            stuck = [one for one in _stuck if not one.done.is_set()]
            if len(stuck) > 1 and sum(one.holds + BYTES_PER_THREAD for one in stuck) > STUCK_BYTES:
                raise TooMuchStuck([one.answer for one in stuck])

    def close(self) -> None:
        """Drop what is pending, and wait a little for what runs."""
        for turn in self.pending:
            turn.give_up()
        for _ in self._threads:
            self._queue.put(None)
        end = time.monotonic() + min(self._seconds, ENDING)
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        _note_stuck([turn for turn in self.pending if turn.holds])

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f"decode-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (turn := self._queue.get()) is not None:
            if not turn.given_up:
                turn.run()
            if turn.given_up and turn.done.is_set():
                return  # another thread has taken this one's place


def _note_stuck(turns: list[Turn[Any]]) -> None:
    """Remember jobs that have not ended; their share goes to others, so what they hold has a limit of its own."""
    with _noting:
        _stuck[:] = [turn for turn in dict.fromkeys([*_stuck, *turns]) if not turn.done.is_set()]
