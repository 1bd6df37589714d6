"""Who writes the page: `fit`, with all other files, and `stackcls report --html`, from what lies beside the report."""

import shutil

import pytest

from stackcls.errors import SourceError
from stackcls.stages import compare, fit
from tests.pages import Parsed


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
    assert "cv_predictions.csv: gives one other accuracies than the report does: run `stackcls fit` again" in err
    assert not fitted.files.page.exists()


def test_damaged_probabilities_are_an_error(fitted):
    fitted.files.probabilities.write_bytes(b"none")
    with pytest.raises(SourceError, match=r"cv_probabilities.npy: cannot be read .*run `stackcls fit` again"):
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
    page = compare.write_page(other, fitted)
    assert page.name == "evaluated.html"
    assert not Parsed(page.read_text("utf-8")).all("img")


def test_images_that_are_gone_do_not_fail_the_fit(hard):
    shutil.move(hard.images, hard.images.with_name("elsewhere"))
    fit.run(hard)
    assert "so it has no pictures" in Parsed(hard.files.page.read_text("utf-8")).text


def test_the_page_is_the_same_again(fitted):
    first = compare.write_page(fitted.files.report, fitted).read_bytes()
    assert compare.write_page(fitted.files.report, fitted).read_bytes() == first
