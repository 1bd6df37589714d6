"""A model from a stranger: what it names is not opened, what it says is not handed on to Keras unseen."""

import json
import os
import sys
from dataclasses import replace
from types import SimpleNamespace

import h5py
import pytest

from stackcls import load, loading, soundness
from stackcls.backbones import SAVED, Backbone
from stackcls.engines import keras_models
from stackcls.errors import ConfigError, ModelError, StoreError, WeightsError
from stackcls.files import digest_file
from stackcls.printable import printable
from stackcls.report import text
from stackcls.settings import FeatureSettings
from stackcls.stages import check, features, fit
from tests import test_safemodel
from tests.conftest import FAKE_BACKBONES, make_settings
from tests.sealing import seal
from tests.test_safemodel import change_backbone, header, put, rewritten

one_model = test_safemodel.one_model
ONE = Backbone("one", "MobileNet", (), 32, "w.weights.h5", 0, None, "average", "keras")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            (change_backbone(arguments={name: value}), f"backbone.arguments.{name}: Extra inputs are not permitted")
            for name, value in [
                ("include_top", True),
                ("classifier_activation", "softmax"),
                ("input_tensor", None),
                ("input_shape", [10**6, 10**6, 3]),
                ("weights", "/etc/passwd"),
                ("classes", 10**9),
                ("pooling", "max"),
                ("name", "x"),
            ]
        ),
        (change_backbone(arguments={"alpha": 1e6}), "arguments.alpha: Input should be less than or equal to 4"),
        (change_backbone(arguments={"alpha": True}), "arguments.alpha: Input should be a valid number"),
        (change_backbone(arguments={"alpha": {"class_name": "Lambda"}}), "arguments.alpha: Input should be a valid"),
        (change_backbone(arguments={"depth_multiplier": 5}), "arguments.depth_multiplier: Input should be less than"),
        (change_backbone(arguments={"dropout": 1.0}), "arguments.dropout: Input should be less than 1"),
        (change_backbone(arguments={"minimalistic": 1}), "arguments.minimalistic: Input should be a valid boolean"),
    ],
)
def test_keras_gets_no_other_arguments_than_a_configuration_can_give(one_model, tmp_path, change, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(rewritten(one_model, change))
    with pytest.raises(ModelError, match=message):
        load(path)
    assert message in soundness.check_model(path).problems[0].what


def test_what_stackcls_decides_wins_over_arguments(monkeypatch):
    """A model that was pickled before the rule may still have others."""
    applications = SimpleNamespace(MobileNet=lambda **given: given)
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(applications=applications))
    odd = replace(ONE, arguments=(("include_top", True), ("weights", "/x"), ("input_shape", None), ("alpha", 0.5)))
    given = keras_models._call(odd, False, None)
    assert given == {"include_top": False, "weights": None, "input_shape": (32, 32, 3), "alpha": 0.5}


def test_features_of_a_backbone_that_no_configuration_can_give_are_not_fitted(settings, fake_engine):
    features.run(settings)
    with h5py.File(settings.files.features, "r+") as file:
        attributes = file["features/one"].attrs
        said = json.loads(attributes["provenance"])
        said["configured"]["arguments"] = {"include_top": True}
        attributes["provenance"] = json.dumps(said)
    seal(settings.files.features)
    unnamed = settings.model_copy(update={"features": FeatureSettings()})
    with pytest.raises(StoreError, match=r"features/one: backbone.arguments.include_top: "):
        fit.run(unnamed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"include_top": True}, r"arguments.include_top: unknown key; known here are alpha, depth_multiplier"),
        ({"classifier_activation": None}, "arguments.classifier_activation: unknown key"),
        ({"alpha": 1e6}, "arguments.alpha: 1000000.0 does not do: a number less than or equal to 4 is needed"),
        ({"alpha": "1"}, "arguments.alpha: '1' does not do: a number is needed"),
    ],
)
def test_a_configuration_follows_the_same_rule(photos, tmp_path, arguments, message):
    entry = {"name": "one", "architecture": "MobileNet", "weights": "random", "arguments": arguments}
    with pytest.raises(ConfigError, match=message):
        make_settings(photos, tmp_path, features={"backbones": [entry]})


def test_arguments_stay_as_they_are_written(photos, tmp_path):
    """They are part of the identity of features that are there already."""
    from stackcls import backbones

    entry = {**FAKE_BACKBONES[0], "arguments": {"depth_multiplier": 2, "alpha": 1}}
    settings = make_settings(photos, tmp_path, features={"backbones": [entry]})
    (found,) = backbones.resolve(settings.features)
    assert found.identity("x", "float32").arguments == '{"alpha": 1, "depth_multiplier": 2}'
    assert Backbone.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def leaves(said, path=()):
    """Every place in a description."""
    yield path
    for key, value in said.items() if isinstance(said, dict) else enumerate(said) if isinstance(said, list) else ():
        yield from leaves(value, (*path, key))


