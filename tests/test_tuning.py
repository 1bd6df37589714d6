"""Tuning chooses from the rows that a fold is fitted on alone, in levels, and says whether it paid."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from stackcls import config, tuning, unknowns, validation
from stackcls.errors import ConfigError, TrainingError
from stackcls.levels import Levels
from stackcls.listener import Silent
from stackcls.report import sections
from stackcls.report.results import Gain, McNemar, Report, Score, Tuning
from stackcls.settings import Settings, StackSettings
from stackcls.stack import StackedClassifier
from stackcls.stages import fit
from stackcls.training import TrainingSet
from tests.test_validation import Fetched, make_training_set

TUNE = Settings(stack={"tune": 60})


def noisy(seed=0, n=160, groups=None):
    """Two backbones of few columns that tell and many that do not: C = 1 is too much."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 4)
    X = rng.normal(size=(n, 100))
    X[:, :4] += np.eye(4)[y]
    X[:, 50:54] += np.eye(4)[y]
    return TrainingSet(X.astype(np.float32), ("one", "two"), (50, 50), y, tuple("abcd"), groups)


@pytest.fixture(scope="module")
def found():
    return tuning.search(noisy(), TUNE, Silent())


def test_an_outer_fold_is_never_looked_at(found):
    data, folds = noisy(), validation.split(noisy(), TUNE)
    for number, (train, test) in enumerate(folds):
        X, y = data.X.copy(), data.y.copy()
        X[test], y[test] = np.nan, (y[test] + 1) % 4
        again = tuning.search_parts(replace(data, X=X, y=y), [train], TUNE, Silent())
        assert again.choices == (found.choices[number],)
        assert again.stacks == (found.stacks[number],)
    assert len(found.choices) == len(folds) + 1
    assert any(choice.changed for choice in found.choices)


def test_the_model_s_choice_is_made_from_all_rows(found):
    data = noisy()
    again = tuning.search_parts(data, [np.arange(len(data.y))], TUNE, Silent())
    assert again.choices == found.choices[-1:]


def test_every_fold_is_scored_with_its_own_choice():
    data = make_training_set()
    stacks = [
        StackSettings(base={"C": {"one": 0.01, "two": 1.0}}),
        StackSettings(meta={"kind": "average"}),
        StackSettings(recipe="out-of-fold", base={"C": 5}),
        StackSettings(meta={"kind": "logistic-regression", "C": 7}, base={"C": 0.1}),
    ]
    done = validation.cross_validate(data, Settings(), False, Silent(), leave_out=True, stacks=stacks)
    estimators = [
        StackedClassifier((7, 5), base_C=(0.01, 1.0)),
        StackedClassifier((7, 5), meta="average"),
        StackedClassifier((7, 5), "out-of-fold", base_C=5.0),
        StackedClassifier((7, 5), meta="logistic-regression", meta_C=7.0, base_C=0.1),
    ]
    for (train, test), estimator in zip(validation.split(data, Settings()), estimators, strict=False):
        expected = estimator.fit(data.X[train], data.y[train]).decision_function(data.X[test])
        np.testing.assert_allclose(done.predictions.ranking["stack"][test], expected, rtol=1e-4, atol=1e-4)
        # What is left without one backbone is its average, or what learns from that, with the same settings.
        alone = StackedClassifier(**{**estimator.get_params(), "widths": None, "base_C": estimator.strength(0)})
        without = alone.fit(data.X[train, :7], data.y[train]).predict(data.X[test, :7])
        assert (done.without["two"][test] == without).mean() > 0.97
    model = estimators[-1].fit(data.X, data.y)
    np.testing.assert_allclose(done.model.decision_function(data.X), model.decision_function(data.X), rtol=1e-4)
    assert list(done.stacks) == stacks


def test_what_is_configured_is_scored_as_scikit_learn_scores_it(found):
    data = noisy()
    for (train, _), choice in zip(validation.split(data, TUNE), found.choices, strict=False):
        inner = StratifiedKFold(3, shuffle=True, random_state=0)
        plain = cross_val_predict(StackedClassifier((50, 50)), data.X[train], data.y[train], cv=inner)
        assert choice.configured == pytest.approx((plain == data.y[train]).mean())
        if not choice.changed:
            assert choice.accuracy == choice.configured


