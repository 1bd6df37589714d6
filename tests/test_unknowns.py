"""What tells images of no known class is measured on classes that were left out, and on images held out."""

from dataclasses import replace

import numpy as np
import pytest

from stackcls import unknowns, validation
from stackcls.listener import Silent
from stackcls.settings import Settings
from stackcls.training import TrainingSet
from stackcls.unknowns import Rows, calibrate, class_groups


def drawn(n_classes=8, per_class=15, seed=0, groups=None, spread=0.6):
    """Two backbones' features of classes whose means differ."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(n_classes), per_class)
    X = (rng.normal(0, spread, (n_classes, 20))[y] + rng.normal(size=(len(y), 20))).astype(np.float32)
    order = rng.permutation(len(y))
    names = tuple(f"class {number}" for number in range(n_classes))
    return TrainingSet(X[order], ("one", "two"), (12, 8), y[order], names, groups)


def look(data, full=True, **sections):
    settings = Settings(**sections)
    validated = validation.cross_validate(data, settings, False, Silent())
    return unknowns.look(data, validated, settings, full, Silent())


def test_classes_left_out_are_told_from_the_others():
    found, familiarity = look(drawn(spread=1))
    assert found.auroc > 0.85
    assert found.auroc > found.auroc_confidence
    rejects, coverage, rejected = (
        [getattr(t, n) for t in found.trades] for n in ("reject", "coverage", "unknown_rejected")
    )
    assert rejects == sorted(rejects)
    assert coverage == sorted(coverage, reverse=True)
    assert rejected == sorted(rejected)
    assert (coverage[0], rejected[0]) == (1, 0)
    middle = found.trades[rejects.index(0.5)]
    assert middle.accuracy > found.trades[0].accuracy
    assert middle.unknown_rejected > 0.6 < middle.coverage
    assert [len(group) for group in found.left_out] == [2, 2]
    assert not set(found.left_out[0]) & set(found.left_out[1])
    assert [view.counts.tolist() for view in familiarity.views] == [[10] * 8] * 3
    assert familiarity.measured
    assert familiarity.weights[2] > 0
    assert len(familiarity.weights) == 4


def test_without_further_fits_only_known_images_are_measured(monkeypatch):
    monkeypatch.setattr(validation, "predict_held_out", None)
    found, familiarity = look(drawn(), full=False)
    assert (found.auroc, found.auroc_confidence, found.left_out) == (None, None, [])
    assert {trade.unknown_rejected for trade in found.trades} == {None}
    assert found.trades[5].accuracy >= found.trades[0].accuracy
    assert found.method == unknowns.NOT_MEASURED
    assert [len(view.spaces) for view in familiarity.views] == [2, 2, 2]
    assert not familiarity.measured


def test_labels_drawn_at_random_tell_nothing():
    # Any image that is scored by what was fitted on it would look more familiar than those left out.
    data = drawn(n_classes=8, per_class=40, spread=0)
    found, _ = look(data)
    assert found.auroc == pytest.approx(0.5, abs=0.08)
    assert found.trades[0].accuracy == pytest.approx(1 / 8, abs=0.06)


def test_no_image_is_scored_by_what_was_fitted_on_it_or_on_its_class_left_out(monkeypatch):
    data, seen = drawn(), []
    decide, fit_space = validation.predict_held_out, unknowns._fit_space

    def decide_and_tell(case, part, *others):
        seen.append((case, part))
        return decide(case, part, *others)

    def fit_and_tell(case, number, train, test):
        seen.append((case, (train, test)))
        return fit_space(case, number, train, test)

    monkeypatch.setattr(validation, "predict_held_out", decide_and_tell)
    monkeypatch.setattr(unknowns, "_fit_space", fit_and_tell)
    look(data)
    assert len(seen) == 2 + 2 * (3 + 2)
    for case, (train, test) in seen:
        assert not np.intersect1d(train, test).size
        assert (case.y[train] >= 0).all()
        assert len(np.unique(case.y[train])) == len(case.class_names)


def test_a_model_holds_few_views_however_many_folds():
    found, familiarity = look(drawn(), cv={"folds": 5})
    assert len(familiarity.views) == 3
    assert found.trades[0].coverage == 1


def test_weights_that_judge_know_no_image_of_what_is_judged(monkeypatch):
    data, seen, fitted = drawn(), [], []
    measure, weights = unknowns._measure, unknowns._weights
    monkeypatch.setattr(unknowns, "_measure", lambda *given: seen.append(given) or measure(*given))
    monkeypatch.setattr(unknowns, "calibrate", lambda items: fitted.append(items) or calibrate(items))
    look(data)
    ((rows, left_out, groups, _),) = seen
    assert (rows.home == rows.fold).all()
    items = [rows, *(item.take(~item.known) for item in left_out)]
    for case, group in zip(left_out, groups, strict=True):
        assert np.array_equal(np.isin(case.label, group), ~case.known)
        weights(items, case.fold[0], group)
        assert sum(item.known.sum() for item in fitted[-1])
        assert sum((~item.known).sum() for item in fitted[-1])
        for item in fitted[-1]:
            assert not np.isin(item.label, group).any()
            assert not ((item.fold == case.fold[0]) | (item.home == case.fold[0])).any()
    # The model's own weights know all of them, each fold's and each case's all but its own.
    sizes = [sum(len(item.label) for item in items) for items in fitted]
    assert sizes[0] == sum(len(item.label) for item in items) > max(sizes[1:])
    assert len(sizes) == 1 + 3 + 2 + 2


def test_no_temperature_is_fitted_on_images_that_it_judges(monkeypatch):
    data, seen, cases = drawn(), [], []
    fit, score = unknowns.fit_temperature, unknowns._score
    monkeypatch.setattr(unknowns, "fit_temperature", lambda *given: seen.append(given) or fit(*given))
    monkeypatch.setattr(unknowns, "_score", lambda *given: cases.append(given[0]) or score(*given))
    look(data)
    for case, (decisions, given) in zip(cases, seen, strict=True):
        assert np.array_equal(given, case.data.y[case.part[0]])
        assert decisions.shape == (len(given), len(data.class_names) - len(case.group))
        # Columns of the classes that were kept, in order.
        assert (decisions.argmax(axis=1) == given).mean() > 0.5


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("recipe", ["in-sample", "out-of-fold"])
def test_few_classes(n_classes, recipe):
    found, familiarity = look(drawn(n_classes, spread=2), stack={"recipe": recipe})
    assert (found.auroc is None) == (n_classes == 2)
    assert found.trades[0].coverage == 1
    assert np.isfinite(familiarity.weights).all()


def test_large_matrices_one_after_the_other_give_the_same(monkeypatch):
    data = drawn()
    small, ours = look(data)
    monkeypatch.setattr(unknowns, "FEW", 7)
    settings = Settings()
    validated = validation.cross_validate(data, settings, False, Silent())
    monkeypatch.setattr(validation, "is_large", lambda data, copies=1: True)
    large, theirs = unknowns.look(data, validated, settings, True, Silent())
    assert theirs.weights == pytest.approx(ours.weights, rel=1e-3, abs=1e-3)
    assert large.auroc == pytest.approx(small.auroc, abs=1e-3)


def test_groups_that_leave_a_part_without_a_class_are_not_left_out(monkeypatch):
    data = drawn(4, 12)
    data = replace(data, groups=np.arange(len(data.y)))

    def refuse(*_):
        raise unknowns.TrainingError("no image of a class")

    monkeypatch.setattr(unknowns, "check_folds", refuse)
    found, _ = look(data, stack={"recipe": "out-of-fold"})
    assert found.auroc is None


def test_the_seed_decides_which_classes_are_left_out():
    first, second = class_groups(20, 0)
    assert len(first) == len(second) == 5
    assert np.array_equal(class_groups(20, 0)[1], second)
    assert not np.array_equal(class_groups(20, 1)[0], first)
    assert class_groups(2, 0) == []


def rows(n, right, known=True, familiarity=None, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(3, n))
    scores[1] = scores[1] if familiarity is None else familiarity
    zero = np.zeros(n, int)
    return Rows(scores, np.full(n, right), np.full(n, known), zero, zero, zero)


def test_certainty_is_calibrated_where_known_and_unknown_are_as_many():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 40_000))
    right = rng.random(40_000) < 1 / (1 + np.exp(-(0.5 + scores[0] + 2 * scores[1])))
    # Unknown images are the wrong ones here; three quarters of them are dropped, which must not matter.
    known = right
    zero = np.zeros(40_000, int)
    item = Rows(scores, right, known, zero, zero, zero)
    fewer = item.take(right | (rng.random(40_000) < 0.25))
    share = np.log(right.mean() / (1 - right.mean()))
    assert calibrate([item]) == pytest.approx((0.5 - share, 1, 2, 0), abs=0.1)
    assert calibrate([fewer]) == pytest.approx((0.5 - share, 1, 2, 0), abs=0.15)


def test_no_weight_is_negative():
    low, high = np.linspace(-2, -1, 50), np.linspace(1, 2, 50)
    weights = calibrate([rows(50, True, familiarity=low), rows(50, False, familiarity=high)])
    assert weights[2] == 0


def test_without_a_wrong_label_nothing_is_quite_certain():
    intercept, *slopes = calibrate([rows(100, True)])
    assert 0.95 < 1 / (1 + np.exp(-intercept)) < 1
    assert slopes == pytest.approx([0, 0, 0], abs=1e-2)
