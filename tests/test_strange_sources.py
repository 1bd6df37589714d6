"""Servers and shards that are larger, slower or less honest than expected."""

import io
import tarfile
import threading

import pytest

from stackcls import decoding, fetching, images, sources, tasks
from stackcls.decoding import GivenUp
from stackcls.extraction import ImageInput
from stackcls.remote import RemoteFile
from stackcls.settings import Limits
from stackcls.stages import features
from stackcls.store import Store
from stackcls.urls import Url, place, scrubbed
from tests.conftest import make_settings, write_photo
from tests.test_shards import write_tar
from tests.test_sources import write_cub

QUICK = Limits(read_tries=2)


@pytest.mark.parametrize("pieces", [True, False])
def test_a_shard_that_takes_several_pieces_is_read_from_a_server_that_gives_some(served, tmp_path, pieces):
    samples = {f"c/{n}.png": bytes([n]) * 700_000 for n in range(3)} | {"c/empty.png": b""}
    write_tar(tmp_path / "s.tar", samples)
    served.handler.pieces = pieces
    if not pieces:
        with pytest.raises(sources.SourceError, match="gives no pieces of files"):
            sources.scan(place(f"{served.url}/s.tar"), QUICK)
        return
    source = sources.scan(place(f"{served.url}/s.tar"), QUICK)
    assert source.entries == sources.scan(tmp_path / "s.tar").entries
    for entry in source.entries:
        assert images.read_bytes(source.locate(entry), "x") == samples[entry.path.removeprefix("s.tar/")]


def write_named(path, names):
    """A shard of photos whose names only a header of PAX can have."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number, name in enumerate(names):
            file = write_photo(path.parent / "photo.png", (9, 40 * number, 9), number)
            info = tarfile.TarInfo(f"{number}.png")
            info.size, info.pax_headers = file.stat().st_size, {"path": name}
            tar.addfile(info, io.BytesIO(file.read_bytes()))
            file.unlink()
    return path


def test_names_and_labels_with_a_nul_are_rejected_and_the_rest_is_stored(tmp_path, fake_engine):
    (tmp_path / "classes.txt").write_bytes(b"a\0b\nc\n")
    write_named(tmp_path / "s.tar", ["c0/1.png", "c1/2.png", "c1/x\0y.png"])
    write_tar(tmp_path / "t.tar", {"z.png": b"z", "z.cls": b"0"})
    settings = make_settings(tmp_path / "{s,t}.tar", tmp_path / "artifacts")
    result = features.run(settings)
    assert result.n_images == 2
    assert set(result.rejected) == {"s.tar/c1/x\\x00y.png", "t.tar/z.png"}
    assert not features.run(settings).written
    with Store(settings.files.features) as store:
        assert store.table.rejected == result.rejected


def test_names_with_a_nul_on_a_server_are_rejected(served, tmp_path, monkeypatch):
    monkeypatch.setattr("stackcls.remote.find", lambda *_: {"c/a\0b.png": 1, "c/ok.png": 1, "c//\0.png": 1})
    source = sources.scan(place(f"{served.url}/"), QUICK)
    assert [entry.path for entry in source.entries] == ["c/ok.png"]
    assert set(source.rejected) == {"c/a\\x00b.png", "c//\\x00.png"}


@pytest.mark.parametrize("query", ["?sig=TOPSECRET", "?sig=TOP/SECRET"])
@pytest.mark.parametrize("name", ["a%20b.tar", "{a%20b,c}.tar"])
def test_the_signature_of_a_shard_is_sent_and_never_shown(served, tmp_path, name, query):
    for shard in ("a b.tar", "c.tar"):
        write_tar(tmp_path / "m" / shard, {"k/1.png": b"1"})
    (tmp_path / "m/classes.txt").write_text("x\n")
    asked = served.handler.asked = []
    served.handler.pieces = True
    source = sources.scan(place(f"{served.url}/m/{name}{query}"), QUICK)
    assert [entry.path for entry in source.entries] == ["a b.tar/k/1.png", "c.tar/k/1.png"][: 1 + ("{" in name)]
    assert "SECRET" not in repr(source)
    for entry in source.entries:
        assert images.read_bytes(source.locate(entry), "x") == b"1"
    assert asked
    assert all(path.endswith(query) for path in asked)
    with pytest.raises(sources.SourceError, match=r"m/no\.tar") as caught:
        sources.scan(place(f"{served.url}/m/no.tar{query}"), QUICK)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("path", ["../../other/x.png", "/etc/x.png", "a/../../x.png"])
def test_cub_names_no_images_outside_its_folder(tmp_path, path):
    with pytest.raises(sources.SourceError, match="leads out of the folder images"):
        sources.scan(write_cub(tmp_path, images=f"1 a/y.png\n2 {path}\n10 a/z.png\n"))


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


def test_only_what_is_not_there_counts_as_no_classes_txt(bucket, tmp_path):
    write_tar(tmp_path / "s.tar", {"a.png": b"1", "a.cls": b"0"})
    url = place(f"{bucket.fill(tmp_path)}/s.tar")
    assert sources.scan(url, QUICK).class_names == ("0",)
    bucket.put("photos/classes.txt", b"")
    assert sources.scan(url, QUICK).class_names == ("0",)
    bucket.put("photos/classes.txt", b"ant\n")
    assert sources.scan(url, QUICK).class_names == ("ant",)
    bucket.trouble.always["classes.txt"] = "403"
    with pytest.raises(sources.SourceError, match=r"classes\.txt cannot be read .*labels that are numbers"):
        sources.scan(url, QUICK)


class Room:
    """Notes how much of a server's answers had been read when room was asked for."""

    def __init__(self, read):
        self.read, self.asked = read, []

    def __call__(self, size):
        self.asked.append((size, sum(self.read)))


