"""What a backbone is: architecture, weights, input size, preprocessing, layer, pooling, views."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from stackcls import covariance
from stackcls.bases import COMPONENTS, Basis, needed
from stackcls.errors import ConfigError
from stackcls.registry import BUNDLED as BUNDLED
from stackcls.registry import BUNDLED_SIZE as BUNDLED_SIZE
from stackcls.registry import architectures as architectures
from stackcls.registry import bundled_file as bundled_file
from stackcls.registry import find_architecture
from stackcls.seen import Hashes
from stackcls.settings import (
    MAX_SIDE,
    MIN_SIDE,
    PRECISIONS,
    VIEWS,
    Arguments,
    BackboneEntry,
    FeatureSettings,
    Pooling,
    Section,
    View,
)

PLAIN = "average"
PREPROCESSING = ("caffe", "tf", "torch", "none")
RESIZE_RULE = "pillow-bilinear-antialias-squash"
SAVED = "saved-keras-model"


@dataclass(frozen=True)
class Backbone:
    """One frozen network, with nothing left open but where its weights lie.

    Attributes
    ----------
    name : str
        Under which its feature matrix is stored.
    architecture : str
        A function of `keras.applications`, or empty for a saved Keras model.
    arguments : tuple of (str, value) pairs
        What that function is called with, beside the usual.
    input_size : int or None
        Side length in pixels; None only for a saved model that has not been opened yet.
    weights : str
        `imagenet`, `random`, or the path of a weights file or saved model.
    seed : int
        For random weights.
    layer : str or None
        A named layer's output instead of the last feature map.
    pooling : str
        `average`, `max` or `covariance`, over the positions of a feature map.
    preprocessing : str
        `keras` (the architecture's own), or one of `caffe`, `tf`, `torch`, `none`.
    views : tuple of str
        Variants of the image that features are averaged over.
    """

    name: str
    architecture: str
    arguments: tuple[tuple[str, Any], ...]
    input_size: int | None
    weights: str
    seed: int
    layer: str | None
    pooling: str
    preprocessing: str
    views: tuple[str, ...] = VIEWS[:1]

    @property
    def file(self) -> Path | None:
        """The user's own weights file or saved model; None for published and random weights."""
        return None if self.weights in {"imagenet", "random"} else Path(self.weights)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the record beside a matrix; a file's path is made absolute."""
        weights = str(self.file.absolute()) if self.file else self.weights
        return {**asdict(self), "arguments": dict(self.arguments), "weights": weights, "views": list(self.views)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Backbone":
        """Read what `to_dict` wrote; raise `ValueError` on what no configuration can give, for it would go to Keras."""
        try:
            said = _Written.model_validate(values, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, ("backbone", *first["loc"])))
            raise ValueError(f"{where}: {first['msg']}") from None
        if said.architecture and said.architecture not in {item.architecture for item in architectures().values()}:
            raise ValueError(f"backbone.architecture: {said.architecture!r} is not a known one")
        lists = {"arguments": tuple(sorted(said.arguments.given().items())), "views": in_order(said.views)}
        return Backbone(**{**dict(said), **lists})

    def identity(self, weights_sha256: str, precision: str) -> "Identity":
        """Describe what decides the values of this backbone's features.

        Parameters
        ----------
        weights_sha256 : str
            Of the weights file; for random weights, `random:` and the seed.
        precision : str
            Of the arithmetic.
        """
        return Identity(
            architecture=self.architecture or SAVED,
            arguments=json.dumps(dict(self.arguments), sort_keys=True),
            weights=weights_sha256,
            layer=self.layer or "",
            pooling=self.pooling,
            input_size=self.input_size or 0,
            resize=RESIZE_RULE,
            preprocessing=self.preprocessing,
            views=", ".join(self.views),
            precision=precision,
            basis="",
        )


class _Written(Section):
    """What `Backbone.to_dict` writes."""

    name: str = Field(min_length=1)
    architecture: str
    arguments: Arguments
    input_size: int | None = Field(ge=MIN_SIDE, le=MAX_SIDE)
    weights: str
    seed: int = Field(ge=0, le=2**32 - 1)
    layer: str | None
    pooling: Pooling
    preprocessing: Literal["keras", "caffe", "tf", "torch", "none"]
    views: list[View] = Field(["original"], min_length=1, max_length=len(VIEWS))


@dataclass(frozen=True)
class Identity:
    """What makes two feature matrices comparable; equal identities mean equal features, engines' rounding aside."""

    architecture: str
    arguments: str
    weights: str
    layer: str
    pooling: str
    input_size: int
    resize: str
    preprocessing: str
    views: str
    precision: str
    basis: str

    def to_json(self) -> str:
        """Write it down, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "Identity":
        """Read what `to_json` wrote; raise `ValueError` or `TypeError` on anything else."""
        return Identity(**json.loads(text))

    @property
    def digest(self) -> str:
        """SHA-256 of the description, as 64 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def differences(self, other: "Identity") -> list[str]:
        """One clause for each field in which `other` differs from this one."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{key}: {mine[key]!r} against {theirs[key]!r}" for key in mine if mine[key] != theirs[key]]


@dataclass(frozen=True)
class Located:
    """A backbone with all that an engine needs to run it.

    Attributes
    ----------
    backbone : Backbone
    weights : Path or None
        The file with the weights or the saved model; None for random weights.
    identity : Identity
    basis : Basis or None
        What was fitted on a sample of the images, where the precision needs it.
    seen : ndarray of uint64, or None
        Images, by content hash, that fine-tuning of the network saw, as its file said when it was hashed.
    """

    backbone: Backbone
    weights: Path | None
    identity: Identity
    basis: Basis | None = None
    seen: Hashes | None = field(default=None, compare=False, repr=False)

    def with_basis(self, basis: Basis) -> "Located":
        """The same backbone on that basis, which is part of its identity."""
        return replace(self, basis=basis, identity=replace(self.identity, basis=basis.digest))


def check_described(backbone: Backbone, identity: Identity, basis: Basis | None, width: int) -> None:
    """Refuse, with `ValueError`, what no configuration can give, since it would be handed to Keras."""
    where = f"backbone {backbone.name!r}"
    if not backbone.name.isprintable() or "/" in backbone.name:
        raise ValueError(f"{where}: a name is printable and without '/'")
    if backbone.weights == "random" and identity.weights != f"random:{backbone.seed}":
        raise ValueError(f"{where}: its weights are random, but not by its seed")
    if backbone.weights != "random" and not re.fullmatch("[0-9a-f]{64}", identity.weights):
        raise ValueError(f"{where}: its weights have no SHA-256")
    if identity.precision not in PRECISIONS:
        raise ValueError(f"{where}: precision {identity.precision!r}; {', '.join(PRECISIONS)} are allowed")
    stated = backbone.identity(identity.weights, identity.precision)
    if asdict(identity) != {**asdict(stated), "basis": basis.digest if basis else ""}:
        raise ValueError(f"{where}: its identity is not the one of its settings")
    kinds = "+".join(needed(identity.precision, identity.pooling))
    if (basis.kind if basis else "") != kinds:
        raise ValueError(f"{where}: its basis is {basis.kind if basis else 'missing'}; {kinds or 'none'} is needed")
    found = basis.part(COMPONENTS) if basis else None
    if found is not None and covariance.width(covariance.components(found).shape[1]) != width:
        raise ValueError(f"{where}: {width} features do not come of its principal components")


def resolve(features: FeatureSettings) -> tuple[Backbone, ...]:
    """Fill in what the entries of `features.backbones` leave open; raise `ConfigError` where that cannot be done.

    An entry with several poolings gives a backbone for each, since each makes a matrix; see `matrix_name`.
    """
    found = []
    for entry in features.backbones:
        poolings = entry.pooling or features.pooling
        base = _resolve_entry(entry, in_order(entry.views or features.views))
        found += [replace(base, name=matrix_name(entry.name, item, poolings), pooling=item) for item in poolings]
    return tuple(found)


def matrix_name(name: str, pooling: str, poolings: Sequence[str]) -> str:
    """Name of the matrix that one of a backbone's poolings makes.

    The average has the backbone's own name, and so has the maximum where there is no average; others have a suffix.
    """
    return name if pooling == (PLAIN if PLAIN in poolings else "max") else f"{name}+{pooling}"


def backbone_of(matrix: str) -> str:
    """Name of the backbone that a matrix is of; no entry's own name has a `+`."""
    return matrix.partition("+")[0]


def in_order(views: Sequence[str]) -> tuple[str, ...]:
    """Views in the order of the settings' list, since which ones there are decides, and not how they were listed."""
    if len(set(views)) < len(views):
        raise ValueError(f"views {', '.join(views)}: each can be given once")
    return tuple(view for view in VIEWS if view in views)


def _resolve_entry(entry: BackboneEntry, views: tuple[str, ...]) -> Backbone:
    where = f"features.backbones: {entry.name!r}"
    if entry.preprocessing is not None and entry.preprocessing not in PREPROCESSING:
        raise ConfigError(f"{where}: preprocessing {entry.preprocessing!r} is not one of {', '.join(PREPROCESSING)}")
    wanted = entry.architecture or entry.name
    bundled = wanted in BUNDLED and not entry.model
    if bundled and (entry.weights or entry.arguments.given() or entry.input_size or entry.preprocessing):
        raise ConfigError(
            f"{where}: {wanted} is part of stackcls with its weights; only `layer`, `pooling`, `views` and a "
            "`name` can be given"
        )
    if entry.model or bundled:
        if not bundled and entry.preprocessing is None:
            raise ConfigError(f"{where}: a saved model needs `preprocessing`: one of {', '.join(PREPROCESSING)}")
        return Backbone(
            name=entry.name,
            architecture="",
            arguments=(),
            input_size=BUNDLED_SIZE if bundled else entry.input_size,
            weights=str(entry.model or bundled_file(wanted)),
            seed=0,
            layer=entry.layer,
            pooling=PLAIN,
            views=views,
            preprocessing=entry.preprocessing or "tf",
        )
    known = find_architecture(wanted, where)
    return Backbone(
        name=entry.name,
        architecture=known.architecture,
        arguments=tuple(sorted(entry.arguments.given().items())),
        input_size=entry.input_size or known.input_size,
        weights=entry.weights or "imagenet",
        seed=entry.seed if entry.weights == "random" else 0,
        layer=entry.layer,
        pooling=PLAIN,
        views=views,
        preprocessing=entry.preprocessing or "keras",
    )
