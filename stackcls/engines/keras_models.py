"""Backbones as Keras models: from 8-bit RGB images to feature maps, or to features."""

from __future__ import annotations

import contextlib
import sys
import threading
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackcls.backbones import Backbone
from stackcls.errors import ConfigError, WeightsError

if typing.TYPE_CHECKING:
    import keras


_ONE_ANSWER = threading.RLock()  # what it guards is the whole process's


@dataclass(frozen=True)
class PublishedFile:
    """One file of published weights, as Keras names it: file name, address and MD5 sum."""

    name: str
    origin: str
    md5: str


def build(backbone: Backbone, weights: Path | None) -> tuple[keras.Model, Callable[[Any], Any], int]:
    """Build one backbone.

    Parameters
    ----------
    backbone : Backbone
    weights : Path or None
        The file with the weights or the saved model; None for random ones.

    Returns
    -------
    model : keras.Model
        From preprocessed float32 images to a feature map, shape (n, height, width, channels), or to features, shape
        (n, width).
    preprocess : callable
        From float32 RGB in 0..255 to what the model takes, on tensors.
    input_size : int
        Side length in pixels.

    Raises
    ------
    ConfigError
        If the architecture does not take the arguments, or has no such layer.
    WeightsError
        If the file does not fit the architecture.
    """
    import keras

    network = _open_saved(backbone, weights) if not backbone.architecture else _build_known(backbone, weights)
    if backbone.layer:
        try:
            network = keras.Model(network.input, network.get_layer(backbone.layer).output)
        except ValueError:
            names = ", ".join(layer.name for layer in network.layers[-8:])
            raise ConfigError(
                f"features.backbones: {backbone.name!r} has no layer {backbone.layer!r}; its last ones are {names}"
            ) from None
    network = _with_size(network, backbone)
    output = network.output
    if isinstance(output, (list, tuple)) or len(output.shape) not in (2, 4):
        raise ConfigError(
            f"features.backbones: {backbone.name!r} gives {getattr(output, 'shape', 'several outputs')}; "
            "a feature map (n, height, width, channels) or features (n, width) are needed: name such a `layer`"
        )
    return keras.Model(network.input, output), _preprocessing(backbone), int(network.input_shape[1])


def in_precision(model: keras.Model, precision: str) -> keras.Model:
    """Rebuild a model for narrower arithmetic; its weights, and a last layer that gives features, stay float32.

    Parameters
    ----------
    model : keras.Model
    precision : {'bfloat16'}

    References
    ----------
    Micikevicius et al., Mixed Precision Training, ICLR 2018.
    """
    import keras

    last = model.layers[-1].name if len(model.output_shape) == 2 else None

    def again(layer: keras.Operation) -> keras.Operation:
        if not isinstance(layer, keras.layers.Layer):
            return layer.__class__.from_config(layer.get_config())
        policy = "float32" if layer.name == last else f"mixed_{precision}"
        return layer.__class__.from_config({**layer.get_config(), "dtype": policy})

    narrow = keras.models.clone_model(model, clone_function=again, recursive=True)
    narrow.set_weights(model.get_weights())
    return narrow


def published_file(backbone: Backbone) -> PublishedFile:
    """Ask Keras which file of ImageNet weights a backbone takes, without fetching it."""
    asked: list[PublishedFile] = []

    class Asked(Exception):
        pass

    def note(name: str, origin: str, file_hash: str | None = None, **_: object) -> str:
        asked.append(PublishedFile(name, origin, file_hash or ""))
        raise Asked

    with _answering_get_file(note), contextlib.suppress(Asked):
        _call(backbone, include_top=needs_top(backbone), weights="imagenet")
    return asked[0]


def needs_top(backbone: Backbone) -> bool:
    """Whether the layer asked for is among the classification layers, so that they must be built too."""
    if backbone.layer is None:
        return False
    import keras

    # Keras counts up the names that it gives to layers: what was built before must not shift the one asked for.
    keras.backend.clear_session()
    names = {layer.name for layer in _call(backbone, include_top=False, weights=None).layers}
    keras.backend.clear_session()
    return backbone.layer not in names


