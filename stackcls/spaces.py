"""What images are compared by: features of backbones, or what the stack thinks they are."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stackcls import crossvalidated, extraction, loading, modelfile
from stackcls.backbones import Backbone, Located
from stackcls.errors import ConfigError, IdentityMismatch, UnreadableImage
from stackcls.extraction import ImageInput
from stackcls.inspect import neighbours
from stackcls.inspect.neighbours import Chunks, Features
from stackcls.listener import Listener
from stackcls.loading import Prepared
from stackcls.model import StackModel
from stackcls.settings import Settings
from stackcls.store import Store

ROWS = 1024


@dataclass(frozen=True)
class Computed:
    """Some of the images that were asked for: unit rows of those at `positions`, and why others have none."""

    positions: Sequence[int]
    rows: Features
    failures: Mapping[int, UnreadableImage]


class Space(Protocol):
    """Unit rows of all images of a feature file, and of any other image."""

    name: str
    width: int

    def rows(self, rows: NDArray[np.int64]) -> Features:
        """Unit rows of some images, ascending."""

    def compute(self, images: Sequence[ImageInput]) -> Iterator[Computed]:
        """Unit rows of images that are not in the feature file."""


def choose(store: Store, settings: Settings, backbone: str | None, stack: bool, listener: Listener) -> Space:
    """The space that the user named, by default the features of all backbones.

    Raises
    ------
    ConfigError
        If the feature file has no such backbone, or both are named.
    ModelError, IdentityMismatch
        If the stack, or what it predicted of images held out, is not of this feature file.
    """
    if stack and backbone is not None:
        raise ConfigError(f"--backbone {backbone} and --stack are different things to compare by; give one")
    if backbone is not None and backbone not in store.matrices:
        raise ConfigError(f"--backbone: {backbone!r} is not in {store.path}; it has {', '.join(store.matrices)}")
    if stack:
        return StackSpace(store, settings, listener)
    return FeatureSpace(store, tuple(store.matrices) if backbone is None else (backbone,), settings, listener)


def chunks(space: Space, n_rows: int, first: int = 0) -> Chunks:
    """All rows from `first` on, piece by piece."""
    for start in range(first, n_rows, ROWS):
        yield start, space.rows(np.arange(start, min(start + ROWS, n_rows)))


class FeatureSpace:
    """Features of one or several backbones; the cosine is the mean of theirs."""

    def __init__(self, store: Store, names: Sequence[str], settings: Settings, listener: Listener) -> None:
        self.name = "all backbones" if len(names) > 1 else names[0]
        self.names = tuple(names)
        self.width = sum(store.matrices[name].width for name in names)
        self._store, self._settings, self._listener = store, settings, listener
        self._prepared: tuple[int, Prepared] | None = None

    def rows(self, rows: NDArray[np.int64]) -> Features:
        """Unit rows of some images, ascending."""
        return neighbours.unit([self._store.read_rows(name, rows) for name in self.names])

    def compute(self, images: Sequence[ImageInput]) -> Iterator[Computed]:
        """Unit rows of images that are not in the feature file, made as the file says.

        Raises
        ------
        IdentityMismatch
            If they would be made otherwise, since other weights lie in the place of the old ones.
        WeightsError
            If a network's weights are not there.
        """
        prepared, limits = self._ready(len(images)), self._settings.features.limits
        for batch in extraction.extract(list(images), prepared.extractors, prepared.batch_size, limits):
            rows = np.zeros((0, self.width), np.float32)
            if batch.positions:
                rows = neighbours.unit([batch.features[name] for name in self.names])
            yield Computed(batch.positions, rows, batch.failures)

    def _ready(self, n_images: int) -> Prepared:
        """The networks, built once for one image and once more for many."""
        if self._prepared is None or self._prepared[0] < n_images:
            located = [self._located(name) for name in self.names]
            features = self._settings.features
            prepared = loading.prepare(
                located, features.engine, features.batch_size, n_images, self._listener, announce=False
            )
            self._prepared = n_images, prepared
        return self._prepared[1]

    def _located(self, name: str) -> Located:
        """Find the network that made a matrix."""
        info = self._store.matrices[name]
        made = dataclasses.replace(Backbone.from_dict(info.provenance["configured"]), name=name)
        features = self._settings.features.model_copy(update={"precision": info.identity.precision})
        settings = self._settings.model_copy(update={"features": features})
        (located,) = loading.locate([made], settings, False, self._listener)
        if info.basis is not None:
            located = located.with_basis(info.basis)
        if differences := info.identity.differences(located.identity):
            raise IdentityMismatch(
                f"{self._store.path}: features of {name!r} would be made otherwise now ({'; '.join(differences)}): "
                "bring the old weights back, or run `stackcls features --replace`"
            )
        return located


class StackSpace:
    """The stack's probabilities, as log-ratios: out-of-fold where an image was learned from, else the final model's."""

    name = "the stack"

    def __init__(self, store: Store, settings: Settings, listener: Listener) -> None:
        self._model: StackModel = modelfile.load(modelfile.choose(settings.files))
        self._model.run_as(settings.features, listener)
        infos = store.matrices.items()
        self._model.check_identities({name: info.identity for name, info in infos}, str(store.path))
        self._listener, self._limits = listener, settings.features.limits
        self.width = len(self._model.classes_)
        found = crossvalidated.predictions(settings.files.predictions, store.table)
        shares = np.empty((len(store.table.paths), self.width), np.float32)
        shares[found.rows] = crossvalidated.probabilities(settings.files, found, self._model, store.table)
        others = np.setdiff1d(np.arange(len(shares)), found.rows)
        for start in range(0, len(others), ROWS):
            rows = others[start : start + ROWS]
            names = [item.backbone.name for item in self._model.backbones]
            shares[rows] = self._model.predict_proba_features({name: store.read_rows(name, rows) for name in names})
        self._unit = _unit(shares)

    def rows(self, rows: NDArray[np.int64]) -> Features:
        """Unit rows of some images."""
        return self._unit[rows]

    def compute(self, images: Sequence[ImageInput]) -> Iterator[Computed]:
        """Unit rows of images that are not in the feature file, by the final model."""
        for position, found in enumerate(self._model.iterate(images, self._listener, self._limits)):
            if found.probabilities is None:
                assert found.error is not None
                yield Computed([], np.zeros((0, self.width), np.float32), {position: found.error})
            else:
                yield Computed([position], _unit(found.probabilities[None]), {})


def _unit(shares: NDArray[np.floating]) -> Features:
    return neighbours.unit([neighbours.log_ratios(shares)])
