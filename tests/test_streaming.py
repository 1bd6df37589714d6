"""Matrices that are read block by block give what matrices in memory give, to the last bit."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from stackcls import analyses, familiarity, logistic, memory, streaming, trainingdata, unknowns, validation
from stackcls.familiarity import fit_space
from stackcls.inspect import duplicates
from stackcls.learners import FittedBase, LeanLogisticRegression
from stackcls.listener import Silent
from stackcls.stages import fit
from stackcls.store import Store
from stackcls.streaming import Streamed, Traffic, pieces
from tests.conftest import make_settings
from tests.test_logistic import cases, class_weights, make_features, types, weights
from tests.test_store import FEATURES, written
from tests.test_validation import make_training_set, validate

__all__ = ["written"]  # a fixture


def streamed(X, rows=None, traffic=None):
    """Rows of an array as if they were read from a file."""

    def read(wanted, target):
        target[:] = X[wanted]
        return target.nbytes

    rows = np.arange(len(X)) if rows is None else rows
    return Streamed(read, rows, X.shape[1], X.dtype, traffic or Traffic())


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that tests have several."""
    monkeypatch.setattr(streaming, "ROWS", 8)
    monkeypatch.setattr(streaming, "BLOCK", 1)
    monkeypatch.setattr(familiarity, "FEW", 8)
    monkeypatch.setattr(pieces, "__defaults__", (8,))


@pytest.mark.parametrize("n_rows", [0, 1, 7, 8, 9, 40, 41])
def test_blocks_are_the_rows_in_order(small_blocks, n_rows):
    X = np.arange(3 * n_rows, dtype=np.float32).reshape(-1, 3)
    traffic = Traffic()
    matrix = streamed(X, traffic=traffic)
    assert matrix.shape == X.shape
    for _ in range(2):  # whenever they are gone through
        found = [(start, block.copy()) for start, block in matrix.blocks()]
        assert [start for start, _ in found] == list(range(0, n_rows, 8))
        np.testing.assert_array_equal(np.concatenate([np.empty((0, 3)), *(block for _, block in found)]), X)
    assert traffic.bytes == 2 * X.nbytes


def test_a_block_ahead_is_read_in_a_thread(small_blocks):
    ahead = threading.Event()

    def read(wanted, target):
        if wanted[0] == 8:
            ahead.set()
        return 0

    for start, _ in Streamed(read, np.arange(32), 2, np.float32, Traffic()).blocks():
        assert start or ahead.wait(30)


def test_what_fails_in_the_thread_fails_here(small_blocks):
    def read(wanted, target):
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(Streamed(read, np.arange(32), 2, np.float32, Traffic()).blocks())


def test_some_rows_of_some_rows():
    X = np.random.default_rng(0).normal(size=(30, 3))
    rows, some = np.arange(1, 30, 2), np.array([0, 3, 14])
    ((_, found),) = streamed(X, rows).take(some).blocks()
    np.testing.assert_array_equal(found, X[rows[some]])


@pytest.mark.parametrize("rows", [[0], [4], [1, 2, 4], [0, 1, 2, 3, 4]])
def test_the_store_streams_its_rows(written, rows):
    with Store(written) as opened:
        stored = trainingdata._Stored(opened, ("one",), np.array(rows), (Traffic(),))
        matrix = stored.stream(0, np.arange(len(rows)))
        ((_, found),) = matrix.blocks()
        np.testing.assert_array_equal(found, FEATURES["one"][rows])
        # What lies between the rows is read too.
        assert matrix.traffic.bytes == (rows[-1] - rows[0] + 1) * 4 * 4


@cases
@weights
@types
def test_the_fit_is_the_same_to_the_last_bit(small_blocks, n_rows, width, n_classes, balanced, dtype):
    X, y = make_features(n_rows, width, n_classes, dtype)
    wanted = {"class_weights": class_weights(y) if balanced else None, "max_iterations": 1000}
    expected = logistic.fit(X, y, n_classes, **wanted)
    found = logistic.fit(streamed(X), y, n_classes, **wanted)
    assert found.iterations == expected.iterations > 10
    np.testing.assert_array_equal(found.coef, expected.coef)
    np.testing.assert_array_equal(found.intercept, expected.intercept)


@cases
@weights
@types
def test_the_size_of_pieces_does_not_matter_beyond_rounding(monkeypatch, n_rows, width, n_classes, balanced, dtype):
    X, y = make_features(n_rows, width, n_classes, dtype)
    at, found = None, []
    for rows in (1, 7, 64, 1024):
        monkeypatch.setattr(pieces, "__defaults__", (rows,))
        loss = logistic._Loss(streamed(X), y, n_classes, 0.7, class_weights(y) if balanced else None)
        at = np.random.default_rng(1).normal(0, 0.3, (width + 1) * loss.columns).astype(dtype)
        gradient = np.full_like(at, np.nan)
        found.append((loss(at, gradient), gradient))
    for value, gradient in found[:-1]:
        assert value == pytest.approx(found[-1][0], rel=1e-5)
        np.testing.assert_allclose(gradient, found[-1][1], rtol=1e-3, atol=1e-5)


