"""What a model is: a fitted stack that turns images, or stored features, into labels and probabilities."""

from __future__ import annotations

import pickle
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stackcls import extraction, loading
from stackcls.backbones import Backbone, Identity, Located
from stackcls.bases import Basis
from stackcls.errors import IdentityMismatch, ModelError, UnreadableImage
from stackcls.extraction import ImageInput
from stackcls.learned import LearnedStack
from stackcls.listener import Listener, Silent
from stackcls.loading import Prepared
from stackcls.settings import FeatureSettings, Limits

if typing.TYPE_CHECKING:
    from stackcls.stack import StackedClassifier

ImageLike = str | Path | NDArray[np.uint8]


@dataclass(frozen=True)
class ModelBackbone:
    """One backbone of a model, and where its weights were.

    Attributes
    ----------
    backbone : Backbone
    identity : Identity
    width : int
    hints : tuple of str
        Where the weights lay at fitting: relative to the model's folder, then absolute.
    basis : Basis or None
        What was fitted on a sample of the images before the features could be made (8-bit ranges).
    """

    backbone: Backbone
    identity: Identity
    width: int
    hints: tuple[str, ...]
    basis: Basis | None = None


@dataclass(frozen=True)
class Prediction:
    """One image's outcome: probabilities by class, shape (n_classes,), or why there are none."""

    probabilities: NDArray[np.float64] | None
    error: UnreadableImage | None