def test_each_backbone_has_the_c_of_the_least_inner_loss(found):
    data = noisy()
    parts = [*(train for train, _ in validation.split(data, TUNE)), np.arange(len(data.y))]
    choice, rows = next((c, part) for c, part in zip(found.choices, parts, strict=True) if c.changed)
    inner, X, y = StratifiedKFold(3, shuffle=True, random_state=0), data.X[rows], data.y[rows]
    for name, columns in (("one", slice(0, 50)), ("two", slice(50, 100))):
        losses = {
            C: log_loss(
                y,
                cross_val_predict(
                    LogisticRegression(C=C, max_iter=1000), X[:, columns], y, cv=inner, method="predict_proba"
                ),
            )
            for C in tuning.FACTORS
        }
        assert choice.base_C[name] == min(losses, key=losses.get) < 1


def test_where_nothing_is_clearly_better_what_is_configured_stays():
    y = np.arange(90) % 3
    X = np.random.default_rng(0).normal(size=(90, 12)) + 4 * np.eye(12)[y]
    data = TrainingSet(X.astype(np.float32), ("one", "two"), (7, 5), y, tuple("abc"), None)
    settings = Settings(stack={"tune": 60, "recipe": "out-of-fold", "meta": {"C": 3}})
    done = tuning.search(data, settings, Silent())
    assert not any(choice.changed for choice in done.choices)
    assert set(map(str, done.stacks)) == {str(settings.stack.model_copy(update={"tune": None}))}


def test_groups_stay_in_one_inner_fold(monkeypatch):
    groups = np.random.default_rng(0).integers(0, 60, 160)
    straddling, bases = [], validation.fit_bases

    def watched(unfitted, data, parts, advance):
        straddling.extend(np.intersect1d(groups[train], groups[test]).size for train, test in parts)
        return bases(unfitted, data, parts, advance)

    monkeypatch.setattr(validation, "fit_bases", watched)
    tuning.search(noisy(groups=groups), TUNE, Silent())
    # Three folds and all rows, three inner folds each, for each level.
    assert straddling == [0] * 4 * 3 * len(tuning.FACTORS)


def test_with_balanced_weights_rare_classes_count_as_much(monkeypatch):
    data = noisy()
    rows = np.flatnonzero((data.y > 0) | (np.cumsum(data.y == 0) <= 8))
    settings = Settings(stack={"tune": 60, "class_weight": "balanced"})
    choice = tuning.search_parts(data, [rows], settings, Silent()).choices[0]
    inner = StratifiedKFold(3, shuffle=True, random_state=0)
    estimator = StackedClassifier((50, 50), class_weight="balanced")
    plain = cross_val_predict(estimator, data.X[rows], data.y[rows], cv=inner)
    recalls = [(plain == data.y[rows])[data.y[rows] == label].mean() for label in range(4)]
    assert choice.configured == pytest.approx(np.mean(recalls))


def test_large_matrices_are_fetched_one_at_a_time(monkeypatch, found):
    monkeypatch.setattr(validation, "LARGE", 0)
    fetched = Fetched(noisy())
    again = tuning.search(replace(noisy(), X=fetched), TUNE, Silent())
    assert fetched.most == 1
    assert again.choices == found.choices


def tick(monkeypatch, seconds):
    """A clock on which each look at it takes that long."""
    clock = itertools.count(0, seconds)
    monkeypatch.setattr(tuning.time, "perf_counter", lambda: float(next(clock)))


@pytest.mark.parametrize(
    ("end", "levels"),
    [(1, 1), (20, 1), (26, 2), (36, 3), (46, 4), (1000, 5)],
)
def test_a_level_that_would_not_end_in_time_is_not_begun(monkeypatch, end, levels):
    tick(monkeypatch, 10)
    levels_of = Levels(tuning.FACTORS, 0.0, end)
    next_look = tuning.time.perf_counter()
    assert next_look == 0
    assert list(levels_of) == list(tuning.FACTORS[:levels]) == levels_of.done


def test_the_time_counts_for_all_parts_together(monkeypatch):
    tick(monkeypatch, 100)
    done = tuning.search(noisy(), Settings(stack={"tune": 0.1}), Silent())
    assert done.base_factors == done.meta_factors == (1.0,)
    assert {C for choice in done.choices for C in choice.base_C.values()} == {1.0}


def test_strengths_are_as_a_person_would_write_them():
    assert [tuning._product(0.1, 3.0), tuning._product(10.0, 0.07)] == [0.3, 0.7]


def test_a_class_too_rare_for_inner_folds_is_an_error_before_any_work(monkeypatch):
    data = make_training_set(n_classes=2, n_rows=20)
    keep = np.r_[np.flatnonzero(data.y == 0), np.flatnonzero(data.y == 1)[:4]]
    few = replace(data, X=data.X[keep], y=data.y[keep])
    monkeypatch.setattr(validation, "fit_bases", None)
    with pytest.raises(TrainingError, match=r"inner ones .* need at least 5 images of each class, but 'b' has 4"):
        tuning.search(few, TUNE, Silent())


