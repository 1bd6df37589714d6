"""Who writes the page: `fit`, with all other files, and `stackcls report --html`, from what lies beside the report."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from stackcls import page, runtables, validation
from stackcls.errors import ConfigError, SourceError
from stackcls.files import digest_file
from stackcls.listener import Silent
from stackcls.report import pictures
from stackcls.report.results import Report
from stackcls.stages import compare, fit
from stackcls.stages import map as map_stage
from tests.pages import Parsed, make


@pytest.fixture
def fitted(hard):
    fit.run(hard)
    return hard


def test_report_writes_the_page_that_fit_wrote(fitted, stackcls, tmp_path):
    written = fitted.files.page.read_text("utf-8")
    fitted.files.page.unlink()
    shared = "--artifacts", fitted.artifacts, "--set", f"images={fitted.images}"
    status, out, err = stackcls("report", "--html", *shared)
    assert (status, out, err) == (0, f"wrote {fitted.files.page}\n", "")
    again = fitted.files.page.read_text("utf-8")
    # Probabilities beside the report are float32; what is shown of them is the same.
    assert Parsed(again).text == Parsed(written).text
    assert Parsed(again).all("img")


def test_it_lies_beside_the_report_and_links_from_there(fitted, tmp_path):
    for name in ("report.json", "cv_predictions.csv"):
        (tmp_path / "deep" / "copy").mkdir(parents=True, exist_ok=True)
        shutil.copy(fitted.artifacts / name, tmp_path / "deep" / "copy" / name)
    target = compare.write_page(tmp_path / "deep" / "copy" / "report.json", fitted)
    assert target == tmp_path / "deep" / "copy" / "report.html"
    parsed = Parsed(target.read_text("utf-8"))
    links = [tag["href"] for tag in parsed.all("a") if not tag["href"].startswith("#")]
    assert all((target.parent / link).resolve().is_file() for link in links)
    assert "given, and next" not in parsed.text  # which only the probabilities know


def test_tables_that_are_not_there_leave_their_part_out(fitted):
    fitted.files.predictions.unlink()
    fitted.files.probabilities.unlink()
    parsed = Parsed(compare.write_page(fitted.files.report, fitted).read_text("utf-8"))
    assert "The predictions of single images are not beside the report" in parsed.text


def test_a_table_of_another_run_is_refused_and_nothing_written(fitted, stackcls):
    lines = fitted.files.predictions.read_text("utf-8").splitlines()
    fitted.files.predictions.write_text("\n".join(lines[:-3]) + "\n")
    fitted.files.page.unlink()
    status, _, err = stackcls("report", "--html", fitted.files.report)
    assert status == 1
    assert "cv_predictions.csv: is not the one that the report was written with: run `stackcls fit` again" in err
    assert not fitted.files.page.exists()


@pytest.mark.parametrize("name", ["label_suspects.csv", "duplicates.csv", "holdout_predictions.csv"])
def test_a_table_of_as_many_rows_of_another_run_is_refused(tmp_path, name):
    made = make(tmp_path)
    made.write()
    path = made.settings.artifacts / name
    path.write_bytes(path.read_bytes().replace(b'"ant"', b'"bee"'))
    with pytest.raises(SourceError, match=f"{name}: is not the one that the report was written with"):
        compare.write_page(made.settings.files.report, made.settings)


def test_probabilities_of_another_run_are_refused(fitted):
    values = np.load(fitted.files.probabilities)
    np.save(fitted.files.probabilities, values[:, ::-1])
    with pytest.raises(SourceError, match=r"cv_probabilities.npy: is not the one that the report was written with"):
        compare.write_page(fitted.files.report, fitted)


def test_the_report_has_the_digest_of_every_table(fitted):
    files = fitted.files
    expected = {
        "predictions": files.predictions,
        "probabilities": files.probabilities,
        "suspects": files.suspects,
        "duplicates": files.duplicates,
    }
    assert Report.load(files.report).tables == {name: digest_file(path) for name, path in expected.items()}


@pytest.mark.parametrize("name", [*runtables.COLUMNS, "group"])
def test_a_backbone_that_is_called_as_a_column_is_told_from_it(tmp_path, name):
    made = make(tmp_path)

    def called(text):
        return text.replace('"three"', f'"{name}"')

    report = dataclasses.replace(
        made.report, scores={name if old == "three" else old: score for old, score in made.report.scores.items()}
    )
    tables = dataclasses.replace(made.tables, predictions=called(made.tables.predictions))
    one = runtables.predictions(tables, report, "x")
    other = runtables.predictions(made.tables, made.report, "x")
    assert one.paths == other.paths
    np.testing.assert_array_equal(one.given, other.given)
    np.testing.assert_array_equal(one.right[name], other.right["three"])


class Heard(Silent):
    """Warnings, in order."""

    def __init__(self):
        self.warned = []

    def warn(self, line):
        self.warned.append(line)


def test_a_page_that_cannot_be_made_does_not_lose_the_fit(hard, monkeypatch):
    fit.run(hard)
    before = hard.files.report.read_bytes()
    monkeypatch.setattr(page, "make", lambda *_: {}["gone"])
    heard = Heard()
    fit.run(hard.model_copy(update={"cv": hard.cv.model_copy(update={"seed": 3})}), listener=heard)
    assert heard.warned == [f"{hard.files.page}: not made (KeyError: 'gone'); all else is"]
    assert hard.files.report.read_bytes() != before
    assert not hard.files.page.exists()  # of the earlier fit


@pytest.mark.parametrize(
    "name",
    [
        *("report.html", "report.json", "report.md", "confusion.png"),
        *("label_suspects.csv", "duplicates.csv", "holdout_predictions.csv", "cv_predictions.csv"),
    ],
)
@pytest.mark.parametrize("folder", [False, True])
def test_what_is_there_and_not_of_a_fit_is_refused_before_the_work(hard, monkeypatch, name, folder):
    path = hard.artifacts / name
    if folder:
        path.mkdir()
    else:
        path.write_text("path,mine\n")
    monkeypatch.delattr(validation, "cross_validate")
    with pytest.raises(ConfigError, match=f"artifacts: .*{name} is there, and not written by .*; move it away"):
        fit.run(hard)
    assert path.is_dir() if folder else path.read_text() == "path,mine\n"
    assert not hard.files.safe_model.exists()


def test_a_picture_of_a_fit_is_known_by_its_mark_or_by_the_report_beside_it(hard):
    fit.run(hard)
    Image.new("RGB", (4, 4)).save(hard.files.confusion)  # unmarked, as fits of before drew it
    fit.run(hard)
    assert Image.open(hard.files.confusion).info["Title"] == pictures.CONFUSION
    hard.files.report.unlink()
    fit.run(hard)
    hard.files.report.unlink()
    Image.new("RGB", (4, 4)).save(hard.files.confusion)
    with pytest.raises(ConfigError, match=r"confusion.png is there, and not written by"):
        fit.run(hard)


def test_a_folder_is_no_report(fitted, stackcls):
    status, _, err = stackcls("report", fitted.artifacts)
    assert status == 1
    assert f"name a report, such as {fitted.files.report}" in err


def test_a_table_that_another_fit_wrote_goes_with_it(hard):
    held = hard.model_copy(update={"cv": hard.cv.model_copy(update={"holdout": 0.3})})
    fit.run(held)
    assert held.files.holdout.exists()
    fit.run(hard)
    assert not hard.files.holdout.exists()


def test_a_map_of_an_earlier_fit_stays_and_is_told_of(hard):
    heard = Heard()
    map_stage.run(hard)
    before = hard.files.map_table.read_bytes()
    fit.run(hard, listener=heard)
    assert [line.partition(": ")[2] for line in heard.warned] == ["run `stackcls map` again"]
    assert hard.files.map_table.read_bytes() == before
    hard.files.map_table.write_text("mine")
    fit.run(hard, listener=heard)
    assert len(heard.warned) == 1


def test_damaged_probabilities_are_an_error(fitted):
    fitted.files.probabilities.write_bytes(b"none")
    with pytest.raises(SourceError, match=r"cv_probabilities.npy: is damaged, or no array .*run `stackcls fit` again"):
        compare.write_page(fitted.files.report, fitted)


def test_a_file_that_is_no_page_is_not_replaced(fitted, stackcls):
    fitted.files.page.write_text("<p>mine")
    status, _, err = stackcls("report", "--html", fitted.files.report)
    assert status == 2
    assert "report.html is there, and not written by this command; move it away" in err
    assert fitted.files.page.read_text() == "<p>mine"


def test_one_report_at_a_time(fitted, stackcls):
    status, _, err = stackcls("report", "--html", fitted.files.report, fitted.files.report)
    assert status == 2
    assert "--html: makes the page of one report, not of 2; give one" in err


def test_a_report_of_an_evaluation_has_no_tables(fitted, tmp_path):
    text = fitted.files.report.read_text().replace('"kind": "cross-validation"', '"kind": "evaluation"')
    other = fitted.artifacts / "evaluated.json"
    other.write_text(text)
    written = compare.write_page(other, fitted)
    assert written.name == "evaluated.html"
    assert not Parsed(written.read_text("utf-8")).all("img")


def test_images_that_are_gone_do_not_fail_the_fit(hard):
    shutil.move(hard.images, hard.images.with_name("elsewhere"))
    fit.run(hard)
    assert "so it has no pictures" in Parsed(hard.files.page.read_text("utf-8")).text


def test_the_page_is_the_same_again(fitted):
    first = compare.write_page(fitted.files.report, fitted).read_bytes()
    assert compare.write_page(fitted.files.report, fitted).read_bytes() == first


def test_fit_says_that_the_images_are_gone(hard):
    shutil.rmtree(hard.images)
    heard = Heard()
    fit.run(hard, listener=heard)
    assert any(f"report.html has no pictures: {hard.images} is not there" in line for line in heard.warned)
    assert hard.files.page.exists()
