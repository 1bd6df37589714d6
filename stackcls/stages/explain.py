"""`stackcls explain`: a model and images in, pictures of what made the stack decide out."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from stackcls import modelfile
from stackcls.errors import UnreadableImage, WriteError
from stackcls.explaining import Explainer, Explanation, Method, check_class
from stackcls.extraction import as_input
from stackcls.listener import Listener, Silent
from stackcls.printable import printable
from stackcls.report import overlays, pictures, tables
from stackcls.report.pictures import Cell
from stackcls.settings import FeatureSettings

INCHES, COLUMNS = 2.4, 6


@dataclass(frozen=True)
class Explained:
    """What made the stack decide on one image.

    Attributes
    ----------
    path : str
        As the user named it.
    label : str or None
        The predicted class; None for an image that could not be read.
    probability : float or None
    explained : str or None
        The class that the maps are of.
    shares : dict of str to float
        The probability of that class, by `stack` and backbone.
    deletion, random : float or None
        Area under the stack's probability of that class while the picture is taken away, the most important pieces
        first, and in random order.
    picture : str or None
        The file that was written.
    error : str or None
        A sentence, for an image that could not be read, or a picture that could not be written.
    unwritten : bool
        Whether it is the latter.
    """

    path: str
    label: str | None
    probability: float | None
    explained: str | None
    shares: dict[str, float]
    deletion: float | None
    random: float | None
    picture: str | None
    error: str | None
    unwritten: bool = False


def run(
    inputs: Sequence[str],
    model_path: Path,
    output: Path,
    *,
    asked: str | None = None,
    method: Method = "occlusion",
    features: FeatureSettings | None = None,
    listener: Listener | None = None,
) -> list[Explained]:
    """Draw, for each image, where it speaks for a class: to the stack as a whole, and to each backbone.

    Parameters
    ----------
    inputs : sequence of str
        Image files.
    model_path : Path
        `model.safetensors` or `model.joblib`.
    output : Path
        The folder for the pictures, one `.png` per image.
    asked : str, optional
        The class; by default, for each image, the predicted one.
    method : {'occlusion', 'gradcam'}
        See `explaining.Explainer`.
    features : FeatureSettings, optional
        Engine and batch size, where they name one, and what one image may cost.
    listener : Listener, optional

    Raises
    ------
    ConfigError
        If the model has no such class, a backbone does not allow the method, or a file to be written is there and not
        from this command.
    ModelError, WeightsError
        If the model, or a network's weights, cannot be used.
    """
    listener = listener or Silent()
    names = [as_input(path).name for path in inputs]
    targets = overlays.targets([Path(name).stem for name in names], output)
    model = modelfile.load(model_path, listener)
    check_class(model, asked)  # before networks are built
    model.run_as(features, listener)
    explainer = Explainer(model, method, features.limits if features else None, listener)
    result = []
    with listener.track("explain", len(inputs), "image") as advance:
        explanations = explainer.explain(inputs, [asked] * len(inputs))
        for name, target, found in zip(names, targets, explanations, strict=True):
            if isinstance(found, UnreadableImage):
                result.append(Explained(name, None, None, None, {}, None, None, None, found.reason))
            else:
                result.append(_drawn(found, target))
            advance(1)
    return result


def _save(found: Explanation, target: Path) -> None:
    heading = f"{Path(found.path).name}: {found.label} {found.probability:.3f}"
    if found.explained != found.label:
        heading += f"; what speaks for {found.explained}"
    picture = overlays.enlarged(found.picture, round(100 * INCHES))
    cells = [Cell(picture, "", "")] + [
        Cell(overlays.laid_over(picture, heat), name, f"{found.shares[name]:.3f}") for name, heat in found.maps.items()
    ]
    rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
    pictures.save_sheet(rows, target, heading=printable(heading), inches=INCHES, mark=overlays.MARK)


def _drawn(found: Explanation, target: Path) -> Explained:
    plain = (found.path, found.label, found.probability, found.explained, dict(found.shares))
    try:
        _save(found, target)
    except WriteError as error:  # what was found out of this image and the others is not to be lost
        return Explained(*plain, found.deletion, found.random, None, str(error), unwritten=True)
    return Explained(*plain, found.deletion, found.random, str(target), None)


def to_table(found: Sequence[Explained]) -> str:
    """Markdown, a row per image."""
    rows = []
    for item in found:
        if item.probability is None or item.deletion is None or item.random is None:
            rows.append([item.path, f"error: {item.error}", "", "", "", "", ""])
            continue
        scores = [f"{item.probability:.3f}", item.explained or "", f"{item.deletion:.3f}", f"{item.random:.3f}"]
        rows.append([item.path, item.label or "", *scores, item.picture or f"error: {item.error}"])
    return tables.table(["image", "label", "probability", "explained", "deletion", "random", "picture"], rows) + "\n"


def to_json(found: Sequence[Explained]) -> str:
    """A list with one mapping per image, in input order."""
    return json.dumps([asdict(item) for item in found], ensure_ascii=False, indent=2) + "\n"


WRITERS = {"table": to_table, "json": to_json}
