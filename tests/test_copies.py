"""Images of equal content are computed once; one copy that cannot be read takes no other with it."""

import shutil

import pytest

from stackcls import extraction, images
from stackcls.errors import UnreadableFile, UnreadableImage
from stackcls.extraction import ImageInput
from stackcls.settings import Limits
from stackcls.stages import features
from tests.conftest import make_settings, write_photo
from tests.test_features import read


@pytest.fixture
def copies(photos):
    """Four of one content, which stand first, in the middle and last."""
    for name in ("blue/0a.png", "green/copy.png", "red/zz.png"):
        shutil.copy(photos / "blue/00.png", photos / name)
    return photos


@pytest.fixture
def spoil(monkeypatch):
    """Let images with these names fail when they are read to be decoded, though they could be hashed."""
    real = images.read_bytes

    def start(error, *names):
        def reads(path, name, *given):
            if name in names:
                raise error(name, "cannot be read (Input/output error)")
            return real(path, name, *given)

        monkeypatch.setattr(images, "read_bytes", reads)

    return start


@pytest.mark.parametrize("bad", [("blue/00.png",), ("blue/00.png", "blue/0a.png", "green/copy.png")])
@pytest.mark.parametrize("others", [True, False])
def test_a_file_that_cannot_be_read_now_leaves_its_copies(copies, tmp_path, fake_engine, spoil, bad, others):
    settings = make_settings(copies, tmp_path / "artifacts")
    if not others:  # nothing but these is left to be computed
        for folder in ("blue", "green", "red"):
            for number in range(folder == "blue", 9):
                (copies / folder / f"{number:02d}.png").unlink()
    spoil(UnreadableFile, *bad)
    result = features.run(settings)
    assert result.rejected == dict.fromkeys(bad, "cannot be read (Input/output error)")
    n_contents = 27 if others else 1
    assert fake_engine.computed == {"one": n_contents, "two": n_contents}
    table, _ = read(settings.files.features)
    assert len(table.paths) == (30 if others else 4) - len(bad)
    assert result.computed == {"one": n_contents, "two": n_contents}
    last = table.paths.index("red/zz.png")
    assert table.sha256[last] == images.content_hash((copies / "blue/00.png").read_bytes())


def test_a_content_that_cannot_be_decoded_is_tried_once(copies, tmp_path, fake_engine, spoil):
    spoil(UnreadableImage, "blue/00.png")
    result = features.run(make_settings(copies, tmp_path / "artifacts"))
    assert sorted(result.rejected) == ["blue/00.png", "blue/0a.png", "green/copy.png", "red/zz.png"]


def test_all_copies_may_be_unreadable(copies, tmp_path, fake_engine, spoil):
    names = ("blue/00.png", "blue/0a.png", "green/copy.png", "red/zz.png")
    spoil(UnreadableFile, *names)
    assert sorted(features.run(make_settings(copies, tmp_path / "artifacts")).rejected) == list(names)


def test_bad_images_are_tried_side_by_side(tmp_path, monkeypatch):
    """Each may cost its limit: one pool for all of them, and none after the first that can be decoded is waited for."""
    pools = []
    real = extraction.decoding.in_order

    def counted(*given):
        pools.append(given)
        return real(*given)

    monkeypatch.setattr(extraction.decoding, "in_order", counted)
    inputs = []
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
        inputs.append(ImageInput(f"{number}.png", tmp_path / f"{number}.png"))
    good = write_photo(tmp_path / "good.png", (190, 70, 60), 0)
    inputs[4] = ImageInput("good.png", good)
    bad = extraction.unreadable_first(inputs, Limits())
    assert [error.path for error in bad] == ["0.png", "1.png", "2.png", "3.png"]
    assert len(extraction.unreadable_first(inputs[:4], Limits())) == 4
    assert len(pools) == 2
