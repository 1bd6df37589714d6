"""Processes of clusters, as a user starts them, and what they leave."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import distributed  # noqa: F401  (a test that sets something of Dask would take its defaults away with that again)
import numpy as np
import psutil
from safetensors.numpy import load_file

from tests.cluster_stub import noted

ROOT = Path(__file__).resolve().parent.parent
SCHEDULER = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
WORKER = ("--no-dashboard", "--no-nanny", "--preload", "tests.cluster_stub", "--death-timeout", "60")

BARE = """
import sys
sys.modules["stackcls"] = None
from distributed.cli.dask_worker import main
main()
"""


def wait_for(condition):
    """Wait until something is so; not for ever."""
    end = time.monotonic() + 120
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    return found


def process(*arguments, cwd=None, **more):
    """Python with a module, which finds stackcls and the tests."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, *arguments], cwd=cwd, env=environment, text=True, **more)


class Here:
    """`dask scheduler` and `dask worker`, and the file by which they find each other.

    Parameters
    ----------
    folder : Path
        Where they run.
    tls : sequence of str
        Options that name certificates.
    """

    def __init__(self, folder, tls=()):
        self.folder, self.file, self._tls, self._processes = folder, folder / "scheduler.json", tls, []
        self.scheduler = self._start("scheduler", *SCHEDULER)
        wait_for(self.file.exists)

    def worker(self, *options):
        return self._start("worker", *WORKER, *(options or ("--nthreads", "1")))

    def bare(self):
        """A worker that cannot import stackcls."""
        return self._run("-c", BARE, "--scheduler-file", str(self.file), "--no-dashboard", "--no-nanny", *self._tls)

    def _start(self, what, *options):
        return self._run("-m", f"distributed.cli.dask_{what}", "--scheduler-file", str(self.file), *options, *self._tls)

    def _run(self, *arguments):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._processes.append(process(*arguments, cwd=self.folder, **quiet))
        return self._processes[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in reversed(self._processes):
            one.kill()
            one.wait()


def start(*arguments, cwd):
    """A command of stackcls, as a terminal starts it: a process group of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return process("-m", "stackcls", *map(str, arguments), cwd=cwd, start_new_session=True, **pipes)


def workers_of(parent):
    """The workers that a process has started by `local:N`."""
    found = []
    for item in parent.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # which is gone by now
            found += [item] if "spawn_main" in " ".join(item.cmdline()) else []
    return found


@contextlib.contextmanager
def killing(log, what, times, most=4):
    """Kill a worker of this process every two seconds, a few times; gives those that were killed.

    Only workers that did something so many times, so that a run goes on however slow the machine is.
    """
    kills, over = [], threading.Event()

    def kill():
        rng, this = random.Random(0), psutil.Process()
        while len(kills) < most and not over.wait(2.0):
            done = Counter(pid for _, pid in noted(log, what))
            if found := [worker for worker in workers_of(this) if done[worker.pid] >= times]:
                worker = rng.choice(found)
                worker.kill()
                kills.append(worker.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield kills
    finally:
        over.set()
        killer.join()


@contextlib.contextmanager
def losing(cluster, worth_it):
    """Kill the scheduler, once it is worth it."""
    loser = threading.Thread(target=lambda: (wait_for(worth_it), cluster.scheduler.kill()))
    loser.start()
    yield
    loser.join()


def interrupt(run, begun):
    """Ctrl-C, once something has begun: nothing is left over; gives what was printed on standard error."""
    try:
        wait_for(lambda: begun() or run.poll() is not None)
        assert run.poll() is None, run.communicate()
        this = psutil.Process(run.pid)
        started = this.children(recursive=True)
        assert listening(this) == {"127.0.0.1"}
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        out, err = run.communicate(timeout=60)
    finally:
        run.kill()
    assert (run.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert "distributed" not in err
    assert not psutil.wait_procs(started, timeout=10)[1]
    return err


def listening(parent):
    """Where a process and its children can be reached."""
    return {
        item.laddr.ip
        for one in (parent, *parent.children(recursive=True))
        for item in one.net_connections("inet")
        if item.status == psutil.CONN_LISTEN
    }


def content(folder):
    """All files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same_fit(one, other):
    """Two folders of artifacts hold the same model and the same scores."""
    reports = [json.loads(files.report.read_text()) for files in (one, other)]
    for report in reports:
        del report["seconds"]
        if report["tuning"]:
            del report["tuning"]["seconds"]
    assert reports[0] == reports[1]
    assert one.predictions.read_bytes() == other.predictions.read_bytes()
    assert one.probabilities.read_bytes() == other.probabilities.read_bytes()
    ours, theirs = load_file(one.safe_model), load_file(other.safe_model)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name])
