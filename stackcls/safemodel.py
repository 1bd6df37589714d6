"""`model.safetensors`: a model as plain arrays and JSON, checked by its own SHA-256; opening it executes nothing.

The file is one that every reader of safetensors opens. Its arrays are what the stack has learned; one entry of its
metadata, `stackcls`, says in JSON what they are.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors import numpy as arrays_of

from stackcls.backbones import Backbone, Identity, check_described
from stackcls.bases import Basis
from stackcls.errors import ModelError, ModelMissing
from stackcls.learned import LearnedStack, Linear
from stackcls.model import StackModel
from stackcls.modelbackbone import ModelBackbone
from stackcls.safearrays import Arrays, Rejecting, array_of, familiarity_arrays, familiarity_of
from stackcls.settings import MAX_BATCH
from stackcls.stacksettings import Meta, Recipe

FORMAT, VERSION = "stackcls-model", 1
SUFFIX = ".safetensors"
MAX_BYTES = 1 << 32
REMEDY = "run `stackcls fit` again, or ask who made it"

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Origin:
    """What a model was fitted on.

    Attributes
    ----------
    n_images : int
    scores : mapping of str to float
        Mean accuracies in cross-validation, by backbone, and of the stack.
    store : str
        SHA-256 of the feature file's content.
    matrices : mapping of str to str
        SHA-256 of each feature matrix, by backbone.
    """

    n_images: int
    scores: dict[str, float]
    store: str = ""
    matrices: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Stack:
    """What `StackedClassifier` is constructed with, and how its fits ended."""

    __pydantic_config__ = _STRICT

    widths: tuple[int, ...]
    recipe: Recipe
    base_C: float | tuple[float, ...]  # noqa: N815  (named as there)
    meta_C: float  # noqa: N815
    class_weight: Literal["balanced"] | None
    inner_folds: int
    random_state: int
    temperature: float
    converged: tuple[bool, ...]
    meta: Meta = "linear-svm"  # which files of before do not name


@dataclass(frozen=True)
class _Backbone:
    """One backbone; a basis's numbers are among the arrays."""

    __pydantic_config__ = _STRICT

    backbone: dict[str, Any]
    identity: dict[str, str | int]
    hints: Annotated[tuple[str, ...], Field(max_length=2)]
    basis: tuple[str, str] | None


@dataclass(frozen=True)
class Description:
    """What the file says of itself."""

    __pydantic_config__ = _STRICT

    format: str
    version: int
    sha256: str
    classes: tuple[str, ...]
    backbones: tuple[_Backbone, ...]
    stack: _Stack
    engine: Literal["auto", "tensorflow", "openvino"]
    batch_size: int | None
    column_major: tuple[str, ...]
    origin: Origin
    created_with: dict[str, str]
    familiarity: Rejecting | None = None


_DESCRIPTION = TypeAdapter(Description)


def dump(model: StackModel, origin: Origin) -> bytes:
    """Write a model as the bytes of a safetensors file; equal models give equal bytes."""
    from stackcls import remaking  # takes a second, and reading does not need it

    learned = remaking.to_learned(model.classifier)
    arrays: Arrays = {"trained_on": model.trained_on}
    for name, linear in zip(_names(len(learned.bases)), (*learned.bases, learned.meta), strict=True):
        arrays |= {f"{name}.coef": linear.coef, f"{name}.intercept": linear.intercept}
    if model.familiarity is not None:
        arrays |= familiarity_arrays(model.familiarity)
    items = []
    for number, item in enumerate(model.backbones):
        basis = None if item.basis is None else (item.basis.kind, item.basis.layout)
        if item.basis is not None:
            arrays[f"basis.{number}"] = item.basis.values
        items.append(_Backbone(item.backbone.to_dict(), asdict(item.identity), item.hints, basis))
    parameters = {name: value for name, value in learned.parameters.items() if name != "n_jobs"}
    description = Description(
        format=FORMAT,
        version=VERSION,
        sha256="",
        classes=tuple(model.classes_.tolist()),
        backbones=tuple(items),
        stack=_Stack(**parameters, converged=learned.converged),
        engine=model.engine,  # type: ignore[arg-type]
        batch_size=model.batch_size,
        # A sum's last bit can hang on how its numbers lie in memory.
        column_major=tuple(sorted(name for name, array in arrays.items() if not array.flags.c_contiguous)),
        origin=origin,
        created_with=model.created_with,
        familiarity=None if model.familiarity is None else Rejecting.of(model.familiarity),
    )
    return _sealed(asdict(description), arrays)


def load(path: Path) -> StackModel:
    """Open a model; see `modelfile.load`."""
    return open_described(path)[1]


def open_described(path: Path) -> tuple[Description, StackModel]:
    """Open a model, and return also what the file says of itself."""
    description, arrays = read(path)
    try:
        model = _build(description, arrays)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: its checksum holds, but it is no model as stackcls writes it: {error}; {REMEDY}"
        ) from None
    model.folder = path.absolute().parent
    return description, model


