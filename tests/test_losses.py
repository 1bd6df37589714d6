"""Nothing finished goes unasked: neither rows of images that cannot be read now, nor matrices, nor finished blocks."""

import os

import pytest

from stackcls import images
from stackcls.errors import StoreError, UnreadableFile, UnreadableImage
from stackcls.listener import Silent
from stackcls.stages import features
from tests.conftest import FAKE_BACKBONES, make_settings, write_photo
from tests.test_features import OTHERWISE, add, artifacts, read, remove, rename
from tests.test_features_resumed import config_file, small_blocks, stop_after, stored_blocks

__all__ = ["small_blocks", "stop_after"]  # fixtures

THREE = [*FAKE_BACKBONES, {**FAKE_BACKBONES[0], "name": "three", "seed": 3}]


class Said(Silent):
    """Remembers what was said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)

    warn = say


def refuse_reading(monkeypatch, error, *ends):
    real = os.open

    def refuse(path, *arguments, **options):
        if str(path).endswith(ends):
            raise OSError(error, os.strerror(error), str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)


def unlist(monkeypatch, folder):
    real = os.scandir

    def refuse(path):
        if str(path).endswith(folder):
            raise OSError(5, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)


def eio(monkeypatch, folder):
    refuse_reading(monkeypatch, 5, "red/03.png", "red/04.png")


def denied(monkeypatch, folder):
    refuse_reading(monkeypatch, 13, "00.png", "01.png", "02.png")


def unlisted(monkeypatch, folder):
    unlist(monkeypatch, "red")


def unmounted(monkeypatch, folder):
    (folder / "red").rename(folder.parent / "mount")
    (folder / "red").symlink_to("../mounted-elsewhere")


TROUBLES = {
    eio: r"2 of its images cannot be read now: red/03\.png \(cannot be read \(Input/output error\)\), red/04\.png .*;",
    denied: r"9 of its images cannot be read now: blue/00\.png \(cannot be read \(Permission denied\)\), .*, …;",
    unlisted: r"9 of its images cannot be read now: red/00\.png \(cannot be listed \(Input/output error\)\),",
    unmounted: r"9 of its images cannot be read now: red/00\.png \(cannot be listed \(a link that leads nowhere\)\),",
}


@pytest.mark.parametrize("edit", [None, add])
@pytest.mark.parametrize(("trouble", "message"), TROUBLES.items(), ids=[item.__name__ for item in TROUBLES])
def test_images_that_cannot_be_read_now_keep_their_rows(
    settings, fake_engine, monkeypatch, trouble, message, edit, tmp_path
):
    features.run(settings)
    before = settings.files.features.read_bytes()
    if edit:
        edit(settings.images)
    with monkeypatch.context() as patched:
        trouble(patched, settings.images)
        for dry_run in (True, False):
            with pytest.raises(StoreError, match=rf"features\.h5: {message}.*--replace"):
                features.run(settings, dry_run=dry_run)
        assert settings.files.features.read_bytes() == before
        assert artifacts(settings) == ["features.h5"]
        said = Said()
        n_new = 2 if edit else 0
        n_lost = int(message.split(" ")[0])
        planned = features.run(settings, dry_run=True, replace=True, listener=said)
        assert f"{n_lost} images that had features cannot be read: their rows go" in said.lines
        assert planned.n_images == 27 + n_new - n_lost
        assert features.run(settings, replace=True).n_images == 27 + n_new - n_lost


def test_the_command_exits_with_1(stackcls, settings, fake_engine, tmp_path, monkeypatch):
    file = config_file(settings, tmp_path)
    assert stackcls("features", "-c", file)[0] == 0
    eio(monkeypatch, settings.images)
    status, out, err = stackcls("features", "-c", file)
    assert (status, out) == (1, "")
    assert "error: " in err
    assert "Traceback" not in err


@pytest.mark.parametrize("reason", ["took longer than 20 s to decode", "not enough memory to decode it"])
@pytest.mark.parametrize("kind", [UnreadableFile, UnreadableImage])
def test_a_busy_machine_drops_no_row_of_other_matrices(
    settings, photos, fake_engine, monkeypatch, tmp_path, reason, kind
):
    features.run(settings)
    before = settings.files.features.read_bytes()
    decode = images.decode

    def busy(data, name, *given):
        if name == "green/05.png":
            raise kind(name, reason)
        return decode(data, name, *given)

    three = make_settings(photos, tmp_path / "artifacts", features={"backbones": THREE})
    with monkeypatch.context() as patched:
        patched.setattr(images, "decode", busy)
        with pytest.raises(StoreError, match=rf"1 of its images .* green/05\.png \({reason}\)") as caught:
            features.run(three)
    assert "what was finished is kept" in caught.value.__notes__[0]
    assert settings.files.features.read_bytes() == before
    fake_engine.batches.clear()
    assert features.run(three).n_images == 27
    assert fake_engine.computed == {"three": 1}


def test_images_that_went_or_are_other_ones_are_removed_as_asked(settings, fake_engine):
    features.run(settings)
    remove(settings.images)
    (settings.images / "red/00.png").write_bytes(b"another, and no image")
    said = Said()
    features.run(settings, dry_run=True, listener=said)
    assert "  1 image is not there any more: its row goes" in said.lines
    assert "1 image that had features cannot be read: its row goes" in said.lines
    assert features.run(settings).n_images == 25


@pytest.mark.parametrize("edit", [rename, add])
def test_where_nothing_goes_nothing_is_said(settings, fake_engine, edit):
    features.run(settings)
    edit(settings.images)
    said = Said()
    features.run(settings, dry_run=True, listener=said)
    assert not [line for line in said.lines if "rows go" in line or "dropped" in line or "replaced" in line]


def test_a_dry_run_says_which_matrices_would_go(settings, photos, fake_engine, tmp_path):
    features.run(settings)
    add(photos)
    other = make_settings(photos, tmp_path / "artifacts", features={"backbones": OTHERWISE[:1]})
    for dry_run in (True, False):
        said = Said()
        features.run(other, dry_run=dry_run, replace=True, listener=said)
        assert "  one: made otherwise, and replaced" in said.lines
        assert [line for line in said.lines if "'two' are dropped: they are not configured any more" in line]
    assert list(read(other.files.features)[1]) == ["one"]


@pytest.mark.parametrize("there", [False, True])
def test_blocks_of_other_backbones_are_not_dropped_unasked(settings, photos, fake_engine, stop_after, tmp_path, there):
    one = make_settings(photos, tmp_path / "artifacts", features={"backbones": FAKE_BACKBONES[:1]})
    if there:
        features.run(one)
    stop_after(settings, 11 if not there else 5)
    kept = stored_blocks(settings)
    assert kept
    for dry_run in (True, False):
        with pytest.raises(StoreError, match=r"interrupted run left finished features of two, .* --replace"):
            features.run(one, dry_run=dry_run)
    assert stored_blocks(settings) == kept
    said = Said()
    features.run(one, replace=True, listener=said)
    assert [line for line in said.lines if "'two' are dropped: an interrupted run finished them" in line]
    assert artifacts(settings) == ["features.h5"]


def test_blocks_made_otherwise_are_not_dropped_unasked(settings, photos, fake_engine, stop_after, tmp_path):
    stop_after(settings, 11)
    other = make_settings(photos, tmp_path / "artifacts", features={"backbones": OTHERWISE})
    with pytest.raises(StoreError, match=r"finished features of one, which are not configured now, or not in this way"):
        features.run(other)
    assert features.run(settings).n_images == 27


def test_a_dry_run_knows_the_blocks_of_a_backbone_whose_weights_went(settings, fake_engine, stop_after, monkeypatch):
    from stackcls.weightfiles import Download

    stop_after(settings, 11)
    download = Download("two.h5", "http://example.invalid/two.h5", "")
    monkeypatch.setattr(
        "stackcls.loading.absent", lambda known: {item.name: download for item in known if item.name == "two"}
    )
    assert features.run(settings, dry_run=True).computed["two"] == 27


def test_a_photo_that_was_replaced_is_no_loss(settings, fake_engine):
    features.run(settings)
    write_photo(settings.images / "red/00.png", (190, 70, 60), 77)
    assert features.run(settings).computed == {"one": 1, "two": 1}
