"""Stage one: what is computed, what is reused, what is rejected."""

import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from stackcls.errors import IdentityMismatch, SourceError, StoreError
from stackcls.stages import features
from stackcls.store import Store
from tests.conftest import FAKE_BACKBONES, make_settings, write_photo


class Hearing:
    """Remembers warnings."""

    def __init__(self):
        self.warnings = []

    def __getattr__(self, name):
        from stackcls.listener import Silent

        return getattr(Silent(), name)

    def warn(self, line):
        self.warnings.append(line)


def read(path):
    """Everything in a store but provenance: the table, and each matrix."""
    with Store(path) as store:
        matrices = {}
        for name, info in store.matrices.items():
            matrices[name] = np.empty((len(store.table.paths), info.width), np.float32)
            store.read_into(name, matrices[name])
        return store.table, matrices


def assert_as_from_scratch(settings, tmp_path):
    """What increments made is what one run would have made, to the byte."""
    scratch = settings.model_copy(update={"artifacts": tmp_path / "scratch"})
    features.run(scratch)
    assert settings.files.features.read_bytes() == scratch.files.features.read_bytes()


def artifacts(settings):
    return sorted(path.name for path in settings.artifacts.iterdir())


def test_a_second_run_computes_nothing(settings, fake_engine):
    first = features.run(settings)
    assert first.written
    assert fake_engine.computed == {"one": 27, "two": 27}
    before = settings.files.features.read_bytes()
    second = features.run(settings)
    assert not second.written
    assert fake_engine.computed == {"one": 27, "two": 27}
    assert settings.files.features.read_bytes() == before
    assert (second.n_images, second.n_classes, second.reused) == (27, 3, {"one": 27, "two": 27})


def test_every_row_holds_the_features_of_its_own_image(settings, fake_engine):
    from stackcls import backbones, images
    from stackcls.backbones import Located

    features.run(settings)
    table, matrices = read(settings.files.features)
    assert table.class_names == ("blue", "green", "red")
    for backbone in backbones.resolve(settings.features):
        extractor = fake_engine.prepare(Located(backbone, None, backbone.identity("", "float32")), 1)
        for row, path in enumerate(table.paths):
            data = (settings.images / path).read_bytes()
            pixels = images.resize(images.decode(data, path), backbone.input_size)
            expected = extractor(pixels[None])[0].mean(axis=(0, 1), dtype=np.float64)
            assert np.allclose(matrices[backbone.name][row], expected, rtol=1e-5)
            assert table.sha256[row] == images.content_hash(data)
            assert table.class_names[table.labels[row]] == path.split("/")[0]


def test_nothing_but_the_store_is_left(settings, fake_engine):
    features.run(settings)
    assert artifacts(settings) == ["features.h5"]


def test_identical_images_are_computed_once(settings, fake_engine, tmp_path):
    shutil.copy(settings.images / "red/00.png", settings.images / "red/copy.png")
    shutil.copy(settings.images / "red/00.png", settings.images / "blue/copy.png")
    result = features.run(settings)
    assert result.n_images == 29
    assert fake_engine.computed == {"one": 27, "two": 27}
    table, matrices = read(settings.files.features)
    rows = [table.paths.index(path) for path in ("red/00.png", "red/copy.png", "blue/copy.png")]
    assert np.array_equal(matrices["one"][rows[0]], matrices["one"][rows[1]])
    assert np.array_equal(matrices["one"][rows[0]], matrices["one"][rows[2]])


def add(folder):
    write_photo(folder / "green/new.png", (70, 180, 80), 500)
    write_photo(folder / "amber/0.png", (200, 150, 20), 501)


def change(folder):
    write_photo(folder / "green/00.png", (70, 180, 80), 502)


def remove(folder):
    (folder / "blue/03.png").unlink()


def rename(folder):
    (folder / "blue/03.png").rename(folder / "blue/zz.png")


def relabel(folder):
    (folder / "blue").rename(folder / "violet")


