"""What is fitted on a sample of the images before a feature matrix can be made: the matrix's basis."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Basis:
    """Numbers fitted on a seeded sample of the user's images, with a description that says what each of them is.

    Attributes
    ----------
    kind : str
        What it is, `int8-ranges` for example.
    layout : str
        JSON: where in `values` what lies.
    values : ndarray of float32, shape (n,)
    """

    kind: str
    layout: str
    values: NDArray[np.float32]

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, as 64 hexadecimal digits."""
        state = hashlib.sha256()
        for part in (self.kind.encode(), self.layout.encode(), self.values.astype("<f4").tobytes()):
            state.update(len(part).to_bytes(8, "little"))
            state.update(part)
        return state.hexdigest()
