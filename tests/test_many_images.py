"""Work and memory grow as the number of images does, and no faster; slow: thousands of images, counted call by call."""

import json
import subprocess
import sys
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

from tests.counting import FEW, TIMES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """Calls made by the main thread, and the peak of memory, by step and number of images."""
    command = [sys.executable, "-m", "tests.counting", tmp_path_factory.mktemp("counted")]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return {(step, count): (calls, memory) for step, count, calls, memory in json.loads(done.stdout.splitlines()[-1])}


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
