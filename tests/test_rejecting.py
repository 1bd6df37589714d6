"""`predict --reject`, and what a model carries for it."""

import csv
import io
import json
import subprocess
import sys

import joblib
import numpy as np
import pytest
from PIL import Image

from stackcls import load
from stackcls.errors import ConfigError, ModelError
from stackcls.report.results import Report
from stackcls.stages import features, fit
from tests.conftest import make_settings, write_photos
from tests.test_safemodel import array, one_model, put, rewritten  # noqa: F401  (a fixture)

CLASSES = ("blue", "green", "red", "teal", "wine")


@pytest.fixture
def settings(tmp_path, fake_engine):
    """Settings whose artifacts hold a fitted model of five colours."""
    made = make_settings(write_photos(tmp_path / "photos", 9, CLASSES), tmp_path / "artifacts")
    features.run(made)
    fit.run(made)
    return made


@pytest.fixture
def strange(tmp_path):
    """Pictures of nothing that the model knows."""
    paths = [tmp_path / "strange" / f"{number}.png" for number in range(6)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        stripes = np.zeros((20, 24, 3), np.uint8)
        stripes[:, : 6 + 2 * number] = (255, 255, 0)
        stripes[: 3 + number, :, number % 3] = 255
        Image.fromarray(stripes).save(path)
    return paths


@pytest.fixture
def photos(tmp_path):
    """New photos of known classes."""
    return sorted(write_photos(tmp_path / "new", 3, CLASSES, seed=5).glob("*/*.png"))


def test_what_is_no_known_class_is_unknown_in_every_format(stackcls, settings, photos, strange):
    arguments = ["predict", *strange, *photos, "--model", settings.files.safe_model, "--format"]
    status, plain, _ = stackcls(*arguments, "json")
    assert status == 0
    status, out, _ = stackcls(*arguments, "json", "--reject", "0.5")
    assert status == 0
    rows, before = json.loads(out), json.loads(plain)
    labels = [row["label"] for row in rows]
    assert labels[:6].count("unknown") >= 5
    assert labels[6:].count("unknown") <= 3
    # All but the label stays.
    assert [{**row, "label": 0} for row in rows] == [{**row, "label": 0} for row in before]
    assert all(row["label"] in (old["label"], "unknown") for row, old in zip(rows, before, strict=True))
    _, out, _ = stackcls(*arguments, "csv", "--reject", "0.5")
    assert [row["label"] for row in csv.DictReader(io.StringIO(out))] == labels
    _, out, _ = stackcls(*arguments, "table", "--reject", "0.5")
    lines = out.splitlines()[2:]
    for row, line in zip(rows, lines, strict=True):
        assert f" {row['label']} " in line
        # The likeliest class is still to be read.
        assert row["top"][0]["label"] in line


def test_thresholds_reject_more_and_more(stackcls, settings, photos, strange):
    arguments = ["predict", *photos, *strange, "--model", settings.files.safe_model, "--format", "csv", "--reject"]
    counts = [stackcls(*arguments, str(reject))[1].count(",unknown,") for reject in (0, 0.2, 0.8, 1)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, len(photos) + len(strange))


def test_both_formats_are_equally_certain_to_the_last_bit(settings, photos, strange):
    pickled, safe = joblib.load(settings.files.model), load(settings.files.safe_model)
    images = [*photos, *strange]
    assert safe.certainty(images).tobytes() == pickled.certainty(images).tobytes()
    assert safe.predict(images, reject=0.5).tolist() == pickled.predict(images, reject=0.5).tolist()
    assert np.array_equal(safe.predict(images, 0.5) == "unknown", safe.certainty(images) < 0.5)
    assert safe.certainty(photos).mean() > safe.certainty(strange).mean() + 0.3


def test_stored_features_are_judged_as_their_images(stackcls, settings):
    images = sorted(settings.images.glob("*/*.png"))
    model = load(settings.files.safe_model)
    with features.Store(settings.files.features) as store:
        stored = {name: store.read_rows(name, np.arange(len(images))) for name in store.matrices}
    np.testing.assert_allclose(model.certainty_features(stored), model.certainty(images), rtol=1e-5)
    expected = model.predict(images, reject=0.9).tolist()
    assert model.predict_features(stored, reject=0.9).tolist() == expected
    _, out, _ = stackcls(
        "predict", settings.files.features, "--model", settings.files.safe_model, "--format", "csv", "--reject", "0.9"
    )
    assert [row["label"] for row in csv.DictReader(io.StringIO(out))] == expected
    assert "unknown" in expected


def test_a_bad_image_stays_an_error(stackcls, settings, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    _, out, _ = stackcls(
        "predict", tmp_path / "bad.png", "--model", settings.files.safe_model, "--format", "json", "--reject", "0.5"
    )
    assert json.loads(out)[0]["label"] is None


@pytest.mark.parametrize("value", ["1.5", "-0.1", "often"])
def test_what_is_no_probability(stackcls, settings, photos, value):
    status, _, err = stackcls("predict", photos[0], "--model", settings.files.safe_model, "--reject", value)
    assert status == 2
    assert "--reject" in err


@pytest.mark.parametrize("value", ["a", [0.5], True + 1, float("nan")])
def test_what_is_no_probability_in_python(settings, photos, value):
    model = load(settings.files.safe_model)
    with pytest.raises(ConfigError, match=r"reject: .* is not a probability; a number from 0 to 1 is allowed"):
        model.predict(photos, reject=value)
    assert len(model.predict(photos[:1], reject=np.float32(0.5))) == 1


def test_a_class_of_that_name(stackcls, tmp_path, fake_engine):
    settings = make_settings(write_photos(tmp_path / "photos", 6, ("blue", "unknown")), tmp_path / "artifacts")
    features.run(settings)
    fit.run(settings)
    image = next(settings.images.glob("*/*.png"))
    arguments = ["predict", image, "--model", settings.files.safe_model]
    assert stackcls(*arguments)[0] == 0
    status, _, err = stackcls(*arguments, "--reject", "0.5")
    assert status == 1
    assert "has a class 'unknown'" in err
    assert "another name" in err
    said = settings.files.report_text.read_text("utf-8")
    assert "With predict --reject" not in said
    assert "a class is called 'unknown', as images of no known class would be: `predict --reject` is refused" in said


def test_a_model_of_before(stackcls, settings, photos, tmp_path):
    def older(description, arrays):
        del description["familiarity"]
        for name in [name for name in arrays if name.startswith("space.")]:
            del arrays[name]

    path = tmp_path / "model.safetensors"
    path.write_bytes(rewritten(settings.files.safe_model.read_bytes(), older))
    expected = load(settings.files.safe_model).predict(photos).tolist()
    assert load(path).predict(photos).tolist() == expected
    status, _, err = stackcls("predict", photos[0], "--model", path, "--reject", "0.5")
    assert status == 1
    assert "run `stackcls fit` again" in err
    pickled = joblib.load(settings.files.model)
    state = {key: value for key, value in pickled.__getstate__().items() if key != "familiarity"}
    pickled.__setstate__(state)
    assert pickled.predict(photos).tolist() == expected
    with pytest.raises(ModelError, match="fit` again"):
        pickled.certainty(photos)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(["familiarity", "weights"], [0.0, float("nan"), 1.0, 1.0]), "familiarity"),
        (put(["familiarity", "weights"], [0.0, 1.0]), "familiarity"),
        (put(["familiarity", "views"], 0), "familiarity.views: Input should be greater than or equal to 1"),
        (put(["familiarity", "views"], 10**9), "familiarity.views: Input should be less than or equal to 3"),
        (put(["familiarity", "views"], 2), "unknown arrays: space.2"),
        (put(["familiarity", "measured"], 1), "familiarity.measured: Input should be a valid boolean"),
        (put(["familiarity"], None), "unknown arrays: space"),
        (array("space.0.counts", np.ones(2, np.int64)), "images of every class"),
        (array("space.2.counts", np.array([3, 0, 3])), "images of every class"),
        (array("space.0.counts", np.ones(3, np.float32)), "space.0.counts: numbers of kind float32"),
        (array("space.0.0.axes", np.ones((8, 3), np.float32)), "space.0.0: arrays of shapes"),
        (array("space.0.0.axes", np.full((8, 2), np.inf, np.float32)), "space.0.0.axes: has NaN or infinite"),
        (array("space.2.1.spread", np.full(2, -1, np.float32)), "no negative spread"),
        (array("space.0.1.nuisances", np.ones((8, 4), np.float32)), "space.0.1: arrays of shapes"),
        (array("space.0.2.axes", np.ones((8, 2), np.float32)), "unknown arrays: space.0.2.axes"),
        (lambda _, arrays: arrays.pop("space.1.1.means"), "space.1.1.means: this array is missing"),
    ],
)
def test_a_forged_file_is_refused(one_model, tmp_path, change, message):  # noqa: F811
    path = tmp_path / "model.safetensors"
    path.write_bytes(rewritten(one_model, change))
    with pytest.raises(ModelError, match=message):
        load(path)


