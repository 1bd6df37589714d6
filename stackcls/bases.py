"""What is fitted on a sample of the images before a feature matrix can be made: the matrix's basis."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

SHORT = 16  # digits of a hash: enough to tell images apart


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

    def fitted_on(self, sha256: Sequence[str]) -> "Basis":
        """Return the same basis with the content hashes of the images that it was fitted on."""
        said = {**json.loads(self.layout), "sample": sorted(digest[:SHORT] for digest in sha256)}
        return replace(self, layout=json.dumps(said, sort_keys=True))

    @property
    def sample(self) -> frozenset[str]:
        """First 16 digits of those hashes; empty where they were not recorded."""
        return frozenset(json.loads(self.layout).get("sample", ()))
