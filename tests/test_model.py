"""A fitted model predicts images and stored features alike, wherever it lies, and refuses what it cannot use."""

import pickle
import shutil
import subprocess
import sys
import threading

import joblib
import numpy as np
import pytest
import yaml
from PIL import Image

from stackcls import config
from stackcls.errors import IdentityMismatch, ModelError, UnreadableImage, WeightsError
from stackcls.files import digest_file
from stackcls.stages import features, fit
from stackcls.store import Store
from tests.conftest import make_settings, write_photo, write_photos


@pytest.fixture
def fitted(settings, fake_engine):
    """Settings whose artifacts hold a fitted model."""
    features.run(settings)
    fit.run(settings)
    return settings


@pytest.fixture
def model(fitted):
    return joblib.load(fitted.files.model)


def stored_features(settings):
    with Store(settings.files.features) as store:
        matrices = {name: np.empty((len(store.table.paths), 8), np.float32) for name in store.matrices}
        for name, matrix in matrices.items():
            store.read_into(name, matrix)
        return [settings.images / path for path in store.table.paths], matrices


def test_predicts_new_images(model, tmp_path):
    new = write_photos(tmp_path / "new", 3, seed=5)
    images = sorted(new.glob("*/*.png"))
    shares = model.predict_proba(images)
    assert model.classes_.tolist() == ["blue", "green", "red"]
    assert shares.shape == (9, 3)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert model.predict([str(path) for path in images]).tolist() == [path.parent.name for path in images]
    np.testing.assert_array_equal(model.classes_[shares.argmax(axis=1)], model.predict(images))


def test_images_and_stored_features_agree(model, fitted):
    images, matrices = stored_features(fitted)
    # The number of images is no multiple of the batch size.
    np.testing.assert_allclose(model.predict_proba(images), model.predict_proba_features(matrices), rtol=1e-12)
    np.testing.assert_array_equal(model.predict(images), model.predict_features(matrices))
    reordered = dict(reversed(matrices.items()))
    np.testing.assert_array_equal(model.predict_proba_features(reordered), model.predict_proba_features(matrices))


def test_order_and_company_do_not_matter(model, fitted):
    images, _ = stored_features(fitted)
    together = model.predict_proba(images)
    np.testing.assert_allclose(model.predict_proba(images[::-1]), together[::-1], rtol=1e-12)
    np.testing.assert_allclose(model.predict_proba(images[5:6]), together[5:6], rtol=1e-12)


def test_one_path_is_one_image(model, fitted):
    path = fitted.images / "red" / "00.png"
    assert model.predict(str(path)).tolist() == model.predict(path).tolist() == ["red"]


def test_arrays_are_predicted_as_their_files(model, fitted):
    images, _ = stored_features(fitted)
    arrays = [np.asarray(Image.open(path).convert("RGB")) for path in images]
    np.testing.assert_array_equal(model.predict_proba(arrays), model.predict_proba(images))


def test_no_images_give_no_rows(model):
    assert model.predict_proba([]).shape == (0, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "gone 犬.png", r"gone 犬.png: file not found"),
        (lambda folder: write_broken(folder / "broken.png"), r"broken.png: .*damaged or cut short"),
        (lambda folder: np.zeros((4, 4, 3)), r"array 1: an array must be uint8 .* not float64"),
        (lambda folder: np.zeros((4, 4), np.uint8), r"array 1: an array must be .* of \(4, 4\)"),
    ],
)
def test_a_bad_image_is_named(model, fitted, tmp_path, make, message):
    good = fitted.images / "red" / "00.png"
    with pytest.raises(UnreadableImage, match=message):
        model.predict([good, make(tmp_path), good])


def write_broken(path):
    write_photo(path, (9, 9, 9), 0)
    path.write_bytes(path.read_bytes()[:200])
    return path


def test_networks_are_built_once_for_calls_of_one_size(model, fitted, fake_engine, monkeypatch):
    built = []
    prepare = fake_engine.prepare
    monkeypatch.setattr(fake_engine, "prepare", lambda *args: built.append(args[0].backbone.name) or prepare(*args))
    for _ in range(3):
        model.predict(fitted.images / "red" / "00.png")
    assert built == ["one", "two"]


