"""What is asked of servers: what is shown of addresses, what is tried again, what is whose fault."""

import pickle
import sys
from pathlib import Path

import pytest

from stackcls import config, fetching, images, sources
from stackcls.errors import ConfigError, SourceAway, SourceError, SourceMissing, UnreadableFile
from stackcls.remote import RemoteFile
from stackcls.settings import Limits
from stackcls.spool import Spool
from stackcls.urls import Url, cleaned, place, scrubbed

SECRET = "https://user:pass-word@host:8080/a/b.png?X-Amz-Signature=abc#part"


def test_addresses_are_shown_without_what_is_secret():
    url = Url(SECRET)
    assert str(url) == cleaned(SECRET) == url.as_posix() == "https://host:8080/a/b.png"
    assert scrubbed(f"GET '{SECRET}' failed") == "GET 'https://host:8080/a/b.png' failed"
    for shown in (repr(url), repr(RemoteFile(url)), str(RemoteFile(url)), f"{url.parent} {url / 'c'}"):
        assert "pass-word" not in shown
        assert "abc" not in shown


@pytest.mark.parametrize(
    ("base", "path", "whole"),
    [
        ("https://host/a", "b c/é#?%41.png", "https://host/a/b%20c/%C3%A9%23%3F%2541.png"),
        ("https://host/a/?sig=1#x", "b.png", "https://host/a/b.png?sig=1#x"),
        ("s3://bucket/a/", "b c#?%41.png", "s3://bucket/a/b c#?%41.png"),
    ],
)
def test_an_address_below_another(base, path, whole):
    assert (Url(base) / path).text == whole
    assert Url(base).relative(whole) == path


def test_what_is_a_path_and_what_a_url(tmp_path):
    assert place("s3://bucket//a") == Url("s3://bucket//a")
    assert place("a//b") == Path("a/b")
    assert place("file:///tmp/a%20b") == Path("/tmp/a b")
    assert place(tmp_path) is tmp_path
    for bad, reason in ((7, "7 does not do: a path or a URL"), ("zip://a::s3://u:p@b", "is a URL within a URL")):
        with pytest.raises(SourceError, match=reason) as caught:
            place(bad)
        assert "u:p" not in str(caught.value)