@pytest.mark.parametrize("size", [3, fetching.FIRST, 5 * fetching.FIRST])
@pytest.mark.parametrize("kind", ["http", "s3"])
def test_room_is_asked_for_before_a_large_file_is_read(request, tmp_path, monkeypatch, kind, size):
    data = bytes(size - 1) + b"x"
    if kind == "http":
        (tmp_path / "a.png").write_bytes(data)
        file = RemoteFile(Url(f"{request.getfixturevalue('served').url}/a.png"))
    else:
        bucket = request.getfixturevalue("bucket")
        bucket.put("a.png", data)
        file = RemoteFile(Url(f"s3://{bucket.name}/a.png"))
    read = []
    fetch, part = fetching.fetch, fetching._read

    async def noted(response, count):
        found = await part(response, count)
        read.append(len(found))
        return found

    def fetched(*arguments):
        found = fetch(*arguments)
        read.append(len(found))
        return found

    monkeypatch.setattr(fetching, "_read", noted)
    monkeypatch.setattr(fetching, "fetch", fetched)
    room = Room(read)
    assert file.read("x", QUICK, room) == data
    assert room.asked == [(size, min(size, fetching.FIRST))]


def test_room_is_asked_for_once_however_often_a_file_is_asked_for(served, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"123")
    (tmp_path / "copy").write_bytes(b"1234")
    asked, answers = [], [ConnectionResetError(), b"123"]

    def whole(url, most, seconds, admit):
        admit(3)
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    monkeypatch.setattr(fetching, "fetch_whole", whole)
    assert RemoteFile(Url(f"{served.url}/a.png")).read("x", QUICK, asked.append) == b"123"
    assert asked == [3]
    assert RemoteFile(Url("https://h/x"), copy=tmp_path / "copy").read("x", QUICK, asked.append) == b"1234"
    assert asked == [3, 4]


def test_a_job_that_is_given_up_while_it_waits_for_room_asks_no_server_again(served, tmp_path):
    (tmp_path / "a.png").write_bytes(b"123")

    def admit(_):
        raise GivenUp

    with pytest.raises(GivenUp):
        RemoteFile(Url(f"{served.url}/a.png")).read("x", QUICK, admit)
    assert served.asked == ["/a.png"]


def test_a_worker_hashes_no_more_than_there_is_room_for(tmp_path, monkeypatch):
    members = {f"{n}.png": bytes([n]) * 1000 for n in range(12)}
    source = sources.scan(write_tar(tmp_path / "s.tar", members))
    most, guard, take = [0], threading.Lock(), decoding._Share.take

    def taken(share, turn, amount):
        take(share, turn, amount)
        with guard:
            most[0] = max(most[0], sum(share._held.values()))

    monkeypatch.setattr(decoding._Share, "take", taken)
    monkeypatch.setattr(decoding, "FILE_BYTES", 2500)
    inputs = [ImageInput(entry.path, source.locate(entry)) for entry in source.entries]
    inputs.append(ImageInput("gone", tmp_path / "gone.png"))
    *hashes, gone = tasks.hash_block(inputs, QUICK)
    assert hashes == [images.content_hash(members[entry.path.removeprefix("s.tar/")]) for entry in source.entries]
    assert gone.reason == "file not found"
    assert 0 < most[0] <= 2500
