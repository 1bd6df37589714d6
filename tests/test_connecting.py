"""A connection that fails leaves nothing behind."""

import gc

import pytest
from distributed import Client

from stackcls import connecting
from stackcls.clustersettings import ClusterSettings
from stackcls.errors import ClusterError
from stackcls.listener import Silent


@pytest.mark.parametrize(
    ("address", "why"), [("tcp://127.0.0.1", "missing port number"), ("tcp://127.0.0.1:9", "Timed out|refused")]
)
def test_a_client_that_cannot_connect_is_closed_at_once(address, why):
    settings = ClusterSettings(address=address, timeout=2)
    with pytest.raises(ClusterError, match=why), connecting.connect(settings, Silent()):
        pytest.fail("connected")
    # One that is open would be closed by the garbage collector, which may wait for a lock that its own thread holds.
    assert all(item.status == "closed" for item in gc.get_objects() if isinstance(item, Client))


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