def test_a_model_that_has_predicted_can_be_saved_again(model, fitted, tmp_path, fake_engine, monkeypatch):
    def compiled(*arguments):
        extractor = prepare(*arguments)
        extractor.lock = threading.Lock()  # as little to be pickled as a compiled network
        return extractor

    prepare = fake_engine.prepare
    monkeypatch.setattr(fake_engine, "prepare", compiled)
    image = [fitted.images / "red" / "00.png"]
    before = model.predict_proba(image)
    joblib.dump(model, tmp_path / "again.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "again.joblib").predict_proba(image), before)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(image), before)


def test_knows_the_images_it_was_fitted_on(model, fitted, tmp_path):
    seen = digest_file(fitted.images / "blue" / "03.png")
    new = digest_file(write_photo(tmp_path / "new.png", (1, 2, 3), 99))
    assert model.seen([new, seen, new]).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one, two: {"one": one}, "features of one; the model needs one, two"),
        (lambda one, two: {}, "features of nothing; the model needs one, two"),
        (lambda one, two: {"one": one, "zwei": two}, "features of one, zwei; the model needs one, two"),
        (lambda one, two: {"one": one, "two": two, "three": two}, "features of one, three, two; the model needs"),
        (lambda one, two: {"one": one, "two": two[:, :7]}, r"'two' have shape \(27, 7\); the model needs \(27, 8\)"),
        (lambda one, two: {"one": one[:, :7], "two": two}, r"'one' have shape \(27, 7\); the model needs \(27, 8\)"),
        (lambda one, two: {"one": one, "two": two[:26]}, r"'two' have shape \(26, 8\); the model needs \(27, 8\)"),
        (lambda one, two: {"one": one[0], "two": two}, r"'one' have shape \(8,\)"),
    ],
)
def test_other_features_are_refused(model, fitted, change, message):
    _, matrices = stored_features(fitted)
    with pytest.raises(ModelError, match=message):
        model.predict_features(change(**matrices))


def test_identities_are_compared_field_by_field(model):
    found = {item.backbone.name: item.identity for item in model.backbones}
    model.check_identities(found, "here")
    other = {**found, "two": type(found["two"])(**{**vars(found["two"]), "pooling": "max"})}
    with pytest.raises(IdentityMismatch, match=r"here: 'two' was .* \(pooling: 'average' against 'max'\)"):
        model.check_identities(other, "here")
    with pytest.raises(IdentityMismatch, match="here has features of one; the model needs 'two'"):
        model.check_identities({"one": found["one"]}, "here")


@pytest.mark.slow
def test_a_new_process_predicts(tmp_path, photos):
    config = tmp_path / "pipeline.yaml"
    config.write_text(yaml.safe_dump({"images": "photos", "features": {"backbones": ["mini_vgg"]}}))

    def python(*arguments, folder):
        done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    python("-m", "stackcls", "features", folder=tmp_path)
    python("-m", "stackcls", "fit", folder=tmp_path)
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "artifacts", moved)
    script = "import joblib; m = joblib.load('model.joblib'); print(*m.predict(['../photos/red/00.png']), *m.classes_)"
    assert python("-c", script, folder=moved) == "red blue green red\n"


def test_published_weights_that_went_are_named_with_the_command_that_fetches_them(
    photos, tmp_path, fake_engine, monkeypatch
):
    from stackcls import weightfiles

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(weightfiles, "verify", lambda download: download.target if download.target.exists() else None)
    settings = make_settings(photos, tmp_path / "artifacts", features={"backbones": ["vgg16"], "batch_size": 4})
    file = tmp_path / "keras" / "models" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"published weights")
    features.run(settings)
    fit.run(settings)
    picture = photos / "red" / "00.png"
    assert joblib.load(settings.files.model).predict([picture]).tolist() == ["red"]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "elsewhere"))
    assert joblib.load(settings.files.model).predict([picture]).tolist() == ["red"]
    file.unlink()
    with pytest.raises(WeightsError, match=rf"at fitting {file.name}; looked in .*`stackcls weights`"):
        joblib.load(settings.files.model).predict([picture])


def test_a_backbone_that_was_computed_under_another_name_first(photos, tmp_path, fake_engine):
    entry = {"architecture": "MobileNet", "input_size": 32, "weights": "random", "seed": 1}
    for name in "ab":
        backbones = {"backbones": [{"name": name, **entry}], "batch_size": 4}
        features.run(make_settings(photos, tmp_path / "artifacts", features=backbones))
    settings = config.build({"images": str(photos), "artifacts": str(tmp_path / "artifacts")})
    fit.run(settings)
    fitted = joblib.load(settings.files.model)
    assert [item.backbone.name for item in fitted.backbones] == ["a", "b"]
    assert fitted.predict([photos / "red" / "00.png"]).tolist() == ["red"]
