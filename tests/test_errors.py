"""Errors reach those who asked, also from another process."""

import pickle
import threading
from unittest import mock

import pytest
from distributed.core import clean_exception, error_message

from stackcls import __version__, errors, worker
from stackcls.errors import StackclsError, UnreadableImage


def classes(of=StackclsError):
    yield of
    for one in of.__subclasses__():
        yield from classes(one)


def made(kind):
    given = ("a.png", "is cut short") if issubclass(kind, UnreadableImage) else ("images: is away",)
    error = kind(*given)
    error.add_note("and a note")
    return error


def fail(name):
    class Unsent(Exception):
        def __init__(self, lock):
            self.lock = lock

    try:
        raise Unsent(threading.Lock())
    except Unsent as error:
        raise made(getattr(errors, name)) from error


BY_A_WORKER = (
    "so says the worker tcp://host:1: workers need what this machine has, the same files and libraries, and addresses "
    "and credentials in the environment that they are started in"
)


def sent_by_a_worker(kind):
    """What a client gets of an error in a task, through Dask's pickles."""
    with pytest.raises(kind) as caught, mock.patch.object(worker, "here", return_value="tcp://host:1"):
        worker.call(__version__, pickle.dumps((fail, (kind.__name__,))), None)
    return clean_exception(error_message(caught.value)["exception"].data)[1]


@pytest.mark.parametrize("way", [lambda kind: pickle.loads(pickle.dumps(made(kind))), sent_by_a_worker])
@pytest.mark.parametrize("kind", sorted(set(classes()), key=lambda kind: kind.__name__))
def test_every_error_comes_whole_from_another_process(kind, way):
    wanted, found = made(kind), way(kind)
    assert type(found) is kind
    assert str(found) == str(wanted)
    if way is sent_by_a_worker and kind is not errors.ClusterError:
        wanted.add_note(BY_A_WORKER)
    assert vars(found) == vars(wanted)
