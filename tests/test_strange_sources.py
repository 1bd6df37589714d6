"""Servers and shards that are larger, slower or less honest than expected."""

import io
import tarfile
import threading
import tracemalloc

import pytest

from stackcls import decoding, fetching, images, remote, sources, tarfiles, tasks
from stackcls.decoding import GivenUp
from stackcls.extraction import ImageInput
from stackcls.remote import RemoteFile
from stackcls.settings import Limits
from stackcls.stages import features
from stackcls.store import Store
from stackcls.urls import Url, place
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


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.cls", b"x" * 5000, "its label has 5000 characters; 4096 are the most"),
        ("a.cls", b"x" * (2**20 + 1), "its .cls file has more than 1048576 bytes"),
        ("a.json", b'{"label": "' + b"x" * 5000 + b'"}', "its label has 5000 characters"),
    ],
)
def test_labels_have_a_bound(tmp_path, name, data, reason):
    source = sources.scan(write_tar(tmp_path / "s.tar", {"a.png": b"1", name: data, "z/1.png": b"2"}))
    assert [entry.path for entry in source.entries] == ["s.tar/z/1.png"]
    assert source.rejected["s.tar/a.png"].startswith(reason)


def test_of_what_says_a_label_the_label_alone_is_kept(tmp_path):
    record = b'{"label": "cat", "rest": "' + b"x" * 500_000 + b'"}'
    write_tar(tmp_path / "s.tar", {f"{n}.{kind}": record for n in range(40) for kind in ("png", "json")})
    tracemalloc.start()
    try:
        assert sources.scan(tmp_path / "s.tar").class_names == ("cat",)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_have_a_bound(tmp_path, form):
    members = [("a.png", b"1"), ("x" * (tarfiles.LONGEST_HEADER + 1) + ".png", b"2"), ("z.png", b"3")]
    source = sources.scan(write_tar(tmp_path / "s.tar", members, form))
    assert [entry.path for entry in source.entries] == ["s.tar/a.png"]
    assert "a header is longer than" in source.rejected["s.tar"]


class Circle:
    """A server whose folders show themselves, twice, or ever new ones."""

    def __init__(self, new):
        self.new, self.asked = new, 0

    def ls(self, folder, detail, timeout):
        self.asked += 1
        names = [f"{self.asked}/", f"b{self.asked}/", f"{self.asked}.png"] if self.new else ["a/", "b/", "1.png"]
        return [{"name": folder + name} for name in names]


@pytest.mark.parametrize("new", [False, True])
def test_listing_a_web_server_ends(monkeypatch, new):
    circle = Circle(new)
    monkeypatch.setattr(fetching, "file_system", lambda *_, **__: circle)
    monkeypatch.setattr(remote, "MOST_PAGES", 50)
    if new:
        with pytest.raises(sources.SourceError, match=r"shows more than 50 folders .*give a manifest"):
            sources.scan(Url("http://host/x/"), QUICK)
        assert circle.asked == 51
    else:
        assert [entry.path for entry in sources.scan(Url("http://host/x/"), QUICK).entries] == ["1.png"]
        assert circle.asked == 3


def test_a_folder_within_one_of_its_name_is_no_circle(served, tmp_path):
    write_photo(tmp_path / "train/train/train/1.png", (1, 2, 3), 0)
    assert [entry.path for entry in sources.scan(place(f"{served.url}/"), QUICK).entries] == ["train/train/train/1.png"]
