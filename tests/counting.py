"""Calls and memory of `features` by step and number of images, in a process of its own; prints them as JSON.

    python -m tests.counting FOLDER

Whatever ran before in the same process, and what of it is still there to be tidied up, would be counted too.
"""

import cProfile
import json
import pstats
import sys
import tracemalloc
from pathlib import Path
from unittest.mock import patch

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import many_images

FEW, TIMES = 2000, 4


def main() -> None:
    """Count calls made by the main thread, and the peak of memory."""
    found = []
    with patch("stackcls.computation.IMAGES_PER_BLOCK", 16):
        for count in (FEW // 10, FEW, FEW * TIMES):  # the first for what is imported and cached once
            folder = Path(sys.argv[1]) / str(count)
            folder.mkdir()
            many_images.write_images(folder / "images", count)
            for step in many_images.STEPS:
                profile = cProfile.Profile()
                tracemalloc.start()
                profile.runcall(many_images.measure_here, folder, step)
                memory = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                found.append([step, count, pstats.Stats(profile).total_calls, memory])
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