def _build_known(backbone: Backbone, weights: Path | None) -> keras.Model:
    import keras

    top = needs_top(backbone)
    if backbone.weights == "imagenet":
        # Some architectures are built otherwise for "imagenet" than for a file, so Keras must be asked for
        # "imagenet", and be given the file that was found when it asks for it.
        try:
            with _answering_get_file(lambda *_, **__: str(weights)):
                return _call(backbone, top, "imagenet")
        except OSError as error:
            raise WeightsError(
                f"features.backbones: {backbone.name!r}: {weights} cannot be read ({error}): allow reading it, or "
                "delete it and run `stackcls weights`"
            ) from error
    keras.utils.set_random_seed(backbone.seed)
    network = _call(backbone, top, None)
    if weights is not None:
        try:
            network.load_weights(weights)
        except Exception as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise WeightsError(
                f"features.backbones: {backbone.name!r}: {weights} does not fit {backbone.architecture}"
                f"{dict(backbone.arguments) or ''}: {first}"
            ) from error
    return network


def _call(backbone: Backbone, include_top: bool, weights: str | None) -> keras.Model:
    """Call the architecture's function."""
    from keras import applications

    size = backbone.input_size
    try:
        return getattr(applications, backbone.architecture)(
            **{
                **dict(backbone.arguments),
                "include_top": include_top,
                "input_shape": (size, size, 3),
                "weights": weights,
            }
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"features.backbones: {backbone.name!r}: {backbone.architecture} says: {error}") from error


@contextlib.contextmanager
def _answering_get_file(answer: Callable[..., str]) -> Iterator[None]:
    """Answer Keras's own search for published weights; it has no public way to be told where they lie."""
    from keras.src.utils import file_utils

    with _ONE_ANSWER:
        original = file_utils.get_file
        file_utils.get_file = answer
        try:
            yield
        finally:
            file_utils.get_file = original


def _open_saved(backbone: Backbone, weights: Path | None) -> keras.Model:
    import keras

    try:
        network = keras.saving.load_model(weights, compile=False, safe_mode=True)
    except Exception as error:
        raise WeightsError(
            f"features.backbones: {backbone.name!r}: {weights} cannot be opened as a Keras model: {error}"
        ) from error
    return network


def _with_size(network: keras.Model, backbone: Backbone) -> keras.Model:
    """Check what a network takes, and give one that takes any size the size that is configured."""
    import keras

    where, shape = f"features.backbones: {backbone.name!r}", network.input_shape
    if isinstance(shape, list) or len(shape) != 4 or shape[3] != 3:
        raise ConfigError(f"{where} takes {shape}; one RGB image (n, size, size, 3) is needed")
    if shape[1] is None or shape[1] != shape[2]:
        if backbone.input_size is None:
            raise ConfigError(f"{where} takes images of any size; give `input_size`")
        inputs = keras.Input((backbone.input_size, backbone.input_size, 3))
        return keras.Model(inputs, network(inputs))
    if backbone.input_size not in (None, shape[1]):
        raise ConfigError(f"{where} takes input_size {shape[1]}, not {backbone.input_size}")
    return network


def _preprocessing(backbone: Backbone) -> Callable[[Any], Any]:
    from keras import applications

    if backbone.preprocessing == "keras":
        module = sys.modules[getattr(applications, backbone.architecture).__module__]
        return typing.cast(Callable[[Any], Any], module.preprocess_input)
    return preprocessing(backbone.preprocessing)


def preprocessing(name: str) -> Callable[[Any], Any]:
    """Return the function that goes by that name in `backbones.PREPROCESSING`."""
    from keras import applications

    if name == "none":
        return lambda images: images
    return lambda images: applications.imagenet_utils.preprocess_input(images, mode=name)
