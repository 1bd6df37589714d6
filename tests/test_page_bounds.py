"""How large a page grows: bounded pictures, lists and matrices, however many images and classes there are."""

import dataclasses
import json
import re

import numpy as np
import pytest

from stackcls import album, page
from tests.pages import Parsed, make


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("run"))


def test_the_budget_of_pictures_holds_and_the_most_confident_mistakes_come_first(made, monkeypatch):
    monkeypatch.setattr(album, "MOST", 5)
    text = made.html()
    assert len(set(re.findall(r"base64,([^\"]+)\"", text))) <= 5
    assert text.index("<img") < text.index('id="suspects"')
    monkeypatch.setattr(album, "BYTES", 300)
    assert sum(map(len, re.findall(r"data:image[^\"]+", made.html()))) <= 300


def test_the_list_of_images_has_a_limit_and_the_rest_is_counted(made, monkeypatch):
    monkeypatch.setattr(page, "LISTED_BYTES", 4000)
    parsed = Parsed(made.html())
    assert "more are in cv_predictions.csv" in parsed.text
    wrong = sum(map(sum, made.report.confusion)) - np.trace(made.report.confusion)
    listed = [name for name in parsed.ids if re.fullmatch(r"cell-\d+-\d+", name)]
    assert sum(name.split("-")[1] != name.split("-")[2] for name in listed) >= min(wrong, 5) > 0


def test_of_many_classes_those_with_most_errors_are_shown(tmp_path):
    classes = [f"class {number:02d}" for number in range(60)]
    run = make(tmp_path, n=180, classes=classes)
    parsed = Parsed(run.html())
    assert "Shown are the 30 classes with most errors, of 60" in parsed.text
    assert [tag["value"] for tag in parsed.all("option")][3:] == ["10", "20", "30", "50", "60"]
    counts = np.array(run.report.confusion)
    errors = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    shown = re.findall(r"class \d\d", parsed.text[parsed.text.index("Confusion matrix:") :])[:30]
    assert min(errors[classes.index(name)] for name in shown) >= np.sort(errors)[::-1][30]


def test_too_many_classes_for_a_matrix(made):
    report = dataclasses.replace(made.report, confusion=[])
    parsed = Parsed(dataclasses.replace(made, report=report).html())
    assert "4 classes are too many for a confusion matrix" in parsed.text
    assert "confusion-data" not in parsed.ids
    assert "predicted" in parsed.text[parsed.text.index("The most confident mistakes") :]


def test_ten_thousand_images_of_two_hundred_classes_stay_within_bounds(tmp_path, monkeypatch):
    classes = [f"{number:03d}.Some_long_name_of_a_bird" for number in range(200)]
    big = make(tmp_path, n=10_000, classes=classes, with_images=False)
    picture = np.random.default_rng(0).bytes(2500)
    monkeypatch.setattr("stackcls.thumbnails.thumbnails", lambda files, limits, side: [picture] * len(files))
    text = big.html()
    assert 2_000_000 < len(text.encode()) < 6_000_000
    data = re.search(r'<script type="application/json" id="confusion-data">(.*?)</script>', text, re.DOTALL)
    cells = json.loads(data[1])["cells"]
    assert sum(cell[2] for cell in cells) == 10_000
