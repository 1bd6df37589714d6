"""Copies of what fine-tuning saw, saved again in another format: neither folds nor a hold-out score them."""

import pytest
from PIL import Image

from stackcls import grouping
from stackcls.errors import TrainingError
from stackcls.files import digest_file
from stackcls.modelfile import load
from stackcls.stages import features, fit
from tests.conftest import read_csv
from tests.test_seen import tuned, with_tuned

TWINS = ("blue/00", "blue/01", "green/05", "red/03")


@pytest.fixture
def twins(photos):
    """Some of the photos again, as BMP."""
    for name in TWINS:
        Image.open(photos / f"{name}.png").save(photos / f"{name}.bmp")
    return photos


def scored(path):
    return {row["path"] for row in read_csv(path)}


def test_no_fold_scores_a_copy_in_another_format(twins, tmp_path, fake_engine):
    saw = [twins / "blue/00.png", twins / "green/05.bmp", twins / "red/07.png"]
    settings = with_tuned(
        twins, tmp_path / "artifacts", tuned(tmp_path / "model.keras", saw), report={"depth": "quick"}
    )
    features.run(settings)
    report = fit.run(settings).report
    assert "5 images were left out: fine-tuning of tuned saw them, a copy, exact or near, or one of their group" in (
        report.notes
    )
    left = scored(settings.files.predictions)
    assert len(left) == 31 - 5
    assert not left & {"blue/00.png", "blue/00.bmp", "green/05.png", "green/05.bmp", "red/07.png"}
    # The copies count as seen in the model too, so that `evaluate` leaves them out.
    assert load(settings.files.safe_model).seen([digest_file(twins / "blue/00.bmp")]).all()


def held_out(twins, tmp_path, names, others):
    """Settings that hold out all BMP files, and others; fine-tuning saw the PNG files of these names."""
    paths = [path.relative_to(twins).as_posix() for path in sorted(twins.rglob("*.??[gp]"))]
    held = {path for path in paths if path.endswith((".bmp", *others))}
    rows = [f"{path},{path.split('/')[0]},{'test' if path in held else 'train'}\n" for path in paths]
    (twins / "all.csv").write_text("path,label,split\n" + "".join(rows))
    file = tuned(tmp_path / "model.keras", [twins / f"{name}.png" for name in names])
    settings = with_tuned(twins / "all.csv", tmp_path / "artifacts", file, cv={"holdout": "split"})
    features.run(settings)
    return settings


def test_no_hold_out_scores_a_copy_in_another_format(twins, tmp_path, fake_engine):
    settings = held_out(twins, tmp_path, TWINS[:2], ["08.png"])
    fit.run(settings)
    expected = {"blue/08.png", "green/08.png", "red/08.png", "green/05.bmp", "red/03.bmp"}
    assert scored(settings.files.holdout) == expected


def test_a_hold_out_of_copies_alone_says_why_it_cannot_be_scored(twins, tmp_path, fake_engine):
    settings = held_out(twins, tmp_path, TWINS, [])
    with pytest.raises(TrainingError, match=r"that can be scored \(.*8 images were left out: fine-tuning of tuned saw"):
        fit.run(settings)


def test_groups_of_copies_are_left_out_whole(twins, tmp_path, fake_engine):
    groups = {"blue/00.bmp": "one", "red/06.png": "one"}
    paths = [path.relative_to(twins).as_posix() for path in sorted(twins.rglob("*.??[gp]"))]
    rows = [f"{path},{path.split('/')[0]},{groups.get(path, '')}\n" for path in paths]
    (twins / "all.csv").write_text("path,label,group\n" + "".join(rows))
    file = tuned(tmp_path / "model.keras", [twins / "blue/00.png"])
    settings = with_tuned(twins / "all.csv", tmp_path / "artifacts", file)
    features.run(settings)
    fit.run(settings)
    assert set(paths) - scored(settings.files.predictions) == {"blue/00.png", "blue/00.bmp", "red/06.png"}


def test_what_could_not_be_looked_for_is_said(photos, tmp_path, fake_engine, monkeypatch):
    file = tuned(tmp_path / "model.keras", [photos / "blue/00.png", photos / "blue/01.png"])
    settings = with_tuned(photos, tmp_path / "artifacts", file)
    (photos / "blue/01.png").unlink()
    features.run(settings)
    gone = (
        "1 image that fine-tuning of tuned saw is not in features.h5, so that neither near copies of those nor other "
        "images of their groups could be looked for, and may have been scored"
    )
    missed = "near copies of what fine-tuning of tuned saw may have been scored, since none were looked for"
    notes = fit.run(settings).report.notes
    assert gone in notes
    assert missed not in notes
    monkeypatch.setattr(grouping.look, "__defaults__", (10,))
    assert missed in fit.run(settings).report.notes
    plain = with_tuned(photos, tmp_path / "plain", tuned(tmp_path / "none.keras", []))
    features.run(plain)
    untuned = {"features": plain.features.model_copy(update={"backbones": plain.features.backbones[:1]})}
    assert not [note for note in fit.run(plain.model_copy(update=untuned)).report.notes if "fine-tuning" in note]


def test_what_makes_classes_too_rare_is_said(photos, tmp_path, fake_engine):
    file = tuned(tmp_path / "model.keras", sorted((photos / "blue").iterdir())[2:])
    settings = with_tuned(photos, tmp_path / "artifacts", file)
    features.run(settings)
    with pytest.raises(TrainingError, match="'blue' has 2") as caught:
        fit.run(settings)
    assert "what fine-tuning saw was left out before: fine-tune on fewer" in caught.value.__notes__[0]
