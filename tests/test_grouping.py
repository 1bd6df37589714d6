"""Duplicates in the feature file of a run: counted, listed, kept in one fold, drawn."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from stackcls import grouping
from stackcls.errors import ConfigError, SourceError, TrainingError
from stackcls.inspect import duplicates as inspected
from stackcls.report import text
from stackcls.report.results import Report
from stackcls.stages import duplicates, features, fit
from stackcls.store import Store
from tests.conftest import make_settings, read_csv, write_hard_photos

CLASSES = ("ant", "bee", "cow", "dog")


def write_copy(photo, target):
    """A file of other bytes that looks the same: one step of brightness here and there."""
    pixels = np.asarray(Image.open(photo)).astype(np.int16)
    steps = np.random.default_rng(0).integers(0, 2, pixels.shape)
    Image.fromarray(np.clip(pixels + steps, 0, 255).astype(np.uint8)).save(target)


@pytest.fixture
def copied(tmp_path, fake_engine):
    """Settings of a store with three near copies under other labels, one under its own, and two exact ones."""
    photos = write_hard_photos(tmp_path / "photos")
    for number in range(3):
        write_copy(photos / "ant" / f"0{number}.png", photos / "bee" / f"copy{number}.png")
    write_copy(photos / "cow" / "05.png", photos / "cow" / "copy.png")
    for name in ("x.png", "y.png"):
        shutil.copy(photos / "dog" / "07.png", photos / "dog" / name)
    settings = make_settings(photos, tmp_path / "artifacts")
    features.run(settings)
    return settings


def grouped(settings, **cv):
    return settings.model_copy(update={"cv": settings.cv.model_copy(update={"groups": "duplicates", **cv})})


def folds_of(settings):
    """Folds of each group's images, groups as the file lists them."""
    fold = {row["path"]: row["fold"] for row in read_csv(settings.files.predictions)}
    groups = {}
    for row in read_csv(settings.files.duplicates):
        groups.setdefault(row["group"], []).append(fold[row["path"]])
    return list(groups.values())


def split_pairs(folds):
    return sum(one != other for group in folds for place, one in enumerate(group) for other in group[:place])


def test_the_groups_are_listed_those_of_two_labels_first(copied):
    fit.run(copied)
    rows = read_csv(copied.files.duplicates)
    groups = [[row["path"] for row in rows if row["group"] == str(number)] for number in range(1, 6)]
    assert sorted(groups[:3]) == [[f"ant/0{number}.png", f"bee/copy{number}.png"] for number in range(3)]
    assert groups[3] == ["dog/07.png", "dog/x.png", "dog/y.png"]
    assert groups[4] == ["cow/05.png", "cow/copy.png"]
    assert [row["kind"] for row in rows] == ["near"] * 6 + ["exact"] * 3 + ["near"] * 2
    assert [row["label"] for row in rows] == [row["path"].split("/")[0] for row in rows]
    assert {row["similarity"] for row in rows if row["kind"] == "exact"} == {"1.0000"}


def test_fit_counts_what_it_does_not_keep_together(copied):
    report = fit.run(copied).report
    found = report.duplicates
    assert (found.exact_pairs, found.near_pairs, found.groups, found.images, found.conflicting) == (3, 4, 5, 11, 3)
    assert found.straddling == split_pairs(folds_of(copied)) > 0
    assert (found.grouped, found.ungrouped) == (False, {})
    said = "Duplicates: 7 pairs (3 exact, 4 near), 3 with two different labels; duplicates.csv lists them."
    assert f"{said} {found.straddling} of them" in text.summary(report)
    assert "`--set cv.groups=duplicates`" in text.summary(report)
    assert Report.load(copied.files.report) == report


@pytest.mark.parametrize("recipe", ["in-sample", "out-of-fold"])
def test_groups_stay_in_one_fold_and_the_other_score_is_stated(copied, recipe):
    copied = copied.model_copy(update={"stack": copied.stack.model_copy(update={"recipe": recipe})})
    plain = fit.run(copied).report
    report = fit.run(grouped(copied)).report
    assert split_pairs(folds_of(copied)) == 0
    found = report.duplicates
    assert found.grouped
    assert found.straddling == plain.duplicates.straddling
    assert found.ungrouped == {name: score.mean for name, score in plain.scores.items()}
    assert report.scores["stack"].mean != plain.scores["stack"].mean
    assert report.settings["splits"] == "stratified, grouped"
    plain_score, score = 100 * found.ungrouped["stack"], 100 * report.scores["stack"].mean
    said = f"plain folds, in which {found.straddling} would straddle, score {plain_score:.2f}; folds that keep"
    assert f"{said} each group together score {score:.2f} (other folds alone move this too)." in text.summary(report)
    assert "without (other folds alone move this too)</caption>" in copied.files.page.read_text("utf-8")


