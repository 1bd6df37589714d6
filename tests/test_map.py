"""The map: similar images together, the same picture every time, and drawn also without images or labels."""

import csv
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from stackcls.errors import ConfigError, StoreError
from stackcls.inspect import embedding, neighbours
from stackcls.report import maps, pictures
from stackcls.report.maps import COLOURS, SHAPES, Map
from stackcls.stages import features, fit
from stackcls.stages import map as stage
from tests.conftest import FakeExtractor, make_settings, read_csv, write_photo, write_photos

NAMES = ["map.png", "map.svg", "map.html", "map.csv"]


def lay_out(matrix, seed=0):
    unit = neighbours.unit([matrix])
    pieces = [(start, unit[start : start + 7]) for start in range(0, len(unit), 7)]
    done = []
    places = embedding.lay_out(lambda: pieces, len(unit), unit.shape[1], done.append, seed)
    assert sum(done) == embedding.EARLY + embedding.ITERATIONS
    return places


def clusters(count, each=12):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(count, 20)).repeat(each, axis=0) + 0.1 * rng.normal(size=(count * each, 20))) + 1


def test_neighbours_in_the_plane_are_neighbours_in_features():
    places = lay_out(clusters(5))
    nearest = np.argsort(np.linalg.norm(places[:, None] - places, axis=2), axis=1)[:, 1:6]
    assert (nearest // 12 == np.arange(60)[:, None] // 12).mean() > 0.95


def test_the_same_rows_give_the_same_picture():
    np.testing.assert_array_equal(lay_out(clusters(3)), lay_out(clusters(3)))
    assert not np.array_equal(lay_out(clusters(3)), lay_out(clusters(3), seed=1))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 10, 11, 31])
def test_few_images_have_places_too(count):
    places = lay_out(np.random.default_rng(0).random((count, 5)))
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
    assert len(np.unique(places, axis=0)) == count


@pytest.mark.parametrize("matrix", [np.ones((40, 6)), np.zeros((40, 6)), np.random.default_rng(0).random((40, 1))])
def test_images_that_are_all_alike_have_finite_places(matrix):
    assert np.isfinite(lay_out(matrix)).all()


@pytest.fixture
def computed(settings, fake_engine):
    features.run(settings)
    return settings


