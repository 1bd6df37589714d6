"""`model.safetensors`: predicts as the pickle does, to the last bit, executes nothing, and refuses what it is not."""

import io
import json
import pickle
import subprocess
import sys
import zipfile

import joblib
import numpy as np
import pytest
from safetensors import numpy as arrays_of

from stackcls import load, safemodel
from stackcls.errors import ModelError
from stackcls.stages import features, fit
from tests.conftest import make_settings, write_photos


@pytest.fixture
def fitted(settings, fake_engine):
    """Settings whose artifacts hold a fitted model."""
    features.run(settings)
    fit.run(settings)
    return settings


@pytest.fixture(scope="session")
def one_model(tmp_path_factory):
    """A model's bytes, fitted once."""
    from stackcls import engines
    from tests.conftest import FakeEngine

    folder = tmp_path_factory.mktemp("safe")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engines, "choose", lambda name, precision: engines.Choice(FakeEngine(), "fake"))
        settings = make_settings(write_photos(folder / "photos"), folder / "artifacts")
        features.run(settings)
        fit.run(settings)
    return settings.files.safe_model.read_bytes()


def rewritten(data, change):
    """A sealed file with another description or other arrays, as someone else can make it."""
    arrays = dict(arrays_of.load(data))
    description = json.loads(header(data)["__metadata__"]["stackcls"])
    change(description, arrays)
    description["sha256"] = ""
    return safemodel._sealed(description, arrays)


def header(data):
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


@pytest.mark.parametrize("per_class", [["blue", "red"], ["blue", "green", "red"]])
@pytest.mark.parametrize("recipe", ["in-sample", "out-of-fold"])
def test_both_formats_predict_the_same_to_the_last_bit(tmp_path, fake_engine, per_class, recipe):
    photos = write_photos(tmp_path / "photos", 9, per_class)
    settings = make_settings(photos, tmp_path / "artifacts", stack={"recipe": recipe, "class_weight": "balanced"})
    features.run(settings)
    fit.run(settings)
    images = sorted(photos.glob("*/*.png"))
    pickled, safe = joblib.load(settings.files.model), load(settings.files.safe_model)
    assert safe.predict_proba(images).tobytes() == pickled.predict_proba(images).tobytes()
    assert safe.predict(images).tolist() == pickled.predict(images).tolist()
    assert safe.classes_.tolist() == pickled.classes_.tolist()
    assert safe.backbones == pickled.backbones
    assert safe.created_with == pickled.created_with
    assert (safe.engine, safe.batch_size) == (pickled.engine, pickled.batch_size)
    assert safe.trained_on.tobytes() == pickled.trained_on.tobytes()
    assert {**safe.classifier.get_params(), "widths": (8, 8)} == pickled.classifier.get_params() | {"widths": (8, 8)}
    assert safe.classifier.converged_ == pickled.classifier.converged_
    X = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    for ours, theirs in zip(safe.classifier.bases_, pickled.classifier.bases_, strict=True):
        # With more features than here, the last bit hangs on it.
        assert ours.estimator.coef_.strides == theirs.estimator.coef_.strides
        assert ours.predict_proba(X).tobytes() == theirs.predict_proba(X).tobytes()
    assert safe.classifier.meta_.coef_.strides == pickled.classifier.meta_.coef_.strides
    # One that was opened can be written again, in both formats.
    joblib.dump(safe, tmp_path / "again.joblib")
    assert (
        joblib.load(tmp_path / "again.joblib").predict_proba(images).tobytes() == safe.predict_proba(images).tobytes()
    )


def test_the_same_fit_gives_the_same_bytes(fitted, one_model):
    first = fitted.files.safe_model.read_bytes()
    fit.run(fitted)
    assert fitted.files.safe_model.read_bytes() == first


def test_any_reader_of_safetensors_opens_it(one_model):
    arrays = arrays_of.load(one_model)
    assert sorted(name for name in arrays if not name.startswith("space.")) == [
        *("base.0.coef", "base.0.intercept", "base.1.coef", "base.1.intercept"),
        *("meta.coef", "meta.intercept", "trained_on"),
    ]
    assert list(header(one_model)["__metadata__"]) == ["stackcls"]


