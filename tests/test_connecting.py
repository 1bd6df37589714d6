"""Where a cluster is, and that a connection which fails leaves nothing behind."""

import gc
import os
import signal
import subprocess
import sys
import time
from typing import ClassVar

import dask
import distributed
import pytest
from distributed import Client

from stackcls import config, connecting
from stackcls.clustersettings import ClusterSettings
from stackcls.errors import ClusterError, ConfigError
from stackcls.listener import Silent


@pytest.mark.parametrize(
    ("address", "kind", "why"),
    [("tcp://127.0.0.1", ConfigError, "missing port number"), ("tcp://127.0.0.1:9", ClusterError, "Timed out|refused")],
)
def test_a_client_that_cannot_connect_is_closed_at_once(address, kind, why):
    settings = ClusterSettings(address=address, timeout=2)
    with pytest.raises(kind, match=why), connecting.connect(settings, Silent()):
        pytest.fail("connected")
    # One that is open would be closed by the garbage collector, which may wait for a lock that its own thread holds.
    assert all(vars(item).get("status", "closed") == "closed" for item in gc.get_objects() if isinstance(item, Client))


def test_a_client_that_cannot_be_closed_counts_as_closed():
    class Stuck:
        status = "running"

        def close(self, timeout):
            raise TimeoutError

    client = Stuck()
    connecting._leave(client)
    assert client.status == "closed"


def test_a_client_that_fails_half_made_is_closed_too(monkeypatch):
    made = []

    def fail(self, *_, **__):
        made.append(self)
        self.status = "connecting"
        raise OSError("went away")

    monkeypatch.setattr(Client, "__init__", fail)
    monkeypatch.setattr(Client, "close", lambda self, timeout: None)
    settings = ClusterSettings(address="tcp://127.0.0.1:9")
    with pytest.raises(ClusterError, match="went away"), connecting.connect(settings, Silent()):
        pytest.fail("connected")
    assert [client.status for client in made] == ["closed"]


class Starting:
    """A cluster that takes its time to start; meanwhile somebody presses Ctrl-C."""

    steps: ClassVar = []

    def __init__(self, **_):
        os.kill(os.getpid(), signal.SIGINT)
        begun = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
        self.steps[:] = [subprocess.run([sys.executable, "-c", begun], capture_output=True, text=True).stdout.strip()]
        time.sleep(0.1)
        self.steps.append("started")

    def close(self, timeout):
        self.steps.append("closed")


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_while_processes_start_waits_until_they_can_be_closed(monkeypatch):
    monkeypatch.setattr(distributed, "LocalCluster", Starting)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), connecting.connect(ClusterSettings(address="local:2"), Silent()):
            pytest.fail("went on")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert Starting.steps == ["True", "started", "closed"], "and the processes do not hear it"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("address", ["local", "local:0", "local:2000", "host:8786", "scheduler.txt", "tcp://"])
def test_other_addresses_are_refused(address):
    with pytest.raises(ConfigError, match=rf"cluster\.address: address is '{address}'; allowed are a scheduler's"):
        config.build({"cluster": {"address": address}})


def test_files_that_name_a_scheduler_are_relative_to_the_settings(tmp_path, monkeypatch):
    (tmp_path / "pipeline.yaml").write_text("cluster: {address: where.yaml}")
    settings = config.read(tmp_path / "pipeline.yaml").cluster
    assert settings.address == str(tmp_path / "where.yaml")
    with dask.config.set({"scheduler-address": None}):
        with pytest.raises(ConfigError, match=r"where\.yaml' cannot be used \(FileNotFoundError"):
            connecting._address(settings)
        (tmp_path / "where.yaml").write_text("scheduler-address: tls://host:1\n")
        assert connecting._address(settings) == "tls://host:1"
        (tmp_path / "where.json").write_text('{"address": "tcp://host:2"}')
        assert connecting._address(ClusterSettings(address=str(tmp_path / "where.json"))) == "tcp://host:2"
    with (
        dask.config.set({"scheduler-address": None}),
        pytest.raises(ConfigError, match="no `scheduler-address` in Dask's configuration"),
    ):
        connecting._address(ClusterSettings(address="dask"))
