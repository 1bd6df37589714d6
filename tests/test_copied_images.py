"""Real photos, re-encoded, made smaller, turned and cut: the copies are found, and nearly nothing else."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import SHARED, needs_shared

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import copied_images

from stackcls.stages import features


@pytest.mark.slow
@needs_shared
def test_altered_copies_in_other_folders_are_found_and_grouped(tmp_path, extracted):
    shutil.copytree(SHARED / "data" / "birds20" / "images", tmp_path / "birds")
    settings = extracted["birds20"].model_copy(update={"images": tmp_path / "birds", "artifacts": tmp_path / "work"})
    settings.artifacts.mkdir()
    shutil.copy(extracted["birds20"].files.features, settings.files.features)
    paths = sorted(path.relative_to(settings.images).as_posix() for path in settings.images.rglob("*.jpg"))
    made = copied_images.add_copies(settings.images, paths, 30, seed=0, same_class=False)
    assert set(features.run(settings).computed.values()) == {30}
    hits, others = copied_images.count_found(settings, made)
    assert hits >= 27
    assert others <= 10
    scores = copied_images.score(settings, made)
    # A copy under a wrong label misleads about its original, unless both are in one fold.
    assert scores["grouped"][1] > scores["plain"][1]
    print(hits, others, scores)  # noqa: T201
