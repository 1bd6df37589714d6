"""How a backbone is run: the contract that every engine keeps, and the choice among them."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stackcls.backbones import Located
from stackcls.bases import Basis
from stackcls.errors import ConfigError
from stackcls.settings import PRECISIONS as PRECISIONS

Sample = Callable[[int], NDArray[np.uint8]]


class Extractor(Protocol):
    """One backbone made ready for batches of one size.

    Attributes
    ----------
    width : int
        Number of features, or of channels where the network gives a feature map.
    input_size : int
        Side length of the images it takes.
    """

    width: int
    input_size: int

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run RGB images, shape (n, input_size, input_size, 3), n up to the batch size, through the network.

        What comes out is a feature map, shape (n, height, width, channels), or has shape (n, width) where the network
        ends with features. Pooling is not part of the network, so that several matrices can be made in one pass.

        A row depends on its own image alone: a batch that is not full is padded, and the padding dropped.
        """


class Engine(Protocol):
    """A library that runs backbones.

    Attributes
    ----------
    name : str
    batch_size : int
        The smallest batch that was measured to be as fast as larger ones.
    """

    name: str
    batch_size: int

    def refusal(self, precision: str) -> str | None:
        """Why this machine cannot compute in that precision with this engine, as a clause; None if it can."""

    def prepare(self, located: Located, batch_size: int) -> Extractor:
        """Build one backbone without its pooling, or take it from the cache of compiled models.

        Raises
        ------
        ConfigError, WeightsError
            If the architecture or the weights do not allow it.
        EngineError
            If this engine cannot run the network though Keras can.
        """

    def calibrate(self, located: Located, names: Sequence[str], sample: Sample) -> Basis:
        """Fit the ranges of 8-bit arithmetic on a sample of images.

        Parameters
        ----------
        located : Located
            Of precision int8, without a basis yet.
        names : sequence of str
            Content hashes of the sample's images: ranges once fitted on the same are taken from the cache.
        sample : callable
            From a side length to the sample's RGB images, shape (n, side, side, 3).
        """

    def provenance(self) -> Mapping[str, str]:
        """Versions and processor, for the record."""


@dataclass(frozen=True)
class Choice:
    """An engine, a line that says which one it is and why, and whether it is a slow one taken for want of a better."""

    engine: Engine
    why: str
    makeshift: bool = False


def choose(name: str, precision: str) -> Choice:
    """Return the engine of that name.

    `auto` takes TensorFlow where it has a GPU and the precision is a GPU's; else OpenVINO where it is installed and
    the processor has the precision; else TensorFlow.

    Parameters
    ----------
    name : str
        `auto`, `tensorflow` or `openvino`.
    precision : str
        `float32`, `bfloat16` or `int8`.

    Raises
    ------
    ConfigError
        If the engine is not installed, or cannot compute in that precision on this machine.
    """
    if name != "auto":
        engine = _known(name)
        if reason := engine.refusal(precision):
            raise ConfigError(
                f"features.precision: {precision!r} does not do with engine {name}: {reason}; "
                f"allowed here: {', '.join(item for item in PRECISIONS if not engine.refusal(item))}; or set "
                "features.engine to auto"
            )
        caution = ""
        if (name, precision) == ("tensorflow", "bfloat16") and "gpu" not in engine.provenance():
            caution = "; processors without bfloat16 emulate it, slower than float32"
        return Choice(engine, f"engine: {name}, {precision}, as configured{caution}", bool(caution))
    if precision != "int8" and _may_have_gpu():
        tensorflow = _known("tensorflow")
        if gpu := tensorflow.provenance().get("gpu"):
            return Choice(tensorflow, f"engine: tensorflow, {precision}, on {gpu}")
    if importlib.util.find_spec("openvino") is not None:
        openvino = _known("openvino")
        if (reason := openvino.refusal(precision)) is None:
            why = "there is no GPU that TensorFlow can use" if precision != "int8" else "it alone has 8-bit arithmetic"
            return Choice(openvino, f"engine: openvino, {precision}: {why}, and it is the fastest on processors")
    else:
        reason = "OpenVINO is not installed"
    tensorflow = _known("tensorflow")
    if precision != "float32" and (refused := tensorflow.refusal(precision)):
        raise ConfigError(
            f"features.precision: {precision!r} does not do on this machine: {reason}; tensorflow: {refused}; "
            "allowed here: float32"
        )
    slow = "" if precision == "float32" else ", which emulates this precision, slower than float32"
    return Choice(tensorflow, f"engine: tensorflow, {precision}, since {reason}{slow}", makeshift=bool(slow))


def pad(images: NDArray[np.uint8], batch_size: int) -> NDArray[np.uint8]:
    """Fill a batch up with black images, so that every batch takes the same path through the arithmetic."""
    missing = batch_size - len(images)
    if missing <= 0:
        return images
    return np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])


def _known(name: str) -> Engine:
    if name == "tensorflow":
        from stackcls.engines.tensorflow import TensorFlowEngine

        return TensorFlowEngine()
    try:
        from stackcls.engines.openvino import OpenVINOEngine
    except ImportError as error:
        raise ConfigError(
            f"features.engine: 'openvino' cannot be imported ({error}); `pip install openvino`, or take tensorflow"
        ) from error
    return OpenVINOEngine()


def _may_have_gpu() -> bool:
    """Whether it is worth importing TensorFlow, which takes seconds, to ask it for a GPU."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}:
        return False
    if platform.system() == "Darwin":
        try:
            return bool(version("tensorflow-metal"))
        except PackageNotFoundError:
            return False
    tools = any(shutil.which(name) for name in ("nvidia-smi", "rocm-smi"))
    return tools or any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd"))
