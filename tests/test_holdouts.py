"""Images that neither folds nor model see: the same ones wherever the folder lies, scored once, beside the folds."""

import re
import shutil

import numpy as np
import pytest

from stackcls import splits, trainingdata
from stackcls.errors import StoreError, TrainingError
from stackcls.listener import Silent
from stackcls.modelfile import load
from stackcls.report import text
from stackcls.report.results import Report
from stackcls.stages import evaluate, features, fit
from stackcls.store import Store
from tests.conftest import make_settings, read_csv, write_photo


def held_out(settings, **cv):
    """Settings that hold images out."""
    return settings.model_copy(update={"cv": settings.cv.model_copy(update=cv)})


def with_manifest(settings, tmp_path, tell):
    """Settings of the same photos by a manifest, `tell` giving label, group and split of each path."""
    rows = ["path,label,group,split"]
    for path in sorted(settings.images.rglob("*.png")):
        rows.append(",".join([str(path), *tell(path)]))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(rows))
    made = make_settings(manifest, tmp_path / "other", cv={"holdout": "split"})
    features.run(made)
    return made


def test_a_hold_out_is_in_no_fold_and_not_in_the_model(hard):
    result = fit.run(held_out(hard, holdout=0.25))
    held = {row["path"] for row in read_csv(hard.files.holdout)}
    learned = {row["path"] for row in read_csv(hard.files.predictions)}
    with Store(hard.files.features) as store:
        table = store.table
    assert held == {path for path in table.paths if splits.place(path) < 0.25}
    assert 5 < len(held) < 25
    assert held.isdisjoint(learned)
    assert held | learned == set(table.paths)
    seen = load(hard.files.safe_model).seen(table.sha256)
    assert [path for path, was in zip(table.paths, seen, strict=True) if not was] == sorted(held)
    assert result.report.n_images == len(learned)
    assert result.report.holdout.n_images == len(held)


