"""What tuning chose is calibrated alone, given up where little speaks for it, and judged as it was chosen."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from stackcls import memory, reporting, scoring, tuning, unknowns, validation
from stackcls.decisions import probabilities
from stackcls.listener import Silent
from stackcls.report import sections
from stackcls.report.results import STACK, Report
from stackcls.settings import Settings, StackSettings
from stackcls.stages import fit
from stackcls.training import TrainingSet

WIDTH = 20
MIXED = (("average", 1.0), ("linear-svm", 1.0), ("logistic-regression", 100.0), ("average", 1.0))


def some(n, n_classes=5, n_backbones=2, seed=0):
    rng, names = np.random.default_rng(seed), "abcdefgh"[:n_backbones]
    means = np.random.default_rng(9).normal(size=(n_classes, WIDTH * n_backbones)) * 0.5
    y = np.arange(n) % n_classes
    X = (means[y] + rng.normal(size=(n, WIDTH * n_backbones))).astype(np.float32)
    widths = (WIDTH,) * n_backbones
    return TrainingSet(X, tuple(names), widths, y, tuple(f"c{label}" for label in range(n_classes)), None)


@pytest.fixture
def mixed(monkeypatch):
    """Every fold, and the model, with a meta-classifier of another kind."""
    monkeypatch.setattr(tuning, "ERRORS", 1e9)  # what is configured stays
    monkeypatch.setattr(tuning, "FACTORS", (1.0,))
    data, settings = some(450), Settings()
    rows = [*(train for train, _ in validation.split(data, settings)), np.arange(len(data.y))]
    found = [
        tuning.search_parts(data, [part], Settings(stack={"tune": 60, "meta": {"kind": kind, "C": C}}), Silent())
        for part, (kind, C) in zip(rows, MIXED, strict=True)
    ]
    stacks = [item.stacks[0] for item in found]
    assert [stack.meta.kind for stack in stacks] == [kind for kind, _ in MIXED]
    temperatures = [item.temperatures[0] for item in found]
    return data, validation.cross_validate(data, settings, False, Silent(), False, stacks, temperatures)


def test_folds_of_different_meta_classifiers_are_each_as_sure_as_they_are_right(mixed):
    _, done = mixed
    right = done.predictions.correct(STACK)
    for number in range(3):
        here = done.predictions.fold == number
        assert done.shares[here].max(axis=1).mean() == pytest.approx(right[here].mean(), abs=0.08)
    fresh = some(2000, seed=1)
    decisions = done.model.decision_function(fresh.X)
    shares = probabilities(decisions, done.model.temperature)
    accuracy = (decisions.argmax(axis=1) == fresh.y).mean()
    assert accuracy > 0.7
    assert shares.max(axis=1).mean() == pytest.approx(accuracy, abs=0.06)
    assert done.model.temperature == pytest.approx(scoring.fit_temperature(decisions, fresh.y), rel=0.3)


def test_classes_left_out_are_judged_with_the_temperature_of_their_fold(mixed, monkeypatch):
    data, done = mixed
    asked = []
    monkeypatch.setattr(unknowns, "fit_temperature", None)
    monkeypatch.setattr(unknowns, "probabilities", lambda d, T: asked.append(T) or probabilities(d, T))
    unknowns.look(data, done, Settings(), True, Silent())
    assert asked == list(done.temperatures[:2])


def part_of(groups):
    data = replace(some(120), groups=groups)
    return tuning._Part(data, np.arange(120), Settings(stack={"tune": 60}))


def test_images_of_a_group_count_as_one():
    groups = np.repeat(np.arange(24), 5)
    better = np.repeat(np.r_[np.ones(6), np.zeros(16), -np.ones(2)], 5)
    assert part_of(None)._exceeds(better)
    assert not part_of(groups)._exceeds(better)
    assert part_of(groups)._exceeds(np.repeat(np.r_[np.ones(16), np.zeros(8)], 5))


def test_the_best_of_many_needs_more_than_two_standard_errors():
    # 7 and 9 of 120 more are right, 1 fewer: 2.1 and 2.6 standard errors.
    assert not part_of(None)._exceeds(np.r_[np.ones(7), np.zeros(112), -1])
    assert part_of(None)._exceeds(np.r_[np.ones(9), np.zeros(110), -1])


@pytest.mark.parametrize(("folds", "changed"), [((), False), ((0,), False), ((0, 2), True)])
def test_the_model_changes_only_with_half_of_the_folds(monkeypatch, folds, changed):
    data, settings = some(150), Settings(stack={"tune": 60, "meta": {"C": 3}})
    monkeypatch.setattr(tuning, "FACTORS", (1.0,))
    parts = [*(train for train, _ in validation.split(data, settings)), np.arange(len(data.y))]
    clear = {str(parts[number]) for number in (*folds, 3)}
    monkeypatch.setattr(tuning._Part, "_exceeds", lambda part, differences: str(part._rows) in clear)
    done = tuning.search(data, settings, Silent())
    assert [choice.changed for choice in done.choices] == [number in folds for number in range(3)] + [changed]
    assert (done.stacks[-1] == settings.stack.model_copy(update={"tune": None})) is not changed
    configured = tuning.search_parts(data, parts[:1], settings, Silent()).temperatures
    assert len(done.temperatures) == 4
    assert (done.temperatures[0] == configured[0]) is (0 in folds or not folds)


def test_a_tuned_fit_takes_its_temperatures_and_scores_no_folds_that_do_not_know_duplicates(hard, monkeypatch):
    given = tuning.Search((StackSettings(),) * 4, (), (3.0, 4.0, 5.0, 7.0), (1.0,), (1.0,), (), 1.0)
    choice = tuning.Choice("in-sample", {"fake": 1.0}, "linear-svm", 1.0, 0.5, 0.5, False)
    monkeypatch.setattr(tuning, "search", lambda *_: replace(given, choices=(choice,) * 4))
    cv = hard.cv.model_copy(update={"groups": "duplicates"})
    depth = hard.report.model_copy(update={"depth": "quick"})
    stack = hard.stack.model_copy(update={"tune": 1.0})
    settings = hard.model_copy(update={"cv": cv, "report": depth, "stack": stack})
    fit.run(settings)
    report = Report.load(hard.files.report)
    assert report.calibration.temperature == 7.0
    assert (report.duplicates.grouped, report.duplicates.ungrouped) == (True, {})
    assert any(note.startswith("folds that do not know the duplicates were not scored") for note in report.notes)
    said = sections.duplicates_sentence(report, replace(report.duplicates, straddling=2))
    assert said.endswith("Each group was kept in one fold; in plain folds 2 would straddle.")
    assert "Table of scores with and without groups" not in hard.files.page.read_text("utf-8")


def test_tuning_is_counted_in_the_plan_of_memory(monkeypatch):
    monkeypatch.setattr(validation, "cpu_count", lambda: 1)  # one fit at a time, in this process
    data, stack = some(400, n_classes=40, n_backbones=4), StackSettings(tune=60)
    tracemalloc.start()
    monkeypatch.setattr(tuning, "FACTORS", (1.0, 0.1))
    tuning.search(data, Settings(stack=stack), Silent())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    table = 4 * 400 * 40
    assert peak < table * (memory._tuning(4, Settings(stack=stack)) + 4 + memory.TABLES)
    lines = [
        memory.plan("abcd", [20] * 4, 100_000, 200, Settings(stack={"memory": 3000, "tune": tune})).lines
        for tune in (None, 5)
    ]
    assert lines[0] == ()
    assert "100000 images times 200 classes are so many probabilities that 5.84 GB are needed" in lines[1][-1]
    assert lines[1][-1].endswith("give it more memory, or fewer images, or fit without --tune")


def test_with_balanced_weights_the_gain_is_of_balanced_accuracy():
    rng = np.random.default_rng(0)
    given, fold = np.repeat([0, 1, 1, 1, 1, 2], 30), np.arange(180) % 3
    tuned, plain = (scoring.Predictions(given, fold, {STACK: rng.normal(size=(180, 3))}) for _ in range(2))
    found = scoring.balanced(tuned, STACK)
    expected = [balanced_accuracy_score(given[fold == n], tuned.predicted(STACK)[fold == n]) for n in range(3)]
    np.testing.assert_allclose(found.folds, expected)
    validated = validation.Validated(None, tuned, None, None, ())
    choice = tuning.Choice("in-sample", {"a": 1.0}, "average", 1.0, 0.5, 0.5, False)
    search = tuning.Search((), (choice,), (), (1.0,), (1.0,), (), 1.0)
    said = reporting.tuning(search, validated, plain, StackSettings(tune=1, class_weight="balanced"))
    assert said.gain.mean == pytest.approx(found.mean - scoring.balanced(plain, STACK).mean)
    assert said.untuned.mean == scoring.balanced(plain, STACK).mean
    assert "as configured, balanced accuracy" in sections.tuning_sentence(said)
    assert "all classes weighing the same" in sections.tuning_tried(said)
    said = reporting.tuning(search, validated, plain, StackSettings(tune=1))
    assert said.untuned.mean == scoring.score(plain, STACK).mean


@pytest.mark.parametrize("C", [1e308, 1e-323])
def test_strengths_that_numbers_do_not_reach_are_not_tried(C):
    stack = StackSettings(base={"C": C})
    factors = tuning._factors(stack)
    assert 1.0 in factors
    assert len(factors) < 5
    for factor in factors:
        assert tuning._times(stack, ["a"], factor).C["a"] > 0
    assert tuning._factors(StackSettings(meta={"C": C})) == factors
    assert tuning._factors(StackSettings(base={"C": {"a": 1, "b": C}})) == factors
