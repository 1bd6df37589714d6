"""How a backbone is run: the contract that every engine keeps, and the choice among them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stackcls.backbones import Backbone


class Extractor(Protocol):
    """One backbone made ready for batches of one size.

    Attributes
    ----------
    width : int
        Number of features.
    input_size : int
        Side length of the images it takes.
    """

    width: int
    input_size: int

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn RGB images, shape (n, input_size, input_size, 3), n up to the batch size, into (n, width) features.

        A row depends on its own image alone: a batch that is not full is padded, and the padding dropped.
        """


class Engine(Protocol):
    """A library that runs backbones."""

    name: str

    def prepare(self, backbone: Backbone, weights: Path | None, batch_size: int) -> Extractor:
        """Build one backbone with the weights from a file, or random ones where there is none."""

    def provenance(self) -> Mapping[str, str]:
        """Versions and processor, for the record."""


def choose(name: str) -> Engine:
    """Return the engine of that name; `auto` picks the fastest that is installed.

    Parameters
    ----------
    name : str
        `auto` or `tensorflow`.
    """
    from stackcls.engines.tensorflow import TensorFlowEngine

    known: dict[str, Callable[[], Engine]] = {"tensorflow": TensorFlowEngine}
    return known["tensorflow" if name == "auto" else name]()
