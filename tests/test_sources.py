"""Where images and labels come from: what is listed, in which order, and what is refused."""

import os
import sys

import pytest

from stackcls import sources
from stackcls.errors import SourceError, SourceMissing
from stackcls.sources import ImageEntry
from stackcls.stages import features
from tests.conftest import make_settings, write_photo
from tests.test_losses import Said


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def listed(source):
    return [(entry.path, entry.label) for entry in source.entries]


def test_class_folders_give_labels(tmp_path):
    source = sources.scan(touch(tmp_path, "dog/1.jpg", "cat/2.png", "cat/1.JPEG"))
    assert source.kind == "class folders"
    assert listed(source) == [("cat/1.JPEG", "cat"), ("cat/2.png", "cat"), ("dog/1.jpg", "dog")]
    assert source.class_names == ("cat", "dog")
    assert source.locate(source.entries[0]) == tmp_path / "cat/1.JPEG"


def test_folders_inside_a_class_belong_to_it(tmp_path):
    source = sources.scan(touch(tmp_path, "cat/a/b/1.jpg", "cat/2.jpg", "dog/c/3.jpg"))
    assert listed(source) == [("cat/2.jpg", "cat"), ("cat/a/b/1.jpg", "cat"), ("dog/c/3.jpg", "dog")]


def test_images_beside_class_folders_are_unlabelled(tmp_path):
    assert listed(sources.scan(touch(tmp_path, "cat/1.jpg", "2.jpg"))) == [("2.jpg", None), ("cat/1.jpg", "cat")]


def test_hidden_files_and_other_files_are_left_out(tmp_path):
    hidden = (".x.jpg", "cat/.x.jpg", ".git/1.jpg", "cat/.thumbs/1.jpg", "cat/._1.jpg")
    other = ("cat/notes.txt", "cat/jpg", "cat/1.jpg.part", "cat/Thumbs.db", "cat/1.svg")
    assert listed(sources.scan(touch(tmp_path, "cat/1.jpg", *hidden, *other))) == [("cat/1.jpg", "cat")]


@pytest.mark.parametrize("suffix", sorted(sources.SUFFIXES))
def test_every_suffix_counts_in_either_case(suffix):
    assert sources.is_image_name(f"x{suffix}")
    assert sources.is_image_name(f"x{suffix.upper()}")


def test_a_flat_folder_is_unlabelled(tmp_path):
    source = sources.scan(touch(tmp_path, "b.jpg", "a.jpg"))
    assert source.kind == "flat folder"
    assert listed(source) == [("a.jpg", None), ("b.jpg", None)]
    assert source.class_names == ()


def test_order_is_by_code_points(tmp_path):
    names = ["a/2.jpg", "a/10.jpg", "Z/1.jpg", "a b/1.jpg", "a-b/1.jpg", "é/1.jpg", "猫/1.jpg", "𝒳/1.jpg", "z/1.jpg"]
    found = [entry.path for entry in sources.scan(touch(tmp_path, *names)).entries]
    assert found == sorted(names)
    assert found[:4] == ["Z/1.jpg", "a b/1.jpg", "a-b/1.jpg", "a/10.jpg"]


