"""Which parts of a picture made a stack decide: found by covering them, or in the last feature maps."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from stackcls import extraction, images, smallcopies
from stackcls.decisions import probabilities
from stackcls.errors import ConfigError, UnreadableImage
from stackcls.extraction import ImageInput
from stackcls.inspect import attribution, occlusion
from stackcls.listener import Listener, Silent
from stackcls.model import StackModel
from stackcls.settings import Limits
from stackcls.smallcopies import Decoded, Picture

Method = Literal["occlusion", "gradcam"]
BLUR = 0.2  # of the shorter side: enough that nothing is recognised any more, also in a picture of 32 pixels
RANDOM_ORDERS = 2
NAMED = 20
TINY = 1e-6  # a probability below which differences do not count

Floats = NDArray[np.floating[Any]]
Heat = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where one picture speaks for a class.

    Attributes
    ----------
    path : str
    label : str
        What the stack predicts.
    probability : float
    explained : str
        The class that the maps are of; the predicted one unless another was asked for.
    shares : mapping of str to float
        Probability of that class, of the stack (`stack`) and of each backbone's own learner.
    maps : mapping of str to ndarray of float32, shape (occlusion.SIDE, occlusion.SIDE)
        Likewise: how much a place of the picture speaks for the class; below 0 against it.
    picture : ndarray of uint8, shape (height, width, 3)
        About as large as the networks see it.
    deletion, random : float or None
        Area under the stack's probability of the class while the picture is taken away: the most important pieces
        first, and in random order. None where that was not asked for.
    """

    path: str
    label: str
    probability: float
    explained: str
    shares: Mapping[str, float]
    maps: Mapping[str, Heat]
    picture: images.Pixels
    deletion: float | None
    random: float | None


@dataclass(frozen=True, eq=False)
class Evidence:
    """Where one picture speaks for each of some classes, to the stack as a whole.

    Attributes
    ----------
    picture : ndarray of uint8, shape (height, width, 3)
        As in `Explanation`.
    shares : list of float
        Probability of each class.
    maps : list of ndarray of float32, shape (occlusion.SIDE, occlusion.SIDE)
    """

    picture: images.Pixels
    shares: Sequence[float]
    maps: Sequence[Heat]


@dataclass(frozen=True, eq=False)
class _Answers:
    """What a model says of n pictures: base learners' probabilities (n, backbones, classes), decisions (n, classes)."""

    shares: Floats
    decisions: Floats


