"""Tar shards: read where they lie, as far as they can be."""

import io
import json
import pickle
import re
import tarfile

import pytest

from stackcls import images, shards, sources
from stackcls.errors import SourceError, SourceMissing, UnreadableFile
from stackcls.settings import Limits
from stackcls.stages import features, fit, predict
from stackcls.urls import place
from tests.conftest import make_settings, write_hard_photos
from tests.test_remote_features import contents


def write_tar(path, members, form=tarfile.PAX_FORMAT):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def listed(source):
    return [(entry.path, entry.label) for entry in source.entries]


def in_shards(photos, folder, count=3):
    """The photos in shards, as they lie in class folders."""
    files = sorted(photos.glob("*/*.png"))
    for number in range(count):
        some = files[number::count]
        write_tar(folder / f"{number:03d}.tar", {p.relative_to(photos).as_posix(): p.read_bytes() for p in some})
    return folder


def test_labels_are_in_the_sample_or_else_its_folder(tmp_path):
    samples = {
        "a.jpg": b"1",
        "a.cls": b"dog\n",
        "b.jpg": b"2",
        "b.json": json.dumps({"label": "cat"}).encode(),
        "c.JPEG": b"3",
        "c.json": json.dumps({"class": 7, "other": [1]}).encode(),
        "./owl/d.e.png": b"4",
        "owl/f.png": b"5",
        "g.png": b"6",
    }
    source = sources.scan(write_tar(tmp_path / "s.tar", samples))
    assert (source.kind, source.root) == ("shards", tmp_path)
    assert listed(source) == [
        ("s.tar/a.jpg", "dog"),
        ("s.tar/b.jpg", "cat"),
        ("s.tar/c.JPEG", "7"),
        ("s.tar/g.png", None),
        ("s.tar/owl/d.e.png", "owl"),
        ("s.tar/owl/f.png", "owl"),
    ]
    assert [images.read_bytes(source.locate(entry), "x") for entry in source.entries] == [
        b"1",
        b"2",
        b"3",
        b"6",
        b"4",
        b"5",
    ]


def test_numbers_stand_for_lines_of_classes_txt(tmp_path):
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    write_tar(
        tmp_path / "s.tar", {"a.jpg": b"", "a.cls": b"1", "b.jpg": b"", "b.cls": b"2", "c.jpg": b"", "c.cls": b"cow"}
    )
    source = sources.scan(tmp_path / "s.tar")
    assert listed(source) == [("s.tar/a.jpg", "bee"), ("s.tar/c.jpg", "cow")]
    assert source.rejected == {"s.tar/b.jpg": "its label is 2, and classes.txt has 2 lines, counted from 0"}


def test_of_several_pictures_the_plain_one_is_the_image(tmp_path):
    write_tar(
        tmp_path / "s.tar", {"a.jpg": b"", "a.mask.png": b"", "a.txt": b"words", "b.left.png": b"", ".x.png": b""}
    )
    source = sources.scan(tmp_path / "s.tar")
    assert [path for path, _ in listed(source)] == ["s.tar/a.jpg", "s.tar/b.left.png"]
    assert dict(source.ignored) == {".mask.png": 1, ".txt": 1}


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ({"a.cls": b""}, "its .cls file is empty"),
        ({"a.cls": b"\xff"}, "its .cls file is not UTF-8"),
        ({"a.cls": b"a\0b"}, "NUL character"),
        ({"a.json": b"{"}, "its .json file is not valid JSON"),
        ({"a.json": b'{"label": [1]}'}, "must be text or a whole number"),
        ({"a.json": b'{"label": true}'}, "must be text or a whole number"),
        ({"a.json": b"[" * 100_000}, "its .json file is not valid JSON"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path, label, reason):
    source = sources.scan(write_tar(tmp_path / "s.tar", {"a.jpg": b"", "z.jpg": b"", **label}))
    assert [path for path, _ in listed(source)] == ["s.tar/z.jpg"]
    assert reason in source.rejected["s.tar/a.jpg"]


@pytest.mark.parametrize("name", ["../../etc/x.jpg", "/etc/x.jpg", "a//b.jpg", "a/./b.jpg"])
def test_names_that_lead_elsewhere_are_rejected(tmp_path, name):
    source = sources.scan(write_tar(tmp_path / "s.tar", {name: b"", "z.jpg": b""}))
    assert [path for path, _ in listed(source)] == ["s.tar/z.jpg"]
    assert list(source.rejected) == [f"s.tar/{name}"]
    assert source.rejected[f"s.tar/{name}"].startswith("its name leads out of the shard")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_forms_of_tar_files(tmp_path, form):
    name = "k" * 90 + "/猫.jpg" if form == tarfile.USTAR_FORMAT else "k" * 300 + "/猫.jpg"
    source = sources.scan(write_tar(tmp_path / "s.tar", {name: b"meow"}, form))
    (entry,) = source.entries
    assert entry.path == f"s.tar/{name}"
    assert source.rejected == {}
    assert images.read_bytes(source.locate(entry), "x") == b"meow"


