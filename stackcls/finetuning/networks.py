"""A backbone with a new head, ready to be trained: what learns, how fast, and on which variations of the images.

Imports Keras, so it is imported when training begins.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from stackcls import seen
from stackcls.backbones import PLAIN, PREPROCESSING, Located
from stackcls.engines import keras_models
from stackcls.errors import ConfigError
from stackcls.files import digest_file, replacing
from stackcls.finetuning.jobs import BACKBONE, HEAD
from stackcls.settings import AugmentSettings, FinetuneSettings

# Of the rate, which is the head's: a deep network cannot learn as fast, and what it has learned before even less so.
FROM_RANDOM, LEARNED_BEFORE = 0.1, 0.03
MOMENTUM = 0.9  # Keras's 0.99 forgets the random start only after some hundred batches, and here an epoch has few
NAMED = 12  # layers, in messages
POOLINGS = {PLAIN: keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}

Tensor = Any
Weights = list[NDArray[Any]]


@dataclass(frozen=True)
class Network:
    """A backbone and its head.

    Attributes
    ----------
    backbone : keras.Model
        From preprocessed images to what it gives, in float32: what is kept in the end.
    running : keras.Model
        The same in the precision of the training; its weights are those that learn.
    model : keras.Model
        That with pooling and head, compiled.
    preprocess : callable
        From float32 RGB in 0..255 to what the backbone takes.
    entry : mapping of str to str
        What an entry of `features.backbones` must say for the saved backbone to give what the head learned from.
    input_size : int
        Side length in pixels.
    learned : int
        Number of weights that are learned.
    """

    backbone: keras.Model
    running: keras.Model
    model: keras.Model
    preprocess: Callable[[Tensor], Tensor]
    entry: Mapping[str, str]
    input_size: int
    learned: int

    @property
    def weights(self) -> Weights:
        """All weights of backbone and head."""
        return list(self.model.get_weights())

    @property
    def state(self) -> Weights:
        """What the optimizer remembers."""
        return [np.asarray(variable) for variable in self.model.optimizer.variables]

    def restore(self, weights: Weights, state: Weights | None = None) -> None:
        """Take over weights, and what the optimizer remembers."""
        self.model.set_weights(weights)
        if state is not None:
            for variable, value in zip(self.model.optimizer.variables, state, strict=True):
                variable.assign(value)


@contextmanager
def built(
    located: Located, fresh: bool, n_classes: int, settings: FinetuneSettings, name: str, steps: tuple[int, int]
) -> Iterator[Network]:
    """Build a backbone with a new head, and say what of it learns; Keras forgets it after the block.

    Parameters
    ----------
    located : Located
    fresh : bool
        Whether to replace its weights by random ones.
    n_classes : int
    settings : FinetuneSettings
    name : str
        Of the backbone that will be saved, and of its input.
    steps : (int, int)
        Batches of the first epoch, and of all.

    Yields
    ------
    Network

    Raises
    ------
    ConfigError
        If there is no such layer.
    """
    keras.utils.set_random_seed(settings.seed)
    pooled, preprocess, size = keras_models.build(located.backbone, located.weights)
    output, pooling = _before_pooling(pooled)
    backbone = keras.Model(pooled.input, output, name=name)
    keras.utils.set_random_seed(settings.seed)  # the head's start does not hang on how the backbone was made
    if fresh:
        backbone = keras.models.clone_model(backbone)
    for layer in _leaves(backbone):
        if isinstance(layer, keras.layers.InputLayer):
            layer.name = name  # which a model made of this one's tensors keeps, though it has another name itself
    running = backbone
    if (settings.precision == "bfloat16") or (settings.precision == "auto" and bfloat16_pays()):
        running = keras_models.in_precision(backbone, "bfloat16")
    from_random = fresh or located.backbone.weights == "random"
    rates = _choose_what_learns(running, settings, from_random)
    head = keras.layers.Dense(n_classes, dtype="float32", name="head")
    output = running.output
    if len(output.shape) == 4:
        output = POOLINGS[pooling or PLAIN](dtype="float32")(output)
    model = keras.Model(running.input, head(keras.layers.Dropout(settings.dropout)(output)))
    rates |= dict.fromkeys((id(one) for one in head.variables), settings.multipliers.get(HEAD, 1.0))
    optimizer = _PartRates(_schedule(settings.rate, *steps), [rates[id(one)] for one in model.trainable_variables])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    optimizer.build(model.trainable_variables)
    learned = sum(int(np.prod(one.shape)) for one in model.trainable_variables)
    entry = {"preprocessing": preprocessing_name(preprocess), **({"pooling": pooling} if pooling == "max" else {})}
    try:
        yield Network(backbone, running, model, preprocess, entry, size, learned)
    finally:
        keras.backend.clear_session()


def check_layers(located: Located, settings: FinetuneSettings) -> None:
    """Raise `ConfigError` where the settings name a layer that a backbone does not have, and train nothing."""
    pooled, _, _ = keras_models.build(located.backbone, located.weights)
    output, _ = _before_pooling(pooled)
    _choose_what_learns(keras.Model(pooled.input, output), settings, from_random=False)
    keras.backend.clear_session()


def _before_pooling(model: keras.Model) -> tuple[Tensor, str | None]:
    """What a network gives before a pooling that it ends in, and which one that is."""
    last = model.layers[-1]
    pooling = next((name for name, layer in POOLINGS.items() if isinstance(last, layer)), None)
    return last.input if pooling else model.output, pooling


def bfloat16_pays() -> bool:
    """Whether there is a GPU that computes faster in bfloat16 than in float32: NVIDIA's from Ampere on."""
    import tensorflow

    details = [
        tensorflow.config.experimental.get_device_details(device)
        for device in tensorflow.config.list_physical_devices("GPU")
    ]
    return any(item.get("compute_capability", (0, 0)) >= (8, 0) for item in details)