@pytest.mark.parametrize(
    ("edit", "new"),
    [(add, 2), (change, 1), (remove, 0), (rename, 0), (relabel, 0)],
    ids=lambda item: getattr(item, "__name__", item),
)
def test_after_a_change_only_what_is_new_is_computed(settings, fake_engine, tmp_path, edit, new):
    features.run(settings)
    edit(settings.images)
    result = features.run(settings)
    assert result.written
    assert result.computed == {"one": new, "two": new}
    assert fake_engine.computed == {"one": 27 + new, "two": 27 + new}
    assert artifacts(settings) == ["features.h5"]
    assert_as_from_scratch(settings, tmp_path)


def test_an_added_backbone_is_computed_alone(photos, fake_engine, tmp_path):
    features.run(make_settings(photos, tmp_path / "artifacts", features={"backbones": FAKE_BACKBONES[:1]}))
    assert fake_engine.computed == {"one": 27}
    both = make_settings(photos, tmp_path / "artifacts")
    features.run(both)
    assert fake_engine.computed == {"one": 27, "two": 27}
    assert_as_from_scratch(both, tmp_path)


def test_images_and_a_backbone_added_at_once(photos, fake_engine, tmp_path):
    features.run(make_settings(photos, tmp_path / "artifacts", features={"backbones": FAKE_BACKBONES[:1]}))
    add(photos)
    both = make_settings(photos, tmp_path / "artifacts")
    features.run(both)
    assert fake_engine.computed == {"one": 29, "two": 29}
    assert_as_from_scratch(both, tmp_path)


def test_a_matrix_no_longer_configured_stays_while_it_covers_all_rows(settings, photos, fake_engine, tmp_path):
    features.run(settings)
    table, before = read(settings.files.features)
    remove(photos)
    one = make_settings(photos, tmp_path / "artifacts", features={"backbones": FAKE_BACKBONES[:1]})
    features.run(one)
    _, after = read(one.files.features)
    kept = [row for row, path in enumerate(table.paths) if path != "blue/03.png"]
    assert np.array_equal(after["two"], before["two"][kept])
    add(photos)
    before = one.files.features.read_bytes()
    with pytest.raises(StoreError, match=r"has features of two too, which are not configured now .*--replace"):
        features.run(one)
    assert one.files.features.read_bytes() == before
    features.run(one, replace=True)
    assert list(read(one.files.features)[1]) == ["one"]


OTHERWISE = [{**FAKE_BACKBONES[0], "seed": 9}, FAKE_BACKBONES[1]]


def test_a_changed_identity_needs_to_be_asked_for(settings, photos, fake_engine, tmp_path):
    features.run(settings)
    before = settings.files.features.read_bytes()
    otherwise = make_settings(photos, tmp_path / "artifacts", features={"backbones": OTHERWISE})
    with pytest.raises(IdentityMismatch, match=r"'one' was made otherwise \(weights: 'random:1' against 'random:9'\)"):
        features.run(otherwise)
    assert settings.files.features.read_bytes() == before
    assert artifacts(settings) == ["features.h5"]
    result = features.run(otherwise, replace=True)
    assert (result.computed, result.reused) == ({"one": 27, "two": 0}, {"one": 0, "two": 27})
    assert_as_from_scratch(otherwise, tmp_path)


def test_another_version_of_the_engine_is_recorded_once(settings, fake_engine, tmp_path):
    features.run(settings)
    fake_engine.name = "newer"
    for number in range(3):
        write_photo(settings.images / f"red/new{number}.png", (190, 70, 60), 600 + number)
        features.run(settings)
    with Store(settings.files.features) as store:
        provenance = store.matrices["one"].provenance
    assert provenance["engine"] == "newer"
    assert [item["engine"] for item in provenance["earlier"]] == ["fake"]