def test_duplicates_join_groups_that_are_given(copied, tmp_path):
    lines = ["path,label,group"]
    for path in sorted(copied.images.rglob("*.png")):
        name = path.relative_to(copied.images).as_posix()
        lines.append(f"{name},{path.parent.name},{'a' if name in ('ant/00.png', 'dog/00.png') else ''}")
    (copied.images / "manifest.csv").write_text("\n".join(lines))
    settings = make_settings(copied.images / "manifest.csv", copied.artifacts)
    features.run(settings)
    fit.run(grouped(settings))
    fold = {row["path"]: row["fold"] for row in read_csv(settings.files.predictions)}
    assert fold["ant/00.png"] == fold["dog/00.png"] == fold["bee/copy0.png"]
    assert split_pairs(folds_of(settings)) == 0


def test_the_order_of_the_backbones_does_not_matter(copied, monkeypatch):
    monkeypatch.setattr(inspected, "DIMENSIONS", 5)
    with Store(copied.files.features) as store:
        first, second = (grouping.look(store, names)[0] for names in (("one", "two"), ("two", "one")))
    np.testing.assert_array_equal(first.similarity, second.similarity)
    assert first.similarity.max() > first.threshold


def test_given_groups_and_duplicates_merge_by_way_of_each_other():
    found = inspected.Found(np.arange(6), np.array([0, 0, 2, 3, 3, 5]), np.zeros(6), 0.5)
    np.testing.assert_array_equal(grouping.merged(None, found), found.group)
    merged = grouping.merged(np.array([10, 7, 7, 11, 12, 13]), found)
    assert len(set(merged[:3])) == 1
    assert merged[3] == merged[4]
    assert len(set(merged.tolist())) == 3
    some = inspected.Found(np.array([50, 90]), np.array([50, 90]), np.zeros(2), 0.5)
    assert len(set(grouping.merged(np.array([1, 2]), some))) == 2


def test_a_class_of_copies_is_too_rare_and_the_message_says_of_what(copied):
    fox = copied.images / "fox"
    fox.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        shutil.copy(copied.images / "dog" / "09.png", fox / name)
    features.run(copied)
    assert "fox" in fit.run(copied).report.classes
    with pytest.raises(
        TrainingError, match="need at least 3 images or groups of duplicates of each class, but 'fox' has 1"
    ):
        fit.run(grouped(copied))
    report = fit.run(grouped(copied, rare="drop")).report
    assert report.classes == list(CLASSES)
    assert report.duplicates.groups == 5


def test_a_copy_of_what_is_held_out_is_not_learned_from(copied):
    plain = copied.model_copy(update={"cv": copied.cv.model_copy(update={"holdout": 0.3})})
    plain = plain.model_copy(update={"report": copied.report.model_copy(update={"depth": "quick"})})
    pairs = [(f"ant/0{number}.png", f"bee/copy{number}.png") for number in range(3)]
    for settings in (plain, grouped(plain)):
        report = fit.run(settings).report
        held = {row["path"] for row in read_csv(copied.files.holdout)}
        learned = {row["path"] for row in read_csv(copied.files.predictions)}
        astride = [pair for pair in pairs if len(held & set(pair)) == 1]
        assert astride, "the hash of the path parts some of them"
        assert not [pair for pair in astride if learned & set(pair)]
        # All that is neither held out nor learned from is counted.
        assert report.holdout.left_out == 66 - len(held) - len(learned) >= len(astride)
        assert any("since a copy of each, exact or near, or one of its group" in note for note in report.notes)


def test_copies_do_not_vouch_for_each_other(copied, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "stackcls.inspect.suspects.with_neighbours", lambda shares, given, unit, groups: asked.append(groups) or shares
    )
    fit.run(copied.model_copy(update={"report": copied.report.model_copy(update={"depth": "full"})}))
    group = {row["path"]: number for row, number in zip(read_csv(copied.files.predictions), asked[0], strict=True)}
    assert group["ant/00.png"] == group["bee/copy0.png"] != group["ant/01.png"]
    assert group["dog/07.png"] == group["dog/x.png"] == group["dog/y.png"]
    assert len(set(group.values())) == 66 - 6