def test_names_are_kept_exactly(tmp_path):
    folders = ["猫", "犬", "קבוצה", "عصفور", "with space", "per%20cent", "a'b\"c", "new\nline", "e\u0301", "\u00e9"]
    source = sources.scan(touch(tmp_path, *(f"{name}/1.jpg" for name in folders)))
    assert source.class_names == tuple(sorted(folders))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8_are_rejected_and_the_rest_goes_on(tmp_path):
    touch(tmp_path, "cat/1.jpg")
    (tmp_path / "cat" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    source = sources.scan(tmp_path)
    assert listed(source) == [("cat/1.jpg", "cat")]
    assert source.rejected == {"cat/caf\\udce9.jpg": "its name is not valid UTF-8; rename the file"}


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
@pytest.mark.parametrize("target", [".", "cat"])
def test_link_loops_end(tmp_path, target):
    touch(tmp_path, "cat/1.jpg")
    (tmp_path / "cat/loop").symlink_to(tmp_path / target)
    assert listed(sources.scan(tmp_path)) == [("cat/1.jpg", "cat")]


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
def test_links_to_folders_and_files_are_followed(tmp_path):
    touch(tmp_path, "elsewhere/1.jpg", "images/cat/2.jpg")
    (tmp_path / "images/dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images/cat/3.jpg").symlink_to(tmp_path / "elsewhere/1.jpg")
    found = listed(sources.scan(tmp_path / "images"))
    assert found == [("cat/2.jpg", "cat"), ("cat/3.jpg", "cat"), ("dog/1.jpg", "dog")]


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
def test_links_that_lead_out_of_the_folder_are_told_once(tmp_path, fake_engine):
    write_photo(tmp_path / "elsewhere/1.png", (9, 9, 9), 1)
    write_photo(tmp_path / "images/cat/2.png", (9, 9, 9), 2)
    (tmp_path / "images/dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images/cat/3.png").symlink_to(tmp_path / "elsewhere/1.png")
    (tmp_path / "images/cat/4.png").symlink_to("2.png")
    (tmp_path / "alias").symlink_to(tmp_path / "images")
    outside = {"dog": str(tmp_path / "elsewhere"), "cat/3.png": str(tmp_path / "elsewhere/1.png")}
    assert sources.scan(tmp_path / "images").outside == sources.scan(tmp_path / "alias").outside == outside
    for images, lines in (("images", 1), ("images", 1), ("elsewhere", 0)):
        heard = Said()
        features.run(make_settings(tmp_path / images, tmp_path / "of" / images), listener=heard)
        line = f"2 links were followed out of {tmp_path}/images, the first from cat/3.png to {outside['cat/3.png']}"
        assert heard.lines.count(line) == lines == len([line for line in heard.lines if "followed" in line])


def test_nothing_there(tmp_path):
    with pytest.raises(SourceMissing, match=r"images: .*nowhere does not exist; give a folder .*--images"):
        sources.scan(tmp_path / "nowhere")


def test_an_empty_folder(tmp_path):
    touch(tmp_path, "cat/notes.txt")
    with pytest.raises(SourceError, match=r"images: no images in .*looked for .*\.jpg"):
        sources.scan(tmp_path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_names_that_no_folder_can_have(tmp_path, name):
    with pytest.raises(SourceError, match=r"images: .* (cannot be listed|does not exist)"):
        sources.scan(tmp_path / name)


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
@pytest.mark.parametrize("target", ["x", "../cat", "nowhere"])
def test_links_that_lead_nowhere_or_in_circles_are_no_images(tmp_path, target):
    touch(tmp_path, "cat/1.jpg")
    (tmp_path / "cat/x").symlink_to(target)
    (tmp_path / "cat/x.jpg").symlink_to("x.jpg")
    (tmp_path / "cat/folder.jpg").mkdir()
    assert [path for path, _ in listed(sources.scan(tmp_path))] == ["cat/1.jpg", "cat/x.jpg"]


def write_cub(folder, **replaced):
    files = {
        "images": "1 001.Albatross/b.jpg\n2 002.Rook/a b.jpg\n10 001.Albatross/a.jpg\n",
        "image_class_labels": "1 1\n2 2\n10 1\n",
        "classes": "1 001.Albatross\n2 002.Rook of the North\n",
        "train_test_split": "1 1\n2 0\n10 1\n",
        **replaced,
    }
    touch(folder, "images/001.Albatross/a.jpg", "images/001.Albatross/b.jpg", "images/002.Rook/a b.jpg")
    for name, text in files.items():
        if text is not None:
            (folder / f"{name}.txt").write_text(text)
    return folder


def test_cub(tmp_path):
    source = sources.scan(write_cub(tmp_path))
    assert (source.kind, source.root) == ("CUB-200-2011", tmp_path / "images")
    assert source.entries == (
        ImageEntry("001.Albatross/a.jpg", "001.Albatross", None, "train"),
        ImageEntry("001.Albatross/b.jpg", "001.Albatross", None, "train"),
        ImageEntry("002.Rook/a b.jpg", "002.Rook of the North", None, "test"),
    )
    assert source.locate(source.entries[2]).is_file()


def test_cub_without_a_split(tmp_path):
    assert {entry.split for entry in sources.scan(write_cub(tmp_path, train_test_split=None)).entries} == {None}


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"image_class_labels": "1 1\n2 2\n"}, r"image 10 \(001\.Albatross/a\.jpg\) has no class"),
        ({"classes": "1 001.Albatross\n"}, r"image 2 \(002\.Rook/a b\.jpg\) has no class"),
        ({"image_class_labels": "1 1\n2 2\n2 1\n10 1\n"}, r"image_class_labels\.txt:3: '2 1' must be an identifier"),
        ({"images": "1 a.jpg\n2\n"}, r"images\.txt:2: '2' must be an identifier"),
        ({"images": "1 a.jpg\n2 a.jpg\n"}, r"'a\.jpg' is listed twice"),
        ({"images": "1 a.jpg\n2 ./a.jpg\n"}, r"'a\.jpg' is listed twice"),
        ({"images": ""}, "no images in"),
        ({"images": "1 a\0b.jpg\n2 b.jpg\n10 c.jpg\n"}, r"images\.txt:1: .*NUL"),
    ],
)
def test_cub_that_contradicts_itself_is_refused(tmp_path, replaced, message):
    with pytest.raises(SourceError, match=message):
        sources.scan(write_cub(tmp_path, **replaced))


def test_files_of_other_formats_are_counted_and_locked_folders_named(tmp_path, monkeypatch):
    write_photo(tmp_path / "cat/a.png", (1, 2, 3), 0)
    for name in ("cat/b.HEIC", "cat/c.heic", "cat/notes", ".hidden.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "dog").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    source = sources.scan(tmp_path)
    assert source.ignored == {".heic": 2, "": 1}
    assert source.rejected == {"dog": "cannot be listed (Permission denied)"}
