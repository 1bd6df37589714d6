"""Maps beside the mistakes on a report's page: of the right images, honest about their model, and never at its cost."""

import dataclasses
import re
import shutil

import joblib
import pytest

from stackcls import album, evidence, modelfile, runtables
from stackcls.evidence import Search
from stackcls.report.results import Report
from stackcls.stages import compare, features, fit
from tests.conftest import FAKE_BACKBONES, make_settings, write_hard_photos
from tests.pages import HOSTILE, Invented, Parsed, make
from tests.test_page_written import Heard


@pytest.fixture
def held(hard):
    """Settings of a fit with a hold-out, in both of which the stack errs."""
    settings = hard.model_copy(update={"cv": hard.cv.model_copy(update={"holdout": 0.4})})
    fit.run(settings)
    return settings


def explained(settings, count=2, listener=None, method="occlusion"):
    search = Search(count, method, listener or Heard())
    return Parsed(compare.write_page(settings.files.report, settings, search).read_text("utf-8"))


def maps(parsed):
    return [tag["alt"] for tag in parsed.all("img") if tag["alt"]]


def test_the_surest_mistakes_get_a_map_for_the_wrong_and_for_the_right_class(held):
    parsed = explained(held)
    report = Report.load(held.files.report)
    tables = runtables.read(held.files, report)
    found = runtables.predictions(tables, report, "x")
    wrong = sorted(
        (row for row in range(len(found.paths)) if found.given[row] != found.predicted[row]),
        key=lambda row: -found.probability[row],
    )
    names = [(report.classes[found.predicted[row]], report.classes[found.given[row]]) for row in wrong[:2]]
    names += [(item.predicted, item.given) for item in runtables.held_out(tables, report, "x")[:2]]
    assert len(names) == 4
    assert maps(parsed) == [f"Map of what speaks for {name}" for pair in names for name in pair]
    model = modelfile.load(held.files.safe_model)
    shares = model.predict_proba([held.images / found.paths[wrong[0]]])[0]
    for name in names[0]:
        assert f"for {name} {100 * shares[report.classes.index(name)]:.1f} %" in parsed.text
    assert "are of the final model, which has learned from these very images since" in parsed.text
    assert "It made these mistakes itself, and never learned from these images" in parsed.text


