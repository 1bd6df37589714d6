"""The page of a report: whole, harmless whatever names say, within its budget, and true to the tables beside it."""

import base64
import dataclasses
import io
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from stackcls import confusability, runtables
from stackcls.errors import SourceError
from stackcls.printable import printable
from stackcls.report import html
from stackcls.runtables import Tables
from tests.pages import HOSTILE, SECTIONS, Parsed, make


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def text(made):
    return made.html()


def test_every_section_is_there_in_order_with_a_heading_and_a_link(text):
    parsed = Parsed(text)
    sections = [tag["id"] for tag in parsed.all("section")]
    assert sections == SECTIONS
    assert [tag["href"] for tag in parsed.all("a") if tag["href"][1:] in SECTIONS][: len(SECTIONS)] == [
        f"#{name}" for name in SECTIONS
    ]
    assert {f"{name}-title" for name in SECTIONS} <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))


def test_sections_without_data_are_left_out(made):
    bare = dataclasses.replace(
        made.report, contributions={}, suspects=None, duplicates=None, unknown=None, holdout=None, tuning=None
    )
    parsed = Parsed(dataclasses.replace(made, report=bare).html())
    optional = {"contributions", "suspects", "duplicates", "unknown", "holdout", "tuning"}
    left = [name for name in SECTIONS if name not in optional]
    assert [tag["id"] for tag in parsed.all("section")] == left
    assert not [tag for tag in parsed.all("a") if tag["href"] == "#unknown"]


def test_hostile_names_are_text_and_nothing_else(tmp_path):
    text = make(tmp_path, classes=HOSTILE).html()
    parsed = Parsed(text)
    assert {tag for tag, _ in parsed.tags} <= KNOWN_TAGS
    assert len(parsed.all("script")) == 2
    assert not [
        name for _, attributes in parsed.tags for name in attributes if name.startswith("on") or name == "style"
    ]
    for name in HOSTILE:
        assert " ".join(printable(name).split()) in parsed.text
    assert not re.search("[\u202a-\u202e\x00-\x09\x0b-\x1f]", text)
    assert all(tag["src"].startswith("data:image/webp;base64,") for tag in parsed.all("img"))


KNOWN_TAGS = {
    *(
        "html",
        "head",
        "meta",
        "link",
        "title",
        "style",
        "script",
        "body",
        "header",
        "main",
        "footer",
        "nav",
        "section",
        "pre",
    ),
    *(
        "h1",
        "h2",
        "h3",
        "p",
        "a",
        "ul",
        "li",
        "dl",
        "dt",
        "dd",
        "div",
        "span",
        "small",
        "strong",
        "b",
        "i",
        "bdi",
        "wbr",
    ),
    *("figure", "figcaption", "svg", "line", "circle", "rect", "text", "img", "details", "summary", "code"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "label", "select", "option", "button", "dialog"),
}


def test_long_names_may_break_where_words_are_parted(tmp_path):
    text = make(tmp_path, classes=["red_bird", "blue_bird"]).html()
    assert "<bdi>red_<wbr>bird</bdi>" in text
    assert "<bdi>blue_bird</bdi>" in text
    assert "&lt;wbr" not in text


def test_links_lead_to_the_images_and_cannot_be_other_addresses(tmp_path):
    run = make(tmp_path, classes=["javascript:alert(1)", "a#b?c%41", "plain"])
    links = {tag["href"] for tag in Parsed(run.html()).all("a") if not tag["href"].startswith("#")}
    assert len(links) == 60
    for link in links:
        assert re.match(r"\.\.?/", link)
        assert (run.settings.artifacts / unquote(link)).resolve().is_file()


def test_the_page_loads_nothing_and_its_policy_names_what_it_runs(text):
    policy = next(tag["content"] for tag in Parsed(text).all("meta") if tag.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    assert not re.search(r"https?://|@import|url\(", text)


def test_numbers_are_the_report_s(made, text):
    words = Parsed(text).text
    for name, score in made.report.scores.items():
        row = re.search(rf"{name} {100 * score.mean:.2f} (?:[\d.]+ to [\d.]+|–) {100 * score.std:.2f}", words)
        assert row, name
    assert f"{100 * made.report.gain.mean:+.2f}" in words
    wrong = sum(map(sum, made.report.confusion)) - np.trace(made.report.confusion)
    assert f"Mistakes {wrong} of 60 images" in words
    assert "0.970 (the largest probability alone: 0.930)" in words
    assert "2 of 60 labels are probably wrong (confident learning). 4 images" in words
    assert "4 images are the same as another one, or nearly, in 2 groups: 1 exact pair, 2 near" in words
    assert "(similarity of 0.950 or more). 1 pair has different labels. 1 pair would have lain in two folds" in words
    assert "60 images were seen neither by the folds nor by the final model: by their split (test, val)." in words
    assert "3 images were not learned from because a copy, or one of the same group, is held out" in words


def test_a_hold_out_by_share_is_told_in_percent(made):
    held = dataclasses.replace(made.report.holdout, how="0.15")
    words = Parsed(dataclasses.replace(made, report=dataclasses.replace(made.report, holdout=held)).html()).text
    assert "final model: 15 % of all, by a hash of their paths." in words


def test_a_mistake_is_shown_with_the_probabilities_of_both_classes_and_of_the_next(made, text):
    found = runtables.predictions(made.tables, made.report, "cv_predictions.csv")
    wrong = np.flatnonzero(found.given != found.predicted)
    row = int(wrong[np.argmax(found.probability[wrong])])
    shares, classes = made.tables.probabilities[row], made.report.classes
    second = int(np.argsort(-shares)[1])
    gallery = text[text.index('id="mistakes"') :]
    first = Parsed(gallery[gallery.index("<li>") : gallery.index("</li>") + 5]).text.replace("\xa0", " ")
    assert first.startswith(found.paths[row])
    assert f"predicted {classes[found.predicted[row]]} {100 * shares.max():.1f} %" in first
    kind = "given, and next" if second == found.given[row] else "given"
    assert f"{kind} {classes[found.given[row]]} {100 * shares[found.given[row]]:.1f} %" in first
    assert f"next {classes[second]} {100 * shares[second]:.1f} %" in first
    right = [name for name, hits in found.right.items() if hits[row]]
    assert f"right backbones {', '.join(right) or 'none'}" in first


def test_every_cell_of_the_matrix_opens_all_its_images(made, text):
    parsed = Parsed(text)
    for given, row in enumerate(made.report.confusion):
        for predicted, count in enumerate(row):
            name = f"cell-{given}-{predicted}"
            links = [tag for tag in parsed.all("a") if tag["href"] == f"#{name}"]
            assert len(links) == (name in parsed.ids) == (count > 0)
            if count:
                block = text.split(f'id="{name}"')[1].split('class="back"')[0]
                assert block.count("<li>") == count
                assert f": {count} image" in links[0]["aria-label"]


def test_pictures_are_of_the_images(tmp_path):
    run = make(tmp_path, classes=["red", "blue"])
    for path in (tmp_path / "images").glob("red/*"):
        Image.new("RGB", (24, 24), (250, 0, 0)).save(path)
    text = run.html()
    for item in re.findall(r'href="([^"#]+)"[^>]*>\s*<img src="data:image/webp;base64,([^"]+)"', text):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(item[1]))))
        assert (pixels[..., 0].mean() > 200) == item[0].startswith("../images/red/")


