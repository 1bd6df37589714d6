"""`model.joblib` and the card beside it: written together, and checked before anything is opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
from pydantic import TypeAdapter, ValidationError

from stackcls.errors import ModelError, ModelMissing
from stackcls.files import digest_file, replacing, write_text
from stackcls.model import StackModel

FORMAT = 1
CHECKED = ("scikit-learn", "mlxtend")


@dataclass(frozen=True)
class ModelCard:
    """`model.json`: what is known of a model before its file is opened."""

    sha256: str
    classes: list[str]
    backbones: dict[str, dict[str, Any]]
    scores: dict[str, float]
    recipe: str
    n_images: int
    created_with: dict[str, str]
    format: int = FORMAT


_CARD = TypeAdapter(ModelCard)


def save(
    model: StackModel, path: Path, card_path: Path, recipe: str, n_images: int, scores: Mapping[str, float]
) -> None:
    """Write the model and its card, each whole or not at all."""
    with replacing(path) as temporary:
        joblib.dump(model, temporary)
        sha256 = digest_file(temporary)
    backbones = {item.backbone.name: {"identity": item.identity, "weights": item.hints} for item in model.backbones}
    card = ModelCard(sha256, model.classes_.tolist(), backbones, dict(scores), recipe, n_images, model.created_with)
    write_text(card_path, _CARD.dump_json(card, indent=2).decode() + "\n")


def load(path: str | Path) -> StackModel:
    """Open a fitted model after checking what `model.json` beside it says.

    A joblib file can run code when it is opened: load only models from people you trust.

    Parameters
    ----------
    path : str or Path
        `model.joblib`.

    Raises
    ------
    ModelMissing
        If the model or its card is not there.
    ModelError
        If the file is not the one that the card describes, or was made with library versions that would fail or
        predict something else.
    """
    path = Path(path)
    card_path = path.with_suffix(".json")
    for needed in (path, card_path):
        if not needed.is_file():
            raise ModelMissing(f"{needed}: no such file; `stackcls fit` writes model.joblib and model.json together")
    try:
        card = _CARD.validate_json(card_path.read_bytes())
    except ValidationError as error:
        raise ModelError(f"{card_path}: not the description of a model ({error.errors()[0]['msg']})") from None
    if card.format != FORMAT:
        raise ModelError(f"{card_path}: model format {card.format}, this stackcls reads {FORMAT}")
    for name in CHECKED:
        made, here = card.created_with.get(name, "unknown"), version(name)
        if made.split(".")[:2] != here.split(".")[:2]:
            raise ModelError(
                f"{path}: made with {name} {made}, here is {here}; install {name}=={made}, or run `stackcls fit` again"
            )
    if digest_file(path) != card.sha256:
        raise ModelError(f"{path}: not the file that {card_path.name} describes, or damaged; run `stackcls fit` again")
    model = joblib.load(path)
    if not isinstance(model, StackModel):
        raise ModelError(f"{path}: holds a {type(model).__name__}, not a model of stackcls")
    model.folder = path.absolute().parent
    return model