def test_every_flipped_bit_is_found(one_model, tmp_path):
    path = tmp_path / "model.safetensors"
    random = np.random.default_rng(0)
    head = 8 + int.from_bytes(one_model[:8], "little")
    places = {*range(64), *random.integers(0, head * 8, 200), *random.integers(0, len(one_model) * 8, 300)}
    places.add(len(one_model) * 8 - 1)
    for place in sorted(map(int, places)):
        flipped = bytearray(one_model)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(ModelError, match=r"damaged|use a newer stackcls"):
            load(path)


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_a_file_cut_short_or_longer_is_refused(one_model, tmp_path, length):
    path = tmp_path / "model.safetensors"
    for data in (one_model[:length], one_model + b"\0" * (length % 5 + 1)):
        path.write_bytes(data)
        with pytest.raises(ModelError, match="damaged"):
            load(path)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return open, (self.target, "w")


def as_pickle(payload):
    return pickle.dumps(payload)


def as_joblib(payload):
    buffer = io.BytesIO()
    joblib.dump(payload, buffer)
    return buffer.getvalue()


def as_object_array(payload):
    buffer = io.BytesIO()
    np.savez(buffer, coef=np.array([payload], dtype=object))
    return buffer.getvalue()


def as_zip_with_odd_names(payload):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../evil.py", "import os")
        file.writestr("schema.json", json.dumps({"__class__": "system", "__module__": "os"}))
        file.writestr("content.pkl", pickle.dumps(payload))
        file.writestr("bomb", b"\0" * 10_000_000)
    return buffer.getvalue()


@pytest.mark.parametrize("make", [as_pickle, as_joblib, as_object_array, as_zip_with_odd_names])
def test_a_payload_is_refused_and_nothing_executed(stackcls, photos, tmp_path, make):
    target, path = tmp_path / "executed", tmp_path / "model.safetensors"
    path.write_bytes(make(Payload(target)))
    with pytest.raises(ModelError, match="not a model of stackcls in the safetensors format, or damaged"):
        load(path)
    for arguments in (["predict", photos, "--model", path], ["evaluate", photos, "--model", path]):
        status, out, err = stackcls(*arguments)
        assert (status, out) == (1, "")
        assert "not a model of stackcls" in err
    assert not target.exists()
    assert not (tmp_path / "evil.py").exists()
    pickle.loads(pickle.dumps(Payload(target))).close()  # the payload would have worked
    assert target.exists()


@pytest.mark.parametrize("inside", [as_pickle, as_object_array])
def test_a_payload_in_an_array_or_a_string_stays_data(one_model, tmp_path, inside):
    target, path = tmp_path / "executed", tmp_path / "model.safetensors"
    data = inside(Payload(target))
    path.write_bytes(rewritten(one_model, lambda _, arrays: arrays.update(evil=np.frombuffer(data, np.uint8))))
    with pytest.raises(ModelError, match="unknown arrays: evil"):
        load(path)
    path.write_bytes(rewritten(one_model, lambda said, _: said["created_with"].update(evil=data.decode("latin-1"))))
    assert load(path).created_with["evil"] == data.decode("latin-1")
    assert not target.exists()