def test_forged_numbers_that_overflow_are_unknown(one_model, tmp_path):  # noqa: F811
    def huge(description, arrays):
        for name in ("axes", "means", "centre"):
            arrays[f"space.0.0.{name}"] = np.full_like(arrays[f"space.0.0.{name}"], 3e38)
        description["familiarity"]["weights"] = [0.0, 1e308, 1e308, 1e308]

    path = tmp_path / "model.safetensors"
    path.write_bytes(rewritten(one_model, huge))
    rows = {name: np.ones((2, 8), np.float32) for name in ("one", "two")}
    assert load(path).predict_features(rows, reject=0.5).tolist() == ["unknown", "unknown"]


def test_rejecting_needs_no_scikit_learn(settings):
    code = (
        "import sys, numpy, stackcls\n"
        f"model = stackcls.load({str(settings.files.safe_model)!r})\n"
        "model.predict_features({name: numpy.ones((2, 8)) for name in ('one', 'two')}, reject=0.5)\n"
        "raise SystemExit('sklearn' in sys.modules or 'scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_report_says_what_thresholds_do(stackcls, settings):
    report = Report.load(settings.files.report)
    assert report.unknown.auroc is not None
    text = settings.files.report_text.read_text("utf-8")
    assert "With predict --reject 0.5, " in text
    section = text.split("## Images of no known class")[1].split("\n## ")[0]
    assert section.count("\n| 0") == len(report.unknown.trades)
    first, second = (", ".join(group) for group in report.unknown.left_out)
    assert f"Classes left out: {first} + {second}, each tried once." in section
    assert "and each tried once" in settings.files.page.read_text("utf-8")
    _, out, _ = stackcls("report", settings.files.report)
    assert "With predict --reject 0.5, " in out


def test_the_report_of_a_quick_fit_says_what_was_not_measured(settings):
    quick = settings.model_copy(update={"report": settings.report.model_copy(update={"depth": "quick"})})
    report = fit.run(quick).report
    assert report.unknown.auroc is None
    text = settings.files.report_text.read_text("utf-8")
    assert "what becomes of images of classes never seen was not measured" in text
    assert load(settings.files.safe_model).familiarity is not None


def test_a_threshold_that_was_not_measured_is_said_so_in_one_line(stackcls, settings, photos, strange):
    arguments = ["predict", *photos, "--format", "csv", "--model"]
    assert "not measured" not in stackcls(*arguments, settings.files.safe_model, "--reject", "0.5")[2]
    fit.run(settings.model_copy(update={"report": settings.report.model_copy(update={"depth": "quick"})}))
    for path in (settings.files.safe_model, settings.files.model):
        status, _, err = stackcls(*arguments, path, "--reject", "0.5")
        assert status == 0
        (line,) = [line for line in err.splitlines() if "not measured" in line]
        assert "reject: 0.5 was not measured on classes never seen" in line
        assert "run `stackcls fit --report full`" in line
        assert "not measured" not in stackcls(*arguments, path)[2]
    pickled, safe = joblib.load(settings.files.model), load(settings.files.safe_model)
    assert (pickled.familiarity.measured, safe.familiarity.measured) == (False, False)
    assert safe.certainty(strange).tobytes() == pickled.certainty(strange).tobytes()
