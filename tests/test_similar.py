"""Neighbours by cosine similarity: the right ones, in order, of stored and of new images, from any piece of a file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stackcls import spaces
from stackcls.errors import ConfigError, IdentityMismatch, SourceError, StoreMissing
from stackcls.inspect import neighbours
from stackcls.stages import features, similar
from stackcls.store import Store
from tests.conftest import FAKE_BACKBONES, make_settings


def pieces(matrix, size):
    return [(start, matrix[start : start + size]) for start in range(0, len(matrix), size)]


def cosines(matrices):
    parts = [matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for matrix in matrices]
    return np.mean([part @ part.T for part in parts], axis=0)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_nearest_are_those_of_the_whole_matrix(size):
    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=(40, 6)), 9 * rng.random((40, 3))]
    unit = neighbours.unit(matrices)
    rows, similarities = neighbours.nearest(unit[:5], pieces(unit, size), 4)
    expected = cosines(matrices)[:5]
    np.testing.assert_array_equal(rows, np.argsort(-expected, axis=1)[:, :4])
    np.testing.assert_allclose(similarities, -np.sort(-expected, axis=1)[:, :4], atol=1e-6)


def test_zeros_are_similar_to_nothing_and_equal_rows_come_in_order():
    unit = neighbours.unit([np.array([[1, 0], [0, 0], [2, 0], [0, 1]])])
    rows, similarities = neighbours.nearest(unit[:2], pieces(unit, 2), 9)
    np.testing.assert_array_equal(rows, [[0, 2, 1, 3], [0, 1, 2, 3]])
    np.testing.assert_array_equal(similarities, [[1, 1, 0, 0], [0, 0, 0, 0]])


@pytest.fixture
def computed(settings, fake_engine):
    """Settings of a store that is there, and an engine that counts."""
    features.run(settings)
    fake_engine.batches.clear()
    return settings


def paths_of(settings):
    with Store(settings.files.features) as store:
        return [str(settings.images / path) for path in store.table.paths]


@pytest.mark.parametrize("backbone", [None, "two"])
def test_a_stored_image_needs_no_network(computed, fake_engine, backbone):
    path = paths_of(computed)[3]
    (found,) = similar.run([path], computed, backbone=backbone, k=5)
    assert fake_engine.computed == {}
    with Store(computed.files.features) as store:
        names = list(store.matrices) if backbone is None else [backbone]
        every = np.arange(len(store.table.paths))
        expected = cosines([store.read_rows(name, every) for name in names])[3]
        expected[3] = -2
        order = np.argsort(-expected, kind="stable")[:5]
        np.testing.assert_allclose([one.similarity for one in found.neighbours], expected[order], atol=1e-6)
        for one in found.neighbours:
            row = store.table.paths.index(one.path)
            assert one.label == store.table.class_names[store.table.labels[row]]
            assert one.similarity == pytest.approx(expected[row], abs=1e-6)


def test_features_of_a_new_image_are_computed_as_the_stored_ones_were(computed, fake_engine, tmp_path):
    old = paths_of(computed)[2]
    image, new = Image.open(old), tmp_path / "new.png"
    image.save(new, compress_level=1, pnginfo=None)
    with open(new, "ab") as file:
        file.write(b"\0")  # other bytes, the same pixels
    (found,) = similar.run([str(new)], computed, k=1)
    assert fake_engine.computed == {"one": 1, "two": 1}
    assert str(computed.images / found.neighbours[0].path) == old
    assert found.neighbours[0].similarity == pytest.approx(1, abs=1e-6)


def test_a_copy_is_a_neighbour_the_image_itself_is_not(computed, tmp_path):
    path = computed.images / paths_of(computed)[0]
    copy = path.with_name("zz-copy.png")
    shutil.copy(path, copy)
    features.run(computed)
    for asked, other in ((path, copy), (copy, path)):
        (found,) = similar.run([str(asked)], computed, k=3)
        names = [one.path for one in found.neighbours]
        assert names[0] == other.relative_to(computed.images).as_posix()
        assert asked.relative_to(computed.images).as_posix() not in names
        assert len(names) == 3
    elsewhere = tmp_path / "elsewhere.png"
    shutil.copy(path, elsewhere)
    (found,) = similar.run([str(elsewhere)], computed, k=2)
    assert {one.path for one in found.neighbours} == {
        item.relative_to(computed.images).as_posix() for item in (path, copy)
    }


def test_the_image_itself_is_known_from_within_its_folder(computed, monkeypatch):
    path = computed.images / paths_of(computed)[0]
    monkeypatch.chdir(path.parent)
    (found,) = similar.run([path.name], computed, k=40)
    assert path.relative_to(computed.images).as_posix() not in [one.path for one in found.neighbours]


def test_an_unreadable_image_shifts_no_other(computed, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    asked = [paths_of(computed)[0], str(bad), str(tmp_path / "absent.png"), paths_of(computed)[1]]
    found = similar.run(asked, computed, k=2)
    assert [item.path for item in found] == asked
    assert [item.error is None for item in found] == [True, False, False, True]
    alone = similar.run([asked[3]], computed, k=2)
    assert [one.path for one in found[3].neighbours] == [one.path for one in alone[0].neighbours]


def test_the_matrix_of_all_similarities(computed, tmp_path, monkeypatch):
    monkeypatch.setattr(spaces, "ROWS", 4)
    similar.run(paths_of(computed)[:1], computed, matrix=tmp_path / "all.npy")
    with Store(computed.files.features) as store:
        every = np.arange(len(store.table.paths))
        expected = cosines([store.read_rows(name, every) for name in store.matrices])
    found = np.load(tmp_path / "all.npy")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(found, found.T)


def test_what_cannot_be_asked_for(computed, tmp_path, settings):
    path = paths_of(computed)[0]
    with pytest.raises(ConfigError, match=r"--backbone: 'three' is not in .*; it has one, two"):
        similar.run([path], computed, backbone="three")
    with pytest.raises(ConfigError, match=r"--matrix: .* is no \.npy file"):
        similar.run([path], computed, matrix=tmp_path / "all.csv")
    with pytest.raises(StoreMissing, match="stackcls features"):
        similar.run([path], make_settings(settings.images, tmp_path / "nothing"))


def test_other_weights_in_the_place_of_the_old_ones_are_refused(photos, tmp_path, fake_engine):
    weights = tmp_path / "w.weights.h5"
    weights.write_bytes(b"old")
    backbone = {**FAKE_BACKBONES[0], "weights": str(weights)}
    del backbone["seed"]
    settings = make_settings(photos, tmp_path / "artifacts", features={"backbones": [backbone]})
    features.run(settings)
    weights.write_bytes(b"new")
    new = tmp_path / "new.png"
    Image.new("RGB", (9, 9)).save(new)
    with pytest.raises(IdentityMismatch, match=r"would be made otherwise now .*weights"):
        similar.run([str(new)], settings)


def test_the_command_writes_table_json_and_sheet(computed, stackcls, tmp_path):
    asked, sheet = paths_of(computed)[:2], tmp_path / "sheet.png"
    shared = ["--artifacts", str(computed.artifacts), "--set", f"images={computed.images}"]
    status, out, err = stackcls("similar", *asked, "-k", "3", "--sheet", sheet, *shared)
    assert status == 0, err
    assert out.count("\n") == 2 + 6
    assert Image.open(sheet).size == (4 * 160, 2 * 200)
    status, out, _ = stackcls("similar", asked[0], tmp_path / "absent.png", "--format", "json", *shared)
    assert status == 1
    raw = json.loads(out)
    assert [item["error"] is None for item in raw] == [True, False]
    assert len(raw[0]["neighbours"]) == 10


def test_only_its_own_files_are_replaced(computed, tmp_path):
    path = paths_of(computed)[0]
    for _ in range(2):
        similar.run([path], computed, k=1, sheet=tmp_path / "all.png")
    similar.run([path], computed, k=1, matrix=tmp_path / "all.npy")
    matrix = tmp_path / "all.npy"  # which nothing tells from somebody's own
    for option, file in (("sheet", computed.files.features), ("sheet", Path(path)), ("matrix", matrix)):
        before = file.read_bytes()
        with pytest.raises(ConfigError, match=f"--{option}: .*; give a(nother)? name"):
            similar.run([path], computed, k=1, **{option: file})
        assert file.read_bytes() == before


def test_a_sheet_of_images_that_are_gone_is_refused_before_the_work(computed, tmp_path, monkeypatch):
    path = shutil.copy(paths_of(computed)[0], tmp_path / "asked.png")
    computed.images.rename(tmp_path / "away")
    monkeypatch.delattr(similar, "Neighbours")
    with pytest.raises(SourceError, match="photos"):
        similar.run([str(path)], computed, sheet=tmp_path / "sheet.png")


def test_a_folder_is_refused_with_the_remedy(computed, stackcls):
    status, _, err = stackcls("similar", computed.images, "--artifacts", computed.artifacts)
    assert status == 2
    assert f"{computed.images}: is a folder; name image files, for instance {computed.images}/*.jpg" in err