def test_probabilities_are_the_same(small_blocks):
    X, y = make_features(150, 20, 5, np.float32)
    base = FittedBase(LeanLogisticRegression().fit(X, y).plain(), True)
    np.testing.assert_array_equal(base.predict_proba(streamed(X)), base.predict_proba(X))


@pytest.mark.parametrize("size", [(120, 30), (30, 120)])
def test_spaces_of_known_classes_are_the_same(small_blocks, size):
    X = np.random.default_rng(0).normal(size=size).astype(np.float32)
    y = np.arange(size[0]) % 5
    expected, found = fit_space(X, y, 5), fit_space(streamed(X), y, 5)
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), value)


class Streaming:
    """Of a training set, one matrix that must not be fetched whole."""

    def __init__(self, data, whole):
        self.data, self.whole, self.fetched = data, whole, []

    def block(self, number, rows):
        assert number in self.whole
        return self.data.block(number, rows)

    def stream(self, number, rows):
        assert number not in self.whole
        self.fetched.append(number)
        every = self.data.block(number, np.arange(len(self.data.y)))
        return streamed(every, rows)


@pytest.mark.parametrize("recipe", ["in-sample", "out-of-fold"])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_stack_is_the_same(small_blocks, monkeypatch, recipe, n_classes):
    data = make_training_set(n_classes=n_classes)
    wanted = {"stack": {"recipe": recipe}}
    monkeypatch.setattr(validation, "LARGE", 0)  # so that the last fit begins where the folds ended, here too
    expected = validate(data, **wanted)
    source = Streaming(data, whole={1})
    part = replace(data, X=source, streamed=frozenset([0]))
    found = validate(part, **wanted)
    assert set(source.fetched) == {0}
    for name, ranking in expected.predictions.ranking.items():
        np.testing.assert_allclose(found.predictions.ranking[name], ranking, atol=1e-5)
    np.testing.assert_allclose(found.model.decision_function(data.X), expected.model.decision_function(data.X), 1e-3)
    parts = [(np.arange(0, 120, 2), np.arange(1, 120, 2))]
    spaces = [list(unknowns.familiarities(each, parts, True, lambda _: None)) for each in (data, part)]
    np.testing.assert_array_equal(spaces[0][0][1][0], spaces[1][0][1][0])


class Heard(Silent):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)

    warn = say


def with_memory(settings, **sections):
    return make_settings(settings.images, settings.artifacts, stack={"memory": 1}, **sections)


@pytest.fixture
def no_room(monkeypatch):
    """Nothing fits into a MiB."""
    monkeypatch.setattr(memory, "NUMBER", 40_000)


@pytest.mark.parametrize("recipe", ["in-sample", "out-of-fold"])
def test_fit_reads_in_blocks_what_does_not_fit(hard, no_room, monkeypatch, recipe):
    monkeypatch.setattr(validation, "LARGE", 0)
    settings = with_memory(hard, cv={"holdout": 0.2})
    settings = settings.model_copy(update={"stack": settings.stack.model_copy(update={"recipe": recipe})})
    roomy = settings.model_copy(update={"stack": settings.stack.model_copy(update={"memory": 10**9})})
    expected = fit.run(roomy).report
    heard = Heard()
    monkeypatch.setattr(Store, "read_rows", lambda *_: pytest.fail("a matrix was read whole"))
    monkeypatch.setattr(trainingdata.grouping, "look_for_fit", lambda *_: (expected_found(settings), None))
    found = fit.run(settings, baseline="linear-svm", listener=heard).report
    assert {name: score.folds for name, score in found.scores.items()} == {
        name: score.folds for name, score in expected.scores.items()
    }
    assert found.holdout.scores == expected.holdout.scores
    assert found.baselines == {}
    for name in ("one", "two"):
        assert any(line.startswith(f"{name}: ") and "in blocks" in line for line in heard.lines)
        assert any(line.startswith(f"{name}: read ") and " times, " in line for line in heard.lines)
    svms = "linear SVMs on single backbones were left out: they need whole matrices in memory"
    assert svms in heard.lines
    assert svms in found.notes


def expected_found(settings):
    """Exact duplicates alone."""
    with Store(settings.files.features) as opened:
        return duplicates.find(opened.table.sha256, None)


def test_what_needs_whole_matrices_is_left_out_also_where_it_was_asked_for(hard, no_room):
    report = fit.run(with_memory(hard, report={"depth": "full"})).report
    assert analyses.NO_ROOM in report.notes
    assert report.contributions == {}
    assert "most similar images" not in report.suspects.method