def test_without_images_there_are_no_pictures_and_it_says_so(made):
    gone = made.settings.model_copy(update={"images": Path("gone\0")})
    parsed = Parsed(dataclasses.replace(made, settings=gone).html())
    assert not parsed.all("img")
    assert [tag["href"] for tag in parsed.all("a") if not tag["href"].startswith("#")] == []
    assert "The images were not at gone\\x00 when this was made, so it has no pictures" in parsed.text


def test_images_that_cannot_be_read_have_no_picture(tmp_path):
    run = make(tmp_path)
    for path in (tmp_path / "images").glob("ant/*"):
        path.write_bytes(b"no image")
    parsed = Parsed(run.html())
    assert parsed.all("img")
    assert "no picture" in parsed.text
    for path in (tmp_path / "images").glob("*/*"):
        path.write_bytes(b"no image")
    assert f"The images were not to be read at {tmp_path / 'images'}" in Parsed(run.html()).text


def test_without_tables_the_scores_are_there_still(made):
    parsed = Parsed(dataclasses.replace(made, tables=Tables()).html())
    assert "The predictions of single images are not beside the report" in parsed.text
    assert not parsed.all("img")
    assert "stack" in parsed.text


def test_an_evaluation_has_its_intervals_and_no_folds(made):
    report = dataclasses.replace(made.report, kind="evaluation", folds=1)
    words = Parsed(dataclasses.replace(made, report=report, tables=Tables()).html()).text
    assert "judged on images that the model never saw" in words
    assert "not beside the report" not in words


def changed(made, **tables):
    return dataclasses.replace(made, tables=dataclasses.replace(made.tables, **tables))


HEAD = "path,label,fold,predicted,probability,one,two,three\n"
SUSPECTS = "rank,path,label,probability,suggested,suggested_probability,flagged\n"


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"predictions": "path,label\n"}, r"cv_predictions.csv: its columns are not path, label, fold, .*, three: "),
        ({"predictions": HEAD + "a,b\n"}, "cv_predictions.csv:2: has another number of values"),
        (
            {"predictions": HEAD + "a,yak,0,ant,1,ant,ant,ant\n"},
            "is not of the report's run .'yak' in it.: run `stackcls fit` again",
        ),
        ({"predictions": HEAD + "a,ant,x,ant,1,ant,ant,ant\n"}, "is not of the report's run"),
        ({"duplicates": "group,path,label,kind,similarity\n1,a,ant,near,x\n"}, "duplicates.csv: .*could not convert"),
        (
            {"duplicates": "group,path,label,kind,similarity\na\n"},
            r"^\S*duplicates.csv:2: has another number of values",
        ),
        ({"holdout": "path\n" + "x" * 200_000}, "its columns are not path, label, predicted"),
        ({"suspects": SUSPECTS + "x" * 200_000}, r"label_suspects.csv:\d: not valid CSV .field larger than"),
    ],
)
def test_tables_that_are_none_are_refused(made, tables, message):
    with pytest.raises(SourceError, match=message):
        changed(made, **tables).html()


def test_similar_classes_lie_together(made):
    found = runtables.predictions(made.tables, made.report, "cv_predictions.csv")
    shares = np.full((60, 4), 0.01)
    shares[np.arange(60), found.given] = 0.6
    partner = np.array([2, 3, 0, 1])  # ant with cow, bee with dog
    shares[np.arange(60), partner[found.given]] = 0.38
    orders = confusability.orders(made.report, found, shares)
    assert orders["name"] == [0, 1, 2, 3]
    assert {frozenset(orders["similarity"][:2]), frozenset(orders["similarity"][2:])} == {
        frozenset({0, 2}),
        frozenset({1, 3}),
    }
    counts = np.array(made.report.confusion)
    errors = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    assert list(errors[orders["errors"]]) == sorted(errors, reverse=True)


def test_a_page_is_told_from_other_files(made, tmp_path):
    assert html.is_page(made.write())
    (tmp_path / "mine.html").write_text("<p>mine")
    assert not html.is_page(tmp_path / "mine.html")
    assert not html.is_page(tmp_path / "absent.html")