def test_a_url_survives_the_settings(tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text("images: s3://bucket/photos//odd\n")
    assert config.read(file).images == Url("s3://bucket/photos//odd")
    assert config.read(file, ["images=https://h/x?sig=1"]).images.text == "https://h/x?sig=1"
    file.write_text("images: shards/{000..009}.tar\n")
    assert config.read(file).images == tmp_path / "shards/{000..009}.tar"
    with pytest.raises(ConfigError, match="images: is a URL within a URL") as caught:
        config.read(file, ["images=zip://x::s3://user:pass-word@b"])
    assert "pass-word" not in str(caught.value)
    with pytest.raises(ConfigError, match="read_tries"):
        config.read(file, ["features.read_tries=0"])


class Answer(Exception):
    """As aiohttp says what a server answered."""

    def __init__(self, status, text=SECRET):
        super().__init__(text)
        self.status = status


class Told(Exception):
    """As botocore does."""

    def __init__(self, status, code):
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def caused(error, by):
    error.__cause__ = by
    return error


class NoCredentialsError(Exception):
    """Has the name of botocore's."""


class TooManyRedirects(Exception):
    """Has the name of aiohttp's."""


class ParamValidationError(Exception):
    """Has the name of botocore's."""


FINAL, PASSING, NOBODY, NO_WAY = (UnreadableFile, 1), (SourceAway, 3), (SourceError, 1), (SourceMissing, 1)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (FileNotFoundError(SECRET), FINAL),
        (PermissionError("no"), FINAL),
        (Answer(404), FINAL),
        (Answer(403), FINAL),
        (Answer(410), FINAL),
        (caused(PermissionError("no"), Told(403, "AccessDenied")), FINAL),
        (ParamValidationError("no such name"), FINAL),
        (caused(FileNotFoundError("x"), Told(404, "NoSuchKey")), FINAL),
        (caused(FileNotFoundError("x"), Told(404, "NoSuchBucket")), NO_WAY),
        (caused(OSError("x"), Told(400, "AuthorizationHeaderMalformed")), NO_WAY),
        (caused(PermissionError("x"), Told(403, "AllAccessDisabled")), NO_WAY),
        (caused(OSError("x"), Told(301, "PermanentRedirect")), NO_WAY),
        (caused(OSError("x"), Told(400, "ThrottlingException")), PASSING),
        (caused(OSError("x"), Told(400, "KMS.ThrottlingException")), PASSING),
        (caused(OSError("x"), Told(400, "RequestTimeout")), PASSING),
        (caused(PermissionError("x"), Told(403, "RequestLimitExceeded")), PASSING),
        (caused(PermissionError("x"), Told(403, "BandwidthLimitExceeded")), PASSING),
        (caused(FileNotFoundError("x"), Answer(503)), PASSING),
        (caused(FileNotFoundError("x"), ConnectionResetError("y")), PASSING),
        (caused(FileNotFoundError("x"), TimeoutError()), PASSING),
        (Answer(401), NOBODY),
        (caused(PermissionError("no"), Told(400, "ExpiredToken")), NOBODY),
        (caused(PermissionError("no"), Told(403, "InvalidAccessKeyId")), NOBODY),
        (NoCredentialsError(), NOBODY),
        (OSError(f"Forbidden: {SECRET}\nno"), FINAL),
        (OSError("Forbidden: x\nRate Limit Exceeded"), PASSING),
        (ValueError("Bad Request: x\ninvalid"), FINAL),
        (TooManyRedirects(SECRET), FINAL),
        (Answer(500), PASSING),
        (Answer(503), PASSING),
        (Answer(429), PASSING),
        (Answer(408), PASSING),
        (caused(OSError("slow down"), Told(503, "SlowDown")), PASSING),
        (TimeoutError(), PASSING),
        (ConnectionResetError(SECRET), PASSING),
        (OSError("what nobody knows"), PASSING),
    ],
)
def test_whose_fault_it_is(patient, error, outcome):
    asked = []

    def ask():
        asked.append(1)
        raise error

    kind, count = outcome
    with pytest.raises(SourceError if kind is not UnreadableFile else UnreadableFile) as caught:
        fetching.trying(ask, Url(SECRET), "b.png", Limits(read_tries=3))
    found = UnreadableFile if isinstance(caught.value, UnreadableFile) else type(caught.value)
    assert (found, len(asked)) == (kind, count)
    assert "pass-word" not in str(caught.value)
    assert "abc" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_what_passes_is_tried_again_ever_later(monkeypatch):
    waits, errors = [], [Answer(503)] * 5
    monkeypatch.setattr(fetching.time, "sleep", waits.append)
    monkeypatch.setattr(fetching.random, "uniform", lambda low, high: high)

    def ask():
        if errors:
            raise errors.pop()
        return 7

    assert fetching.trying(ask, Url("s3://b/x"), "x", Limits()) == 7
    assert waits == [0.5, 1, 2, 4, 8]


def test_a_mistake_in_the_program_is_not_tried_again(patient):
    with pytest.raises(TypeError):
        fetching.trying(lambda: len(3), Url("s3://b/x"), "x", Limits())


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("s3://bucket/x", "s3fs", "s3"),
        ("gs://bucket/x", "gcsfs", "gcs"),
        ("https://host/x/", "aiohttp", "http"),
        ("https://host/x/", "fsspec", "http"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, patient, url, module, extra):
    pytest.importorskip("fsspec")
    known = {}  # nothing, even where another test was first
    for attribute in ("_registry", "registry"):
        monkeypatch.setattr(sys.modules["fsspec.registry"], attribute, known)
    for name in list(sys.modules):
        if name.split(".")[0] == module or name == "fsspec.implementations.http":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SourceError, match=r"needs a package that is missing") as caught:
        sources.scan(place(url))
    assert f"pip install 'stackcls[{extra}]'" in str(caught.value)


def test_schemes_that_nobody_knows(patient):
    pytest.importorskip("fsspec")
    with pytest.raises(SourceError, match="nonsense://x is of no kind that can be read"):
        sources.scan(place("nonsense://x"))


