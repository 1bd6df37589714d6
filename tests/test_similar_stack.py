"""Similar to the stack: its out-of-fold probabilities, never mixed up with those of another fit or feature file."""

import csv
import shutil

import numpy as np
import pytest

from stackcls import crossvalidated, engines, modelfile
from stackcls.errors import ConfigError, ModelError, ModelMissing
from stackcls.inspect import neighbours
from stackcls.stages import features, fit, similar
from stackcls.store import Store
from tests.conftest import FakeEngine, make_settings, read_csv, write_hard_photos, write_photo


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Photos on which the learners err, and a stack that was fitted on them."""
    folder = tmp_path_factory.mktemp("made")
    settings = make_settings(write_hard_photos(folder / "photos"), folder / "artifacts")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engines, "choose", lambda *_: engines.Choice(FakeEngine(), "engine: fake"))
        features.run(settings)
    fit.run(settings)
    return folder


@pytest.fixture
def fitted(made, tmp_path, fake_engine):
    """A copy of them for each test."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return make_settings(tmp_path / "photos", tmp_path / "artifacts")


def ratios(shares):
    logs = np.log(shares)
    centred = logs - logs.mean(axis=1, keepdims=True)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def test_an_image_that_was_learned_from_is_compared_by_what_was_said_of_it_when_held_out(fitted, fake_engine):
    fake_engine.batches.clear()
    paths = [row["path"] for row in read_csv(fitted.files.predictions)]
    unit = ratios(np.load(fitted.files.probabilities).astype(np.float64))
    expected = unit @ unit[5]
    expected[5] = -2
    order = np.argsort(-expected, kind="stable")[:4]
    (found,) = similar.run([str(fitted.images / paths[5])], fitted, stack=True, k=4)
    assert [one.path for one in found.neighbours] == [paths[row] for row in order]
    np.testing.assert_allclose([one.similarity for one in found.neighbours], expected[order], atol=1e-5)
    assert fake_engine.computed == {}


def test_other_images_are_compared_by_what_the_final_model_says(fitted, tmp_path):
    paths = [row["path"] for row in read_csv(fitted.files.predictions)]
    write_photo(fitted.images / "bee" / "later.png", (120, 130, 90), 5)
    features.run(fitted)
    shares = np.load(fitted.files.probabilities).astype(np.float64)
    new = write_photo(tmp_path / "new.png", (100, 90, 140), 6)
    later, own = modelfile.load(fitted.files.safe_model).predict_proba([fitted.images / "bee" / "later.png", new])
    unit = ratios(np.vstack([shares, [later]]))
    expected = unit @ ratios(own[None])[0]
    order = np.argsort(-expected, kind="stable")
    (found,) = similar.run([str(new)], fitted, stack=True, k=len(unit))
    names = [*paths, "bee/later.png"]
    assert [one.path for one in found.neighbours] == [names[row] for row in order]
    np.testing.assert_allclose([one.similarity for one in found.neighbours], expected[order], atol=1e-5)


def test_log_ratios_do_not_hang_on_the_temperature_and_tell_sure_images_apart():
    decisions = np.random.default_rng(0).normal(size=(30, 5)) * 9

    def softmax(values):
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    one, other = (neighbours.unit([neighbours.log_ratios(softmax(decisions / heat))]) for heat in (1, 3))
    np.testing.assert_allclose(one, other, atol=1e-5)
    two = neighbours.unit([neighbours.log_ratios(np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]))])
    similarities = two @ two[0]
    assert similarities[0] > similarities[1] > similarities[2]


def test_the_whole_matrix_of_the_stack(fitted, tmp_path):
    path = fitted.images / read_csv(fitted.files.predictions)[0]["path"]
    similar.run([str(path)], fitted, stack=True, matrix=tmp_path / "all.npy")
    unit = ratios(np.load(fitted.files.probabilities).astype(np.float64))
    np.testing.assert_allclose(np.load(tmp_path / "all.npy"), unit @ unit.T, atol=1e-5)


def other_images(settings, tmp_path):
    """What was predicted in another run, of photos that this feature file has not."""
    shutil.rmtree(settings.images / "ant")
    features.run(settings, replace=True)


def other_labels(settings, tmp_path):
    rows = read_csv(settings.files.predictions)
    rows[0]["label"] = "cow" if rows[0]["label"] != "cow" else "bee"
    write(settings, rows)


def other_model(settings, tmp_path):
    other = make_settings(write_hard_photos(tmp_path / "other", per_class=12), tmp_path / "elsewhere")
    features.run(other)
    fit.run(other)
    for name in ("model.safetensors", "model.json"):
        shutil.copy(other.files.folder / name, settings.files.folder)


def other_order(settings, tmp_path):
    write(settings, read_csv(settings.files.predictions)[::-1])


def fewer_rows(settings, tmp_path):
    write(settings, read_csv(settings.files.predictions)[1:])


def write(settings, rows):
    with open(settings.files.predictions, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def no_table(settings, tmp_path):
    settings.files.predictions.write_bytes(b"\xff\0 no table")


def no_array(settings, tmp_path):
    settings.files.probabilities.write_bytes(b"no array")


def an_archive(settings, tmp_path):
    with open(settings.files.probabilities, "wb") as file:
        np.savez(file, np.zeros(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_images, r"cv_predictions\.csv: is of another feature file: ant/00\.png is not in it"),
        (other_labels, r"is of another feature file: .* is labelled .* there and otherwise in it"),
        (other_model, "fitted on other images"),
        (other_order, "does not say what cv_predictions.csv says"),
        (fewer_rows, "of different fits"),
        (no_table, "is no table of predictions"),
        (no_array, "is damaged, or no array"),
        (an_archive, "is damaged, or no array"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(fitted, tmp_path, change, message):
    change(fitted, tmp_path)
    path = next(fitted.images.rglob("*.png"))
    with pytest.raises(ModelError, match=f"{message}.*run `stackcls fit` again"):
        similar.run([str(path)], fitted, stack=True)


@pytest.mark.parametrize("name", ["predictions", "probabilities", "safe_model"])
def test_without_a_fit_there_is_no_stack_to_ask(fitted, name):
    getattr(fitted.files, name).unlink()
    fitted.files.model.unlink()
    with pytest.raises(ModelMissing, match=getattr(fitted.files, name).stem):
        similar.run(["x.png"], fitted, stack=True)


def test_a_backbone_and_the_stack_are_two_things(fitted, stackcls):
    with pytest.raises(ConfigError, match="--backbone one and --stack"):
        similar.run(["x.png"], fitted, stack=True, backbone="one")
    path = next(fitted.images.rglob("*.png"))
    shared = ["--artifacts", str(fitted.artifacts), "--set", f"images={fitted.images}"]
    status, out, err = stackcls("similar", path, "--stack", "-k", "2", *shared)
    assert status == 0, err
    assert out.count("\n") == 4


def test_predictions_are_those_of_the_file(fitted):
    with Store(fitted.files.features) as store:
        found = crossvalidated.predictions(fitted.files.predictions, store.table)
        rows = read_csv(fitted.files.predictions)
        assert [store.table.paths[row] for row in found.rows] == [row["path"] for row in rows]
    assert list(found.given) == [row["label"] for row in rows]
    assert list(found.predicted) == [row["predicted"] for row in rows]
