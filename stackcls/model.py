"""What a model is: a fitted stack that turns images, or stored features, into labels and probabilities."""

from __future__ import annotations

import pickle
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stackcls import extraction, loading, rejecting
from stackcls.backbones import Identity, Located, in_order
from stackcls.errors import IdentityMismatch, ModelError, UnreadableImage
from stackcls.familiarity import Familiarity
from stackcls.learned import LearnedStack
from stackcls.listener import Listener, Silent
from stackcls.loading import Prepared
from stackcls.modelbackbone import ModelBackbone as ModelBackbone  # by this name in older pickles too
from stackcls.seen import short_hashes as short_hashes
from stackcls.settings import FeatureSettings, Limits

if typing.TYPE_CHECKING:
    from stackcls.stack import StackedClassifier

ImageLike = str | Path | NDArray[np.uint8] | extraction.ImageInput


@dataclass(frozen=True)
class Prediction:
    """One image's outcome: probabilities by class, shape (n_classes,), and certainty if asked; or why there is none."""

    probabilities: NDArray[np.float64] | None
    error: UnreadableImage | None
    certainty: float | None = None


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
        familiarity: Familiarity | None = None,
    ) -> None:
        self._classifier: StackedClassifier | LearnedStack | bytes = classifier
        self.classes_ = np.array(class_names)
        self.backbones = tuple(backbones)
        self.engine = engine
        self.batch_size = batch_size
        self.trained_on = trained_on
        self.created_with = dict(created_with)
        self.familiarity = familiarity
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
        self.__dict__.update({"familiarity": None, **state})  # which models of before did not have
        self.folder = loading.folder_being_loaded()

    @property
    def classifier(self) -> StackedClassifier:
        """The fitted stack, opened on first use: importing scikit-learn takes a second."""
        if isinstance(self._classifier, bytes):
            stacked: StackedClassifier = pickle.loads(self._classifier)  # noqa: S301  (part of an opened pickle)
            self._classifier = stacked
        elif isinstance(self._classifier, LearnedStack):
            from stackcls import remaking

            self._classifier = remaking.from_learned(self._classifier)
        return self._classifier

    def predict(self, images: Sequence[ImageLike], reject: float | None = None) -> NDArray[np.str_]:
        """Labels of images, shape (n,).

        Parameters
        ----------
        images : sequence of str, Path or ndarray of uint8, shape (height, width, 3)
            Files, or RGB pixels.
        reject : float, optional
            Images whose `certainty` is below this are labelled `unknown`.

        Raises
        ------
        UnreadableImage
            If one of them cannot be read; it names the image.
        WeightsError
            If a backbone's weights are nowhere to be found.
        ModelError
            If the model cannot reject.
        """
        rejecting.check(self.familiarity, self.classes_, reject)
        shares, certainty = self._all(images, reject is not None)
        return rejecting.labels(self.classes_, shares, certainty, reject)

    def predict_proba(self, images: Sequence[ImageLike]) -> NDArray[np.float64]:
        """Probabilities of images, shape (n, n_classes), columns as `classes_`; raises as `predict`."""
        return self._all(images, False)[0]

    def certainty(self, images: Sequence[ImageLike]) -> NDArray[np.float64]:
        """Probability that each label is right, shape (n,), counting on images of no known class (see `report.md`)."""
        return self._all(images, True)[1]

    def _all(self, images: Sequence[ImageLike], certain: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if isinstance(images, str | Path):
            images = [images]
        shares, certainty = np.empty((len(images), len(self.classes_))), np.ones(len(images))
        for position, prediction in enumerate(self.iterate(images, certain=certain)):
            if prediction.error is not None:
                raise prediction.error
            shares[position] = prediction.probabilities
            certainty[position] = prediction.certainty if certain else 1.0
        return shares, certainty

    def predict_features(self, features: Mapping[str, ArrayLike], reject: float | None = None) -> NDArray[np.str_]:
        """Labels from stored features, shape (n,); takes what `predict_proba_features` and `predict` take."""
        rejecting.check(self.familiarity, self.classes_, reject)
        shares = self.predict_proba_features(features)
        certainty = None if reject is None else self.certainty_features(features, shares)
        return rejecting.labels(self.classes_, shares, certainty, reject)

    def certainty_features(
        self, features: Mapping[str, ArrayLike], shares: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """As `certainty`, from stored features, and their probabilities where these are there already."""
        familiarity = rejecting.needed(self.familiarity)
        shares = self.predict_proba_features(features) if shares is None else shares
        return familiarity.certainty(shares, [np.asarray(features[item.backbone.name]) for item in self.backbones])

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
        self,
        images: Sequence[ImageLike],
        listener: Listener | None = None,
        limits: Limits | None = None,
        certain: bool = False,
    ) -> Iterator[Prediction]:
        """Yield one `Prediction` per image in order, with bounded memory; a bad image has its own."""
        prepared = self.prepared(len(images), listener or Silent())
        inputs = (extraction.as_input(image, number) for number, image in enumerate(images))
        for extracted in extraction.extract(inputs, prepared.extractors, prepared.batch_size, limits):
            outcome: dict[int, Prediction] = {
                position: Prediction(None, error) for position, error in extracted.failures.items()
            }
            if extracted.positions:
                shares = self.predict_proba_features(extracted.features)
                found = self.certainty_features(extracted.features, shares) if certain else [None] * len(shares)
                outcome |= {
                    position: Prediction(row, None, sure)
                    for position, row, sure in zip(extracted.positions, shares, found, strict=True)
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
        wanted: dict[str, set[str]] = {
            "precision": {features.precision},
            "pooling": set(features.pooling),
            "views": {", ".join(in_order(features.views))},
        }
        for key, values in wanted.items():
            own = {str(getattr(item.identity, key)) for item in self.backbones}
            if key in named and own != values:
                listener.warn(
                    f"features.{key}: {' and '.join(map(repr, sorted(values)))} is not used: the model was fitted on "
                    f"{' and '.join(sorted(own))} features, and predicts with such; for others run `stackcls features` "
                    "and `stackcls fit`"
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
                words = item.basis.words if item.basis else "numbers"
                raise IdentityMismatch(
                    f"{where}: {name!r} was made on other {words} than the model's; "
                    "give the images instead, since the model brings its own"
                )
            if differences := item.identity.differences(replace(found[name], basis=item.identity.basis)):
                remedy = "run `stackcls features --replace` with the model's settings, or fit a new model"
                if item.basis is not None:
                    remedy = f"give the images instead, since the model brings its {item.basis.words}"
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
        files: dict[tuple[str, str], Future[Path | None]] = {}  # several matrices may be of one network
        keys = [(item.identity.architecture, item.identity.weights) for item in self.backbones]
        with ThreadPoolExecutor() as pool:  # hashing hundreds of megabytes, at a core's speed each
            for key, item in zip(keys, self.backbones, strict=True):
                files[key] = files.get(key) or pool.submit(self._find_weights, item)
        return [
            Located(item.backbone, files[key].result(), item.identity, item.basis)
            for key, item in zip(keys, self.backbones, strict=True)
        ]

    def _find_weights(self, item: ModelBackbone) -> Path | None:
        return loading.find_recorded(item.backbone.name, item.identity, item.hints, self.folder or Path())
