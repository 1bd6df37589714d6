"""What is not quite a URL, and shows no password either."""

import pytest

from stackcls import images, sources
from stackcls.settings import Limits
from stackcls.urls import Url, place, scrubbed
from tests.conftest import write_photo
from tests.test_shards import write_tar

QUICK = Limits(read_tries=2, read_seconds=20)


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


@pytest.fixture
def two_photos(tmp_path):
    """A folder of two photos, and a manifest of one of them."""
    for name in ("a b.png", "c.png"):
        write_photo(tmp_path / "photos" / "red" / name, (9, 9, 9), 1)
    (tmp_path / "photos" / "m.csv").write_text("path\nred/a b.png\n")
    return tmp_path / "photos"


@pytest.mark.parametrize("query", ["?token=TOP%2FSECRET&x=1", "?sv=1&sr=c&sig=SECRET", "?Policy=P&Key-Pair-Id=SECRET"])
@pytest.mark.parametrize("name", ["", "m.csv"])
def test_what_follows_a_folder_or_manifest_is_sent_for_its_images_too_and_never_shown(served, two_photos, name, query):
    source = sources.scan(place(f"{served.url}/photos/{name}{query}"), QUICK)
    assert [entry.path for entry in source.entries] == ["red/a b.png", "red/c.png"][: 1 if name else 2]
    for entry in source.entries:
        assert images.read_bytes(source.locate(entry), "x") == (two_photos / entry.path).read_bytes()
    assert len(served.asked) == (2 if name else 4)
    assert {url.partition("?")[2].replace("%2F", "/") for url in served.asked} == {query[1:].replace("%2F", "/")}
    assert "SECRET" not in f"{source!r} {source.root} {source.root.as_posix()}"


@pytest.mark.parametrize("link", ["{}", "/photos/red/{}", "http://{{host}}/photos/red/{}", "{}?token=SECRET"])
def test_links_of_a_page_that_takes_a_token(served, two_photos, link):
    host = served.url.partition("://")[2]
    links = "".join(f'<a href="{link.format(name).format(host=host)}">' for name in ("a%20b.png", "c.png"))
    (two_photos / "red" / "index.html").write_text(f'<a href="/">{links}<a href="?sort=name">')
    source = sources.scan(place(f"{served.url}/photos/red/?token=SECRET"), QUICK)
    assert [entry.path for entry in source.entries] == ["a b.png", "c.png"]


@pytest.mark.parametrize(
    "query",
    [
        "?X-Amz-Credential=SECRET&X-Amz-Signature=SECRET",
        "?x-goog-signature=SECRET",
        "?AWSAccessKeyId=SECRET&Signature=SECRET",
        "?GoogleAccessId=SECRET&Signature=SECRET",
        "?Expires=1&Signature=SECRET&Key-Pair-Id=SECRET",
        "?sv=1&sr=b&sig=SECRET",
    ],
)
@pytest.mark.parametrize("name", ["", "m.csv", "red"])
def test_what_is_signed_for_one_file_is_refused_where_others_are_needed(served, two_photos, name, query):
    with pytest.raises(sources.SourceError, match=r"is signed for this one file .*, so that its server") as caught:
        sources.scan(place(f"{served.url}/photos/{name}{query}"), QUICK)
    assert "SECRET" not in str(caught.value)
    assert served.asked == []
    write_tar(two_photos / "s.tar", {"a.png": b"1"})
    served.handler.pieces = True
    (entry,) = sources.scan(place(f"{served.url}/photos/s.tar{query}"), QUICK).entries  # a shard may be signed
    assert entry.path == "s.tar/a.png"