def test_a_file_that_is_too_large_is_not_read_to_its_end(served, tmp_path, bucket):
    limits = Limits(max_pixels=1)
    (tmp_path / "large.png").write_bytes(bytes(limits.max_bytes + 2))
    bucket.put("large.png", bytes(limits.max_bytes + 2))
    bucket.put("small.png", b"12")
    for url in (f"{served.url}/large.png", f"s3://{bucket.name}/large.png"):
        with pytest.raises(UnreadableFile, match="x: the file has more than the"):
            RemoteFile(Url(url)).read("x", limits)
    admitted = []
    assert RemoteFile(Url(f"s3://{bucket.name}/small.png")).read("x", limits, admitted.append) == b"12"
    assert admitted == [2]
    with pytest.raises(UnreadableFile, match="x: the file has more than the"):
        RemoteFile(Url("s3://b/x"), 0, limits.max_bytes + 1).read("x", limits)


@pytest.mark.parametrize("kind", ["served", "bucket", "google_bucket"])
def test_a_server_that_is_too_slow_is_asked_again(request, tmp_path, monkeypatch, kind):
    server = request.getfixturevalue(kind)
    if kind == "served":
        (tmp_path / "a.png").write_bytes(b"1")
        url = Url(f"{server.url}/a.png")
    else:
        server.put("a.png", b"1")
        url = Url(f"{'s3' if kind == 'bucket' else 'gs'}://{server.name}/a.png")
    assert RemoteFile(url).read("a", Limits()) == b"1"  # and everything is set up
    server.trouble.requests.clear()
    server.trouble.kinds = ["slow"]
    monkeypatch.setattr("tests.serving.SLOW", 5)
    assert RemoteFile(url).read("a", Limits(read_seconds=1)) == b"1"
    assert min(server.trouble.requests.values()) >= 2


def test_pieces_and_copies(tmp_path, bucket):
    bucket.put("abc", b"0123456789")
    url = Url(f"s3://{bucket.name}/abc")
    piece = pickle.loads(pickle.dumps(RemoteFile(url, 3, 4)))
    assert images.read_bytes(piece, "x") == b"3456"
    assert images.hash_file(piece, "x", Limits()) == images.content_hash(b"3456")
    with pytest.raises(UnreadableFile, match="is cut short: 2 of 4 bytes are there"):
        RemoteFile(url, 8, 4).read("x", Limits())
    (tmp_path / "copy").write_bytes(b"copied")
    assert RemoteFile(url, copy=tmp_path / "copy").read("x", Limits()) == b"copied"
    assert RemoteFile(url, copy=tmp_path / "none").read("x", Limits()) == b"0123456789"


def test_copies_have_a_bound_and_go(tmp_path, monkeypatch):
    monkeypatch.setattr("stackcls.spool.MOST", 10)
    spool = Spool(tmp_path)
    spool.keep("a", b"123456")
    spool.keep("b", b"123456")
    spool.keep("c", b"1234")
    assert [spool.place(name).exists() for name in "abc"] == [True, False, True]
    left = tmp_path / "spool-x.000000000000-1-1"
    left.mkdir()
    monkeypatch.setattr("stackcls.spool.processes.is_left_behind", lambda path, mark: path == left)
    folder = spool.place("a").parent
    Spool(tmp_path)
    assert folder.exists()
    assert not left.exists()
    del spool
    assert list(tmp_path.iterdir()) == []


def test_rows_of_a_manifest_stay_below_it(served, tmp_path, bucket):
    for row, reason in (
        ("../x.png", "leads out of its folder"),
        ("/etc/x.png", "leads out of its folder"),
        (SECRET, "https://host:8080/a/b.png' is a URL"),
    ):
        (tmp_path / "m.csv").write_text(f"path\n{row}\n")
        with pytest.raises(SourceError, match=reason) as caught:
            sources.scan(place(f"{served.url}/m.csv"))
        assert "pass-word" not in str(caught.value)
    bucket.put("p/m.csv", b"path,label\na.png,x\n")
    source = sources.scan(place(f"s3://{bucket.name}/p/m.csv"))
    assert source.locate(source.entries[0]) == RemoteFile(Url(f"s3://{bucket.name}/p/a.png"))


def test_nothing_of_this_is_imported_for_local_images():
    code = "import sys, stackcls.sources; print([m for m in ('fsspec', 's3fs', 'aiohttp') if m in sys.modules])"
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
