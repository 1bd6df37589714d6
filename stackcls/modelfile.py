"""The two files of a model: `model.safetensors`, which executes nothing, and `model.joblib` with the card beside it."""

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import joblib
from pydantic import TypeAdapter, ValidationError

from stackcls import safemodel
from stackcls.artifacts import Artifacts
from stackcls.backbones import Identity
from stackcls.errors import ModelError, ModelMissing
from stackcls.files import digest_file, replacing
from stackcls.listener import Listener
from stackcls.model import StackModel
from stackcls.safemodel import Origin
from stackcls.stacksettings import Meta

FORMAT = 1
NO_MODELS = (".h5", ".json", ".yaml", ".yml", ".csv", ".md", ".png")
CHECKED = ("scikit-learn", "mlxtend")


@dataclass(frozen=True)
class CardBackbone:
    """One backbone, and where its weights were."""

    identity: Identity
    weights: tuple[str, ...]


@dataclass(frozen=True)
class ModelCard:
    """`model.json`: what is known of `model.joblib` before it is opened, and which `model.safetensors` is beside it."""

    sha256: str
    classes: list[str]
    backbones: dict[str, CardBackbone]
    scores: dict[str, float]
    recipe: str
    n_images: int
    created_with: dict[str, str]
    format: int = FORMAT
    safe_sha256: str = ""
    store: str = ""
    matrices: dict[str, str] = field(default_factory=dict)
    base_C: dict[str, float] = field(default_factory=dict)  # noqa: N815  (named as in the settings)
    meta: Meta = "linear-svm"
    meta_C: float = 1.0  # noqa: N815


_CARD = TypeAdapter(ModelCard)


def save(model: StackModel, files: Artifacts, recipe: str, origin: Origin) -> None:
    """Write both files and the card, each whole or not at all, and put them in place together."""
    with (
        replacing(files.safe_model) as safe,
        replacing(files.model) as pickled,
        replacing(files.model_card) as described,
    ):
        safe.write_bytes(safemodel.dump(model, origin))
        joblib.dump(model, pickled)
        backbones = {item.backbone.name: CardBackbone(item.identity, item.hints) for item in model.backbones}
        card = ModelCard(
            sha256=digest_file(pickled),
            safe_sha256=digest_file(safe),
            classes=model.classes_.tolist(),
            backbones=backbones,
            scores=origin.scores,
            recipe=recipe,
            n_images=origin.n_images,
            created_with=model.created_with,
            store=origin.store,
            matrices=origin.matrices,
            base_C={item.backbone.name: model.classifier.strength(n) for n, item in enumerate(model.backbones)},
            meta=model.classifier.meta,
            meta_C=model.classifier.meta_C,
        )
        described.write_bytes(_CARD.dump_json(card, indent=2) + b"\n")


def choose(files: Artifacts) -> Path:
    """The model to take where none is named: the one that executes nothing, where there is one."""
    return files.safe_model if files.safe_model.is_file() or not files.model.is_file() else files.model


def load(path: str | Path, listener: Listener | None = None) -> StackModel:
    """Open a fitted model after checking it.

    `model.safetensors` holds numbers and JSON: opening it executes nothing, so it may come from anyone.
    `model.joblib` can run any code when it is opened, whatever its checksum: take it only from people you trust.

    Parameters
    ----------
    path : str or Path
        `model.safetensors`, or `model.joblib` with `model.json` beside it.
    listener : Listener, optional
        Hears that a `model.json` beside a `model.safetensors` is broken, which that does not need.

    Raises
    ------
    ModelMissing
        If the model or its card is not there.
    ModelError
        If the file is damaged or not what it says to be, or a `model.joblib` was made with library versions that would
        fail or predict something else.
    """
    path = Path(path)
    if path.is_dir() or path.suffix in NO_MODELS:
        raise ModelError(f"{path}: is no model; give a model.safetensors or model.joblib that `stackcls fit` wrote")
    if path.suffix == safemodel.SUFFIX:
        model = safemodel.load(path)  # whose own checksum tells damage from a mix-up
        if (said := check_companion(path)) and listener:
            listener.warn(said)
        return model
    check_card(path, read_card(path))
    opened = joblib.load(path)
    if not isinstance(opened, StackModel):
        raise ModelError(f"{path}: holds a {type(opened).__name__}, not a model of stackcls")
    opened.folder = path.absolute().parent
    return opened


def read_card(path: Path) -> ModelCard:
    """Read the card of a `model.joblib`, without opening that."""
    card_path = path.with_suffix(".json")
    if not path.is_file():
        raise ModelMissing(f"{path}: no such file; `stackcls fit` writes model.safetensors, model.joblib and its card")
    if not card_path.is_file():
        raise ModelMissing(
            f"{card_path}: no such file; `stackcls fit` writes it with model.joblib. Without it {path.name} cannot be "
            "checked, and opening it can run code: use model.safetensors, or joblib.load if you trust who made it"
        )
    try:
        card = _CARD.validate_json(card_path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise ModelError(
            f"{card_path}: not the description of a model ({where}{first['msg']}); {safemodel.REMEDY}"
        ) from None
    if card.format != FORMAT:
        raise ModelError(f"{card_path}: model format {card.format}, this stackcls reads {FORMAT}; use a newer stackcls")
    return card


def check_card(path: Path, card: ModelCard) -> None:
    """Check a `model.joblib` against its card, without opening it; raise `ModelError` where it would not do."""
    for name in CHECKED:
        made, here = card.created_with.get(name, "unknown"), version(name)
        if made.split(".")[:2] != here.split(".")[:2]:
            raise ModelError(
                f"{path}: made with {name} {made}, here is {here}; install {name}=={made}, use model.safetensors, "
                "which does not depend on it, or run `stackcls fit` again"
            )
    if digest_file(path) != card.sha256:
        described = path.with_suffix(".json").name
        raise ModelError(f"{path}: not the file that {described} describes, or damaged; run `stackcls fit` again")


def check_companion(path: Path) -> str | None:
    """Raise `ModelError` where the card beside a `model.safetensors` names another one; return what a broken one means.

    Without a card all is well.

    A `fit` that was killed between two renames leaves a new model beside an old report.
    """
    card_path = path.with_suffix(".json")
    if not path.is_file() or not card_path.is_file():
        return None
    try:
        stated = read_card(path).safe_sha256
    except ModelError as error:
        return f"{error}. {path.name} is sound in itself, but whether it is of the same fit cannot be told"
    if stated and stated != digest_file(path):
        raise ModelError(
            f"{path}: not the file that {card_path.name} describes: `stackcls fit` was interrupted there, or the files "
            f"are of different fits; run `stackcls fit` again, or, if this model is from elsewhere, give it a folder "
            f"without {card_path.name}"
        )
    return None
