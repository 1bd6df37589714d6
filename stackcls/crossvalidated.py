"""What `fit` predicted of images held out, read back beside the feature file that it was fitted on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackcls import runtables
from stackcls.artifacts import Artifacts
from stackcls.errors import ModelError, ModelMissing, SourceError
from stackcls.model import StackModel
from stackcls.storeformat import ImageTable

REMEDY = "run `stackcls fit` again"


@dataclass(frozen=True)
class CrossValidated:
    """Rows of `cv_predictions.csv`.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        Row of the feature file of each image.
    given, predicted : tuple of str
        Labels.
    probability : ndarray of float64
        Of the predicted label.
    """

    rows: NDArray[np.int64]
    given: tuple[str, ...]
    predicted: tuple[str, ...]
    probability: NDArray[np.float64]


def predictions(path: Path, table: ImageTable) -> CrossValidated:
    """Read `cv_predictions.csv`.

    Raises
    ------
    ModelMissing
        If it is not there.
    ModelError
        If it is not one, or names images or labels that the feature file has otherwise.
    """
    if not path.is_file():
        raise ModelMissing(f"{path}: no such file; `stackcls fit` writes it")
    try:
        cells = [row[:5] for row in runtables.rows(runtables.text(path), path.name, runtables.COLUMNS, None)]
        probability = np.array([float(row[4]) for row in cells])
    except ValueError:
        raise ModelError(f"{path}: is no table of predictions that `stackcls fit` wrote; {REMEDY}") from None
    place = {name: row for row, name in enumerate(table.paths)}
    for name, label, *_ in cells:
        row = place.get(name)
        if row is None or label != (table.class_names[table.labels[row]] if table.labels[row] >= 0 else None):
            what = "is not" if row is None else f"is labelled {label!r} there and otherwise"
            raise ModelError(f"{path}: is of another feature file: {name} {what} in it; {REMEDY}")
    rows = np.array([place[row[0]] for row in cells], dtype=np.int64)
    return CrossValidated(rows, tuple(row[1] for row in cells), tuple(row[3] for row in cells), probability)


def probabilities(files: Artifacts, found: CrossValidated, model: StackModel, table: ImageTable) -> NDArray[np.float32]:
    """Read `cv_probabilities.npy`: a row per row of `found`, a column per class of the model.

    Raises
    ------
    ModelMissing
        If it is not there.
    ModelError
        If model, predictions and probabilities are not of one fit, or the images have changed since.
    """
    path = files.probabilities
    if not path.is_file():
        raise ModelMissing(f"{path}: no such file; {REMEDY}")
    try:
        values = runtables.load(path)
    except SourceError:
        raise ModelError(f"{path}: is damaged, or no array; {REMEDY}") from None
    if values.dtype != np.float32 or values.shape != (len(found.rows), len(model.classes_)):
        raise ModelError(
            f"{path}: has {values.dtype} values of shape {values.shape}, {files.predictions.name} "
            f"{len(found.rows)} rows and the model {len(model.classes_)} classes: they are of different fits; {REMEDY}"
        )
    column = {name: number for number, name in enumerate(model.classes_.tolist())}
    columns = [column.get(name, 0) for name in found.predicted]
    if not np.allclose(values[np.arange(len(values)), columns], found.probability, atol=1e-5):
        raise ModelError(f"{path}: does not say what {files.predictions.name} says: of different fits; {REMEDY}")
    if not model.seen([table.sha256[row] for row in found.rows]).all():
        raise ModelError(
            f"{files.predictions}: the model beside it was fitted on other images than this feature file has; {REMEDY}"
        )
    return np.array(values)
