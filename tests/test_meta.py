"""What decides on the averaged probabilities, and one C per backbone: from the settings to the model file and back."""

import json
from dataclasses import replace

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from stackcls import modelfile, tuning, validation
from stackcls.errors import ConfigError, ModelError
from stackcls.listener import Silent
from stackcls.safemodel import load
from stackcls.settings import Settings, StackSettings
from stackcls.stack import StackedClassifier, from_settings
from stackcls.stacksettings import METAS
from stackcls.stages import evaluate, features, fit
from tests.conftest import make_settings, write_hard_photos, write_photos
from tests.test_safemodel import put, rewritten
from tests.test_validation import make_training_set

EACH = {"one": 0.5, "two": 20.0}


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_average_takes_the_class_that_is_most_probable(n_classes):
    data = make_training_set(n_classes=n_classes)
    model = StackedClassifier((7, 5), meta="average").fit(data.X, data.y)
    average = model.average_probabilities(data.X)
    np.testing.assert_array_equal(model.predict(data.X), average.argmax(axis=1))
    # The softmax of both classes' decisions is that of their probabilities.
    expected = np.exp(average) / np.exp(average).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(data.X), expected, rtol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_logistic_regression_learns_from_the_averaged_probabilities(n_classes):
    data = make_training_set(n_classes=n_classes)
    model = StackedClassifier((7, 5), meta="logistic-regression", meta_C=3.0, class_weight="balanced")
    model.fit(data.X.astype(np.float64), data.y)
    average = model.average_probabilities(data.X.astype(np.float64))
    expected = LogisticRegression(C=3.0, class_weight="balanced", tol=1e-8, max_iter=1000).fit(average, data.y)
    np.testing.assert_allclose(model.meta_.coef_, expected.coef_, rtol=0.02, atol=0.02)
    assert (type(model.meta_), model.meta_.C) == (LogisticRegression, 3.0)


def test_each_backbone_has_the_strength_that_is_named_for_it():
    data = make_training_set()
    model = validation.cross_validate(data, Settings(stack={"base": {"C": EACH}}), False, Silent()).model
    assert [base.estimator.C for base in model.bases_] == [0.5, 20.0]
    for base, C in zip(model.bases_, EACH.values(), strict=True):
        expected = LogisticRegression(C=C, max_iter=1000).fit(data.X[:, base.columns], data.y)
        np.testing.assert_allclose(base.estimator.coef_, expected.coef_, rtol=0.01, atol=0.01)
    same = StackedClassifier((7, 5), base_C=[0.5, 20.0]).fit(data.X, data.y)
    np.testing.assert_allclose(model.decision_function(data.X), same.decision_function(data.X), rtol=1e-6)


@pytest.mark.parametrize(
    ("C", "message"),
    [
        ({"one": 1.0}, r"^stack\.base\.C: has one, and the backbones are one, two: give one number for each, or one"),
        ({**EACH, "three": 1.0}, r"has one, three, two, and the backbones are one, two"),
        ({"o\x1bne": 1.0, "two": 1.0}, r"has o\\x1bne, two"),
    ],
)
def test_strengths_of_other_backbones_are_refused(C, message):
    with pytest.raises(ConfigError, match=message):
        from_settings(StackSettings(base={"C": C}), (7, 5), 0, ("one", "two"))


MATRICES = ("one", "one+covariance", "two+max", "two+covariance")


@pytest.mark.parametrize(
    ("C", "expected"),
    [
        ({"one": 0.5, "two": 20.0}, (0.5, 0.5, 20.0, 20.0)),
        ({"one": 0.5, "one+covariance": 3.0, "two": 20.0}, (0.5, 3.0, 20.0, 20.0)),
        (dict(zip(MATRICES, (1.0, 2.0, 3.0, 4.0), strict=True)), (1.0, 2.0, 3.0, 4.0)),
    ],
)
def test_a_backbone_s_name_stands_for_all_its_matrices(C, expected):
    assert from_settings(StackSettings(base={"C": C}), (7, 5, 7, 5), 0, MATRICES).base_C == expected


@pytest.mark.parametrize(
    "C", [{"one": 1.0}, {"one": 1.0, "two+max": 1.0}, {"one": 1.0, "two": 1.0, "one+max": 1.0}, {"one+covariance": 1.0}]
)
def test_names_of_matrices_are_told_where_backbones_have_several(C):
    message = r"the backbones are one, two: give one number for each, .*; a single matrix can have its own: one, one"
    with pytest.raises(ConfigError, match=message):
        from_settings(StackSettings(base={"C": C}), (7, 5, 7, 5), 0, MATRICES)