def test_opening_unpickles_nothing(one_model, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(one_model)
    script = f"""
import pickle, sys
sys.modules["_pickle"] = None
def refuse(*args, **kwargs): raise AssertionError("unpickled")
pickle.loads = pickle.load = pickle.Unpickler = refuse
import joblib, numpy
joblib.load = refuse
from stackcls import load
model = load({str(path)!r})
assert "sklearn" not in sys.modules
print(model.predict_proba_features({{"one": numpy.ones((1, 8)), "two": numpy.ones((1, 8))}}).shape)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "(1, 3)\n"), done.stderr


def change_backbone(**changes):
    """Another first backbone, whose identity follows."""

    def change(said, _):
        from stackcls.backbones import Backbone

        said["backbones"][0]["backbone"].update(changes)
        identity = said["backbones"][0]["identity"]
        plain = said["backbones"][0]["backbone"]
        backbone = Backbone(**{**plain, "arguments": tuple(plain["arguments"].items())})
        identity.update(vars(backbone.identity(identity["weights"], "float32")))

    return change


def put(path, value):
    """Another value somewhere in the description."""

    def change(said, _):
        *parents, last = path
        for key in parents:
            said = said[key]
        said[last] = value

    return change


def array(name, value):
    return lambda _, arrays: arrays.update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(["version"], 2), "model format 2, this stackcls reads 1; use a newer stackcls"),
        (put(["version"], "1"), "says that it is .*, not 'stackcls-model' and a version"),
        (put(["format"], "other"), r"says that it is \('other', 1\)"),
        (put(["extra"], 1), "its description is not as format 1 says: extra: "),
        (put(["classes"], ["a", "b"]), "base.0: coef of shape"),
        (put(["classes"], ["a", "a", "b"]), "at least two different names are needed"),
        (put(["classes"], "abc"), "format 1 says: classes: "),
        (put(["engine"], "os.system"), "format 1 says: engine: "),
        (put(["batch_size"], 10**9), "batch_size 1000000000: 1 to 4096 is allowed"),
        (put(["stack", "temperature"], 0.0), "a temperature above 0"),
        (put(["stack", "widths"], [8]), "base.1|longer|shorter"),
        (put(["stack", "widths"], [10**9, 8]), "base.0: coef of shape"),
        (put(["stack", "recipe"], "evil"), "format 1 says: stack.recipe: "),
        (put(["backbones"], []), "longer|shorter"),
        (change_backbone(architecture="imagenet_utils"), "backbone.architecture: 'imagenet_utils' is not a known one"),
        (change_backbone(architecture="__class__"), "backbone.architecture: '__class__' is not a known one"),
        (change_backbone(preprocessing="exec"), "backbone.preprocessing: Input should be 'keras', 'caffe'"),
        (change_backbone(pooling="exec"), "backbone.pooling: Input should be 'average' or 'max'"),
        (change_backbone(input_size=10**6), "backbone.input_size: Input should be less than or equal to 4096"),
        (change_backbone(name=5), "backbone.name: Input should be a valid string"),
        (change_backbone(weights=None), "backbone.weights: Input should be a valid string"),
        (put(["backbones", 0, "identity", "precision"], "float8"), "precision 'float8'; float32, bfloat16, int8 are"),
        (put(["backbones", 0, "hints"], ["a.h5"] * 3), "backbones.0.hints: "),
        (change_backbone(seed=7), "its weights are random, but not by its seed"),
        (change_backbone(weights="imagenet"), "its weights have no SHA-256"),
        (change_backbone(name="a\x1b[2J"), "a name is printable"),
        (put(["backbones", 0, "backbone", "input_size"], 64), "its identity is not the one of its settings"),
        (put(["backbones", 0, "backbone", "more"], 1), "backbone.more: Extra inputs are not permitted"),
        (put(["backbones", 0, "basis"], ["int8-ranges", "{}"]), "basis.0"),
        (array("base.0.coef", np.full((3, 8), np.nan, np.float32)), "base.0.coef: has NaN or infinite numbers"),
        (array("base.0.coef", np.ones((3, 7), np.float32)), r"base.0: coef of shape \(3, 7\)"),
        (array("base.0.coef", np.ones((3, 8), np.int32)), "base.0.coef: numbers of kind int32; f4 or f8 needed"),
        (array("trained_on", np.ones(3)), "trained_on: numbers of kind float64; u8 needed"),
        (array("more", np.ones(3)), "unknown arrays: more"),
        (lambda _, arrays: arrays.pop("meta.coef"), "meta.coef: this array is missing; run `stackcls fit` again"),
    ],
)
def test_a_sealed_file_that_no_fit_wrote_is_refused(one_model, tmp_path, change, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(rewritten(one_model, change))
    with pytest.raises(ModelError, match=message):
        load(path)


def test_a_file_of_other_arrays_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    for metadata in (None, {"stackcls": "no JSON"}, {"stackcls": "[]"}, {"stackcls": "[" * 100_000}, {"a": "b"}):
        path.write_bytes(arrays_of.save({"a": np.ones(3)}, metadata))
        with pytest.raises(ModelError, match="not a model of stackcls in the safetensors format, or damaged"):
            load(path)


def test_a_file_too_large_is_not_read(tmp_path, monkeypatch, one_model):
    path = tmp_path / "model.safetensors"
    path.write_bytes(one_model)
    monkeypatch.setattr(safemodel, "MAX_BYTES", len(one_model) - 1)
    with pytest.raises(ModelError, match="larger than 0 GB, which no model of stackcls is"):
        load(path)