def read(path: Path) -> tuple[Description, Arrays]:
    """Read and verify a file; raise `ModelError` where it is not sound."""
    if not path.is_file():
        raise ModelMissing(f"{path}: no such file; `stackcls fit` writes model.safetensors")
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path}: larger than {MAX_BYTES >> 30} GB, which no model of stackcls is")
    data = path.read_bytes()
    try:
        arrays = arrays_of.load(data)
        text = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["stackcls"]
        raw = json.loads(text)
        found = raw["format"], raw["version"]
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise ModelError(f"{path}: not a model of stackcls in the safetensors format, or damaged ({error})") from None
    if found[0] != FORMAT or type(found[1]) is not int:
        raise ModelError(f"{path}: says that it is {str(found)[:80]}, not {FORMAT!r} and a version; or it is damaged")
    if found[1] != VERSION:
        raise ModelError(f"{path}: model format {found[1]}, this stackcls reads {VERSION}; use a newer stackcls")
    if not _seal_holds(data, raw.get("sha256")):
        raise ModelError(f"{path}: damaged (its checksum does not hold); run `stackcls fit` again, or copy it again")
    try:
        return _DESCRIPTION.validate_json(text, strict=True), arrays
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(
            f"{path}: its description is not as format {VERSION} says: {where}: {first['msg']}; {REMEDY}"
        ) from None


def backbones_of(description: Description, arrays: Mapping[str, NDArray[Any]]) -> tuple[ModelBackbone, ...]:
    """The model's backbones; raise `TypeError` or `ValueError` where they contradict themselves."""
    found = []
    for number, (item, width) in enumerate(zip(description.backbones, description.stack.widths, strict=True)):
        basis = None if item.basis is None else Basis(*item.basis, array_of(arrays, f"basis.{number}", "f4"))
        backbone, identity = Backbone.from_dict(item.backbone), Identity(**item.identity)  # type: ignore[arg-type]
        check_described(backbone, identity, basis, width)
        found.append(ModelBackbone(backbone, identity, width, item.hints, basis))
    return tuple(found)


def _names(n_bases: int) -> tuple[str, ...]:
    return *(f"base.{number}" for number in range(n_bases)), "meta"


def _sealed(description: dict[str, Any], arrays: Arrays) -> bytes:
    """Write a file whose description has its SHA-256, counted with zeros in that place."""
    mark = hashlib.sha256(json.dumps(description).encode()).hexdigest()  # occurs nowhere else
    text = json.dumps({**description, "sha256": mark}, sort_keys=True, ensure_ascii=False)
    # One entry alone: safetensors writes several in any order.
    data = arrays_of.save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, {"stackcls": text})
    digest = hashlib.sha256(data.replace(mark.encode(), b"0" * 64)).hexdigest()
    return data.replace(mark.encode(), digest.encode())


def _seal_holds(data: bytes, stated: object) -> bool:
    if not isinstance(stated, str) or not re.fullmatch("[0-9a-f]{64}", stated) or data.count(stated.encode()) != 1:
        return False
    return hashlib.sha256(data.replace(stated.encode(), b"0" * 64)).hexdigest() == stated


def _build(description: Description, arrays: Arrays) -> StackModel:
    said, n_classes = description.stack, len(description.classes)
    if len(set(description.classes)) != n_classes or n_classes < 2:
        raise ValueError("classes: at least two different names are needed")
    if not 1 <= (description.batch_size or 1) <= MAX_BATCH:
        raise ValueError(f"batch_size {description.batch_size}: 1 to {MAX_BATCH} is allowed")
    shapes = {f"base.{number}": (1 if n_classes == 2 else n_classes, width) for number, width in enumerate(said.widths)}
    shapes["meta"] = (1 if n_classes == 2 else n_classes, n_classes)
    linears = [
        _linear(arrays, name, shape, f"{name}.coef" in description.column_major) for name, shape in shapes.items()
    ]
    if not isinstance(said.base_C, float) and len(said.base_C) != len(said.widths):
        raise ValueError("stack.base_C: one number, or one per backbone, is needed")
    backbones = backbones_of(description, arrays)
    parameters = {name: value for name, value in asdict(said).items() if name != "converged"}
    if not (said.temperature > 0 and math.isfinite(said.temperature)) or len(said.converged) != len(said.widths):
        raise ValueError("stack: a temperature above 0, and one `converged` per backbone, are needed")
    expected = {"trained_on", *(f"{name}.{part}" for name in shapes for part in ("coef", "intercept"))}
    expected |= {f"basis.{number}" for number, item in enumerate(backbones) if item.basis is not None}
    familiarity = None
    if description.familiarity is not None:
        familiarity = familiarity_of(arrays, description.familiarity, said.widths, n_classes)
        expected |= familiarity_arrays(familiarity).keys()
    if unknown := arrays.keys() - expected:
        raise ValueError(f"unknown arrays: {', '.join(sorted(unknown))[:80]}")
    return StackModel(
        classifier=LearnedStack(parameters, said.converged, tuple(linears[:-1]), linears[-1]),
        class_names=description.classes,
        backbones=backbones,
        engine=description.engine,
        batch_size=description.batch_size,
        trained_on=array_of(arrays, "trained_on", "u8"),
        created_with=description.created_with,
        familiarity=familiarity,
    )


def _linear(arrays: Arrays, name: str, shape: tuple[int, int], column_major: bool) -> Linear:
    coef, intercept = (array_of(arrays, f"{name}.{part}", "f4", "f8") for part in ("coef", "intercept"))
    if coef.shape != shape or intercept.shape != shape[:1]:
        raise ValueError(f"{name}: coef of shape {coef.shape} and intercept of shape {intercept.shape}; {shape} needed")
    return Linear(np.array(coef, order="F" if column_major else "C"), intercept)
