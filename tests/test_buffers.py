"""Large arrays are zero, like any other to use, and leave nothing behind."""

import sys

import numpy as np
import psutil
import pytest

from stackcls import buffers


@pytest.mark.parametrize("shape", [(0, 3), (7,), (600, 700)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_they_are_zero_and_writable(shape, dtype):
    array = buffers.zeros(shape, dtype)
    assert array.shape == shape
    assert array.dtype == dtype
    assert not array.any()
    array += 1
    assert array.all()


def test_what_the_c_library_keeps_goes_back(monkeypatch):
    trimmed = []
    library = type("Library", (), {"malloc_trim": staticmethod(trimmed.append)})
    monkeypatch.setattr(buffers.ctypes, "CDLL", lambda name: library)
    buffers.give_back()
    assert trimmed == [0]
    monkeypatch.setattr(buffers.ctypes, "CDLL", lambda name: object())  # not glibc
    buffers.give_back()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems count resident memory otherwise")
def test_their_memory_goes_back_at_once():
    process, held = psutil.Process(), []
    for _ in range(20):  # of a size that the C library would keep
        held.append(buffers.zeros((1 << 21,)))
        held[-1] += 1
    full = process.memory_info().rss
    held.clear()
    assert full - process.memory_info().rss > 150 << 20