@pytest.fixture
def bad_photos(photos):
    """One that is cut short, one that is empty, one that is text; among the good ones."""
    data = (photos / "green/04.png").read_bytes()
    (photos / "green/04a.png").write_bytes(data[: len(data) // 2])
    (photos / "blue/00a.jpg").write_bytes(b"")
    (photos / "red/zz.jpg").write_text("not an image")
    return photos


def test_bad_images_are_rejected_and_shift_nothing(settings, fake_engine, tmp_path, bad_photos):
    result = features.run(settings)
    assert result.n_images == 27
    assert sorted(result.rejected) == ["blue/00a.jpg", "green/04a.png", "red/zz.jpg"]
    table, matrices = read(settings.files.features)
    assert list(table.rejected) == ["blue/00a.jpg", "green/04a.png", "red/zz.jpg"]
    assert table.rejected["blue/00a.jpg"] == "the file is empty"
    assert table.rejected["green/04a.png"].startswith("damaged or cut short")
    assert table.rejected["red/zz.jpg"].startswith("not an image that can be read")
    for path in table.rejected:
        (settings.images / path).unlink()
    clean = settings.model_copy(update={"artifacts": tmp_path / "clean"})
    features.run(clean)
    expected, good = read(clean.files.features)
    assert (table.paths, table.sha256) == (expected.paths, expected.sha256)
    for name in good:
        assert np.array_equal(matrices[name], good[name])


def test_a_rejected_image_that_was_mended_is_computed(settings, fake_engine, tmp_path, bad_photos):
    features.run(settings)
    assert not features.run(settings).written
    write_photo(bad_photos / "green/04a.png", (70, 180, 80), 700)
    features.run(settings)
    assert fake_engine.computed == {"one": 28, "two": 28}
    assert list(read(settings.files.features)[0].rejected) == ["blue/00a.jpg", "red/zz.jpg"]
    assert_as_from_scratch(settings, tmp_path)


def test_a_class_without_a_readable_image_is_left_out_with_a_warning(settings, fake_engine):
    (settings.images / "empty").mkdir()
    (settings.images / "empty/0.jpg").write_bytes(b"")
    hearing = Hearing()
    assert features.run(settings, listener=hearing).n_classes == 3
    assert "class 'empty' has no image that can be read" in hearing.warnings
    assert read(settings.files.features)[0].class_names == ("blue", "green", "red")


def test_nothing_readable_is_an_error(tmp_path, fake_engine):
    (tmp_path / "photos/a").mkdir(parents=True)
    for number in range(3):
        (tmp_path / f"photos/a/{number}.jpg").write_text(f"text {number}")
    settings = make_settings(tmp_path / "photos", tmp_path / "artifacts")
    with pytest.raises(SourceError, match=r"none of 3 images can be read; a/0\.jpg: not an image"):
        features.run(settings)
    assert not settings.files.features.exists()


def test_a_flat_folder_has_no_labels(tmp_path, fake_engine):
    for number in range(3):
        write_photo(tmp_path / f"photos/{number}.png", (100, 100, 100), number)
    settings = make_settings(tmp_path / "photos", tmp_path / "artifacts")
    assert features.run(settings).n_classes == 0
    table, _ = read(settings.files.features)
    assert (table.labels.tolist(), table.class_names) == ([-1, -1, -1], ())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_source_whose_own_name_is_not_utf8_is_taken(photos, tmp_path, fake_engine):
    settings = make_settings(photos.rename(tmp_path / os.fsdecode(b"caf\xe9")), tmp_path / "artifacts")
    assert features.run(settings).n_images == 27
    assert read(settings.files.features)[0].source.endswith(r"/caf\udce9")
    assert not features.run(settings).written


def test_a_manifest_gives_groups_and_splits(photos, tmp_path, fake_engine):
    text = "path,label,group,split\nred/00.png,猫,b,test\nblue/00.png,犬,,\nmissing.png,猫,a,\ngreen/00.png,,a,train\n"
    (photos / "m.csv").write_text(text, "utf-8")
    settings = make_settings(photos / "m.csv", tmp_path / "artifacts")
    features.run(settings)
    table, _ = read(settings.files.features)
    assert table.paths == ("blue/00.png", "green/00.png", "red/00.png")
    assert table.class_names == ("犬", "猫")
    assert table.labels.tolist() == [0, -1, 1]
    assert (table.group_names, table.groups.tolist()) == (("a", "b"), [-1, 0, 1])
    assert table.splits == ("", "train", "test")
    assert table.rejected == {"missing.png": "file not found"}


def test_mixed_kinds_of_images_become_features(settings, fake_engine):
    image = Image.open(settings.images / "red/00.png")
    for mode, name in (("L", "grey.png"), ("1", "bits.png"), ("P", "p.gif"), ("RGBA", "a.webp"), ("CMYK", "c.jpg")):
        image.convert(mode).save(settings.images / "red" / name)
    result = features.run(settings)
    assert (result.n_images, dict(result.rejected)) == (32, {})