class Explainer:
    """Explains a model's decisions.

    Parameters
    ----------
    model : StackModel
    method : {'occlusion', 'gradcam'}
        `occlusion` covers 130 windows of the picture with a blurred copy of itself, then all but each of them, and
        suits every backbone on every engine. `gradcam` needs one pass through each network as a Keras model, and
        pooled features.
    limits : Limits, optional
        What one image may cost.
    listener : Listener, optional

    Raises
    ------
    ConfigError
        If a backbone does not allow `gradcam`.
    """

    def __init__(
        self,
        model: StackModel,
        method: Method = "occlusion",
        limits: Limits | None = None,
        listener: Listener | None = None,
    ) -> None:
        if method == "gradcam":
            _check_poolings(model)
        self.model = model
        self._limits = limits or Limits()
        self._windows = occlusion.windows()
        self._prepared = model.prepared(len(self._windows), listener or Silent())
        self._names = [item.backbone.name for item in model.backbones]
        self._networks = None
        if method == "gradcam":
            from stackcls.engines.visualising import Network

            self._networks = [Network(located) for located in model.located()]

    def explain(
        self, paths: Sequence[Picture], classes: Sequence[str | None] | None = None, scored: bool = True
    ) -> Iterator[Explanation | UnreadableImage]:
        """Explain pictures one after the other; memory does not grow with their number.

        Parameters
        ----------
        paths : sequence of str or Path
        classes : sequence of str or None, optional
            For each picture the class to explain, None for the predicted one.
        scored : bool
            Whether to compute the deletion scores.

        Yields
        ------
        Explanation or UnreadableImage
            One per picture, in order.
        """
        asked = [None] * len(paths) if classes is None else list(classes)
        for name in asked:
            check_class(self.model, name)
        for path, name, loaded in zip(paths, asked, self._decoded(paths), strict=True):
            shown = extraction.as_input(path).name
            yield loaded if isinstance(loaded, UnreadableImage) else self._explain(shown, name, scored, *loaded)

    def compare(
        self, paths: Sequence[Picture], classes: Sequence[Sequence[str]]
    ) -> Iterator[Evidence | UnreadableImage]:
        """Where pictures speak for several classes each: with `occlusion` for the work of one.

        Parameters
        ----------
        paths : sequence of str or Path
        classes : sequence of sequence of str
            For each picture the model's classes that are asked about.

        Yields
        ------
        Evidence or UnreadableImage
            One per picture, in order.
        """
        known = self.model.classes_.tolist()
        for names, loaded in zip(classes, self._decoded(paths), strict=True):
            if isinstance(loaded, UnreadableImage):
                yield loaded
                continue
            (whole, small), numbers = loaded, [known.index(name) for name in names]
            first = self._ask([whole, np.asarray(small)])
            shares, maps = self._probabilities(first)[0], self._maps(small, numbers, first)
            yield Evidence(np.asarray(small), shares[numbers].tolist(), [found["stack"] for found in maps])

    def _decoded(self, paths: Sequence[Picture]) -> Iterator[Decoded | UnreadableImage]:
        sizes = [matrix.network.input_size for matrix in self._prepared.extractors.values()]
        return smallcopies.decoded(paths, max(sizes), self._limits)

    def _explain(
        self, path: str, asked: str | None, scored: bool, whole: images.Pixels, small: Image.Image
    ) -> Explanation:
        # The picture in full is what `predict` sees; the masked ones are to be compared with the smaller copy.
        first = self._ask([whole, np.asarray(small)])
        stacked = self._probabilities(first)
        label = int(stacked[0].argmax())
        number = label if asked is None else self.model.classes_.tolist().index(asked)
        (maps,) = self._maps(small, [number], first)
        deletion = random = None
        if scored:
            deletion = self._deletion(small, number, occlusion.removals(maps["stack"]))
            orders = (occlusion.random_removals(seed) for seed in range(RANDOM_ORDERS))
            random = float(np.mean([self._deletion(small, number, order) for order in orders]))
        return Explanation(
            path=path,
            label=str(self.model.classes_[label]),
            probability=float(stacked[0, label]),
            explained=str(self.model.classes_[number]),
            shares={
                "stack": float(stacked[0, number]),
                **dict(zip(self._names, map(float, first.shares[0, :, number]), strict=True)),
            },
            maps=maps,
            picture=np.asarray(small),
            deletion=deletion,
            random=random,
        )

    def _maps(self, small: Image.Image, numbers: Sequence[int], first: _Answers) -> list[dict[str, Heat]]:
        """Maps of the stack and each backbone for each class."""
        if self._networks:
            return [self._from_maps(small, number, first) for number in numbers]
        return self._by_covering(small, numbers, first)

    def _by_covering(self, small: Image.Image, numbers: Sequence[int], first: _Answers) -> list[dict[str, Heat]]:
        """Maps from what each window adds to the rest of the picture, and to nothing.

        The first alone finds nothing where two flowers each suffice, the second alone nothing where it takes both.
        """
        windows, nothing = self._windows, np.zeros_like(self._windows[:1])
        answers = self._ask(_covered(small, np.concatenate([nothing, windows, 1 - windows])))
        # Decisions and logarithms, since probabilities hardly move while the stack is sure.
        scores = {"stack": (answers.decisions, first.decisions[1])}
        for place, name in enumerate(self._names):
            scores[name] = (np.log(answers.shares[:, place] + TINY), np.log(first.shares[1, place] + TINY))
        found: list[dict[str, Heat]] = [{} for _ in numbers]
        for maps, number in zip(found, numbers, strict=True):
            for name, (given, whole) in scores.items():
                empty, without, alone = np.split(given[:, number], [1, 1 + len(windows)])
                maps[name] = occlusion.importance(windows, (whole[number] - without + alone - empty) / 2)
        return found

    def _from_maps(self, small: Image.Image, number: int, first: _Answers) -> dict[str, Heat]:
        found = {}
        for place, (name, network) in enumerate(zip(self._names, self._networks or (), strict=True)):
            coefficients = self.model.classifier.bases_[place].estimator.coef_
            direction = attribution.direction(coefficients, first.shares[1, place], number)
            heat = network.class_map(images.resize(small, network.input_size), direction)
            found[name] = attribution.enlarge(heat, occlusion.SIDE)
        shares = first.shares[1, :, number].tolist()
        return {"stack": attribution.average(list(found.values()), shares), **found}

    def _deletion(self, small: Image.Image, number: int, masks: Heat) -> float:
        return occlusion.deletion(self._probabilities(self._ask(_covered(small, masks)))[:, number])

    def _probabilities(self, answers: _Answers) -> NDArray[np.float64]:
        return probabilities(answers.decisions, self.model.classifier.temperature)

    def _ask(self, given: Iterable[images.Pixels]) -> _Answers:
        classifier, shares, decisions = self.model.classifier, [], []
        inputs = (ImageInput(f"picture {number}", pixels) for number, pixels in enumerate(given))
        prepared = self._prepared
        for batch in extraction.extract(inputs, prepared.extractors, prepared.batch_size, self._limits):
            features = np.hstack([batch.features[name] for name in self._names])
            shares.append(np.stack([base.predict_proba(features) for base in classifier.bases_], axis=1))
            decisions.append(classifier.meta_decisions(shares[-1].mean(axis=1)))
        return _Answers(np.concatenate(shares), np.concatenate(decisions))


def _check_poolings(model: StackModel) -> None:
    """Refuse before networks are built: Grad-CAM weighs maps by mean gradients, and covariances do not see means."""
    for item in model.backbones:
        if item.backbone.pooling == "covariance":
            raise ConfigError(
                f"--method: 'gradcam' does not do for {item.backbone.name!r}: a covariance stays the same when a "
                "whole feature map rises, so that nothing is left of its gradients' mean; use occlusion, which suits "
                "every backbone"
            )


def check_class(model: StackModel, name: str | None) -> None:
    """Raise `ConfigError` where a model does not know a class."""
    known = model.classes_.tolist()
    if name is not None and name not in known:
        shown = known if len(known) <= NAMED else difflib.get_close_matches(name, known, NAMED, 0.4) or known[:NAMED]
        those = "it has" if shown is known else f"among its {len(known)} are"
        raise ConfigError(f"--class: {name!r} is not a class of the model; {those} {', '.join(shown)}")


def _covered(picture: Image.Image, masks: Heat) -> Iterator[images.Pixels]:
    """The picture under each mask: blurred where the mask is 0."""
    blurred = picture.filter(ImageFilter.GaussianBlur(BLUR * min(picture.size)))
    for mask in masks:
        kept = Image.fromarray(np.rint(255 * mask).astype(np.uint8)).resize(picture.size, Image.Resampling.BILINEAR)
        yield np.asarray(Image.composite(picture, blurred, kept))
