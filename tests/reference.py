"""Features of the real photos by real networks, computed once for all tests that ask."""

from pathlib import Path
from typing import Any

import pytest

from stackcls import config
from stackcls.settings import Settings
from stackcls.stages import features

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"

MOBILENETS = [
    ("mobilenet_1.00_224", "MobileNet", 1.0, 224),
    ("mobilenet_0.75_192", "MobileNet", 0.75, 192),
    ("mobilenet_0.50_160", "MobileNet", 0.5, 160),
    ("mobilenet_v2_1.00_224", "MobileNetV2", 1.0, 224),
]


def settings_for(images: Any, artifacts: Any) -> Settings:
    entries = [
        {
            "name": name,
            "architecture": architecture,
            "arguments": {"alpha": alpha},
            "input_size": size,
            "weights": str(SHARED / "weights" / f"{name}.weights.h5"),
        }
        for name, architecture, alpha, size in MOBILENETS
    ]
    return config.build({"images": str(images), "artifacts": str(artifacts), "features": {"backbones": entries}})


class Extracted(dict[str, Settings]):
    """Settings by data set; its features are computed when it is first asked for."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        super().__init__()
        self._factory = factory

    def __missing__(self, name: str) -> Settings:
        settings = settings_for(SHARED / "data" / name, self._factory.mktemp(name))
        features.run(settings, offline=True)
        self[name] = settings
        return settings


@pytest.fixture(scope="session")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Extracted:
    """Settings by data set, their features computed."""
    return Extracted(tmp_path_factory)
