"""`stackcls evaluate`: honest scores on labelled images that the model never saw."""

import json
import re
import shutil

import joblib
import numpy as np
import pytest
from PIL import Image

from stackcls.report.results import Report
from stackcls.stages import features, fit
from tests.conftest import make_settings, write_hard_photos, write_photo, write_photos


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fitted(settings, fake_engine):
    """Settings whose artifacts hold a fitted model."""
    features.run(settings)
    fit.run(settings)
    return settings


@pytest.fixture
def new(tmp_path):
    """Four new photos of each class."""
    return write_photos(tmp_path / "new", 4, seed=5)


@pytest.fixture
def evaluate(stackcls, fitted, tmp_path):
    """`stackcls evaluate --output`; gives status, standard output, standard error and the report if there is one."""

    def run(*arguments):
        output = tmp_path / "evaluation.json"
        found = stackcls("evaluate", *arguments, "--model", fitted.files.model, "--output", output)
        return *found, Report.load(output) if output.exists() else None

    return run


def shift_photos(source, target):
    """Write photos of nearly the same mean colours, with other noise."""
    for number, path in enumerate(sorted(source.glob("*/*.png"))):
        colour = np.asarray(Image.open(path)).mean(axis=(0, 1)) + (-1) ** number * 12
        write_photo(target / path.parent.name / path.name, colour, 50_000 + number)
    return target


def test_unseen_images_are_scored(evaluate, new):
    status, out, err, report = evaluate(new)
    assert (status, err.startswith("wrote "), err.count("\n")) == (0, True, 1)
    assert "images that the model never saw: 12 images, 3 classes, recipe in-sample" in out
    assert (report.kind, report.n_images, report.notes) == ("evaluation", 12, [])
    assert report.confusion == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]
    assert list(report.scores) == ["one", "two", "stack"]
    assert report.gain.interval is None
    assert "95 %" not in out


def test_scores_are_those_of_the_predictions(stackcls, fake_engine, tmp_path):
    settings = make_settings(write_hard_photos(tmp_path / "photos"), tmp_path / "artifacts")
    features.run(settings)
    images = sorted(shift_photos(settings.images, tmp_path / "new").glob("*/*.png"))
    fit.run(settings)
    status, _, _ = stackcls("evaluate", tmp_path / "new", "--artifacts", settings.artifacts, "--output", "out.json")
    model = joblib.load(settings.files.model)
    given = np.array([path.parent.name for path in images])
    accuracy = float((model.predict(images) == given).mean())
    assert status == 0
    assert 0 < accuracy < 1
    report = Report.load(tmp_path / "out.json")
    assert report.scores["stack"].mean == pytest.approx(accuracy)
    shares = model.predict_proba(images)
    own = shares[np.arange(len(given)), np.searchsorted(model.classes_, given)]
    assert report.calibration.log_loss == pytest.approx(-np.log(own).mean())
    assert report.calibration.temperature == model.classifier.temperature


def test_images_seen_in_training_are_left_out_even_if_renamed(evaluate, fitted, new):
    for number in range(5):
        # Under a wrong label too: what counts is the content.
        shutil.copy(fitted.images / "red" / f"0{number}.png", new / "blue" / f"renamed-{number}.png")
    status, out, err, report = evaluate(new)
    note = "5 images that the model was fitted on were left out"
    assert status == 0
    assert f"warning: {note}" in err
    assert f"Note: {note}." in out
    assert (report.n_images, report.notes) == (12, [note])
    assert report.per_class["blue"].support == 4


def test_unknown_classes_are_left_out(evaluate, new):
    for number in range(3):
        write_photo(new / "猫" / f"{number}.png", (20, 20, 20), number)
    status, out, err, report = evaluate(new)
    note = "3 images of classes that the model does not know were left out: 猫"
    assert status == 0
    assert f"warning: {note}" in err
    assert f"Note: {note}." in out
    assert (report.n_images, report.classes) == (12, ["blue", "green", "red"])


def test_unlabelled_images_are_not_scored(evaluate, new):
    write_photo(new / "no label.png", (20, 20, 20), 1)
    assert evaluate(new)[3].n_images == 12


def test_a_class_without_new_images(evaluate, new):
    shutil.rmtree(new / "green")
    status, _, err, report = evaluate(new)
    assert (status, err.startswith("wrote "), err.count("\n")) == (0, True, 1)
    assert report.per_class["green"].support == 0
    assert report.scores["stack"].balanced_accuracy == 1.0


def test_bad_images_are_counted_and_listed(evaluate, stackcls, fitted, new):
    (new / "red" / "empty.png").write_bytes(b"")
    (new / "red" / "cut.png").write_bytes((new / "red" / "00.png").read_bytes()[:300])
    status, _, err, report = evaluate(new)
    assert (status, report.n_images) == (0, 12)
    assert "2 images could not be read, left out" in err
    assert "red/empty.png: the file is empty" in err
    assert "red/cut.png: " in err
    assert stackcls("evaluate", new, "--model", fitted.files.model, "--strict")[0] == 1


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder, seen: shutil.copytree(seen, folder), "27 images that the model was fitted on were left out"),
        (
            lambda folder, seen: write_photos(folder, 2, ["ant", "bee"]),
            "4 images of classes that .* left out: ant, bee",
        ),
        (lambda folder, seen: write_photo(folder / "a.png", (1, 2, 3), 1), "there are no labels: class folders or"),
        (lambda folder, seen: folder.mkdir(), "no images in .*; looked for"),
        (lambda folder, seen: None, "images: .* does not exist"),
    ],
)
def test_nothing_to_evaluate_on(evaluate, fitted, tmp_path, prepare, message):
    prepare(tmp_path / "other", fitted.images)
    status, out, err, report = evaluate(tmp_path / "other")
    assert (status, out, report) == (1, "", None)
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert re.search(message, err)


def test_only_bad_images(evaluate, tmp_path):
    for number in range(2):
        target = tmp_path / "bad" / "red" / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"no image %d" % number)
    status, out, err, report = evaluate(tmp_path / "bad")
    assert (status, out, report) == (1, "", None)
    assert "red/0.png: not an image that can be read" in err


def test_a_missing_model(stackcls, new):
    status, out, err = stackcls("evaluate", new, "--model", "gone.joblib")
    assert (status, out) == (1, "")
    assert err.startswith("error: gone.joblib: no such file")


def test_the_output_is_a_report(evaluate, stackcls, fitted, new, tmp_path):
    _, shown, _, _ = evaluate(new)
    assert json.loads((tmp_path / "evaluation.json").read_text())["kind"] == "evaluation"
    assert stackcls("report", tmp_path / "evaluation.json") == (0, shown, "")
    _, both, _ = stackcls("report", fitted.files.report, tmp_path / "evaluation.json")
    measured = next(line for line in both.splitlines() if line.startswith("| measured by"))
    assert [cell.strip() for cell in measured.split("|")[2:4]] == ["3 folds, seed 0", "evaluation"]


@pytest.mark.parametrize("name", ["features.h5", "model.json", "model.safetensors"])
def test_only_a_report_is_replaced(fitted, new, stackcls, name):
    file = fitted.artifacts / name
    before = file.read_bytes()
    status, _, err = stackcls("evaluate", new, "--model", fitted.files.model, "--output", file)
    assert status == 2
    assert "--output: " in err
    assert file.read_bytes() == before