def test_classes_left_out_are_judged_by_the_choice_of_their_fold(monkeypatch):
    data = make_training_set()
    settings, asked = Settings(), []
    stacks = [StackSettings(base={"C": C}) for C in (0.25, 0.5, 2.0, 4.0)]
    done = validation.cross_validate(data, settings, False, Silent(), stacks=stacks)
    predict = validation.predict_held_out

    def watched(data, part, settings, advance):
        asked.append(settings.stack.base.C)
        return predict(data, part, settings, advance)

    monkeypatch.setattr(validation, "predict_held_out", watched)
    unknowns.look(data, done, settings, True, Silent())
    assert asked == [0.25, 0.5]


def gained(mean, interval, changed=True):
    choice = tuning.Choice("in-sample", {"a\u202eb": 1.0, "two": 10.0}, "average", 1.0, 0.9, 0.8, changed)
    gain = Gain("stack as configured", mean, [mean] * 3, interval, "m", McNemar(3, 2, 0.5))
    score = Score(0.8, 0.0, [0.8] * 3, 0.8)
    return Tuning(10.0, 12.0, [1.0, 10.0], [1.0], [0.1], [choice, choice], score, gain)


@pytest.mark.parametrize(
    ("mean", "interval", "changed", "said"),
    [
        (0.02, [0.01, 0.03], True, "It paid."),
        (0.02, [-0.01, 0.05], True, "Whether it paid, these folds do not settle"),
        (0.02, None, True, "Whether it paid, these folds do not settle"),
        (0.0, None, True, "It did not pay: the stack as configured, without --tune, does no worse"),
        (-0.02, [-0.03, -0.01], True, "It did not pay: the stack as configured"),
        (0.0, None, False, "It did not pay: nothing that was tried was clearly better"),
    ],
)
def test_it_is_said_in_plain_words_whether_it_paid(mean, interval, changed, said):
    assert said in sections.tuning_sentence(gained(mean, interval, changed))


def test_the_section_says_what_was_tried_and_what_there_was_no_time_for():
    parts = "\n".join(sections.tuning(gained(0.0, None)))
    assert "x1, x10" in parts
    assert "For x0.1 there was no time" in parts
    assert "\u202e" not in parts
    assert "\u202e" not in sections.chosen_yaml(gained(0.0, None))


def test_fit_says_what_was_chosen_and_that_can_be_pasted(hard, stackcls, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "FACTORS", (1.0, 100.0))
    hard = hard.model_copy(update={"report": hard.report.model_copy(update={"depth": "quick"})})
    raw = {"images": str(hard.images), "artifacts": str(hard.artifacts), "report": {"depth": "quick"}}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(raw))
    status, out, err = stackcls("fit", "-c", tmp_path / "p.yaml", "--tune")
    assert status == 0, err
    report = Report.load(hard.files.report)
    tuned = report.tuning
    assert (tuned.minutes, len(tuned.choices), len(tuned.untuned.folds)) == (10.0, 4, 3)
    assert tuned.gain.mean == pytest.approx(report.scores["stack"].mean - tuned.untuned.mean)
    assert sections.tuning_verdict(tuned) in out
    assert f"recipe {report.recipe}, chosen by tuning" in out
    assert "## Tuning" in hard.files.report_text.read_text("utf-8")
    page = hard.files.page.read_text("utf-8")
    assert 'id="tuning"' in page
    pasted = out.partition("```yaml\n")[2].partition("```")[0]
    stack = config.build(yaml.safe_load(pasted)).stack
    images = sorted(hard.images.glob("*/*.png"))
    before = fit.modelfile.load(hard.files.safe_model).predict_proba(images)
    again = fit.run(hard.model_copy(update={"stack": stack}))
    assert again.report.tuning is None
    model = fit.modelfile.load(hard.files.safe_model)
    # The temperature comes from the folds, which had choices of their own.
    np.testing.assert_array_equal(model.predict_proba(images).argmax(axis=1), before.argmax(axis=1))
    untuned = fit.run(hard).report
    assert untuned.scores["stack"].mean == pytest.approx(tuned.untuned.mean)


def _stop():
    raise ConfigError("enough")


@pytest.mark.parametrize(("given", "minutes"), [(["--tune"], 10.0), (["--tune", "2.5"], 2.5), ([], None)])
def test_the_option_takes_minutes_or_none(hard, stackcls, monkeypatch, given, minutes):
    asked = []
    monkeypatch.setattr(fit, "run", lambda settings, **more: asked.append(settings.stack.tune) or _stop())
    stackcls("fit", "--artifacts", hard.artifacts, *given)
    assert asked == [minutes]
