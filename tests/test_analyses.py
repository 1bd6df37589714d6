"""What is found out beside the scores: when it is looked for, and where it is shown."""

import json
from dataclasses import replace

import numpy as np
import pytest

from stackcls import analyses, scoring, validation
from stackcls.inspect import neighbours
from stackcls.report.results import Report
from stackcls.settings import Settings
from stackcls.stages import features, fit
from tests.conftest import FAKE_BACKBONES, make_settings, read_csv, write_photo, write_photos
from tests.pages import Parsed
from tests.test_validation import make_training_set, validate


def with_depth(settings, depth):
    return settings.model_copy(update={"report": settings.report.model_copy(update={"depth": depth})})


@pytest.mark.parametrize(
    ("depth", "large", "full"),
    [("auto", False, True), ("auto", True, False), ("full", True, True), ("quick", False, False)],
)
@pytest.mark.parametrize("limit", [(validation, "LARGE"), (analyses, "PAIRS")])
def test_what_takes_long_is_left_out_where_it_does(monkeypatch, depth, large, full, limit):
    monkeypatch.setattr(*limit, 0 if large else 1e12)
    assert analyses.is_full(make_training_set(), Settings(report={"depth": depth})) == full


@pytest.mark.parametrize("recipe", ["in-sample", "out-of-fold"])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_stack_without_a_backbone_is_the_stack_of_the_others(recipe, n_classes):
    data = make_training_set(n_classes=n_classes)
    data = replace(data, names=("one", "two", "three"), widths=(5, 4, 3))
    wanted = {"stack": {"recipe": recipe}}
    found = validate(data, leave_out=True, **wanted)
    np.testing.assert_array_equal(
        found.predictions.ranking["stack"], validate(data, **wanted).predictions.ranking["stack"]
    )
    columns = {"one": slice(0, 5), "two": slice(5, 9), "three": slice(9, 12)}
    for left_out in columns:
        names = tuple(name for name in columns if name != left_out)
        X = np.hstack([data.X[:, columns[name]] for name in names])
        widths = tuple(columns[name].stop - columns[name].start for name in names)
        others = replace(data, X=X, names=names, widths=widths)
        expected = validate(others, **wanted).predictions.predicted("stack")
        np.testing.assert_array_equal(found.without[left_out], expected)


def test_a_backbone_is_left_out_with_all_its_matrices():
    data = replace(make_training_set(), names=("one", "two", "two+covariance"), widths=(5, 4, 3))
    found = validate(data, leave_out=True)
    assert list(found.without) == ["one", "two"]
    for left_out, columns in {"one": slice(5, 12), "two": slice(0, 5)}.items():
        names = tuple(name for name in data.names if not name.startswith(left_out))
        widths = tuple(width for name, width in zip(data.names, data.widths, strict=True) if name in names)
        expected = validate(replace(data, X=data.X[:, columns], names=names, widths=widths))
        np.testing.assert_array_equal(found.without[left_out], expected.predictions.predicted("stack"))
    costs = {"one": None, "two": 0.2, "two+covariance": 0.2}
    contributions = scoring.contributions(found.predictions, found.without, costs)
    assert {name: item.matrices for name, item in contributions.items()} == {
        "one": ["one"],
        "two": ["two", "two+covariance"],
    }
    assert [item.seconds_per_image for item in contributions.values()] == [None, 0.2]


def test_the_report_says_that_a_backbone_goes_with_all_its_matrices(hard, stackcls):
    both = make_settings(hard.images, hard.artifacts, features={"pooling": ["average", "max"]})
    features.run(both)
    report = fit.run(both).report
    assert list(report.contributions) == ["one", "two"]
    said = "A backbone goes with all its matrices"
    assert f"{said} (one, one+max; two, two+max)." in both.files.report_text.read_text("utf-8")
    assert f"{said}: one, one+max; two, two+max." in Parsed(both.files.page.read_text("utf-8")).text
    alone = make_settings(
        hard.images, hard.artifacts, features={"pooling": ["average", "max"], "backbones": FAKE_BACKBONES[:1]}
    )
    assert fit.run(alone).report.contributions == {}


def test_contributions_by_hand():
    fold, given = np.repeat([0, 1, 2], 10), np.zeros(30, dtype=np.int64)
    right = np.tile([1] * 5 + [0] * 5, 3)
    stacked = np.concatenate([[1] * (5 + more) + [0] * (5 - more) for more in (1, 2, 3)])
    predictions = scoring.Predictions(given, fold, {"stack": np.eye(2)[1 - stacked], "single": np.eye(2)[1 - right]})
    found = scoring.contributions(predictions, {"single": 1 - right}, {"single": 0.5})["single"]
    assert (found.without, found.folds, found.seconds_per_image) == (0.5, [0.5] * 3, 0.5)
    assert found.adds == pytest.approx(0.2)
    scores = {name: scoring.score(predictions, name) for name in predictions.ranking}
    assert found.interval == pytest.approx(scoring.gain(predictions, scores).interval)


