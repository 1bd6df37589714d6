"""What is fitted on a sample of the images before a feature matrix can be made: the matrix's basis."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

SHORT = 16  # digits of a hash: enough to tell images apart
RANGES, COMPONENTS = "int8-ranges", "principal-components"
WORDS = {RANGES: "8-bit ranges", COMPONENTS: "principal components"}

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Basis:
    """Numbers fitted on a seeded sample of the user's images, with a description that says what each of them is.

    Attributes
    ----------
    kind : str
        `int8-ranges` or `principal-components`, or both, joined by `+`.
    layout : str
        JSON: where in `values` what lies; of both, a list of each one's length and layout.
    values : ndarray of float32, shape (n,)
    """

    kind: str
    layout: str
    values: Floats

    @property
    def words(self) -> str:
        """What it is, for messages."""
        return " and ".join(WORDS.get(kind, kind) for kind in self.kind.split("+"))

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
        """First 16 digits of those hashes, of all parts; empty where they were not recorded."""
        said = (json.loads(part.layout) for part in map(self.part, self.kind.split("+")) if part)
        return frozenset(digest for one in said if isinstance(one, dict) for digest in map(str, one.get("sample", ())))

    def part(self, kind: str) -> "Basis | None":
        """The basis of that kind: this one, or one that it was joined from; raise `ValueError` where it is damaged."""
        if "+" not in self.kind:
            return self if self.kind == kind else None
        start = 0
        for name, (length, layout) in zip(self.kind.split("+"), json.loads(self.layout), strict=True):
            if name == kind:
                return Basis(name, str(layout), self.values[start : start + int(length)])
            start += int(length)
        return None


def needed(precision: str, pooling: str) -> tuple[str, ...]:
    """Kinds of basis without which a matrix cannot be made."""
    return (RANGES,) * (precision == "int8") + (COMPONENTS,) * (pooling == "covariance")


def joined(parts: Sequence[Basis]) -> Basis:
    """One basis of several, in order; a single one is itself."""
    if len(parts) == 1:
        return parts[0]
    layout = json.dumps([(len(part.values), part.layout) for part in parts])
    return Basis("+".join(part.kind for part in parts), layout, np.concatenate([part.values for part in parts]))
