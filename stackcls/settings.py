"""All settings as frozen, typed data."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from stackcls.artifacts import Artifacts
from stackcls.clustersettings import ClusterSettings
from stackcls.section import Section as Section
from stackcls.section import shown
from stackcls.stacksettings import StackSettings as StackSettings
from stackcls.urls import Url, place

Precision = Literal["float32", "bfloat16", "int8"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
Pooling = Literal["average", "max", "covariance"]
View = Literal["original", "hflip", "center_crop", "center_crop_hflip"]
VIEWS: tuple[str, ...] = get_args(View)
MIN_SIDE, MAX_SIDE = 16, 4096
ARTICLE = ("vgg19", "resnet50", "inception_v3", "xception")


def _as_given(value: object, check: ValidatorFunctionWrapHandler) -> object:
    """Let 1 stay 1: arguments are part of an identity as they were written."""
    check(value)
    return value


_Share = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False), WrapValidator(_as_given)]


class Arguments(Section):
    """What a function of `keras.applications` takes beside what stackcls decides; strangers' files say it too."""

    alpha: Annotated[float, Field(strict=True, gt=0, le=4, allow_inf_nan=False), WrapValidator(_as_given)] = 1.0
    depth_multiplier: int = Field(1, strict=True, ge=1, le=4)
    dropout: _Share = 0.001
    dropout_rate: _Share = 0.2
    minimalistic: bool = Field(False, strict=True)
    include_preprocessing: bool = Field(True, strict=True)

    def given(self) -> dict[str, Any]:
        """Those that were written down."""
        return self.model_dump(exclude_unset=True)


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _once_each(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("is empty; name at least one, or leave the key out")
    if twice := sorted({value for value in values if values.count(value) > 1}):
        raise ValueError(f"names {', '.join(twice)} more than once; name each once")
    return values


_Poolings = Annotated[tuple[Pooling, ...], BeforeValidator(_listed), AfterValidator(_once_each)]
_Views = Annotated[tuple[View, ...], BeforeValidator(_listed), AfterValidator(_once_each)]

# Columns of the tables of predictions, in which each backbone has one of its own.
TAKEN = frozenset({"path", "label", "fold", "predicted", "probability"})


class BackboneEntry(Section):
    """One entry of `features.backbones`, as written; `backbones.resolve` fills what is left open."""

    name: str = Field(min_length=1)
    architecture: str | None = None
    arguments: Arguments = Arguments()
    model: Path | None = None
    input_size: int | None = Field(None, ge=MIN_SIDE, le=MAX_SIDE)
    weights: str | None = None
    seed: int = Field(0, ge=0, le=2**32 - 1)
    layer: str | None = None
    preprocessing: str | None = None
    pooling: _Poolings | None = None
    views: _Views | None = None

    @model_validator(mode="after")
    def _name_can_be_stored(self) -> "BackboneEntry":
        if "/" in self.name or "+" in self.name or self.name in {"stack", ".", ".."} or not self.name.isprintable():
            raise ValueError(f"{self.name!r} cannot be a backbone's name: no '/', no '+', printable, and not 'stack'")
        if self.name in TAKEN:
            raise ValueError(
                f"{self.name!r} cannot be a backbone's name, since a column of `cv_predictions.csv` is called so; "
                f"none of {', '.join(sorted(TAKEN))} can: give another name"
            )
        if self.model and (self.architecture or self.weights or self.arguments.given()):
            raise ValueError(f"{self.name!r} has a `model`, so `architecture`, `arguments` and `weights` must go")
        if self.model and self.model.suffix != ".keras":
            raise ValueError(
                f"{self.name!r} has the model {self.model.name!r}; a .keras file is needed, which Keras opens without "
                "running code: keras.saving.load_model(...).save('x.keras') makes one"
            )
        return self


MAX_BATCH = 4096


@dataclass(frozen=True)
class Limits:
    """What one image may cost; no part of what makes features comparable.

    Attributes
    ----------
    max_pixels : int
        Larger images are rejected before they are decoded.
    seconds : float
        Images that take longer to decode are rejected, and the run goes on.
    read_tries : int
        How often a server is asked for one before it counts as away.
    read_seconds : float
        How long it may take to answer, each time.
    """

    max_pixels: int = 178_956_970
    seconds: float = 60.0
    read_tries: int = 6
    read_seconds: float = 60.0

    @property
    def max_bytes(self) -> int:
        """Size of a file that no image within the limit needs: all its pixels uncompressed, with room to spare."""
        return 8 * self.max_pixels + 2**26


def _entry(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _batch_size(value: object) -> int | None:
    """Read `auto` as None: what is fastest on the engine."""
    if value is None or value == "auto":
        return None
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else value
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MAX_BATCH:
        raise ValueError(f"batch_size is {shown(value)}; `auto` or a number of images from 1 to {MAX_BATCH} is allowed")
    return number


class FeatureSettings(Section):
    """How images become features."""

    backbones: tuple[Annotated[BackboneEntry, BeforeValidator(_entry)], ...] = tuple(
        BackboneEntry(name=name) for name in ARTICLE
    )
    engine: Literal["auto", "tensorflow", "openvino"] = "auto"
    precision: Precision = "float32"
    pooling: _Poolings = ("average",)
    views: _Views = ("original",)
    batch_size: Annotated[int | None, BeforeValidator(_batch_size)] = None
    max_pixels: int = Field(Limits.max_pixels, ge=1, le=2**31 - 1)
    image_seconds: float = Field(Limits.seconds, gt=0, le=24 * 3600)
    read_tries: int = Field(Limits.read_tries, ge=1, le=100)
    read_seconds: float = Field(Limits.read_seconds, gt=0, le=24 * 3600)

    @property
    def limits(self) -> Limits:
        """What one image may cost."""
        return Limits(self.max_pixels, self.image_seconds, self.read_tries, self.read_seconds)

    @model_validator(mode="after")
    def _names_differ(self) -> "FeatureSettings":
        names = [entry.name for entry in self.backbones]
        if not names:
            raise ValueError("backbones is empty; name at least one")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"backbones has {', '.join(twice)} more than once; give each entry a name of its own")
        return self


def _holdout(value: object) -> object:
    """Read `split`, a share of the images, or nothing."""
    try:
        share = float(value) if isinstance(value, str) and value != "split" else value
    except ValueError:
        share = value
    if share in (None, "split") or (isinstance(share, float) and 0 < share < 1):
        return share
    raise ValueError(f"holdout is {shown(value)}; `split`, or a share of the images between 0 and 1, is allowed")


class CvSettings(Section):
    """How scores are measured."""

    folds: int = Field(3, ge=2, le=1000)
    seed: int = Field(0, ge=0, le=2**32 - 1)
    rare: Literal["error", "drop"] = "error"
    groups: Literal["duplicates"] | None = None
    holdout: Annotated[Literal["split"] | float | None, BeforeValidator(_holdout)] = None


class ReportSettings(Section):
    """What the report goes into."""

    depth: Literal["auto", "quick", "full"] = "auto"


class AugmentSettings(Section):
    """How training images are varied, each anew in every epoch; 0 for not at all."""

    flip: bool = True
    crop: float = Field(0.1, ge=0, le=0.5)
    scale: float = Field(0.1, ge=0, le=0.5)
    brightness: float = Field(0.1, ge=0, le=0.5)
    mixup: float = Field(0.0, ge=0, le=1)


_Rate = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class FinetuneSettings(Section):
    """How one backbone is trained on the images."""

    start: str | None = None
    unfreeze: str = Field("all", min_length=1)
    share: float = Field(0.5, gt=0, le=1)
    validation: float = Field(0.2, gt=0, lt=1)
    epochs: int = Field(20, ge=1, le=10_000)
    patience: int = Field(5, ge=1, le=10_000)
    batch_size: int = Field(32, ge=1, le=MAX_BATCH)
    rate: float = Field(0.01, gt=0, le=10, allow_inf_nan=False)
    multipliers: dict[str, _Rate] = Field(default_factory=dict)
    dropout: float = Field(0.2, ge=0, lt=1)
    augment: AugmentSettings = AugmentSettings()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    memory: int = Field(1024, ge=0)
    seed: int = Field(0, ge=0, le=2**32 - 1)


def _web_address(address: str) -> str:
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"{address!r} does not do: an address that begins with http:// or https:// is needed")
    return address


class WeightSettings(Section):
    """Where pretrained weights come from."""

    base_url: Annotated[str, AfterValidator(_web_address)] = (
        "https://storage.googleapis.com/tensorflow/keras-applications"
    )
    timeout: float = Field(30.0, gt=0, le=3600)


class Settings(Section):
    """All settings of one run.

    Attributes
    ----------
    images : Path or Url
        Class folders, a manifest, a CUB-200-2011 folder or tar shards, here or at a URL.
    artifacts : Path
        The folder that holds what the stages write.
    features, stack, cv, report, finetune, weights, cluster
        The sections of `pipeline.yaml`.
    """

    images: Annotated[Path | Url, PlainValidator(place), PlainSerializer(str)] = Path("data/images")
    artifacts: Path = Path("artifacts")
    features: FeatureSettings = FeatureSettings()
    stack: StackSettings = StackSettings()
    cv: CvSettings = CvSettings()
    report: ReportSettings = ReportSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    weights: WeightSettings = WeightSettings()
    cluster: ClusterSettings = ClusterSettings()

    @property
    def files(self) -> Artifacts:
        """Names of the files in the artifacts folder."""
        return Artifacts(self.artifacts)
