"""What labels and groups must allow, said before any work."""

import warnings

import numpy as np
import pytest

from stackcls import basefits, stack, training
from stackcls.errors import TrainingError
from stackcls.settings import Settings
from stackcls.stack import StackedClassifier
from stackcls.stages import features, fit
from stackcls.training import TrainingSet
from tests.conftest import make_settings, write_photo, write_photos
from tests.test_validation import validate


def with_counts(counts, groups=None):
    """Training set with so many images of each class."""
    y = np.repeat(np.arange(len(counts)), counts)
    X = np.random.default_rng(0).normal(size=(len(y), 12)).astype(np.float32)
    names = tuple(f"class {number}" for number in range(len(counts)))
    return TrainingSet(X, ("one", "two"), (7, 5), y, names, groups)


@pytest.fixture
def no_fitting(monkeypatch):
    """Fail the test if anything is fitted."""

    def fail(*arguments):
        pytest.fail("fitting began")

    monkeypatch.setattr(StackedClassifier, "fit_base", fail)
    monkeypatch.setattr(basefits, "_fit_svm", fail)


@pytest.mark.parametrize(
    ("counts", "sections", "message"),
    [
        ([9, 2, 9], {}, "3 folds need at least 3 images of each class, but 'class 1' has 2: .*--cv.*cv.rare=drop"),
        ([9, 1, 2], {}, "'class 1' has 1, 'class 2' has 2: add images"),
        ([9, 9], {"cv": {"folds": 10}}, "10 folds need at least 10 .*'class 0' has 9, 'class 1' has 9"),
        ([9] + [1] * 7, {}, "'class 5' has 1 and 2 more classes: "),
        (
            [9, 4],
            {"stack": {"recipe": "out-of-fold"}},
            r"3 folds, and 3 inner ones .*\(stack.inner_folds\), need at least 5 images .*'class 1' has 4",
        ),
        ([9], {}, "at least two classes; found 'class 0'"),
        ([], {}, "at least two classes; found none"),
    ],
)
def test_labels_that_do_not_allow_the_folds(no_fitting, counts, sections, message):
    with pytest.raises(TrainingError, match=message):
        validate(with_counts(counts), baseline=True, **sections)


def test_groups_are_counted_where_there_are_groups(no_fitting):
    groups = np.array([0, 1, 2, 3, 4, 5, 6, 6, 6, 7])
    with pytest.raises(TrainingError, match="at least 3 groups of each class, but 'class 1' has 2"):
        validate(with_counts([6, 4], groups))


def test_a_training_part_without_a_class(no_fitting, monkeypatch):
    class OneSided:
        def split(self, X, y, groups):
            yield np.flatnonzero(y != 1), np.flatnonzero(y == 1)

    monkeypatch.setattr(stack, "splitter", lambda *arguments: OneSided())
    with pytest.raises(TrainingError, match=r"no image of 'class 1': use another seed \(--set cv.seed=1\)"):
        validate(with_counts([6, 6, 6], np.arange(18)))


def test_an_inner_training_part_without_a_class(no_fitting, monkeypatch):
    """Outer folds may be fine where inner ones are not; which groups do that depends on the library's balancing."""
    data = with_counts((12, 12), groups=np.arange(24))

    class Unlucky:
        def __init__(self, folds, *_):
            self.inner = folds == 2

        def split(self, X, y, groups):
            halves = np.flatnonzero(y == 0), np.flatnonzero(y == 1)
            mixed = np.arange(0, len(y), 2), np.arange(1, len(y), 2)
            first, second = halves if self.inner else mixed
            return [(first, second), (second, first)]

    monkeypatch.setattr(stack, "splitter", Unlucky)
    recipe = {"recipe": "out-of-fold", "inner_folds": 2}
    with pytest.raises(TrainingError, match="a training part has no image of 'class 1'"):
        validate(data, stack=recipe)


