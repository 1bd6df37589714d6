"""Servers and shards that are larger, slower or less honest than expected."""

import io
import tarfile

import pytest

from stackcls import images, sources
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
