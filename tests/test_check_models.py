"""`stackcls check` of models: damage, weights, and what they were fitted on; nothing of them is executed."""

import hashlib
import json
import pickle

import h5py
import joblib
import numpy as np
import pytest

from stackcls import soundness
from stackcls.stages import features, fit
from tests.conftest import make_settings, write_photo
from tests.sealing import seal
from tests.test_check import flip


@pytest.fixture
def fitted(settings, fake_engine):
    """Settings whose artifacts hold a fitted model."""
    features.run(settings)
    fit.run(settings)
    return settings


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return open, (self.target, "w")


def test_a_pickle_is_checked_without_being_opened(fitted, stackcls, tmp_path):
    target, file = tmp_path / "executed", fitted.files.model
    file.write_bytes(pickle.dumps(Payload(target)))
    status, out, _ = stackcls("check", file)
    assert status == 1
    assert "not the file that model.json describes, or damaged" in out
    card = json.loads(fitted.files.model_card.read_text())
    fitted.files.model_card.write_text(json.dumps(card | {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}))
    # Who makes the card of a model as well as the model can make both agree.
    status, out, _ = stackcls("check", file)
    assert status == 0
    assert "opening it can run any code" in out
    assert not target.exists()


@pytest.mark.parametrize("name", ["model.joblib", "model.safetensors"])
def test_a_damaged_model_is_found(fitted, stackcls, name):
    file = fitted.artifacts / name
    data = file.read_bytes()
    for place in map(int, np.random.default_rng(0).integers(0, len(data) * 8, 200)):
        flip(file, data, place)
        assert not soundness.check_model(file).sound
    assert stackcls("check", file)[0] == 1


@pytest.mark.parametrize("name", ["model.joblib", "model.safetensors"])
def test_weights_that_are_gone_are_named(photos, tmp_path, fake_engine, stackcls, name, monkeypatch):
    weights = tmp_path / "one.weights.h5"
    weights.write_bytes(b"weights")
    own = {"name": "one", "architecture": "MobileNet", "input_size": 32, "weights": str(weights)}
    settings = make_settings(photos, tmp_path / "artifacts", features={"backbones": [own]})
    features.run(settings)
    fit.run(settings)
    monkeypatch.setattr(joblib, "load", None)
    assert stackcls("check", settings.artifacts / name)[0] == 0
    weights.write_bytes(b"others")
    status, out, _ = stackcls("check", settings.artifacts / name)
    assert status == 1
    digest = hashlib.sha256(b"weights").hexdigest()
    assert f"  problem: backbones/one: the model's backbone 'one' needs the weights with SHA-256 {digest}, at" in out
    assert f"{weights} is another file" in out
    assert hashlib.sha256(b"others").hexdigest() not in out


def relabel(settings):
    (settings.images / "red" / "00.png").rename(settings.images / "blue" / "zz.png")
    features.run(settings)
    return settings


def add_image(settings):
    write_photo(settings.images / "red" / "new.png", (190, 70, 60), 77)
    features.run(settings)
    return settings


def compute_otherwise(settings):
    raw = [entry.model_dump(exclude_unset=True) for entry in settings.features.backbones]
    raw[0]["pooling"] = "max"
    changed = make_settings(settings.images, settings.artifacts, features={"backbones": raw})
    features.run(changed, replace=True)
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (relabel, "one has other rows or values; two has other rows or values"),
        (add_image, "one has other rows or values; two has other rows or values"),
        (compute_otherwise, "one was made otherwise (pooling: 'average' against 'max')"),
    ],
)
def test_a_model_of_features_that_were_replaced_is_pointed_at(fitted, stackcls, change, message):
    changed = change(fitted)
    status, out, _ = stackcls("check", fitted.artifacts)
    assert status == 0  # it predicts as before
    remedy = "the model predicts as it was fitted; `stackcls fit` fits a new one"
    assert out.count(f"  remark: features.h5: is not what the model was fitted on: {message}; {remedy}\n") == 2
    fit.run(changed)
    assert "features.h5: is not" not in stackcls("check", fitted.artifacts)[1]


def test_labels_that_changed_alone_are_pointed_at(fitted, stackcls):
    before = fitted.files.features.read_bytes()
    with h5py.File(fitted.files.features, "r+") as file:
        file["images/label"][0] = 1
    seal(fitted.files.features)
    assert "its images, labels or other matrices have changed since" in stackcls("check", fitted.artifacts)[1]
    fitted.files.features.write_bytes(before[:-1])
    out = stackcls("check", fitted.artifacts)[1]
    assert "NOT SOUND" in out
    fitted.files.features.write_bytes(b"no store")
    assert (
        "remark: features.h5: cannot be compared with the model: not a feature file"
        in stackcls("check", fitted.files.safe_model)[1]
    )


def test_a_safe_model_of_another_fit_than_its_card_is_found(fitted, stackcls):
    kept = fitted.files.safe_model.read_bytes()
    relabel(fitted)
    fit.run(fitted)
    assert stackcls("check", fitted.artifacts)[0] == 0
    fitted.files.safe_model.write_bytes(kept)
    status, out, _ = stackcls("check", fitted.files.safe_model)
    assert status == 1
    assert "  problem: file: not the file that model.json describes: `stackcls fit` was interrupted there, or" in out
