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
def test_altered_copies_in_other_folders_are_found(tmp_path):
    birds = SHARED / "data" / "birds20" / "images"
    for photos in sorted(birds.iterdir()):
        (tmp_path / "birds" / photos.name).mkdir(parents=True)
        for photo in sorted(photos.iterdir())[:20]:
            shutil.copy(photo, tmp_path / "birds" / photos.name)
    names = ["mobilenet_0.75_192", "mobilenet_0.50_160"]
    settings = copied_images.settings_for(tmp_path / "birds", SHARED / "weights", tmp_path / "work", names)
    paths = sorted(path.relative_to(settings.images).as_posix() for path in settings.images.rglob("*.jpg"))
    made = copied_images.add_copies(settings.images, paths, 20, seed=0, same_class=False)
    features.run(settings)
    hits, others = copied_images.count_found(settings, made)
    assert hits >= 18
    assert others <= 3
