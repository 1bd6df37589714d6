"""Before a model file is opened, the card beside it must describe it and suit this machine."""

import json
import os
import shutil

import joblib
import pytest

from stackcls import load, modelfile
from stackcls.errors import ModelError, ModelMissing
from stackcls.files import digest_file
from stackcls.stages import features, fit
from tests.conftest import make_settings


@pytest.fixture
def fitted(settings, fake_engine):
    """Settings whose artifacts hold a fitted model."""
    features.run(settings)
    fit.run(settings)
    return settings


def edit_card(settings, **changes):
    """Change what `model.json` says."""
    card = json.loads(settings.files.model_card.read_text("utf-8"))
    settings.files.model_card.write_text(json.dumps(card | changes), "utf-8")


def test_load_opens_what_fit_wrote(fitted):
    assert load is modelfile.load
    for path in (fitted.files.model, str(fitted.files.model)):
        assert load(path).predict(fitted.images / "red" / "00.png").tolist() == ["red"]


def test_the_card_describes_the_model(fitted):
    model = joblib.load(fitted.files.model)
    card = json.loads(fitted.files.model_card.read_text("utf-8"))
    assert card["sha256"] == digest_file(fitted.files.model)
    assert card["classes"] == model.classes_.tolist()
    assert list(card["backbones"]) == ["one", "two"]
    assert card["backbones"]["one"]["identity"]["weights"] == "random:1"
    report = json.loads(fitted.files.report.read_text("utf-8"))
    assert card["scores"] == {name: score["mean"] for name, score in report["scores"].items()}
    assert {"scikit-learn", "mlxtend", "stackcls"} <= card["created_with"].keys()


def test_load_refuses_a_changed_file(fitted):
    content = bytearray(fitted.files.model.read_bytes())
    content[len(content) // 2] ^= 1
    fitted.files.model.write_bytes(content)
    with pytest.raises(ModelError, match=r"model.joblib: not the file that model.json describes, or damaged"):
        load(fitted.files.model)


@pytest.mark.parametrize("name", ["scikit-learn", "mlxtend"])
def test_load_refuses_other_library_versions(fitted, name):
    versions = json.loads(fitted.files.model_card.read_text("utf-8"))["created_with"]
    edit_card(fitted, created_with=versions | {name: "0.1.2"})
    with pytest.raises(
        ModelError, match=f"made with {name} 0.1.2, here is .*; install {name}==0.1.2, use model.safe.*or run"
    ):
        load(fitted.files.model)
    edit_card(fitted, created_with={key: value for key, value in versions.items() if key != name})
    with pytest.raises(ModelError, match=f"made with {name} unknown"):
        load(fitted.files.model)
    # A bug-fix release predicts the same.
    minor = ".".join(versions[name].split(".")[:2])
    edit_card(fitted, created_with=versions | {name: f"{minor}.99"})
    assert load(fitted.files.model).classes_.tolist() == ["blue", "green", "red"]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model.joblib", "`stackcls fit` writes model.safetensors, model.joblib and its card"),
        ("model.json", "cannot be checked, and opening it can run code: use model.safetensors, or joblib.load if you"),
    ],
)
def test_load_needs_both_files(fitted, missing, message):
    (fitted.artifacts / missing).unlink()
    with pytest.raises(ModelMissing, match=f"{missing}: no such file; .*{message}"):
        load(fitted.files.model)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "Invalid JSON"),
        (b"{}", "sha256: Field required"),
        (b"[]", "Input should be an object"),
        (b"\xff", "Invalid JSON"),
        (b'{"sha256": 1}', "sha256: Input should be a valid string"),
    ],
)
def test_load_refuses_a_card_of_something_else(fitted, content, what):
    fitted.files.model_card.write_bytes(content)
    with pytest.raises(
        ModelError, match=rf"model.json: not the description of a model \({what}.*\); run `stackcls fit`"
    ):
        load(fitted.files.model)


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_a_broken_card_beside_a_safe_model_is_told(fitted, stackcls, content):
    image = sorted(fitted.images.rglob("*.png"))[0]
    told = "model.json: not the description of a model ("
    assert told not in stackcls("predict", image, "--model", fitted.files.safe_model)[2]
    fitted.files.model_card.write_bytes(content)
    status, out, err = stackcls("predict", image, "--model", fitted.files.safe_model)
    assert status == 0
    assert "blue" in out
    (line,) = [line for line in err.splitlines() if told in line]
    assert line.startswith("warning: ")
    assert line.endswith("model.safetensors is sound in itself, but whether it is of the same fit cannot be told")
    status, out, _ = stackcls("check", fitted.files.safe_model)
    assert status == 0
    assert "  remark: model.json: " in out
    assert load(fitted.files.safe_model).classes_.tolist() == ["blue", "green", "red"]


