"""Pictures that `explain` writes: their names, one per network, and what is said where one cannot be written."""

import errno
import json
import os
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from stackcls.engines import visualising
from stackcls.report import overlays
from stackcls.stages import features, fit
from tests.conftest import make_settings, write_photos


@pytest.fixture
def settings(tmp_path, fake_engine):
    """Settings of a model on two networks, of which one makes three matrices."""
    chosen = make_settings(write_photos(tmp_path / "photos"), tmp_path / "artifacts")
    first, second = chosen.features.backbones
    first = first.model_copy(update={"pooling": ("covariance", "average", "max")})
    second = second.model_copy(update={"pooling": ("covariance",)})
    chosen = chosen.model_copy(update={"features": chosen.features.model_copy(update={"backbones": (first, second)})})
    features.run(chosen)
    fit.run(chosen)
    return chosen


@pytest.fixture
def command(stackcls, settings):
    photo = settings.images / "blue/00.png"

    def run(*arguments):
        return stackcls("explain", photo, *arguments, "--artifacts", settings.artifacts)

    return run


class FakeNetwork:
    """Has one layer; remembers which were built."""

    input_size = 16
    built: ClassVar[list[str]] = []

    def __init__(self, located):
        self.name = located.backbone.name
        self.built.append(self.name)

    def __contains__(self, layer):
        return layer == "conv"

    def feature_maps(self, layer, image):
        return np.ones((4, 4, 3), np.float32)

    def dream(self, layer, unit, start, seed, advance):
        return np.zeros((16, 16, 3), np.uint8)


@pytest.fixture
def networks(monkeypatch):
    monkeypatch.setattr(FakeNetwork, "built", [])
    monkeypatch.setattr(visualising, "Network", FakeNetwork)
    return FakeNetwork


@pytest.mark.parametrize(
    ("stem", "expected"),
    [("花" * 80, "花" * 40), ("x" + "花" * 80, "x" + "花" * 39), ("𠮷" * 80, "𠮷" * 30), ("x" * 200, "x" * 120)],
)
def test_names_are_cut_by_their_bytes(tmp_path, stem, expected):
    assert [path.stem for path in overlays.targets([stem], tmp_path)] == [expected]
    overlays.save_png(np.zeros((2, 2, 3), np.uint8), overlays.targets([stem], tmp_path)[0], overlays.MARK)


def test_what_is_added_to_a_long_name_stays(tmp_path):
    stems = [f"{overlays.short(stem)}-one-conv" for stem in ("花" * 80, "\udcff" * 80)]
    assert [path.stem for path in overlays.targets(stems, tmp_path)] == [
        "花" * 13 + "-one-conv",
        "_" * 40 + "-one-conv",
    ]


@pytest.mark.parametrize("option", ["--layer", "--dream"])
def test_each_network_is_looked_into_once(command, networks, option):
    status, out, err = command(option, "conv", "--format", "json")
    assert status == 0, err
    assert networks.built == [item["backbone"] for item in json.loads(out)] == ["one", "two+covariance"]
    status, out, _ = command(option, "conv", "--format", "json", "--backbone", "one+covariance")
    assert (status, [item["backbone"] for item in json.loads(out)]) == (0, ["one+covariance"])


@pytest.mark.parametrize("arguments", [(), ("--layer", "conv"), ("--dream", "conv")])
@pytest.mark.usefixtures("networks")
def test_a_picture_that_cannot_be_written_takes_no_other_with_it(command, settings, arguments, tmp_path, monkeypatch):
    photo, rename = settings.images / "red/01.png", os.replace

    def full(temporary, target):
        if Path(target).name.startswith("01"):
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(temporary, target)

    monkeypatch.setattr(os, "replace", full)
    both = [photo, *arguments, "--output", tmp_path / "out"]
    status, out, err = command(*both, "--format", "json")
    found = json.loads(out)
    assert status == 1
    assert f"could not be written: {tmp_path}/out/01" in err
    assert "could not be read" not in err
    assert [(item["picture"] is None, item["unwritten"]) for item in found] == [
        (item["path"] == str(photo), item["path"] == str(photo)) for item in found
    ]
    assert sorted(str(path) for path in (tmp_path / "out").iterdir()) == sorted(
        item["picture"] for item in found if item["picture"]
    )
    assert len({item["path"] for item in found}) == 2
    table = command(*both)[1]
    assert "error: " in table.splitlines()[-1]
    assert "cannot be written (No space left on device)" in table.splitlines()[-1]


def test_a_folder_is_refused_with_what_to_give(stackcls, tmp_path):
    status, _, err = stackcls("explain", tmp_path)
    assert status == 2
    assert f"{tmp_path}: is a folder; name image files, for instance {tmp_path / '*.jpg'}" in err