def save(network: Network, target: Path, hashes: NDArray[np.uint64], token: str) -> str:
    """Write the backbone without its head, with the record of what it saw, whole or not at all; return its SHA-256."""
    backbone = network.backbone
    backbone.set_weights(network.running.get_weights())
    backbone.trainable = True
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model.keras"
        backbone.save(saved)
        with replacing(target) as temporary:
            seen.write(saved, temporary, hashes, token)
            return digest_file(temporary)


class Augmentation:
    """Keras layers that vary images, each one for itself, by the settings; MixUp varies what is given of them too.

    References
    ----------
    Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
    """

    def __init__(self, settings: AugmentSettings) -> None:
        layers, given = keras.layers, settings
        self.layers = [
            layer
            for wanted, layer in (
                (given.flip, layers.RandomFlip("horizontal")),
                # A random crop of an image whose edges are mirrored outwards.
                (given.crop, layers.RandomTranslation(given.crop, given.crop, fill_mode="reflect")),
                (given.scale, layers.RandomZoom((-given.scale, given.scale), fill_mode="reflect")),
                (given.brightness, layers.RandomBrightness(given.brightness, value_range=(0, 255))),
                (given.mixup, layers.MixUp(given.mixup)),
            )
            if wanted
        ]

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Vary a batch: float32 images in 0..255 and one-hot classes."""
        batch = {"images": images, "labels": targets}
        for layer in self.layers:
            batch = layer(batch, training=True)
        return batch["images"], batch["labels"]


def seed(network: Network, augmentation: Augmentation, rng: np.random.Generator) -> None:
    """Let all that is drawn at random in an epoch follow from the epoch alone, whatever ran before."""
    for layer in (*augmentation.layers, network.model):
        for variable in layer.variables:
            if variable.name == "seed_generator_state":
                variable.assign(rng.integers(2**32, size=2, dtype=np.uint32))


def _choose_what_learns(running: keras.Model, settings: FinetuneSettings, from_random: bool) -> dict[int, float]:
    """Freeze what does not learn; return the multiplier of every weight's learning rate, by the weight's `id`."""
    layers = list(_leaves(running))
    start = {"all": 0, "none": len(layers)}.get(settings.unfreeze)
    if start is None:
        start = _place(layers, settings.unfreeze, "finetune.unfreeze", ("all", "none"))
    multiplier = settings.multipliers.get(BACKBONE, FROM_RANDOM if from_random else LEARNED_BEFORE)
    changes = {
        _place(layers, name, "finetune.multipliers", (HEAD, BACKBONE)): value
        for name, value in settings.multipliers.items()
        if name not in (HEAD, BACKBONE)
    }
    rates: dict[int, float] = {}
    for number, layer in enumerate(layers):
        multiplier = changes.get(number, multiplier)
        # Statistics of many images were learned before; those of a few small batches would be worse.
        normalises = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = number >= start and (from_random or not normalises)
        if normalises and layer.trainable:
            layer.momentum = min(layer.momentum, MOMENTUM)
        rates |= {id(variable): multiplier for variable in layer.variables}
    return rates


def _leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Layers in order, those of models within the model too."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def _place(layers: list[keras.layers.Layer], name: str, where: str, others: tuple[str, ...]) -> int:
    for number, layer in enumerate(layers):
        if layer.name == name:
            return number
    last = ", ".join([layer.name for layer in layers if layer.weights][-NAMED:])
    allowed = ", ".join(others)
    raise ConfigError(f"{where}: {name!r} is not {allowed} or a layer; the last layers with weights are {last}")


def _schedule(rate: float, first: int, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """A rise over the first epoch, while the new head finds its direction, then a fall along a cosine."""
    return keras.optimizers.schedules.CosineDecay(
        0.1 * rate, max(1, steps - first), warmup_target=rate, warmup_steps=first
    )


class _PartRates(keras.optimizers.Adam):  # type: ignore[misc]
    """Adam with a multiplier of the learning rate for each weight."""

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, multipliers: list[float]) -> None:
        super().__init__(schedule, name="adam")
        self._multipliers = multipliers

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        """Change one weight."""
        multiplier = self._multipliers[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * multiplier)


def preprocessing_name(preprocess: Callable[[Tensor], Tensor]) -> str:
    """Which of `backbones.PREPROCESSING` a function is: that of an architecture has no name."""
    probe = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3) * 20
    found = np.asarray(preprocess(keras.ops.convert_to_tensor(probe)))
    for name in PREPROCESSING:
        named = keras_models.preprocessing(name)
        if np.allclose(found, np.asarray(named(keras.ops.convert_to_tensor(probe))), atol=1e-4):
            return name
    raise ConfigError(f"finetune: its preprocessing is none of {', '.join(PREPROCESSING)}, which a saved model needs")