def test_depth_decides_how_far_to_look(copied, monkeypatch):
    quick = copied.model_copy(update={"report": copied.report.model_copy(update={"depth": "quick"})})
    report = fit.run(quick).report
    assert (report.duplicates.exact_pairs, report.duplicates.near_pairs, report.duplicates.threshold) == (3, 0, 1)
    assert not report.duplicates.near_looked_for
    assert "Duplicates: 3 pairs (exact copies only: near ones were not looked for);" in text.summary(report)
    assert "1 group: 3 exact pairs, near ones were not looked for." in quick.files.page.read_text("utf-8")
    monkeypatch.setattr(grouping, "QUICK", 50)
    report = fit.run(copied).report
    assert report.duplicates.near_pairs == 0
    note = "near-duplicates were not looked for among 64 images, only exact ones (--set report.depth=full does)"
    assert note in report.notes
    assert fit.run(grouped(copied)).report.duplicates.near_pairs == 4


def test_of_few_images_nobody_says_that_none_are_alike(tmp_path, fake_engine):
    settings = make_settings(write_hard_photos(tmp_path / "photos", per_class=5), tmp_path / "artifacts")
    features.run(settings)
    report = fit.run(settings).report
    assert (report.n_images, report.duplicates.near_looked_for) == (20, False)
    note = "near-duplicates were not looked for among 20 images, only exact ones: it takes more than 20 different"
    assert note in text.summary(report)
    page = settings.files.page.read_text("utf-8")
    assert "No two images are exact copies; near ones were not looked for." in page
    assert "or nearly" not in page
    fit.run(settings.model_copy(update={"cv": settings.cv.model_copy(update={"holdout": 0.25, "rare": "drop"})}))
    said = "near copies of what is held out may have been learned from, since none were looked for"
    assert said in Report.load(settings.files.report).notes


def test_without_duplicates_the_file_has_a_head_and_the_summary_nothing(hard):
    report = fit.run(hard).report
    assert (report.duplicates.groups, report.duplicates.near_looked_for) == (0, True)
    assert hard.files.duplicates.read_text() == "group,path,label,kind,similarity\n"
    assert "Duplicates" not in text.summary(report)


def test_the_command_lists_and_draws(copied, stackcls, tmp_path):
    shared = ["--artifacts", copied.artifacts, "--set", f"images={copied.images}"]
    sheet = tmp_path / "sheet.png"
    status, out, err = stackcls("duplicates", *shared, "--sheet", sheet)
    assert status == 0, err
    assert "5 groups of duplicates, 11 images" in err
    assert out.count("\n") == 2 + 11
    assert Image.open(sheet).size == (3 * 160, 5 * 200)
    _, out, _ = stackcls("duplicates", *shared, "--format", "csv")
    fit.run(copied)
    assert out == copied.files.duplicates.read_text()
    _, out, _ = stackcls("duplicates", *shared, "--format", "json")
    raw = json.loads(out)
    assert [len(group) for group in raw] == [2, 2, 2, 3, 2]
    assert raw[3][0] == {"path": "dog/07.png", "label": "dog", "kind": "exact", "similarity": 1.0}


def test_a_sheet_replaces_sheets_alone(copied, tmp_path):
    photo = copied.images / "ant" / "00.png"
    before = photo.read_bytes()
    with pytest.raises(ConfigError, match=r"--sheet: .* is there, and not written by this command; give another name"):
        duplicates.run(copied, sheet=photo)
    with pytest.raises(ConfigError, match=r"--sheet: .* is no \.png file"):
        duplicates.run(copied, sheet=tmp_path / "sheet.jpg")
    assert photo.read_bytes() == before
    for _ in range(2):
        duplicates.run(copied, sheet=tmp_path / "sheet.png")
    shutil.rmtree(copied.images)
    with pytest.raises(SourceError):
        duplicates.run(copied, sheet=tmp_path / "sheet.png")


def test_unlabelled_images_have_duplicates_too(tmp_path, fake_engine):
    photos = write_hard_photos(tmp_path / "photos", classes=("",), per_class=30)
    write_copy(photos / "03.png", photos / "copy.png")
    settings = make_settings(photos, tmp_path / "artifacts")
    features.run(settings)
    (group,) = duplicates.run(settings)
    assert [(one.path, one.label) for one in group] == [("03.png", None), ("copy.png", None)]
