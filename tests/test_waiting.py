"""While a server does not answer, the user hears so."""

import pytest

from stackcls import fetching, waiting
from stackcls.errors import SourceAway
from stackcls.settings import Limits
from stackcls.urls import Url


@pytest.fixture
def heard(monkeypatch):
    lines, now = [], [0.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    waiting.tell_to(lines.append)
    yield lines, now
    waiting.tell_to(None)


def test_of_one_kind_a_line_now_and_then_is_told(heard):
    lines, now = heard
    for now[0] in range(31):
        waiting.tell("one", f"one {now[0]}")
        waiting.tell("other", "other") if now[0] == 1 else None
    assert lines == ["one 0", "other", "one 15", "one 30"]


def test_nobody_need_listen():
    waiting.tell("one", "to nobody")


def test_a_server_that_does_not_answer_is_told_with_how_often_it_is_asked(heard, monkeypatch):
    lines, now = heard
    monkeypatch.setattr(fetching, "PAUSE", 0.0)

    def fail():
        raise ConnectionRefusedError

    with pytest.raises(SourceAway):
        fetching.trying(fail, Url("http://127.0.0.1:9/a.png"), "a.png", Limits(read_tries=3))
    now[0] = waiting.EVERY
    with pytest.raises(SourceAway):
        fetching.trying(fail, Url("http://127.0.0.1:9/"), "", Limits(read_tries=3), each=2)
    line, *_ = lines
    assert line.startswith("http://127.0.0.1:9/a.png is not answered (")
    assert line.endswith("): trying again, 2 of 3 tries")
    assert lines[-1].endswith("): trying again, 3 of 3 tries")


def test_the_command_line_listens(stackcls):
    _, _, err = stackcls("features", "--images", "http://127.0.0.1:9/photos/", "--set", "features.read_tries=2")
    waiting.tell_to(None)
    assert "listing http://127.0.0.1:9/photos" in err
    assert "trying again, 2 of 2 tries" in err