def test_tuning_starts_from_the_number_of_the_backbone(monkeypatch):
    monkeypatch.setattr(tuning, "FACTORS", (1.0,))
    data = replace(make_training_set(), names=("one", "one+covariance"))
    chosen = tuning.search(data, Settings(stack={"tune": 1, "base": {"C": {"one": 0.5}}}), Silent()).choices
    assert all(choice.base_C == {"one": 0.5, "one+covariance": 0.5} for choice in chosen)


def test_bad_parameters_of_the_estimator_are_refused():
    data = make_training_set()
    with pytest.raises(ValueError, match=r"base_C \(1, 2, 3\): one number, or one for each of 2 blocks, is needed"):
        StackedClassifier((7, 5), base_C=(1, 2, 3)).fit(data.X, data.y)
    with pytest.raises(ValueError, match="meta 'mean' is not one of linear-svm, logistic-regression, average"):
        StackedClassifier((7, 5), meta="mean").fit(data.X, data.y)


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ({"base": {"C": 0}}, r"stack\.base\.C: 0 does not do: a number above 0, or a mapping of one for each"),
        ({"base": {"C": {"one": 1, "two": "much"}}}, r"stack\.base\.C: 'much' for 'two' does not do"),
        ({"base": {"C": {}}}, r"stack\.base\.C: {} does not do"),
        ({"base": {"C": True}}, r"stack\.base\.C: true does not do"),
        ({"meta": {"kind": "svm"}}, r"stack\.meta\.kind: 'svm' is not one of linear-svm, logistic-regression, average"),
        ({"tune": 0}, r"stack\.tune: 0 does not do: .*greater than 0"),
    ],
)
def test_bad_settings_are_refused(tmp_path, stack, message):
    with pytest.raises(ConfigError, match=message):
        make_settings(tmp_path, tmp_path, stack=stack)


@pytest.mark.parametrize("kind", METAS)
@pytest.mark.parametrize("classes", [("blue", "green", "red"), ("blue", "red")])
def test_both_model_files_predict_the_same(tmp_path, fake_engine, kind, classes):
    stack = {"base": {"C": EACH}, "meta": {"kind": kind, "C": 2}, "recipe": "out-of-fold"}
    settings = make_settings(write_photos(tmp_path / "photos", 9, classes), tmp_path / "artifacts", stack=stack)
    features.run(settings)
    fit.run(settings)
    images = sorted((tmp_path / "photos").glob("*/*.png"))
    pickled, safe = joblib.load(settings.files.model), load(settings.files.safe_model)
    expected = pickled.predict_proba(images)
    assert safe.predict_proba(images).tobytes() == expected.tobytes()
    assert safe.classifier.get_params() == {**pickled.classifier.get_params(), "widths": (8, 8)}
    assert safe.predict_proba(images).tobytes() == expected.tobytes()  # by scikit-learn's estimators now
    card = json.loads(settings.files.model_card.read_text("utf-8"))
    assert (card["base_C"], card["meta"], card["meta_C"], card["recipe"]) == (EACH, kind, 2.0, "out-of-fold")


@pytest.mark.parametrize("kind", METAS)
def test_all_that_takes_a_model_takes_each_kind(tmp_path, fake_engine, kind):
    photos = write_hard_photos(tmp_path / "photos")
    sections = {"stack": {"base": {"C": EACH}, "meta": {"kind": kind}}, "cv": {"holdout": 0.2}}
    settings = make_settings(photos, tmp_path / "artifacts", report={"depth": "full"}, **sections)
    features.run(settings)
    report = fit.run(settings).report
    assert set(report.contributions) == {"one", "two"}
    again, _ = evaluate.run(photos, settings.files.safe_model)
    assert again.scores["stack"].mean == pytest.approx(report.holdout.scores["stack"].mean)
    model = modelfile.load(settings.files.safe_model)
    images = sorted(photos.glob("*/*.png"))[:6]
    assert set(model.predict(images, reject=0.5)) <= {*model.classes_, "unknown"}
    assert report.settings["meta.kind"] == kind


def test_a_file_with_too_few_strengths_is_refused(tmp_path, fake_engine):
    settings = make_settings(write_photos(tmp_path / "photos"), tmp_path / "artifacts")
    features.run(settings)
    fit.run(settings)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(rewritten(settings.files.safe_model.read_bytes(), put(["stack", "base_C"], [1.0])))
    with pytest.raises(ModelError, match=r"stack\.base_C: one number, or one per backbone, is needed"):
        load(bad)