def test_the_report_shows_what_each_backbone_adds(hard):
    report = fit.run(hard).report
    assert list(report.contributions) == ["one", "two"]
    assert Report.load(hard.files.report) == report
    page = hard.files.report_text.read_text("utf-8")
    rows = page.split("## What each backbone adds")[1].split("##")[0]
    for name, item in report.contributions.items():
        assert item.adds == pytest.approx(report.scores["stack"].mean - item.without)
        assert f"| {name} " in rows
        assert f"{100 * item.without:.2f}" in rows
        assert f"{100 * item.adds:+z.2f}" in rows
    assert not any("left out" in note for note in report.notes)


def test_one_backbone_cannot_be_left_out(hard):
    alone = make_settings(hard.images, hard.artifacts, features={"backbones": FAKE_BACKBONES[:1]})
    assert fit.run(alone).report.contributions == {}
    assert "What each backbone adds" not in alone.files.report_text.read_text("utf-8")


def test_a_quick_report_says_what_it_lacks(hard, stackcls, tmp_path):
    report = fit.run(with_depth(hard, "quick")).report
    assert report.contributions == {}
    assert "most similar images" not in report.suspects.method
    assert analyses.LEFT_OUT in report.notes
    assert "`fit --report full` does it." in hard.files.report_text.read_text("utf-8")
    file = tmp_path / "pipeline.yaml"
    file.write_text("report: {depth: quick}\n")
    arguments = ["-c", file, "--artifacts", hard.artifacts]
    status, out, _ = stackcls("fit", *arguments, "--report", "full")
    assert (status, "what takes long was left out" in out) == (0, False)
    status, out, _ = stackcls("fit", *arguments)
    assert (status, "what takes long was left out" in out) == (0, True)
    status, _, err = stackcls("fit", *arguments, "--report", "long")
    assert status != 0
    assert "report.depth: 'long' is not one of auto, quick, full" in err


def mislabelled(tmp_path):
    """Photos of three plain colours, two of them in the wrong folder."""
    folder = write_photos(tmp_path / "photos", per_class=20)
    write_photo(folder / "blue" / '=1,"x".png', (190, 70, 60), 77)
    write_photo(folder / "green" / "zz.png", (60, 80, 190), 78)
    return make_settings(folder, tmp_path / "artifacts", stack={"base": {"C": 100.0}})


def test_wrong_labels_are_named(tmp_path, fake_engine, stackcls):
    settings = mislabelled(tmp_path)
    features.run(settings)
    report = fit.run(settings).report
    rows = read_csv(settings.files.suspects)
    assert list(rows[0]) == ["rank", "path", "label", "probability", "suggested", "suggested_probability", "flagged"]
    assert [row["flagged"] for row in rows] == ["yes"] * 2 + ["no"] * 18
    found = {(row["path"], row["label"], row["suggested"]) for row in rows[:2]}
    assert found == {('blue/=1,"x".png', "blue", "red"), ("green/zz.png", "green", "blue")}
    assert [row["rank"] for row in rows] == [str(place) for place in range(1, 21)]
    assert (
        float(rows[0]["probability"]) <= float(rows[1]["probability"]) < 0.5 < float(rows[1]["suggested_probability"])
    )
    assert (report.suspects.flagged, report.suspects.listed) == (2, 20)
    said = "2 labels look wrong: flagged in label_suspects.csv, the most suspicious first."
    assert said in settings.files.report_text.read_text("utf-8")
    _, out, _ = stackcls("report", settings.files.report)
    assert said in out


def test_no_alarm_where_labels_are_right(tmp_path, fake_engine, stackcls):
    settings = make_settings(
        write_photos(tmp_path / "photos", 20), tmp_path / "artifacts", stack={"base": {"C": 100.0}}
    )
    features.run(settings)
    assert fit.run(settings).report.suspects.flagged == 0
    _, out, _ = stackcls("report", settings.files.report)
    assert "look" not in out
    assert "None stands out" in settings.files.report_text.read_text("utf-8")
    assert len(read_csv(settings.files.suspects)) == 20


def test_reports_written_before_are_read(hard):
    """What a report may lack is not needed."""
    fit.run(hard)
    raw = json.loads(hard.files.report.read_text("utf-8"))
    for name in ("contributions", "suspects"):
        del raw[name]
    del raw["calibration"]["bins"]
    hard.files.report.write_text(json.dumps(raw), "utf-8")
    report = Report.load(hard.files.report)
    assert (report.suspects, report.contributions, report.calibration.bins) == (None, {}, [])


def test_all_backbones_weigh_the_same_among_neighbours():
    data = make_training_set()
    together = neighbours.unit([data.block(0, np.arange(120)), data.block(1, np.arange(120))])
    np.testing.assert_allclose(analyses._unit(data), together, rtol=1e-6)