@pytest.mark.parametrize(
    ("recipe", "folds", "inner_folds", "needed"),
    [
        ("in-sample", 3, 3, 3),
        ("in-sample", 10, 3, 10),
        ("out-of-fold", 3, 3, 5),
        ("out-of-fold", 2, 3, 6),
        ("out-of-fold", 5, 3, 5),
        ("out-of-fold", 3, 5, 8),
    ],
)
def test_images_needed_are_enough_for_all_folds(recipe, folds, inner_folds, needed):
    sections = {"stack": {"recipe": recipe, "inner_folds": inner_folds}, "cv": {"folds": folds}}
    assert training.images_needed(Settings(**sections)) == needed
    with warnings.catch_warnings():
        # What scikit-learn says where a part has too few images of a class, or none.
        warnings.filterwarnings("error", message="The least populated class")
        warnings.filterwarnings("error", message="Number of classes in training fold")
        found = validate(with_counts([needed, 20]), **sections)
    assert all(np.isfinite(ranking).all() for ranking in found.predictions.ranking.values())
    assert np.isfinite(found.shares).all()


def test_rare_classes_fail_the_stage_before_fitting(settings, fake_engine, no_fitting, photos):
    for number in range(2):
        write_photo(photos / "ibis" / f"{number}.png", (20, 20, 20), number)
    features.run(settings)
    with pytest.raises(TrainingError, match=r"'ibis' has 2: .*cv.rare=drop"):
        fit.run(settings)
    assert not settings.files.model.exists()
    assert not settings.files.report.exists()


def test_rare_classes_are_dropped_where_asked(tmp_path, fake_engine, photos):
    settings = make_settings(photos, tmp_path / "artifacts", cv={"rare": "drop"})
    for number in range(2):
        write_photo(photos / "a rare one" / f"{number}.png", (20, 20, 20), number)
    features.run(settings)
    report = fit.run(settings).report
    assert report.classes == ["blue", "green", "red"]
    assert report.n_images == 27
    assert report.notes[:1] == ["classes too rare for the folds were left out: a rare one"]
    assert "a rare one" not in settings.files.predictions.read_text()


def test_dropping_must_leave_two_classes(tmp_path, fake_engine, no_fitting):
    photos = write_photos(tmp_path / "photos", 9, ["blue"])
    write_photos(photos, 2, ["red"])
    settings = make_settings(photos, tmp_path / "artifacts", cv={"rare": "drop"})
    features.run(settings)
    with pytest.raises(TrainingError, match="at least two classes; found 'blue'"):
        fit.run(settings)


def test_unlabelled_images_are_left_out(settings, fake_engine, photos):
    for number in range(4):
        write_photo(photos / f"unknown-{number}.png", (20, 20, 20), number)
    assert features.run(settings).n_images == 31
    report = fit.run(settings).report
    assert report.n_images == sum(map(sum, report.confusion)) == 27
    assert report.notes[:1] == ["4 images without a label were left out"]
    assert "unknown" not in settings.files.predictions.read_text()


def test_no_labels_at_all(tmp_path, fake_engine, no_fitting):
    for number in range(4):
        write_photo(tmp_path / "photos" / f"{number}.png", (20, 20, 20), number)
    settings = make_settings(tmp_path / "photos", tmp_path / "artifacts")
    features.run(settings)
    with pytest.raises(TrainingError, match="none of 4 images has a label; `fit` needs class folders, or a mani"):
        fit.run(settings)


def test_groups_of_a_manifest(tmp_path, fake_engine, photos):
    lines = ["path,label,group"]
    for label in ("blue", "green", "red"):
        # Three to a group, and the last three images each on their own.
        lines += [f"{label}/{number:02d}.png,{label},{f'g{number // 3}' if number < 6 else ''}" for number in range(9)]
    manifest = photos / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    settings = make_settings(manifest, tmp_path / "artifacts", cv={"folds": 5})
    features.run(settings)
    report = fit.run(settings).report
    assert report.notes[:1] == ["images of one group were kept in one fold"]
    assert report.settings["splits"] == "stratified, grouped"
    rows = [line.split(",") for line in settings.files.predictions.read_text().splitlines()[1:]]
    for group in ("g0", "g1"):
        members = {line.split(",")[0] for line in lines[1:] if line.endswith(group)}
        assert len({row[2] for row in rows if row[0] in members}) == 1
    # Images without a group are groups of their own, not one group together.
    alone = {line.split(",")[0] for line in lines[1:] if line.endswith(",")}
    assert len({row[2] for row in rows if row[0] in alone}) > 1