def read_data(page):
    """The data in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    return json.loads(found[1])


def test_every_image_is_in_every_file(hard):
    fit.run(hard)
    result = stage.run(hard)
    assert [path.name for path in result.files] == NAMES
    assert result.n_images == 60
    rows, expected = read_csv(hard.files.map_table), read_csv(hard.files.predictions)
    for row, told in zip(rows, expected, strict=True):
        assert (row["path"], row["label"], row["predicted"]) == (told["path"], told["label"], told["predicted"])
        assert row["mistake"] == ("yes" if told["label"] != told["predicted"] else "")
    mistakes = [number for number, row in enumerate(rows) if row["mistake"]]
    assert 0 < len(mistakes) < 60
    data = read_data(hard.files.map_page)
    assert data["mistaken"] == mistakes
    assert data["paths"] == [row["path"] for row in rows]
    assert [data["classes"][number] for number in data["class"]] == [row["label"] for row in rows]
    assert all(data["pictures"])
    assert data["links"][0] == "../photos/ant/00.png"
    assert Image.open(hard.files.map_picture).size[0] >= 900
    assert b"</svg>" in hard.files.map_drawing.read_bytes()


def test_the_same_map_is_written_again(computed):
    stage.run(computed)
    before = {path: path.read_bytes() for path in map(computed.artifacts.joinpath, NAMES) if path.suffix != ".html"}
    data = read_data(computed.files.map_page)
    stage.run(computed)
    assert {path: path.read_bytes() for path in before} == before
    again = read_data(computed.files.map_page)
    assert {**again, "plot": None} == {**data, "plot": None}


@pytest.mark.parametrize("name", NAMES)
def test_only_its_own_files_are_replaced(computed, tmp_path, name):
    (tmp_path / "out").mkdir()
    precious = tmp_path / "out" / name
    shutil.copy(next(computed.images.rglob("*.png")), precious)
    before = precious.read_bytes()
    with pytest.raises(ConfigError, match=f"--output: .*{name} is there, and not written by this command"):
        stage.run(computed, output=tmp_path / "out")
    assert precious.read_bytes() == before
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_each_space_has_a_map_of_its_own(hard, tmp_path):
    fit.run(hard)
    places = []
    for number, options in enumerate([{}, {"backbone": "one"}, {"stack": True}]):
        result = stage.run(hard, output=tmp_path / str(number), **options)
        places.append([row["x"] for row in read_csv(result.files[3])])
    assert places[0] != places[1] != places[2] != places[0]
    with pytest.raises(ConfigError, match=r"--backbone: 'three' is not in .*; it has one, two"):
        stage.run(hard, backbone="three")


def test_images_without_labels_have_a_map(tmp_path, fake_engine):
    for number in range(12):
        write_photo(tmp_path / "flat" / f"{number}.png", (20 * number, 90, 90), number)
    settings = make_settings(tmp_path / "flat", tmp_path / "artifacts")
    features.run(settings)
    stage.run(settings)
    assert {row["label"] for row in read_csv(settings.files.map_table)} == {""}
    assert read_data(settings.files.map_page)["classes"] == [maps.UNLABELLED]


def test_features_that_are_not_finite_are_refused(settings, fake_engine, monkeypatch):
    whole = FakeExtractor.__call__
    monkeypatch.setattr(FakeExtractor, "__call__", lambda self, images: whole(self, images) * np.float32("nan"))
    features.run(settings)
    with pytest.raises(StoreError, match=r"features\.h5: has features that are not finite; delete it"):
        stage.run(settings)
    assert not settings.files.map_page.exists()


def test_where_the_images_are_gone_the_map_is_drawn_without(computed, stackcls):
    computed.images.rename(computed.images.with_name("away"))
    shared = ["--artifacts", str(computed.artifacts), "--set", f"images={computed.images}"]
    status, out, err = stackcls("map", *shared)
    assert status == 0
    assert "27 images" in out
    assert "the page shows no images" in err
    data = read_data(computed.files.map_page)
    assert data["pictures"] == data["links"] == [None] * 27


def test_predictions_of_other_images_mark_nothing(hard, stackcls):
    fit.run(hard)
    shutil.rmtree(hard.images / "ant")
    features.run(hard, replace=True)
    shared = ["--artifacts", str(hard.artifacts), "--set", f"images={hard.images}"]
    status, _, err = stackcls("map", *shared)
    assert status == 0
    assert "mistakes are not marked" in err
    assert not any(row["mistake"] for row in read_csv(hard.files.map_table))


def test_pictures_shrink_to_the_budget_and_then_go(computed, monkeypatch, tmp_path):
    write_photos(computed.images, per_class=3, classes=["wide"])
    for path in (computed.images / "wide").iterdir():
        write_photo(path, (90, 90, 90), 1, (300, 300))
    features.run(computed)
    sizes = []
    for share in (None, 0.9, 0.01):
        monkeypatch.setattr(stage, "BUDGET", 10**6 if share is None else share * 0.75 * sizes[0])
        stage.run(computed)
        sizes.append(sum(len(item or "") for item in read_data(computed.files.map_page)["pictures"]))
    assert sizes[0] > sizes[1] > sizes[2] == 0


def drawn(count, images=2, name="class {:03d}"):
    places = np.random.default_rng(0).normal(size=(count * images, 2)).astype(np.float32)
    labels = tuple(name.format(number) for number in range(count) for _ in range(images))
    return Map("title", places, tuple(map(str, range(count * images))), labels, (None,) * len(labels))


def test_classes_differ_in_colour_and_then_in_shape():
    groups = drawn(48).groups
    assert len({(group.colour, group.shape) for group in groups}) == len(COLOURS) * len(SHAPES) == 48
    assert len({group.shape for group in groups[:6]}) == 1


@pytest.mark.parametrize("name", ["$$x^2$$ {}", "$\\frac{{ {}", "猫 <b>{}</b>", "a\nb \x1b[31m {}"])
def test_odd_names_are_drawn_as_they_are(tmp_path, name):
    for suffix in (".png", ".svg"):
        pictures.save_map(drawn(3, name=name), tmp_path / f"map{suffix}")
        assert pictures.is_map(tmp_path / f"map{suffix}")


def test_a_table_gives_names_back(tmp_path):
    odd = drawn(2, name='a,"b"\r{}\n')
    (tmp_path / "map.csv").write_bytes(maps.to_csv(odd).encode())
    assert maps.is_csv(tmp_path / "map.csv")
    rows = csv.DictReader(io.StringIO((tmp_path / "map.csv").read_bytes().decode(), newline=""))
    assert tuple(row["label"] for row in rows) == odd.labels


@pytest.mark.parametrize(("count", "images"), [(150, 2), (3, 2500)])
def test_many_classes_and_many_images_are_drawn(tmp_path, count, images):
    pictures.save_map(drawn(count, images), tmp_path / "map.svg")
    assert (tmp_path / "map.svg").stat().st_size < 2_000_000


def test_a_folder_that_cannot_take_a_map_is_refused_before_the_work(computed, tmp_path, monkeypatch):
    monkeypatch.setattr("stackcls.inspect.embedding.lay_out", lambda *_: pytest.fail("was computed"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"--output: .*file is a file; give a folder"):
        stage.run(computed, output=tmp_path / "file")
    for folder in (computed.images, computed.images / "ant"):
        with pytest.raises(ConfigError, match=r"is among the images, and map.png would be taken for one"):
            stage.run(computed, output=folder)
