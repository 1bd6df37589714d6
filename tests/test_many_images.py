"""Work and memory grow as the number of images does, and no faster; slow: thousands of images, counted call by call."""

import cProfile
import pstats
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from stackcls.assembly import ROWS_AT_ONCE, Assembly
from stackcls.backbones import Backbone
from stackcls.blocks import Block, BlockFolder
from tests.test_store import TABLE

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

pytest.importorskip("resource")

import many_images

from stackcls import engines

FEW, TIMES = 2000, 4


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """Calls made by the main thread, and the peak of memory, by step and number of images."""
    found = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engines, "choose", engines.choose)  # which the steps replace
        patched.setattr("stackcls.computation.IMAGES_PER_BLOCK", 16)
        for count in (FEW // 10, FEW, FEW * TIMES):  # the first for what is imported and cached once
            folder = tmp_path_factory.mktemp(str(count))
            many_images.write_images(folder / "images", count)
            for step in many_images.STEPS:
                profile = cProfile.Profile()
                tracemalloc.start()
                profile.runcall(many_images.measure_here, folder, step)
                memory = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                found[step, count] = pstats.Stats(profile).total_calls, memory
    return found


@pytest.mark.slow
@pytest.mark.parametrize("step", many_images.STEPS)
def test_four_times_the_images_take_four_times_the_work(counted, step):
    (calls, memory), (more_calls, more_memory) = counted[step, FEW], counted[step, FEW * TIMES]
    assert more_calls < 1.1 * TIMES * calls
    assert more_memory < 1.1 * TIMES * memory
    # Names, hashes and row numbers of an image, not its features, which are 4 KB here.
    assert (more_memory - memory) / (FEW * TIMES - FEW) < 3000


def test_rows_of_one_image_come_in_pieces(tmp_path):
    count = 2 * ROWS_AT_ONCE + 5
    identity = Backbone("b", "MobileNet", (), 32, "random", 1, None, "average", "keras").identity("random:1", "float32")
    folder = BlockFolder(tmp_path)
    folder.add(Block(("a" * 64,), {identity.digest: np.ones((1, 8), np.float32)}, {identity.digest: {}}))
    table = type(TABLE)(**{**vars(TABLE), "paths": ("x",) * count, "sha256": ("a" * 64,) * count})
    pieces = list(Assembly(table, None, folder).rows(identity.digest))
    assert [len(features) for _, features in pieces] == [ROWS_AT_ONCE, ROWS_AT_ONCE, 5]
    assert np.array_equal(np.concatenate([rows for rows, _ in pieces]), np.arange(count))
