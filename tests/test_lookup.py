"""Many rows: held in memory, streamed, or looked up in an index that is made once; the answers are the same."""

import builtins
from pathlib import Path

import numpy as np
import pytest

from stackcls import lookup, spaces
from stackcls.inspect import index, neighbours
from stackcls.inspect.directions import principal
from stackcls.lookup import Neighbours
from stackcls.stages import features
from stackcls.store import Store


class Heard:
    """A listener that remembers what was said."""

    def __init__(self):
        self.said, self.warned = [], []
        self.say, self.warn = self.said.append, self.warned.append


@pytest.fixture
def computed(settings, fake_engine, monkeypatch, tmp_path):
    monkeypatch.setenv("STACKCLS_CACHE", str(tmp_path / "cache"))
    features.run(settings)
    return settings


@pytest.fixture
def large(computed, monkeypatch):
    """A feature file that counts as large."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(lookup, "LARGE", 10)
    return computed


def images_of(settings):
    with Store(settings.files.features) as store:
        return [str(settings.images / path) for path in store.table.paths]


def ask(settings, **options):
    with Neighbours(settings, **options) as loaded:
        return [loaded.find([path], 5)[0] for path in images_of(settings)]


def agree(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert [item.path for item in one.neighbours] == [item.path for item in other.neighbours]
        np.testing.assert_allclose(
            [item.similarity for item in one.neighbours], [item.similarity for item in other.neighbours], atol=1e-6
        )


def test_rows_held_in_memory_answer_as_those_that_are_read_each_time(computed, monkeypatch):
    expected = ask(computed, hold=False)
    agree(ask(computed), expected)
    monkeypatch.setattr(lookup, "PIECE", 4)
    monkeypatch.setattr(spaces, "ROWS", 3)
    agree(ask(computed), expected)
    monkeypatch.setattr(lookup, "HELD", 0)
    agree(ask(computed), expected)


def test_what_is_loaded_once_is_not_read_again(computed, monkeypatch):
    paths = images_of(computed)
    with Neighbours(computed) as loaded:
        monkeypatch.setattr(spaces, "chunks", None)
        assert len(loaded.find(paths[:3], 4)) == 3


def test_networks_are_built_once_for_many_questions(computed, tmp_path, monkeypatch):
    built = []
    prepare = spaces.loading.prepare
    monkeypatch.setattr(spaces.loading, "prepare", lambda *args, **more: built.append(1) or prepare(*args, **more))
    with Neighbours(computed) as loaded:
        for number in range(3):
            new = tmp_path / f"{number}.png"
            new.write_bytes(Path(images_of(computed)[number]).read_bytes() + bytes([number]))
            assert loaded.find([str(new)], 1)[0].neighbours[0].similarity == pytest.approx(1, abs=1e-6)
    assert built == [1]


def test_an_index_is_made_once_and_its_answers_are_ranked_by_the_rows(large, tmp_path):
    expected, heard = ask(large, exact=True), Heard()
    agree(ask(large, listener=heard), expected)
    assert heard.said == ["making an index of 27 images, once"]
    assert len(list((tmp_path / "cache").glob("index-*"))) == 1
    again = Heard()
    agree(ask(large, listener=again), expected)
    assert again.said == []


def test_a_damaged_index_is_made_anew(large, tmp_path):
    expected = ask(large)
    (file,) = (tmp_path / "cache").glob("index-*/rows.faiss")
    file.write_bytes(file.read_bytes()[:-9] + b"otherwise")
    heard = Heard()
    agree(ask(large, listener=heard), expected)
    assert heard.said == ["making an index of 27 images, once"]


def test_each_feature_file_and_backbone_has_an_index_of_its_own(large, tmp_path):
    for backbone in (None, "one", "two"):
        ask(large, backbone=backbone)
    (large.images / "red" / "00.png").unlink()
    features.run(large)
    ask(large)
    assert len(list((tmp_path / "cache").glob("index-*"))) == 4


def test_without_faiss_all_rows_are_compared_and_it_says_what_helps(large, monkeypatch):
    expected, heard = ask(large, exact=True), Heard()
    monkeypatch.setattr(index, "find_spec", lambda name: None)
    importer = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *args: importer("no " * (name == "faiss") + name, *args))
    agree(ask(large, listener=heard), expected)
    assert len(heard.said) == 1
    assert "pip install 'stackcls[index]'" in heard.said[0]


def test_the_index_finds_nearly_all_neighbours(tmp_path):
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(60, 24)).repeat(50, axis=0) + 0.7 * rng.normal(size=(3000, 24))
    unit = neighbours.unit([np.maximum(latent @ rng.normal(size=(24, 96)), 0)])

    def chunks(size=256):
        for start in range(0, len(unit), size):
            yield start, unit[start : start + size]

    index.build(chunks, len(unit), 96, tmp_path)
    assert (tmp_path / "rows.faiss").stat().st_size < unit.nbytes / 3
    queries = unit[::30]
    exact, _ = neighbours.nearest(queries, chunks(), 10)
    found = index.Index(tmp_path).candidates(queries, 50)
    assert all((np.diff(rows) > 0).all() and rows.min() >= 0 for rows in found)
    shares = [np.isin(one, rows).mean() for one, rows in zip(exact, found, strict=True)]
    assert np.mean(shares) > 0.98


@pytest.mark.parametrize("count", [3, 20])
def test_directions_are_the_principal_ones(count):
    rng = np.random.default_rng(1)
    rows = (rng.normal(size=(200, 12)) * np.linspace(5, 0.1, 12) + 3).astype(np.float32)
    found = principal(lambda: [(start, rows[start : start + 60]) for start in range(0, 200, 60)], 12, count)
    centred = rows - rows.mean(axis=0)
    axes = np.linalg.svd(centred)[2][:count]
    assert found.axes.shape == (12, min(count, 12))
    np.testing.assert_allclose(np.abs(np.sum(axes[:3].T * found.axes[:, :3], axis=0)), 1, atol=1e-3)
    np.testing.assert_allclose(found.along(rows), centred @ found.axes, atol=1e-4)
