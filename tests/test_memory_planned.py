"""How much fits may take, how much they are reckoned to take, and what is said where that is too much."""

import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from stackcls import basefits, memory, stack, validation
from stackcls.settings import Settings, StackSettings
from tests.test_validation import make_training_set


def test_matrices_that_do_not_fit_side_by_side_are_fitted_one_after_the_other(monkeypatch):
    data = make_training_set()
    monkeypatch.setattr(validation, "cpu_count", lambda: 8)
    matrix = 4 * 120 * 7
    assert validation.is_large(replace(data, memory=8 * matrix - 1))
    assert not validation.is_large(replace(data, memory=8 * matrix))


def planned(mib, n_images=100_000, n_classes=10, widths=(1024, 128), **stack):
    return memory.plan(("a", "b"), widths, n_images, n_classes, Settings(stack={"memory": mib, **stack}))


def test_what_does_not_fit_is_streamed():
    # 390 and 49 MiB, and 53 MiB of probabilities.
    assert [sorted(planned(mib).streamed) for mib in (1000, 450, 440, 110, 100)] == [[], [], [0], [0], [0, 1]]
    assert planned(1000).lines == ()
    (line,) = planned(200).lines
    assert line.startswith(
        "a: 410 MB, and 57.2 MB to work with, do not fit into the 209 MB that fits may take (stack.m"
    )
    assert "read from the file in blocks" in line
    assert "1000000 images times 10 classes are so many" not in str(planned(600, 1_000_000).lines)
    assert "1000000 images times 10 classes are so many probabilities that 560 MB are ne" in str(
        planned(500, 1_000_000).lines
    )


@pytest.mark.parametrize("n_images", [160, 166, 170, 26_211, 26_213, 26_214, 26_215, 70_000_000])
def test_what_does_not_fit_is_never_said_to_be_as_much_as_there_is(n_images):
    for mib in (1, 2, 103, 104, 400_000):
        for line in planned(mib, n_images).lines:
            needed = [float(size) * UNITS[unit] for size, unit in re.findall(r"([\d.]+) (\wB)", line)]
            assert sum(needed[:-1]) > needed[-1], line


UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def test_inner_folds_copy_a_matrix_that_is_in_memory():
    wanted = {"recipe": "out-of-fold"}
    assert [sorted(planned(mib, **wanted).streamed) for mib in (850, 800, 160, 150)] == [[], [0], [0], [0, 1]]
    assert planned(800, **wanted).lines[0].startswith("a: 820 MB (twice, for inner folds), and 57.2 MB to work with")
    X, y = np.random.default_rng(0).standard_normal((3000, 512)).astype(np.float32), np.arange(3000) % 3
    stacked = stack.from_settings(StackSettings(recipe="out-of-fold"), (512,), 0)
    tracemalloc.start()
    stacked.fit_base(X, y)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < (memory.copies("out-of-fold") - 0.8) * X.nbytes


def test_a_choice_of_the_stack_may_copy_too_and_keeps_probabilities():
    # 3 inner folds of 3 folds and all rows, of two backbones and their average: 33 arrays of 4 MB more.
    assert [sorted(planned(mib, tune=1.0).streamed) for mib in (970, 950)] == [[], [0]]
    assert (
        "100000 images times 10 classes are so many probabilities that 188 MB are needed"
        in (planned(170, tune=1.0).lines[-1])
    )
    assert planned(170, tune=1.0).lines[-1].endswith("or fewer images, or fit without --tune")


def test_blocks_of_wide_matrices_count():
    # Two blocks of 1,024 rows have 1.1 GB, the steps of a fit 147 MB.
    wide = {"widths": (131_000, 128), "n_images": 20_000}
    (line,) = planned(1300, **wide).lines
    assert line.startswith("a: 10.5 GB, ")
    _, line = planned(1000, **wide).lines
    assert line.startswith(
        "a: 131000 features are so many that 1.24 GB are needed even so, more than the 1.04 GB that f"
    )


@pytest.mark.parametrize("recipe", ["in-sample", "out-of-fold"])
def test_fits_side_by_side_have_room_for_copies(monkeypatch, recipe):
    asked = []
    monkeypatch.setattr(validation, "cpu_count", lambda: 8)
    monkeypatch.setattr(basefits, "in_parallel", lambda jobs, n_jobs, *_: asked.append(n_jobs) or jobs)
    data = replace(make_training_set(), memory=8 * 4 * 120 * 7)
    unfitted = stack.from_settings(StackSettings(recipe=recipe), data.widths, 0)
    next(validation.fit_bases([unfitted], data, [(data.y, data.y)], lambda _: None))
    assert asked == [-1 if recipe == "in-sample" else 1]


def test_by_default_most_of_what_is_available_is_taken(monkeypatch):
    monkeypatch.setattr("stackcls.processes.available_memory", lambda: 800)
    assert planned(None).memory == 600
    assert planned(None).streamed == {0, 1}


@pytest.mark.parametrize("value", ["much", 0, -3, True, 1.5])
def test_memory_is_auto_or_mib(value):
    with pytest.raises(ValueError, match="`auto` or a number of MiB from 1 on is allowed"):
        Settings(stack={"memory": value})


def test_memory_as_written():
    assert [Settings(stack={"memory": value}).stack.memory for value in ("auto", "300", 300)] == [None, 300, 300]