def test_without_being_asked_there_are_none_and_the_page_says_how(held, stackcls):
    plain = Parsed(held.files.page.read_text("utf-8"))
    assert maps(plain) == []
    assert "stackcls report --html --explain 12 shows what in these pictures" in plain.text
    shared = "--artifacts", held.artifacts, "--set", f"images={held.images}"
    assert stackcls("report", "--html", "--explain", "0", *shared)[0] == 0
    assert Parsed(held.files.page.read_text("utf-8")).text == plain.text
    status, out, err = stackcls("report", "--html", "--explain", "1", *shared)
    assert (status, out, err) == (0, f"wrote {held.files.page}\n", "")
    assert len(maps(Parsed(held.files.page.read_text("utf-8")))) == 4
    first = held.files.page.read_bytes()
    stackcls("report", "--html", "--explain", "1", *shared)
    assert held.files.page.read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--explain", "3"], "--explain adds pictures to a page; give --html too"),
        (["--html", "--method", "gradcam"], "--method says how --explain works; give --explain N too"),
        (["--html", "--explain", "31"], "31 is not in the range 0<=x<=30"),
    ],
)
def test_what_is_wrong_use(stackcls, arguments, message):
    status, out, err = stackcls("report", *arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_weights_that_are_gone_cost_the_maps_alone(tmp_path, fake_engine):
    weights = tmp_path / "net.weights.h5"
    weights.write_bytes(b"weights")
    entry = {**FAKE_BACKBONES[0], "weights": str(weights)}
    settings = make_settings(
        write_hard_photos(tmp_path / "photos"), tmp_path / "a", features={"backbones": [entry, FAKE_BACKBONES[1]]}
    )
    features.run(settings)
    fit.run(settings)
    plain = Parsed(settings.files.page.read_text("utf-8")).text
    assert len(maps(explained(settings))) == 4
    weights.unlink()
    heard = Heard()
    assert explained(settings, listener=heard).text == plain
    (line,) = heard.warned
    assert line.startswith("--explain: the model's backbone 'one' needs the weights with SHA-256 ")
    assert line.endswith("; the page has maps of 0 of 2 images")


def test_images_that_are_gone(held):
    shutil.rmtree(held.images)
    heard = Heard()
    parsed = explained(held, listener=heard)
    assert maps(parsed) == []
    assert "so it has no pictures" in parsed.text
    assert any(f"the images are not at {held.images}; say where they are" in line for line in heard.warned)


def test_an_image_that_cannot_be_read_costs_its_own_map(held):
    report = Report.load(held.files.report)
    found = runtables.held_out(runtables.read(held.files, report), report, "x")
    (held.images / found[0].photo.path).write_bytes(b"none")
    heard = Heard()
    assert len(maps(explained(held, listener=heard))) == 6
    assert heard.warned == ["--explain: 1 of 4 images could not be read"]


def test_images_that_are_others_by_now_get_no_map(held):
    report = Report.load(held.files.report)
    tables = runtables.read(held.files, report)
    found = runtables.predictions(tables, report, "x")
    wrong = max(
        (row for row in range(len(found.paths)) if found.given[row] != found.predicted[row]),
        key=lambda row: found.probability[row],
    )
    learned, tested = (
        held.images / found.paths[wrong],
        held.images / runtables.held_out(tables, report, "x")[0].photo.path,
    )
    first, second = learned.read_bytes(), tested.read_bytes()
    learned.write_bytes(second)
    heard = Heard()
    assert len(maps(explained(held, listener=heard))) == 6
    assert heard.warned == [
        f"--explain: 1 of 4 images are left out: these paths in {held.images} held others when the model was fitted; "
        "put those back, or say where they are (--set images=...)"
    ]
    tested.write_bytes(first)
    heard = Heard()
    assert len(maps(explained(held, listener=heard))) == 4
    assert heard.warned[0].startswith("--explain: 2 of 4 images are left out")
    assert maps(explained(held, 1)) == []


def test_a_model_of_another_run_is_not_asked(held):
    kept = held.files.safe_model.read_bytes()
    fit.run(held.model_copy(update={"cv": held.cv.model_copy(update={"seed": 5})}))
    held.files.model_card.unlink()
    held.files.safe_model.write_bytes(kept)
    heard = Heard()
    assert maps(explained(held, listener=heard)) == []
    assert "model.safetensors: is not of the report's run; run `stackcls fit` again" in heard.warned[0]


def test_a_pickled_model_is_never_opened_for_a_page(held, monkeypatch):
    monkeypatch.delattr(joblib, "load")
    held.files.safe_model.unlink()
    heard = Heard()
    assert maps(explained(held, listener=heard)) == []
    assert "model.safetensors: no such file" in heard.warned[0]


def test_it_stops_when_its_time_is_over(held, monkeypatch):
    monkeypatch.setattr(evidence, "MOST_SECONDS", -1.0)
    heard = Heard()
    assert len(maps(explained(held, listener=heard))) == 2
    assert heard.warned[0].startswith("--explain: stopped after 1 of 4 images, since -1 s are over")


def test_a_report_without_listed_mistakes_says_so(held):
    held.files.predictions.unlink()
    held.files.holdout.unlink()
    heard = Heard()
    assert maps(explained(held, listener=heard)) == []
    assert heard.warned == ["--explain: no mistakes are listed beside this report, so nothing is explained"]


def test_hostile_names_are_text(tmp_path):
    parsed = Parsed(dataclasses.replace(make(tmp_path, classes=HOSTILE), search=Invented()).html())
    assert len(maps(parsed)) >= 10
    assert len(parsed.all("script")) == 2
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert not any(re.search("[\u202a-\u202e\x00-\x1f]", name) for name in maps(parsed))


def test_maps_count_as_the_page_s_pictures(tmp_path, monkeypatch):
    run = dataclasses.replace(make(tmp_path), search=Invented())
    every = Parsed(run.html()).all("img")
    count, taken = len(maps(Parsed(run.html()))), sum(len(tag["src"]) for tag in every if tag["alt"])
    monkeypatch.setattr(album, "BYTES", taken + 300)
    left = Parsed(run.html()).all("img")
    assert len([tag for tag in left if tag["alt"]]) == count >= 10
    assert sum(len(tag["src"]) for tag in left) <= taken + 300
