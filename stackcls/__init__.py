"""Frozen pretrained CNNs turn images into features; a stack of plain classifiers learns on top, honestly measured.

>>> import stackcls
>>> settings = stackcls.read_settings("pipeline.yaml")      # doctest: +SKIP
>>> stackcls.extract(settings)                              # doctest: +SKIP
>>> stackcls.fit(settings).report.gain.mean                 # doctest: +SKIP
>>> stackcls.load("artifacts/model.safetensors").predict(["bird.jpg"])  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING

from stackcls.errors import (
    ArtifactsInUse,
    ConfigError,
    EngineError,
    IdentityMismatch,
    ModelError,
    ModelMissing,
    SourceError,
    SourceMissing,
    StackclsError,
    StoreDamaged,
    StoreError,
    StoreMissing,
    TrainingError,
    UnreadableImage,
    WeightsError,
    WriteError,
)

if TYPE_CHECKING:
    from stackcls.config import read as read_settings
    from stackcls.lookup import Neighbours as Neighbours
    from stackcls.model import StackModel as StackModel
    from stackcls.modelfile import load as load
    from stackcls.settings import Settings as Settings
    from stackcls.stack import StackedClassifier as StackedClassifier
    from stackcls.stages.features import run as extract
    from stackcls.stages.fit import run as fit
    from stackcls.store import Store as Store

__version__ = "0.1.0"

# Looked up on first use, so that importing the package loads no scientific library.
_LAZY = {
    "Neighbours": ("stackcls.lookup", "Neighbours"),
    "Settings": ("stackcls.settings", "Settings"),
    "StackModel": ("stackcls.model", "StackModel"),
    "StackedClassifier": ("stackcls.stack", "StackedClassifier"),
    "Store": ("stackcls.store", "Store"),
    "extract": ("stackcls.stages.features", "run"),
    "fit": ("stackcls.stages.fit", "run"),
    "load": ("stackcls.modelfile", "load"),
    "read_settings": ("stackcls.config", "read"),
}

__all__ = [
    "ArtifactsInUse",
    "ConfigError",
    "EngineError",
    "IdentityMismatch",
    "ModelError",
    "ModelMissing",
    "Neighbours",
    "Settings",
    "SourceError",
    "SourceMissing",
    "StackModel",
    "StackclsError",
    "StackedClassifier",
    "Store",
    "StoreDamaged",
    "StoreError",
    "StoreMissing",
    "TrainingError",
    "UnreadableImage",
    "WeightsError",
    "WriteError",
    "__version__",
    "extract",
    "fit",
    "load",
    "read_settings",
]


def __getattr__(name: str) -> object:
    """Import what `_LAZY` names when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module 'stackcls' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
