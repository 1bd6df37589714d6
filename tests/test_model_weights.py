"""A model does not hold its backbones' weights: it finds them by their content, wherever both lie by then."""

import shutil

import joblib
import pytest

from stackcls import load
from stackcls.errors import WeightsError
from stackcls.files import digest_file
from stackcls.stages import features, fit
from tests.conftest import FAKE_BACKBONES, make_settings


@pytest.fixture
def with_weights(tmp_path, photos, fake_engine, monkeypatch):
    """Fit with a weights file of one's own; gives a function, and the list of files that the engine was handed."""
    handed = []
    prepare = fake_engine.prepare
    monkeypatch.setattr(fake_engine, "prepare", lambda *args: handed.append(args[0].weights) or prepare(*args))

    def run(weights):
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.write_bytes(b"weights of one")
        own = {"name": "one", "architecture": "MobileNet", "input_size": 32, "weights": str(weights)}
        settings = make_settings(photos, tmp_path / "artifacts", features={"backbones": [own, FAKE_BACKBONES[1]]})
        features.run(settings)
        fit.run(settings)
        handed.clear()
        return settings

    return run, handed


BOTH_FORMATS = pytest.mark.parametrize(
    ("opened_by", "name"), [(joblib.load, "model.joblib"), (load, "model.joblib"), (load, "model.safetensors")]
)


@BOTH_FORMATS
def test_a_moved_folder_brings_its_weights(with_weights, tmp_path, photos, opened_by, name, monkeypatch):
    run, handed = with_weights
    settings = run(tmp_path / "artifacts" / "weights" / "one.weights.h5")
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    shutil.move(settings.artifacts, moved)
    for path in (moved / name, f"moved/{name}"):
        handed.clear()
        monkeypatch.chdir(moved.parent)
        model = opened_by(path)
        # The weights are looked for later, when the working folder may be another.
        monkeypatch.chdir(tmp_path)
        assert model.predict(photos / "red" / "00.png").tolist() == ["red"]
        assert handed[0].resolve() == moved / "weights" / "one.weights.h5"


@BOTH_FORMATS
def test_weights_that_stayed_are_found_by_the_moved_model(with_weights, tmp_path, photos, opened_by, name):
    run, handed = with_weights
    settings = run(tmp_path / "weights" / "one.weights.h5")
    moved = tmp_path / "far" / "far" / "away"
    shutil.copytree(settings.artifacts, moved)
    assert opened_by(moved / name).predict(photos / "red" / "00.png").tolist() == ["red"]
    assert handed == [tmp_path / "weights" / "one.weights.h5", None]


def test_weights_beside_the_model_are_found_by_content(with_weights, tmp_path, photos):
    run, handed = with_weights
    settings = run(tmp_path / "weights" / "one.weights.h5")
    (settings.artifacts / "a.weights.h5").write_bytes(b"of another")
    (tmp_path / "weights" / "one.weights.h5").rename(settings.artifacts / "renamed.weights.h5")
    assert joblib.load(settings.files.model).predict(photos / "red" / "00.png").tolist() == ["red"]
    assert handed[0] == settings.artifacts / "renamed.weights.h5"


@BOTH_FORMATS
def test_a_model_that_came_alone_finds_weights_beside_it(with_weights, tmp_path, photos, opened_by, name):
    run, handed = with_weights
    settings = run(tmp_path / "weights" / "one.weights.h5")
    alone = tmp_path / "alone"
    alone.mkdir()
    (tmp_path / "weights" / "one.weights.h5").rename(alone / "from-a-stranger.weights.h5")
    for file in (name, "model.json"):
        shutil.copy(settings.artifacts / file, alone)
    shutil.rmtree(settings.artifacts)
    assert opened_by(alone / name).predict(photos / "red" / "00.png").tolist() == ["red"]
    assert handed == [alone / "from-a-stranger.weights.h5", None]


def remove(path):
    path.unlink()
    return ""


def replace_by_others(path):
    path.write_bytes(b"weights of 0ne")
    return f"; {path} is another file, or may not be read"  # and nothing of what it holds


@BOTH_FORMATS
@pytest.mark.parametrize("change", [remove, replace_by_others])
def test_weights_that_are_gone_or_different_are_named(with_weights, tmp_path, photos, change, opened_by, name):
    run, _ = with_weights
    weights = tmp_path / "weights" / "one.weights.h5"
    settings = run(weights)
    digest = digest_file(weights)
    other = change(weights)
    message = (
        f"'one' needs the weights with SHA-256 {digest}, at fitting one.weights.h5; looked in .*{settings.artifacts}"
        f".*{other}.*: copy that file beside the model"
    )
    with pytest.raises(WeightsError, match=message):
        opened_by(settings.artifacts / name).predict(photos / "red" / "00.png")