class StackModel:
    """A fitted stack with all that is needed to use it on new images.

    Attributes
    ----------
    classes_ : ndarray of str, shape (n_classes,)
    classifier : StackedClassifier
    backbones : tuple of ModelBackbone
    """

    def __init__(
        self,
        classifier: StackedClassifier | LearnedStack,
        class_names: Sequence[str],
        backbones: Sequence[ModelBackbone],
        engine: str,
        batch_size: int | None,
        trained_on: NDArray[np.uint64],
        created_with: Mapping[str, str],
    ) -> None:
        self._classifier: StackedClassifier | LearnedStack | bytes = classifier
        self.classes_ = np.array(class_names)
        self.backbones = tuple(backbones)
        self.engine = engine
        self.batch_size = batch_size
        self.trained_on = trained_on
        self.created_with = dict(created_with)
        self.folder: Path | None = None
        self._prepared: tuple[int, Prepared] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process; the stack is pickled apart, so that it can be opened later."""
        stack = pickle.dumps(self.classifier, protocol=5)
        return {**self.__dict__, "_classifier": stack, "_prepared": None, "folder": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "classifier" in state:  # written before the stack was pickled apart
            state = {**state, "_classifier": state["classifier"], "_prepared": None}
            del state["classifier"]
        self.__dict__.update(state)
        self.folder = _folder_being_loaded()

    @property
    def classifier(self) -> StackedClassifier:
        """The fitted stack, opened on first use: importing scikit-learn takes a second."""
        if isinstance(self._classifier, bytes):
            stacked: StackedClassifier = pickle.loads(self._classifier)  # noqa: S301  (part of an opened pickle)
            self._classifier = stacked
        elif isinstance(self._classifier, LearnedStack):
            from stackcls import stack

            self._classifier = stack.from_learned(self._classifier)
        return self._classifier

    def predict(self, images: Sequence[ImageLike]) -> NDArray[np.str_]:
        """Labels of images, shape (n,).

        Parameters
        ----------
        images : sequence of str, Path or ndarray of uint8, shape (height, width, 3)
            Files, or RGB pixels.

        Raises
        ------
        UnreadableImage
            If one of them cannot be read; it names the image.
        WeightsError
            If a backbone's weights are nowhere to be found.
        """
        labels: NDArray[np.str_] = self.classes_[self.predict_proba(images).argmax(axis=1)]
        return labels

    def predict_proba(self, images: Sequence[ImageLike]) -> NDArray[np.float64]:
        """Probabilities of images, shape (n, n_classes), columns as `classes_`; raises as `predict`."""
        if isinstance(images, str | Path):
            images = [images]
        rows = np.empty((len(images), len(self.classes_)))
        for position, prediction in enumerate(self.iterate(images)):
            if prediction.error is not None:
                raise prediction.error
            rows[position] = prediction.probabilities
        return rows

    def predict_features(self, features: Mapping[str, ArrayLike]) -> NDArray[np.str_]:
        """Labels from stored features, shape (n,); takes what `predict_proba_features` takes."""
        labels: NDArray[np.str_] = self.classes_[self.predict_proba_features(features).argmax(axis=1)]
        return labels

    def predict_proba_features(self, features: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """Probabilities from stored features, shape (n, n_classes).

        Parameters
        ----------
        features : mapping of str to array-like of shape (n, width)
            One matrix per backbone, by its name.

        Raises
        ------
        ModelError
            If names, widths or numbers of rows are not the model's.
        """
        names = [item.backbone.name for item in self.backbones]
        if sorted(features) != sorted(names):
            raise ModelError(
                f"features of {', '.join(sorted(features)) or 'nothing'}; the model needs {', '.join(names)}"
            )
        matrices = [np.asarray(features[name], dtype=np.float32) for name in names]
        for item, matrix in zip(self.backbones, matrices, strict=True):
            if matrix.shape != (len(matrices[0]), item.width):
                raise ModelError(
                    f"features of {item.backbone.name!r} have shape {matrix.shape}; "
                    f"the model needs ({len(matrices[0])}, {item.width})"
                )
        shares: NDArray[np.float64] = self._predictor().predict_proba(np.hstack(matrices))
        return shares

    def _predictor(self) -> StackedClassifier | LearnedStack:
        """What predicts: the plain numbers where they do, which saves importing scikit-learn."""
        plain = isinstance(self._classifier, LearnedStack) and self._classifier.n_classes > 2
        return self._classifier if plain else self.classifier  # type: ignore[return-value]

    def iterate(
        self, images: Sequence[ImageLike], listener: Listener | None = None, limits: Limits | None = None
    ) -> Iterator[Prediction]:
        """Yield one `Prediction` per image in order, with bounded memory; a bad image has its own."""
        prepared = self.prepared(len(images), listener or Silent())
        inputs = (_as_input(image, number) for number, image in enumerate(images))
        for extracted in extraction.extract(inputs, prepared.extractors, prepared.batch_size, limits):
            outcome: dict[int, Prediction] = {
                position: Prediction(None, error) for position, error in extracted.failures.items()
            }
            if extracted.positions:
                shares = self.predict_proba_features(extracted.features)
                outcome |= {
                    position: Prediction(row, None) for position, row in zip(extracted.positions, shares, strict=True)
                }
            yield from (outcome[position] for position in sorted(outcome))

    def run_as(self, features: FeatureSettings | None, listener: Listener) -> None:
        """Take engine and batch size from settings that name them; say which of their other settings are not used.

        The rest decides what the features are, and those must be what the model was fitted on.
        """
        if features is None:
            return
        named = features.model_fields_set
        self.engine = features.engine if "engine" in named else self.engine
        self.batch_size = features.batch_size if "batch_size" in named else self.batch_size
        for key in ("precision", "pooling"):
            wanted, own = getattr(features, key), sorted({getattr(item.identity, key) for item in self.backbones})
            if key in named and own != [wanted]:
                listener.warn(
                    f"features.{key}: {wanted!r} is not used: the model was fitted on {', '.join(own)} features, and "
                    "predicts with such; for others run `stackcls features` and `stackcls fit`"
                )

    def check_identities(self, found: Mapping[str, Identity], where: str) -> None:
        """Raise `IdentityMismatch` if features in `where` were not made as the model's were."""
        for item in self.backbones:
            name = item.backbone.name
            if name not in found:
                raise IdentityMismatch(
                    f"{where} has features of {', '.join(sorted(found))}; the model needs {name!r}: "
                    "run `stackcls features` with the model's backbones"
                )
            if item.identity == replace(found[name], basis=item.identity.basis) != found[name]:
                raise IdentityMismatch(
                    f"{where}: {name!r} was made on other 8-bit ranges than the model's; "
                    "give the images instead, since the model brings its ranges"
                )
            if differences := item.identity.differences(replace(found[name], basis=item.identity.basis)):
                remedy = "run `stackcls features --replace` with the model's settings, or fit a new model"
                if item.basis is not None:
                    remedy = "give the images instead, since the model brings its 8-bit ranges"
                raise IdentityMismatch(
                    f"{where}: {name!r} was made otherwise than for the model ({'; '.join(differences)}): {remedy}"
                )

    def seen(self, sha256: Sequence[str]) -> NDArray[np.bool_]:
        """Whether images, by content hash, were among those that the model was fitted on."""
        return np.isin(short_hashes(sha256), self.trained_on)

    def prepared(self, n_images: int, listener: Listener) -> Prepared:
        """The backbones made ready for so many images; kept for the next call."""
        if self._prepared is None or self._prepared[0] < n_images:
            with ThreadPoolExecutor(1) as pool:
                stack = pool.submit(self._predictor)  # Python's work, beside that of compiled code
                prepared = loading.prepare(
                    self.located(), self.engine, self.batch_size, n_images, listener, announce=False
                )
                stack.result()
            # A full batch does for any number of images.
            full = prepared.batch_size < n_images or prepared.batch_size == self.batch_size
            self._prepared = (sys.maxsize if full else n_images), prepared
        return self._prepared[1]

    def located(self) -> list[Located]:
        """All backbones with the files of their weights, found by content; raise `WeightsError` where one is gone."""
        with ThreadPoolExecutor() as pool:  # hashing hundreds of megabytes, at a core's speed each
            files = list(pool.map(self._find_weights, self.backbones))
        return [
            Located(item.backbone, file, item.identity, item.basis)
            for item, file in zip(self.backbones, files, strict=True)
        ]

    def _find_weights(self, item: ModelBackbone) -> Path | None:
        return loading.find_recorded(item.backbone.name, item.identity, item.hints, self.folder or Path())


def short_hashes(sha256: Sequence[str]) -> NDArray[np.uint64]:
    """First 64 bits of hexadecimal hashes: enough to tell images apart, an eighth of the space."""
    return np.array([int(digest[:16], 16) for digest in sha256], dtype=np.uint64)


def _as_input(image: ImageLike, number: int) -> ImageInput:
    if isinstance(image, np.ndarray):
        return ImageInput(f"array {number}", image)
    return ImageInput(str(image), Path(image))


def _folder_being_loaded() -> Path | None:
    """Folder of the file that joblib is reading just now.

    Weights may lie beside the model, and unpickling has no other way to learn where that is than to look at the
    caller, `joblib.load(filename)`.
    """
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        if frame.f_globals.get("__name__") == "joblib.numpy_pickle" and isinstance(
            frame.f_locals.get("filename"), str | Path
        ):
            return Path(frame.f_locals["filename"]).absolute().parent
    return None
