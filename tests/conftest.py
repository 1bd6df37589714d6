"""Tiny photos, an engine that needs no deep-learning library, and the command line as a function."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stackcls import cli, config, engines
from stackcls.backbones import Located
from stackcls.bases import Basis
from stackcls.settings import Settings
from stackcls.stages import features
from tests.browsing import chromium  # noqa: F401  (a fixture)
from tests.reference import SHARED, extracted  # noqa: F401  (a fixture)
from tests.serving import bucket, patient, s3_server, served  # noqa: F401  (fixtures)
from tests.serving_google import google_bucket, google_server  # noqa: F401

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared: real images and pretrained weights")


@dataclass
class FakeExtractor:
    """Mean colours of a grid over the image, each mixed by a seeded matrix: fast, and different for every backbone."""

    input_size: int
    width: int
    mix: np.ndarray
    batches: list[int]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        assert images.shape[1:] == (self.input_size, self.input_size, 3)
        self.batches.append(len(images))
        side = self.input_size // 4
        means = images.reshape(len(images), 4, side, 4, side, 3).mean(axis=(2, 4)).reshape(len(images), 16, 1, 3)
        # Row by row, so that a row's features cannot depend on its neighbours.
        mix = 16 * self.mix.reshape(16, 3, self.width)
        return np.stack([((row / 255) @ mix).reshape(4, 4, self.width) for row in means]).astype(np.float32)


@dataclass
class FakeEngine:
    """Keeps the engines' contract without a network; remembers what it ran."""

    name: str = "fake"
    batch_size: int = 4
    width: int = 8
    batches: dict[str, list[int]] = field(default_factory=dict)

    calibrated: list[tuple[str, ...]] = field(default_factory=list)

    def refusal(self, precision: str) -> str | None:
        return None

    def prepare(self, located: Located, batch_size: int) -> FakeExtractor:
        backbone = located.backbone
        batches = self.batches.setdefault(backbone.name, [])
        mix = np.random.default_rng(backbone.seed).normal(size=(48, self.width))
        if located.identity.precision == "int8":
            ranges = located.basis.part("int8-ranges")
            mix = np.round(mix / ranges.values[0]) * ranges.values[0]
        return FakeExtractor(backbone.input_size, self.width, mix, batches)

    def calibrate(self, located: Located, names: Sequence[str], sample: engines.Sample) -> Basis:
        self.calibrated.append(tuple(names))
        return Basis("int8-ranges", "{}", np.array([sample(8).mean() / 1000], dtype=np.float32))

    def provenance(self) -> Mapping[str, str]:
        return {"engine": self.name, "processor": "test"}

    @property
    def computed(self) -> dict[str, int]:
        """Images that went through each backbone."""
        return {name: sum(batches) for name, batches in self.batches.items()}


@pytest.fixture(autouse=True, scope="session")
def compiled_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep compiled models out of the user's cache, also those of commands that are run as processes."""
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("compiled")
        patched.setenv("STACKCLS_CACHE", str(folder))
        yield folder


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """Let every engine asked for be the fake one."""
    engine = FakeEngine()
    monkeypatch.setattr(engines, "choose", lambda name, precision: engines.Choice(engine, f"engine: fake, {precision}"))
    return engine


def write_photo(path: Path, colour: Sequence[int], seed: int, size: tuple[int, int] = (24, 20)) -> Path:
    """Write one noisy PNG around a colour."""
    noise = np.random.default_rng(seed).normal(0, 40, (size[1], size[0], 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


COLOURS = {"blue": (60, 80, 190), "green": (70, 180, 80), "red": (190, 70, 60)}


def write_photos(folder: Path, per_class: int = 9, classes: Sequence[str] = tuple(COLOURS), seed: int = 0) -> Path:
    """Write class folders of noisy one-colour photos."""
    for number, name in enumerate(classes):
        colour = COLOURS.get(name) or np.random.default_rng(number).integers(40, 215, 3)
        for index in range(per_class):
            write_photo(folder / name / f"{index:02d}.png", colour, seed * 100_000 + number * 1000 + index)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of nine photos each."""
    return write_photos(tmp_path / "photos")


FAKE_BACKBONES = [
    {"name": "one", "architecture": "MobileNet", "input_size": 32, "weights": "random", "seed": 1},
    {"name": "two", "architecture": "MobileNet", "input_size": 16, "weights": "random", "seed": 2},
]


def make_settings(images: Path, artifacts: Path, **sections: Any) -> Settings:
    """Settings for the fake engine; keyword arguments are sections that are merged in."""
    features = {"backbones": FAKE_BACKBONES, "batch_size": 4, **sections.pop("features", {})}
    return config.build({"images": str(images), "artifacts": str(artifacts), "features": features, **sections})


@pytest.fixture
def settings(photos: Path, tmp_path: Path) -> Settings:
    """Settings for the photos and the fake engine."""
    return make_settings(photos, tmp_path / "artifacts")


@pytest.fixture
def stackcls(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command line: takes arguments, gives exit status, standard output and standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            cli.main([str(item) for item in arguments])
        out, err = capfd.readouterr()
        return int(exit_info.value.code or 0), out, err

    return run


def write_hard_photos(folder, classes=("ant", "bee", "cow", "dog"), per_class=15):
    """Photos whose colours overlap, so that the learners err."""
    rng = np.random.default_rng(0)
    centres = rng.integers(80, 170, (len(classes), 3))
    for number, name in enumerate(classes):
        for index in range(per_class):
            colour = centres[number] + rng.normal(0, 35, 3)
            write_photo(folder / name / f"{index:02d}.png", colour, number * 1000 + index)
    return folder


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"), newline="")))


@pytest.fixture
def hard(tmp_path, fake_engine):
    """Settings of a store on which the learners err."""
    settings = make_settings(write_hard_photos(tmp_path / "photos"), tmp_path / "artifacts")
    features.run(settings)
    return settings