def test_a_card_that_lacks_a_part_names_it(fitted, stackcls):
    backbones = json.loads(fitted.files.model_card.read_text("utf-8"))["backbones"]
    del backbones["one"]["identity"]["layer"]
    edit_card(fitted, backbones=backbones)
    with pytest.raises(ModelError, match=r"\(backbones: one: identity: layer: Field required\)"):
        load(fitted.files.model)
    assert "backbones: one: identity: layer: Field required" in stackcls("check", fitted.files.model)[1]


def test_load_refuses_another_format(fitted):
    edit_card(fitted, format=2)
    with pytest.raises(ModelError, match="model format 2, this stackcls reads 1"):
        load(fitted.files.model)


def test_load_refuses_a_pickle_of_something_else(fitted):
    joblib.dump({"a": 1}, fitted.files.model)
    edit_card(fitted, sha256=digest_file(fitted.files.model))
    with pytest.raises(ModelError, match="holds a dict, not a model of stackcls"):
        load(fitted.files.model)


def test_a_fit_that_ended_between_two_renames_is_found_out_in_both_formats(fitted, monkeypatch):
    """Whatever can be opened is of the same fit as the report."""
    old = {path: path.read_bytes() for path in fitted.artifacts.iterdir()}
    again = make_settings(fitted.images, fitted.artifacts, cv={"seed": 7}, stack={"base": {"C": 1e-6}})
    for renames in range(len(old) - 1):  # the feature file stays
        for path, content in old.items():
            path.write_bytes(content)
        done, replace = [], os.replace

        def replacing(source, target, done=done, replace=replace, renames=renames):
            if len(done) == renames:
                raise KeyboardInterrupt
            done.append(target)
            replace(source, target)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", replacing)
            with pytest.raises(KeyboardInterrupt):
                fit.run(again)
        check_that_models_fit_the_report(fitted, old, renames)


def check_that_models_fit_the_report(fitted, old, renames):
    models = (fitted.files.safe_model, fitted.files.model)
    reports = [path for path in old if path not in (*models, fitted.files.model_card)]
    new = any(path.read_bytes() != old[path] for path in reports)
    for path in models:
        try:
            modelfile.load(path)
        except ModelError as error:
            refused = str(error)
        else:
            refused = ""
        if refused:
            assert renames > 0
            assert "not the file that model.json describes" in refused
            assert "run `stackcls fit` again" in refused
        else:
            assert not new
            assert path.read_bytes() == old[path]


def test_a_safe_model_needs_no_card(fitted, tmp_path):
    alone = shutil.copy(fitted.files.safe_model, tmp_path)
    assert load(alone).classes_.tolist() == ["blue", "green", "red"]
    for content in (b"", b"{}", b'{"from": "another program"}'):
        (tmp_path / "model.json").write_bytes(content)
        assert load(alone).classes_.tolist() == ["blue", "green", "red"]
    edit_card(fitted, safe_sha256="0" * 64)
    with pytest.raises(
        ModelError, match=r"model.safetensors: not the file that model.json describes: .*from elsewhere"
    ):
        load(fitted.files.safe_model)


@pytest.mark.parametrize("name", ["features.h5", "model.json", "confusion.png", "."])
def test_what_is_no_model_is_told_so(settings, fake_engine, name):
    features.run(settings)
    fit.run(settings)
    with pytest.raises(ModelError, match=r"is no model; give a model\.safetensors or model\.joblib"):
        load(settings.artifacts / name)