def test_links_and_folders_are_no_images(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for kind, name in ((tarfile.SYMTYPE, "a.jpg"), (tarfile.LNKTYPE, "b.jpg"), (tarfile.DIRTYPE, "c.jpg")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("z.jpg"))
    assert listed(sources.scan(tmp_path / "s.tar")) == [("s.tar/z.jpg", None)]


def test_an_empty_file_is_no_shard(tmp_path):
    (tmp_path / "s.tar").write_bytes(b"")
    with pytest.raises(SourceError, match=r"no images in .*s.tar.*is damaged or cut short from its beginning on"):
        sources.scan(tmp_path / "s.tar")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("suffix", [".tar", ".tar.{kind}"])
def test_compressed_shards_are_refused(tmp_path, kind, suffix):
    path = tmp_path / ("s" + suffix.format(kind=kind))
    with tarfile.open(path, f"w:{kind}") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(SourceError, match=r"is compressed .*unpack it to a plain \.tar"):
        sources.scan(path)


def test_a_name_twice_is_an_error(tmp_path):
    write_tar(tmp_path / "s.tar", [("a.jpg", b"1"), ("a.jpg", b"2")])
    with pytest.raises(SourceError, match=r"'s.tar/a.jpg' is there twice"):
        sources.scan(tmp_path / "s.tar")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{008..011}.tar", ["008.tar", "009.tar", "010.tar", "011.tar"]),
        ("{8..10}.tar", ["8.tar", "9.tar", "10.tar"]),
        ("{a,b}-{0..1}.tar", ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"]),
        ("{x}.tar", ["{x}.tar"]),
    ],
)
def test_patterns(pattern, names):
    assert shards.expanded(pattern) == names


@pytest.mark.parametrize("pattern", ["{0..99999999}.tar", "{5..1}.tar", "{0..999}{0..999}.tar"])
def test_patterns_of_too_many_names(pattern):
    with pytest.raises(SourceError, match="shards"):
        shards.expanded(pattern)


def test_a_pattern_in_a_folder(tmp_path):
    for name in ("a/000.tar", "b/000.tar", "b/001.tar"):
        write_tar(tmp_path / name, {"x.jpg": b""})
    source = sources.scan(tmp_path / "{a,b}/000.tar")
    assert listed(source) == [("a/000.tar/x.jpg", None), ("b/000.tar/x.jpg", None)]
    assert source.root == tmp_path
    with pytest.raises(SourceMissing, match=r"a/001.tar does not exist"):
        sources.scan(tmp_path / "{a,b}/{000..001}.tar")


def test_members_read_themselves_anywhere(tmp_path):
    source = sources.scan(write_tar(tmp_path / "s.tar", {"a.jpg": b"12345"}))
    member = pickle.loads(pickle.dumps(source.locate(source.entries[0])))
    assert member.read("a", Limits()) == b"12345"
    with pytest.raises(UnreadableFile, match="a: the file's 5 bytes are more"):
        member.read("a", Limits(max_pixels=-(2**23)))
    (tmp_path / "s.tar").write_bytes(b"")
    with pytest.raises(UnreadableFile, match="a: is cut short: 0 of 5 bytes are there"):
        member.read("a", Limits())
    (tmp_path / "s.tar").unlink()
    with pytest.raises(UnreadableFile, match="a: its shard is not there any more"):
        member.read("a", Limits())


def unpacked(found):
    """A store's content with the names that files had before they were packed."""
    return {
        key: value for key, value in found.items() if not str(key).startswith("('images/path") and key != "images/path"
    }


def test_features_from_shards_are_those_from_folders(photos, tmp_path, fake_engine):
    # One shard, so that the order is that of the folders.
    in_shards(photos, tmp_path / "tars", 1)
    here = make_settings(photos, tmp_path / "here")
    packed = make_settings(tmp_path / "tars" / "000.tar", tmp_path / "packed")
    features.run(here)
    assert features.run(packed).n_images == 27
    assert unpacked(contents(here.files.features)) == unpacked(contents(packed.files.features))
    before = packed.files.features.read_bytes()
    assert not features.run(packed).written
    assert packed.files.features.read_bytes() == before


def test_shards_in_a_bucket(photos, tmp_path, bucket, fake_engine):
    in_shards(photos, tmp_path / "tars")
    url = bucket.fill(tmp_path / "tars", "tars")
    bucket.trouble.kinds = ["500", "reset"]
    here = make_settings(tmp_path / "tars", tmp_path / "here")
    features.run(here)
    for number, images_ in enumerate((url, url + "/{000..002}.tar")):
        away = make_settings(images_, tmp_path / f"away{number}")
        features.run(away)
        assert contents(here.files.features) == contents(away.files.features)


def test_shards_on_a_server_of_files(photos, tmp_path, served):
    in_shards(photos, tmp_path / "tars")
    source = sources.scan(place(f"{served.url}/tars"), Limits(read_tries=2))
    with pytest.raises(SourceError, match="gives no pieces of files, which shards need"):
        images.read_bytes(source.locate(source.entries[-1]), "x")
    served.handler.pieces = True
    source = sources.scan(place(f"{served.url}/tars"), Limits(read_tries=2))
    assert source.entries == sources.scan(tmp_path / "tars").entries
    assert images.read_bytes(source.content("000.tar/red/00.png"), "x") == (photos / "red/00.png").read_bytes()


def test_a_page_and_predictions_of_shards(tmp_path, fake_engine, stackcls):
    photos = write_hard_photos(tmp_path / "photos")
    in_shards(photos, tmp_path / "tars")
    settings = make_settings(tmp_path / "tars", tmp_path / "artifacts")
    features.run(settings)
    fit.run(settings)
    page = settings.files.page.read_text("utf-8")
    assert "data:image/webp;base64," in page
    assert ".tar/" not in "".join(re.findall('href="([^"]*)"', page))
    model = settings.files.safe_model
    one, other = (list(predict.run([str(item)], model)) for item in (photos / "ant", tmp_path / "tars/{000..002}.tar"))
    labels = {row.path.rpartition(".tar/")[2]: row.label for row in other}
    assert len(labels) == 60
    assert [labels[f"ant/{row.path.rpartition('/')[2]}"] for row in one] == [row.label for row in one]
    assert stackcls("predict", tmp_path / "tars/000.tar", "--model", model)[0] == 0