def test_scores_of_the_hold_out_are_those_of_the_saved_model(hard, tmp_path):
    report = fit.run(held_out(hard, holdout=0.3)).report
    rows = read_csv(hard.files.holdout)
    for learner, column in (("stack", "predicted"), ("one", "one"), ("two", "two")):
        right = np.mean([row["label"] == row[column] for row in rows])
        assert report.holdout.scores[learner].mean == pytest.approx(right)
    for row in rows:
        target = tmp_path / "new" / row["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(hard.images / row["path"], target)
    apart, _ = evaluate.run(tmp_path / "new", hard.files.safe_model)
    assert apart.n_images == len(rows)
    assert {name: score.mean for name, score in apart.scores.items()} == pytest.approx(
        {name: score.mean for name, score in report.holdout.scores.items()}
    )
    assert apart.calibration.log_loss == pytest.approx(report.holdout.calibration.log_loss, rel=1e-4)


def test_what_is_wrong_is_listed_the_surest_first(hard):
    holdout = fit.run(held_out(hard, holdout=0.5)).report.holdout
    rows = [row for row in read_csv(hard.files.holdout) if row["label"] != row["predicted"]]
    assert 0 < holdout.wrong == len(rows)
    assert {item.path for item in holdout.mistakes} == {row["path"] for row in rows}
    sure = [item.probability for item in holdout.mistakes]
    assert sure == sorted(sure, reverse=True)
    page = hard.files.report_text.read_text("utf-8")
    assert page.index("## Hold-out") < page.index(holdout.mistakes[0].path)
    assert Report.load(hard.files.report).holdout == holdout


def test_the_summary_has_both_scores(hard):
    report = fit.run(held_out(hard, holdout=0.25)).report
    (line,) = (line for line in text.summary(report).splitlines() if line.startswith("Held out"))
    assert "25 % of all, by their paths" in line
    apart, folds = (100 * scores["stack"].mean for scores in (report.holdout.scores, report.scores))
    assert f"stack {apart:.2f} (cross-validated {folds:.2f})" in line
    assert "Held out" not in text.summary(fit.run(hard).report)


def test_a_later_fit_without_a_hold_out_leaves_no_table_of_it(hard):
    fit.run(held_out(hard, holdout=0.25))
    assert hard.files.holdout.exists()
    fit.run(hard)
    assert not hard.files.holdout.exists()


def test_the_same_images_are_held_out_when_the_folder_moves_and_grows(hard, tmp_path):
    fit.run(held_out(hard, holdout=0.25))
    before = {row["path"] for row in read_csv(hard.files.holdout)}
    learned = {row["path"] for row in read_csv(hard.files.predictions)}
    shutil.move(hard.images, tmp_path / "elsewhere" / "pictures")
    for number in range(20):
        write_photo(tmp_path / "elsewhere" / "pictures" / "ant" / f"new{number}.png", (90, 90, 90), 77_000 + number)
    moved = make_settings(tmp_path / "elsewhere" / "pictures", tmp_path / "b", cv={"holdout": 0.25})
    features.run(moved)
    fit.run(moved)
    after = {row["path"] for row in read_csv(moved.files.holdout)}
    assert before <= after
    assert learned.isdisjoint(after)


def test_a_place_is_pinned_and_unicode_spellings_share_it():
    assert splits.place("ant/00.png") == pytest.approx(0.76646, abs=1e-5)
    assert splits.place("Bl\u00e5mes") == splits.place("Bla\u030ames")
    places = [splits.place(f"{number}.jpg") for number in range(2000)]
    assert np.histogram(places, 4, (0, 1))[0].min() > 430


def test_a_split_is_held_out(hard, tmp_path):
    settings = with_manifest(
        hard, tmp_path, lambda path: (path.parent.name, "", {"3": "Test", "7": "val"}.get(path.stem[-1], "train"))
    )
    report = fit.run(settings).report
    paths = [row["path"] for row in read_csv(settings.files.holdout)]
    assert {path[-5] for path in paths} == {"3", "7"}
    assert (report.n_images, report.holdout.n_images, report.holdout.how) == (60 - len(paths), len(paths), "split")


def test_a_strange_split_is_refused_by_name(hard, tmp_path):
    settings = with_manifest(
        hard, tmp_path, lambda path: (path.parent.name, "", "fold3" if path.stem == "03" else "train")
    )
    with pytest.raises(TrainingError, match=r"does not know the split 'fold3'.*train, training.*test"):
        fit.run(settings)


def test_a_split_that_nothing_has_is_an_error_with_a_remedy(hard):
    with pytest.raises(TrainingError, match=r"cv.holdout: 'split' holds out none of 60 .*or give a share"):
        fit.run(held_out(hard, holdout="split"))
    with pytest.raises(TrainingError, match=r"cv.holdout: 1e-09 holds out none .*larger share"):
        fit.run(held_out(hard, holdout=1e-9))
    with pytest.raises(TrainingError, match="holds out every labelled image"):
        fit.run(held_out(hard, holdout=1 - 1e-9))


def test_groups_are_held_out_as_a_whole(hard, tmp_path):
    settings = with_manifest(hard, tmp_path, lambda path: (path.parent.name, f"g{int(path.stem) // 2}", "train"))
    settings = held_out(settings, holdout=0.3)
    fit.run(settings)
    paths = [row["path"] for row in read_csv(settings.files.holdout)]
    held = {int(re.findall(r"(\d+)\.png", path)[0]) // 2 for path in paths}
    learned = {int(re.findall(r"(\d+)\.png", row["path"])[0]) // 2 for row in read_csv(settings.files.predictions)}
    assert held == {number for number in range(8) if splits.place(f"g{number}") < 0.3}
    assert held.isdisjoint(learned)


def test_groups_across_a_split_and_copies_are_not_learned_from(hard, tmp_path):
    shutil.copy(hard.images / "ant" / "00.png", hard.images / "ant" / "99.png")
    settings = with_manifest(
        hard,
        tmp_path,
        lambda path: (
            path.parent.name,
            "pair" if path.stem in ("01", "02") else "",
            "test" if path.stem in ("00", "01") else "",
        ),
    )
    report = fit.run(settings).report
    learned = {row["path"][-6:-4] for row in read_csv(settings.files.predictions)}
    assert learned.isdisjoint({"00", "01", "02", "99"})
    assert report.holdout.left_out == 5
    assert any(note.startswith("5 images were left out, since a copy of each") for note in report.notes)


def test_held_out_images_of_classes_that_are_not_learned_are_not_scored(hard, tmp_path):
    settings = with_manifest(
        hard,
        tmp_path,
        lambda path: (path.parent.name, "", "test" if path.parent.name == "dog" or path.stem < "03" else ""),
    )
    report = fit.run(settings).report
    assert report.classes == ["ant", "bee", "cow"]
    assert report.holdout.n_images == 9
    assert "15 held-out images are of classes that are not learned, and were not scored" in report.notes


def test_a_basis_that_saw_the_hold_out_is_refused(photos, tmp_path, fake_engine):
    settings = make_settings(photos, tmp_path / "a", features={"precision": "int8"})
    features.run(settings)
    with pytest.raises(
        StoreError, match=r"'one' was made with what was fitted on \d+ of the images that cv.holdout: 0.9"
    ):
        fit.run(held_out(settings, holdout=0.9))


def test_a_basis_of_which_nobody_knows_what_it_saw_is_refused(photos, tmp_path, fake_engine, monkeypatch):
    settings = make_settings(photos, tmp_path / "a", features={"precision": "int8"}, cv={"folds": 2, "holdout": 0.3})
    with monkeypatch.context() as patched:
        patched.setattr("stackcls.bases.Basis.fitted_on", lambda self, _: self)  # as stores were made before
        features.run(settings)
    with pytest.raises(
        StoreError, match=r"'one' .* not recorded, .* cv.holdout: 0.3 holds out: run `stackcls features --refit`"
    ):
        fit.run(settings)
    features.run(settings, refit=True)
    assert fit.run(settings).report.holdout.n_images > 0


def test_a_refit_keeps_a_small_sample_off_the_hold_out_and_its_copies(photos, tmp_path, fake_engine):
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    first = next(name for name in names if splits.place(name) < 0.3)
    copy = next(f"{number}.png" for number in range(99) if splits.place(f"red/{number}.png") >= 0.5)
    shutil.copy(photos / first, photos / "red" / copy)
    settings = make_settings(photos, tmp_path / "a", features={"precision": "int8"}, cv={"folds": 2})
    features.run(settings)
    settings = held_out(settings, holdout=0.3)
    with pytest.raises(StoreError, match=r"run `stackcls features --refit` with that setting"):
        fit.run(settings)
    features.run(settings, refit=True)
    drawn = set(fake_engine.calibrated[-1])
    with Store(settings.files.features) as store:
        held = {d for d, path in zip(store.table.sha256, store.table.paths, strict=True) if splits.place(path) < 0.3}
        assert drawn == set(store.table.sha256) - held
        training = trainingdata.load(store, ["one", "two"], settings, Silent())
    assert {training.table.sha256[row] for row in training.rows} <= drawn


def test_held_out_images_without_a_label_leave_nothing_out(hard, tmp_path):
    shutil.copy(hard.images / "ant" / "00.png", hard.images / "ant" / "99.png")
    settings = with_manifest(
        hard,
        tmp_path,
        lambda path: (
            "" if path.stem == "99" else path.parent.name,
            "",
            "test" if path.stem == "99" or path.stem[-1] == "3" else "",
        ),
    )
    report = fit.run(settings).report
    assert report.holdout.left_out == 0
    assert any(row["path"].endswith("ant/00.png") for row in read_csv(settings.files.predictions))


@pytest.mark.parametrize("value", ["0", "1", "1.5", "-0.1", "nan", "test", "true", "[0.1]"])
def test_other_hold_outs_are_refused(stackcls, value, tmp_path):
    status, _, err = stackcls("fit", "--artifacts", tmp_path, "--set", f"cv.holdout={value}")
    assert status == 2
    assert "cv.holdout: " in err
    assert "`split`, or a share of the images between 0 and 1, is allowed" in err


def test_features_of_the_hold_out_are_read_from_the_store(hard):
    with Store(hard.files.features) as store:
        training = trainingdata.load(store, ["one", "two"], held_out(hard, holdout=0.25), Silent())
        held = training.held
        rows = [store.table.paths.index(path) for path in held.paths]
        labels = [store.table.class_names[label] for label in store.table.labels[rows]]
        np.testing.assert_array_equal(held.data.block(1, np.arange(len(rows))), store.read_rows("two", np.array(rows)))
    assert [held.data.class_names[label] for label in held.data.y] == labels


def test_the_command_takes_a_hold_out(hard, stackcls, tmp_path):
    (tmp_path / "pipeline.yaml").write_text(f"images: {hard.images}\nartifacts: {hard.artifacts}\n")
    status, out, _ = stackcls("fit", "-c", tmp_path / "pipeline.yaml", "--holdout", "0.25")
    assert status == 0
    assert "Held out (25 % of all" in out
    assert "holdout_predictions.csv" in out