def test_whatever_a_description_says_there_is_no_traceback(one_model, tmp_path):
    path = tmp_path / "model.safetensors"
    said = json.loads(header(one_model)["__metadata__"]["stackcls"])
    for place in [place for place in leaves(said) if place]:
        for value in (5, -1, 1.5, True, None, "x", [], {}, [[]], "1" * 5000):
            path.write_bytes(rewritten(one_model, put(place, value)))
            result = soundness.check_model(path)
            assert result.sound or result.problems[0].what, place
            check.as_text([result])


@pytest.fixture
def opened(monkeypatch):
    """Every file whose content was read to compare it."""
    from stackcls import weightfiles

    paths = []
    monkeypatch.setattr(weightfiles, "digest_file", lambda path: paths.append(path) or digest_file(path))
    return paths


def find(folder, content_of, hints, architecture="MobileNet"):
    identity = replace(ONE.identity(digest_file(content_of), "float32"), architecture=architecture)
    return loading.find_recorded("one", identity, [str(hint) for hint in hints], folder)


def test_hints_are_followed_to_weights_alone(tmp_path, opened):
    folder, weights = tmp_path / "model", tmp_path / "w.weights.h5"
    folder.mkdir()
    weights.write_bytes(b"weights")
    secret = tmp_path / "id_rsa"
    secret.write_bytes(b"weights")
    for hints in ([weights], ["../w.weights.h5"], ["gone.h5", weights]):
        assert find(folder, weights, hints).samefile(weights)
    opened.clear()
    device = tmp_path / "zero.h5"
    device.symlink_to("/dev/zero")
    (tmp_path / "empty.h5").touch()
    (tmp_path / "folder.h5").mkdir()
    odd = ["/dev/zero", secret, device, tmp_path / "empty.h5", tmp_path / "folder.h5", "a\0b.h5", "x" * 5000 + ".h5"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.h5")
        odd.append(tmp_path / "pipe.h5")
    for hint in odd:
        with pytest.raises(WeightsError, match="needs the weights with SHA-256") as caught:
            find(folder, weights, [hint])
        assert "is another file" not in str(caught.value)
    assert not [path for path in opened if tmp_path in path.parents]


@pytest.mark.parametrize("hint", ["//server/share/w.h5", r"\\server\share\w.h5", r"\\?\UNC\server\share\w.h5"])
def test_no_network_share_is_asked(tmp_path, monkeypatch, hint):
    from stackcls import weightfiles

    asked = []
    monkeypatch.setattr(weightfiles, "may_be_weights", lambda path, _: asked.append(str(path)))
    weights = tmp_path / "w.h5"
    weights.write_bytes(b"weights")
    with pytest.raises(WeightsError, match="needs the weights") as caught:
        find(tmp_path, weights, [hint])
    assert not [path for path in asked if "server" in path]
    assert "server" not in str(caught.value)


def test_what_cannot_be_read_is_passed_over(tmp_path, monkeypatch):
    from stackcls import weightfiles

    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("a.h5", "b.h5"):
        (folder / name).write_bytes(b"weights")

    def digest(path):
        if path.name == "a.h5":
            raise PermissionError(13, "Permission denied", str(path))
        return digest_file(path)

    monkeypatch.setattr(weightfiles, "digest_file", digest)
    assert find(folder, folder / "b.h5", ["a.h5"]) == folder / "b.h5"


@pytest.mark.parametrize("name", ["saved.h5", "saved.hdf5", "saved.KERAS.h5"])
def test_a_saved_model_is_opened_as_keras_alone(photos, tmp_path, name):
    """The older format runs code that the file brings."""
    saved = tmp_path / name
    saved.write_bytes(b"a model")
    with pytest.raises(WeightsError, match=r"for files with \.keras: copy"):
        find(tmp_path, saved, [name], SAVED)
    saved.rename(tmp_path / "saved.keras")
    assert find(tmp_path, tmp_path / "saved.keras", [name], SAVED) == tmp_path / "saved.keras"
    entry = {"name": "one", "model": str(saved), "preprocessing": "tf"}
    with pytest.raises(ConfigError, match=f"'one' has the model '{name}'; a .keras file is needed"):
        make_settings(photos, tmp_path, features={"backbones": [entry]})


def test_a_report_of_someone_else_is_shown_harmlessly(photos, tmp_path, fake_engine):
    settings = make_settings(photos, tmp_path / "artifacts")
    features.run(settings)
    report = fit.run(settings).report
    odd = replace(report, recipe="a\x1b[2J\nb", gain=replace(report.gain, over="c\x9b2J\nd"))
    for written in (text.summary(odd), text.document(odd)):
        assert not [line for line in written.split("\n") if line != printable(line)]
        assert r"recipe a\x1b[2J\nb" in written
        assert r"backbone, c\x9b2J\nd: " in written


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_help_says_which_models_run_code(stackcls, verb):
    said = " ".join(stackcls(verb, "--help")[1].split())
    assert "Opening a .joblib file runs whatever code is in it: give one only if you trust who made it" in said
