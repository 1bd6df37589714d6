"""What Dask's workers load before they work (`distributed.worker.preload`): networks that need no library, and mishaps.

Mishaps hang on names of images and backbones, since a worker's environment is the same for all tests of a cluster.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from stackcls import engines, images, loading, worker
from stackcls.errors import ConfigError, UnreadableFile, UnreadableImage
from tests.conftest import FakeEngine, FakeExtractor

SECONDS = "STUB_SECONDS"  # that a sleepy network takes per image
LOG = "STUB_LOG"  # where it is noted what is done: what, how many, and by which process
FIT = "STUB_FIT"  # a file that says what happens to each fit: seconds that it takes longer, or `die`


def note(what, number):
    """Write a line of the log."""
    if LOG in os.environ:
        with open(os.environ[LOG], "a") as log:
            log.write(f"{what} {number} {os.getpid()}\n")


def noted(log, what):
    """Number and process of all that was done so far."""
    lines = [line.split() for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [(int(number), int(pid)) for found, number, pid in lines if found == what]


@dataclass
class Mishap:
    """A network to which something happens."""

    network: FakeExtractor
    name: str

    @property
    def input_size(self):
        return self.network.input_size

    @property
    def width(self):
        return self.network.width

    def __call__(self, batch):
        if self.name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.name == "broken":
            raise RuntimeError("a network broke")
        if self.name == "sleepy":
            time.sleep(float(os.environ[SECONDS]) * len(batch))
        features = self.network(batch)
        note("run", len(batch))
        return features


class Stub(FakeEngine):
    """The fake engine, on a worker."""

    def prepare(self, located, batch_size):
        self.last = located.backbone.name
        note("prepare", batch_size)
        return Mishap(super().prepare(located, batch_size), located.backbone.name)

    def provenance(self):
        made = super().provenance()
        return {**made, "processor": os.getpid()} if self.last == "mixed" else made


hash_file, decode, find_recorded = images.hash_file, images.decode, loading.find_recorded


def place(array, seconds):
    """Where a job is done, after a while."""
    time.sleep(seconds)
    return worker.here()


def hash_seen(content, name, limits, *more):
    if "unseen" in name:
        raise UnreadableFile(name, "file not found")
    if "other" in name:
        return "0" * 64
    return hash_file(content, name, limits, *more)


def decode_at_last(data, name, *given):
    if "stuck" in name:
        time.sleep(3)
    if "large" in name:
        raise UnreadableImage(name, "not enough memory to decode it")
    return decode(data, name, *given)


def find_elsewhere(name, identity, hints, folder):
    """As on a machine with another file system."""
    return find_recorded(name, identity, [], folder)


def disturb(fit_base):
    """Let something happen to every fit."""

    def disturbed(*given, **named):
        note("fit", 1)
        if (happens := Path(os.environ[FIT]).read_text()) == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(happens))
        return fit_base(*given, **named)

    return disturbed


def dask_setup(_worker):
    """Called by a worker that loads this, and not by tests that only import it."""
    engines.choose = lambda name, precision: engines.Choice(Stub(), f"engine: fake, {precision}")
    images.hash_file, images.decode, loading.find_recorded = hash_seen, decode_at_last, find_elsewhere
    if FIT in os.environ:
        from stackcls.stack import StackedClassifier

        StackedClassifier.fit_base = disturb(StackedClassifier.fit_base)


def first_number(array, more, sleep=0.0):
    """A job that takes an array which is there already."""
    time.sleep(sleep)
    return float(array[0]) + more


def die_once(array, more, folder):
    """The first of these jobs kills the process that does it."""
    if more == 2:
        try:
            (Path(folder) / "died").touch(exist_ok=False)
        except FileExistsError:
            return first_number(array, more)
        time.sleep(0.3)  # so that others are done
        os.kill(os.getpid(), signal.SIGKILL)
    return first_number(array, more)


def die(array, more):
    """Kills every process that does it."""
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(array, more):
    """An error that is meant."""
    raise ConfigError("that is not allowed")


def fail(array, more):
    """An error that is not."""
    raise RuntimeError("a job broke")
