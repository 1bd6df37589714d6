"""Arrays of `model.safetensors`, each checked as it is taken; among them what tells images of no known class."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from stackcls.familiarity import MOST_AXES, MOST_VIEWS, NUISANCES, Familiarity, Space, View, Weights

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Rejecting:
    """What a model's description says of its familiarity; the rest are arrays."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    weights: Weights
    views: Annotated[int, Field(ge=1, le=MOST_VIEWS)]
    measured: bool

    @classmethod
    def of(cls, familiarity: Familiarity) -> "Rejecting":
        """Describe it."""
        return cls(familiarity.weights, len(familiarity.views), familiarity.measured)


def array_of(arrays: Mapping[str, NDArray[Any]], name: str, *kinds: str) -> NDArray[Any]:
    """One array; raise `ValueError` where it is missing, of no such kind, or not finite."""
    if (array := arrays.get(name)) is None:
        raise ValueError(f"{name}: this array is missing")
    if array.dtype not in [np.dtype(kind) for kind in kinds]:
        raise ValueError(f"{name}: numbers of kind {array.dtype}; {' or '.join(kinds)} needed")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name}: has NaN or infinite numbers")
    return np.array(array)


def familiarity_arrays(familiarity: Familiarity) -> Arrays:
    """Its arrays by name: `space.VIEW.counts`, and `space.VIEW.BACKBONE.PART`."""
    arrays: Arrays = {}
    for place, view in enumerate(familiarity.views):
        arrays[f"space.{place}.counts"] = view.counts
        for number, space in enumerate(view.spaces):
            name = f"space.{place}.{number}"
            arrays |= {f"{name}.{part.name}": getattr(space, part.name) for part in fields(space)}
    return arrays


def familiarity_of(arrays: Arrays, said: Rejecting, widths: tuple[int, ...], n: int) -> Familiarity:
    """What was written; raise `ValueError` where it does not fit backbones of such widths, and `n` classes."""
    if not all(map(math.isfinite, said.weights)):
        raise ValueError("familiarity: finite weights are needed")
    views = tuple(_view(arrays, f"space.{place}", widths, n) for place in range(said.views))
    return Familiarity(said.weights, views, said.measured)


def _view(arrays: Arrays, name: str, widths: tuple[int, ...], n: int) -> View:
    counts, axes = array_of(arrays, f"{name}.counts", "i8"), min(n - 1, MOST_AXES)
    if counts.shape != (n,) or not (counts > 0).all():
        raise ValueError(f"{name}.counts: images of every class are needed")
    spaces = []
    for number, width in enumerate(widths):
        parts = [array_of(arrays, f"{name}.{number}.{part.name}", "f4") for part in fields(Space)]
        shapes = [(width,), (width, axes), (n, axes), (axes,), (width, NUISANCES), (n, NUISANCES)]
        if [part.shape for part in parts] != shapes or not (parts[3] >= 0).all():
            raise ValueError(f"{name}.{number}: arrays of shapes {shapes}, and no negative spread, are needed")
        spaces.append(Space(*parts))
    return View(tuple(spaces), counts)
