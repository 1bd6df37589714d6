"""What a report warns of: probabilities that nothing held back, and a C at the end of what was tried."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from stackcls import reporting, scoring, tuning, validation
from stackcls.listener import Silent
from stackcls.report import sections
from stackcls.report.results import STACK, Report
from stackcls.settings import Settings
from stackcls.stages import features
from tests.test_tuning import gained, noisy


def decided(margin, n=60, wrong=0, noise=0.1):
    rng, y = np.random.default_rng(0), np.arange(n) % 3
    decisions = margin * (2 * np.eye(3)[y] - 1) + noise * rng.normal(size=(n, 3))
    decisions[:wrong] = -decisions[:wrong]
    return decisions, y


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (decided(1.0), "probabilities are not to be taken at their word"),
        (decided(0.01, noise=0.001), "temperature ran to the lower end (0.001)"),
        (decided(50.0, n=6), "probabilities are not to be taken at their word"),
        (
            decided(-1.0),
            "probabilities say nothing: on images held out the stack's decisions are no better than chance",
        ),
        (decided(-1.0), "temperature ran to the upper end (1000)"),
        (decided(1.0, wrong=1), None),
        (decided(0.5, noise=1.0), None),
    ],
)
def test_a_temperature_at_the_end_of_its_range_is_told(given, said):
    notes = scoring.temperature_notes(*given, scoring.fit_temperature(*given))
    assert len(notes) == (said is not None)
    assert said is None or said in notes[0]


def test_fit_tells_it_on_the_terminal_and_in_the_report(settings, fake_engine, stackcls, tmp_path):
    features.run(settings)  # photos of three colours, which nothing could mistake
    raw = {"images": str(settings.images), "artifacts": str(settings.artifacts)}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(raw))
    status, out, _ = stackcls("fit", "-c", tmp_path / "p.yaml")
    assert (status, Report.load(settings.files.report).scores[STACK].mean) == (0, 1.0)
    said = "Note: probabilities are not to be taken at their word: "
    assert said in out
    assert said in settings.files.report_text.read_text("utf-8")
    assert said.removeprefix("Note: ") in settings.files.page.read_text("utf-8")


def test_where_the_learners_err_nothing_is_said(hard, stackcls, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, out, _ = stackcls("fit", "--artifacts", hard.artifacts, "--set", f"images={hard.images}")
    assert status == 0
    assert "probabilities are not" not in out


@pytest.mark.parametrize(
    ("factors", "edges"), [((1.0, 0.1), {"one": 0.1, "two": 0.1}), ((1.0, 0.01, 1e-7), {}), ((1.0, 10.0), {})]
)
def test_a_chosen_c_at_the_end_of_its_grid_is_told(monkeypatch, factors, edges):
    monkeypatch.setattr(tuning, "FACTORS", factors)
    monkeypatch.setattr(tuning, "METAS", ("average",))
    monkeypatch.setattr(tuning, "ERRORS", 0.0)
    data, settings = noisy(), Settings(stack={"tune": 60})
    search = tuning.search(data, settings, Silent())
    done = validation.cross_validate(data, settings, False, Silent(), False, search.stacks, search.temperatures)
    found = reporting.tuning(search, done, validation.predict_folds(data, settings, Silent()), settings.stack)
    assert found.edges == edges
    assert ("is at the end of what was tried" in sections.tuning_sentence(found)) == bool(edges)


def test_the_sentence_names_each_c_and_what_helps():
    told = replace(gained(0.02, [0.01, 0.03]), edges={"a\u202eb": 0.01, STACK: 100.0})
    said = sections.tuning_sentence(told)
    assert r"The C of a\u202eb (0.01), the meta-classifier (100) is at the end of what was tried" in said
    assert said.endswith("with what was chosen in pipeline.yaml, another --tune tries that.")
