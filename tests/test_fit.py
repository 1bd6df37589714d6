"""Stage two from end to end: every artifact there, all of them in agreement, nothing mangled on the way."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import LinearSVC

from stackcls import scoring
from stackcls.errors import ConfigError, IdentityMismatch, SourceError, StoreError, StoreMissing
from stackcls.report import text
from stackcls.report.results import Report
from stackcls.settings import Settings
from stackcls.stages import compare, features, fit
from stackcls.store import Store
from tests.conftest import FAKE_BACKBONES, make_settings, read_csv, write_photos

ODD_NAMES = ("猫", 'a, "quoted" | dog', "Blåmes\nsecond line", "  spaces $x^2$ ")
CONTRACT = {
    *("format", "recipe", "folds", "seed", "n_images", "classes", "scores", "gain", "confusion", "per_class"),
    *("seconds", "created_with"),
}


def test_all_artifacts_are_there_and_nothing_else(hard):
    result = fit.run(hard)
    names = {
        *("features.h5", "model.safetensors", "model.joblib", "model.json"),
        *("report.json", "report.md", "report.html", "confusion.png", "cv_predictions.csv", "cv_probabilities.npy"),
        "label_suspects.csv",
        "duplicates.csv",
    }
    assert {path.name for path in hard.artifacts.iterdir()} == names
    assert {path.name for path in result.files} == names - {"features.h5"}


def test_the_report_keeps_its_contract(hard):
    result = fit.run(hard)
    raw = json.loads(hard.files.report.read_text("utf-8"))
    assert raw.keys() >= CONTRACT
    assert raw["format"] == 1
    assert (raw["recipe"], raw["folds"], raw["seed"], raw["n_images"]) == ("in-sample", 3, 0, 60)
    assert raw["classes"] == ["ant", "bee", "cow", "dog"]
    assert list(raw["scores"]) == ["one", "two", "stack"]
    for score in raw["scores"].values():
        assert len(score["folds"]) == 3
        assert score["mean"] == pytest.approx(np.mean(score["folds"]))
        assert score["std"] == pytest.approx(np.std(score["folds"]))
        assert 0.25 < score["mean"] < 1
    low, high = raw["gain"]["interval"]
    assert low <= raw["gain"]["mean"] <= high
    assert Report.load(hard.files.report) == result.report


def test_odd_class_names_survive_everywhere(tmp_path, fake_engine):
    settings = make_settings(write_photos(tmp_path / "photos", 5, ODD_NAMES), tmp_path / "artifacts")
    features.run(settings)
    report = fit.run(settings).report
    assert report.classes == sorted(ODD_NAMES)
    assert Report.load(settings.files.report) == report
    assert {row["label"] for row in read_csv(settings.files.predictions)} == set(ODD_NAMES)
    assert {row["predicted"] for row in read_csv(settings.files.predictions)} <= set(ODD_NAMES)
    assert json.loads(settings.files.model_card.read_text("utf-8"))["classes"] == sorted(ODD_NAMES)
    page = settings.files.report_text.read_text("utf-8")
    assert "猫" in settings.files.report.read_text("utf-8")
    assert 'a, "quoted" \\| dog' in page
    assert "Blåmes\\nsecond line" in page
    # A cell that broke out of its column would change the number of bars.
    table = page.split("## Classes, the hardest first\n\n")[1].split("\n\n")[0].splitlines()
    assert {line.replace("\\|", "").count("|") for line in table} == {6}
    assert len(table) == 2 + len(ODD_NAMES)


def test_the_picture_is_a_png(hard):
    fit.run(hard)
    with Image.open(hard.files.confusion) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 200


def test_too_many_classes_for_a_confusion_matrix(hard, monkeypatch):
    monkeypatch.setattr(scoring, "MOST_CLASSES", 3)
    assert fit.run(hard).report.confusion == []
    assert "`cv_predictions.csv` has every prediction" in hard.files.report_text.read_text("utf-8")
    assert Image.open(hard.files.confusion).size == (800, 200)


def test_the_text_names_every_learner(hard):
    result = fit.run(hard, baseline="linear-svm")
    page = hard.files.report_text.read_text("utf-8")
    for name, score in result.report.scores.items():
        assert f"| {name} " in page
        assert f"{100 * score.mean:.2f}" in page
    for name, score in result.report.baselines["linear-svm"].items():
        assert f"| {name}, linear-svm " in page
        assert f"{100 * score.mean:.2f}" in page
    assert "3-fold cross-validation: 60 images, 4 classes, recipe in-sample" in page
    assert f"best single backbone, {result.report.gain.over}: {100 * result.report.gain.mean:+.2f} points" in page


def test_the_text_says_which_recipe_ran(hard):
    fit.run(hard.model_copy(update={"stack": hard.stack.model_copy(update={"recipe": "out-of-fold"})}))
    assert "recipe out-of-fold" in hard.files.report_text.read_text("utf-8")


def test_the_baseline_is_a_linear_svm(hard):
    report = fit.run(hard, baseline="linear-svm").report
    with Store(hard.files.features) as store:
        for name, score in report.baselines["linear-svm"].items():
            X = np.empty((60, 8), dtype=np.float32)
            store.read_into(name, X)
            folds = StratifiedKFold(3, shuffle=True, random_state=0)
            expected = cross_val_score(LinearSVC(random_state=0), X, store.table.labels, cv=folds)
            np.testing.assert_array_equal(score.folds, expected)
    assert fit.run(hard).report.baselines == {}


def test_the_same_input_gives_the_same_files(hard):
    first = fit.run(hard).report
    before = hard.files.predictions.read_bytes()
    second = fit.run(hard).report
    assert hard.files.predictions.read_bytes() == before
    assert (second.scores, second.gain, second.calibration) == (first.scores, first.gain, first.calibration)


def test_another_seed_gives_other_folds(hard):
    fit.run(hard)
    before = [row["fold"] for row in read_csv(hard.files.predictions)]
    fit.run(hard.model_copy(update={"cv": hard.cv.model_copy(update={"seed": 1})}))
    assert [row["fold"] for row in read_csv(hard.files.predictions)] != before


def test_without_features(settings):
    with pytest.raises(StoreMissing, match=r"features.h5: no feature file there; `stackcls features` makes one"):
        fit.run(settings)


def test_a_backbone_that_the_store_lacks(hard):
    three = {"name": "three", "architecture": "MobileNet", "input_size": 32, "weights": "random"}
    settings = make_settings(hard.images, hard.artifacts, features={"backbones": [FAKE_BACKBONES[0], three]})
    with pytest.raises(StoreError, match="has features of one, two, not of three: run `stackcls features`"):
        fit.run(settings)


def test_backbones_that_the_configuration_leaves_out(hard):
    settings = make_settings(hard.images, hard.artifacts, features={"backbones": FAKE_BACKBONES[1:]})
    report = fit.run(settings).report
    assert list(report.scores) == ["two", "stack"]
    assert report.gain.over == "two"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 9}, "'one' was made otherwise than configured .*weights: 'random:1' against 'random:9'"),
        ({"input_size": 48}, "input_size: 32 against 48"),
        ({"pooling": "max"}, "pooling: 'average' against 'max'"),
        ({"preprocessing": "caffe"}, "preprocessing: 'keras' against 'caffe'"),
        ({"architecture": "ResNet50"}, "architecture: 'MobileNet' against 'ResNet50'"),
    ],
)
def test_a_store_made_otherwise_than_configured(hard, change, message):
    changed = [{**FAKE_BACKBONES[0], **change}, FAKE_BACKBONES[1]]
    with pytest.raises(IdentityMismatch, match=message):
        fit.run(make_settings(hard.images, hard.artifacts, features={"backbones": changed}))


def test_without_a_list_of_backbones_the_store_s_are_taken(hard):
    settings = make_settings(hard.images, hard.artifacts)
    settings = settings.model_copy(update={"features": type(settings.features)()})
    assert list(fit.run(settings).report.scores) == ["one", "two", "stack"]


def test_precisions_that_differ_are_noted(tmp_path, fake_engine):
    images, artifacts = write_photos(tmp_path / "photos"), tmp_path / "artifacts"
    for backbone, precision in zip(FAKE_BACKBONES, ("float32", "bfloat16"), strict=True):
        features.run(make_settings(images, artifacts, features={"backbones": [backbone], "precision": precision}))
    notes = fit.run(Settings(images=images, artifacts=artifacts)).report.notes
    assert "features of different precision were stacked: one float32, two bfloat16" in notes


def test_reports_side_by_side(hard, tmp_path, stackcls):
    wide = fit.run(hard, baseline="linear-svm").report
    one_backbone = make_settings(hard.images, hard.artifacts, features={"backbones": FAKE_BACKBONES[:1]})
    narrow = fit.run(one_backbone).report
    paths = tmp_path / "wide.json", tmp_path / "narrow.json"
    wide.save(paths[0])
    narrow.save(paths[1])
    status, out, err = stackcls("report", *paths)
    assert (status, err) == (0, "")
    lines = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:4]] for line in out.splitlines()}
    assert lines["accuracy in %"] == ["wide", "narrow"]
    assert lines["one"] == [
        f"{100 * report.scores['one'].mean:.2f} ± {100 * report.scores['one'].std:.2f}" for report in (wide, narrow)
    ]
    assert lines["two"] == [f"{100 * wide.scores['two'].mean:.2f} ± {100 * wide.scores['two'].std:.2f}", ""]
    assert lines["two, linear-svm"][1] == ""
    assert lines["gain over the best"] == [f"{100 * report.gain.mean:+.2f}" for report in (wide, narrow)]
    assert lines["measured by"] == ["3 folds, seed 0"] * 2


def test_reports_of_one_name_are_told_apart(hard, tmp_path):
    report = fit.run(hard).report
    for folder in ("first", "second"):
        report.save(tmp_path / folder / "report.json")
    headline = compare.run([tmp_path / "first/report.json", tmp_path / "second/report.json"]).splitlines()[0]
    assert "first/report" in headline
    assert "second/report" in headline


def test_one_report_is_shown_as_fit_shows_it(hard, stackcls):
    result = fit.run(hard)
    _, out, _ = stackcls("report", hard.files.report)
    assert out == text.summary(result.report)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a report of stackcls"),
        (b"{", "not a report of stackcls"),
        (b"\xff\xfe", "not a report of stackcls"),
        (b"[1, 2]", "not a report of stackcls"),
        (b"{}", r"not a report of stackcls \(recipe: "),
        (None, "no report there; `stackcls fit` writes one"),
    ],
)
def test_a_file_that_is_no_report(tmp_path, content, message):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        compare.run([path])


def test_a_report_of_another_format(hard):
    fit.run(hard)
    hard.files.report.write_text(hard.files.report.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(SourceError, match="report format 2, this stackcls reads 1"):
        compare.run([hard.files.report])


def test_settings_that_do_not_do(hard):
    with pytest.raises(ConfigError, match="recipe: 'in-sampel' is not one of in-sample, out-of-fold"):
        make_settings(hard.images, hard.artifacts, stack={"recipe": "in-sampel"})


def test_a_baseline_that_is_not_known_is_refused(settings):
    with pytest.raises(ConfigError, match="baseline: 'linear-svn' is not one of linear-svm"):
        fit.run(settings, baseline="linear-svn")
