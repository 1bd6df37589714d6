"""What is not quite a URL, and shows no password either."""

import pytest

from stackcls import sources
from stackcls.urls import Url, place, scrubbed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://u:p/ss@h/x", "https://h/x"),
        ("https://u:p#ss@h/x", "https://h/x"),
        ("https://u:p?ss@h/x?q", "https://h/x"),
        ("https://u:pa'ss@h/x", "https://h/x"),
        ("https://u:p ss@h/x", "https://h/x"),
        ("https://u:p@ss@h/x", "https://h/x"),
        ("https://h:80/a@b/x?y@z", "https://h:80/a@b/x"),
        ("https://[::1]:80/a@b", "https://[::1]:80/a@b"),
        ("s3://bucket/a@2/b", "s3://bucket/a@2/b"),
    ],
)
def test_what_is_no_proper_url_shows_no_password_either(text, shown):
    url = Url(text)
    assert str(url) == shown
    said = scrubbed(f"GET {text} failed ({text.partition('://')[2]})", url)
    assert said.startswith(f"GET {shown} failed")
    assert "ss@" not in said
    assert "u:p" not in said


@pytest.mark.parametrize(
    "text", ["simplecache::https://user:pw@h/x", "zip://a::s3://user:pw@h/x", "a::b::s3://user:pw@h"]
)
def test_a_url_within_a_url_is_refused_without_being_shown(tmp_path, text):
    with pytest.raises(sources.SourceError, match="is a URL within a URL") as caught:
        place(text)
    assert "pw" not in str(caught.value)
    (tmp_path / "m.csv").write_text(f"path\n{text}\n")
    with pytest.raises(sources.SourceError, match="is a URL; paths are relative") as caught:
        sources.scan(tmp_path / "m.csv")
    assert "pw" not in str(caught.value)


def test_an_address_of_numbers_is_no_url_within_a_url():
    assert place("http://[::1]:80/x") == Url("http://[::1]:80/x")
