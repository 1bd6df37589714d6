"""Looking into a backbone: what its layers give, where in its last map a class shows, what a unit would like to see."""

from __future__ import annotations

import difflib
import threading
import typing
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackcls.backbones import Located
from stackcls.engines import graphs, keras_models
from stackcls.errors import ConfigError

if typing.TYPE_CHECKING:
    import keras

GREY, NOISE = 128.0, 20.0
SCALES = (
    8,
    4,
    2,
)  # coarse to fine, never finest, which gives noise: so many pixels of the network's input change as one
STEPS = 30  # at each scale
RATE = 2.0  # of 255, a pixel's mean change in one step
SHIFT = (
    16  # pixels that the picture is moved by at random before each step, so that the network's own grid does not show
)
NAMED = 8

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

_BUILDING = threading.Lock()  # Keras counts layers for the whole process


class Network:
    """A backbone as a Keras model, whatever engine makes its features; it computes in float32.

    Attributes
    ----------
    name : str
        The backbone's.
    input_size : int
    """

    def __init__(self, located: Located) -> None:
        self._tensorflow = graphs.import_tensorflow()
        self.name = located.backbone.name
        with _BUILDING:
            model, self._preprocess, self.input_size = keras_models.build(located.backbone, located.weights)
            self._model = _pooled(model, located.backbone.pooling)

    def __contains__(self, layer: str) -> bool:
        return any(item.name == layer for item in self._model.layers)

    def unknown(self, layer: str) -> str:
        """Which layers there are, as a clause for messages."""
        names = [item.name for item in self._model.layers[1:]]
        close = difflib.get_close_matches(layer, names, NAMED, 0.6) or names[-NAMED:]
        return f"{self.name!r} has {len(names)}, {'like' if layer else 'such as'} {', '.join(close)}"

    def feature_maps(self, layer: str, image: Pixels) -> Floats:
        """What a layer gives for one image, shape (height, width, channels); a vector has height and width 1.

        Parameters
        ----------
        layer : str
        image : ndarray of uint8, shape (input_size, input_size, 3)
        """
        given = self._up_to(layer)(self._prepared(image[None].astype(np.float32)), training=False)
        maps: Floats = np.asarray(given, dtype=np.float32)[0]
        return maps if maps.ndim == 3 else maps.reshape(1, 1, -1)

    def class_map(self, image: Pixels, direction: NDArray[np.floating[Any]]) -> Floats:
        """Where the last feature map speaks for a direction of the features, shape (height, width), not below 0.

        Parameters
        ----------
        image : ndarray of uint8, shape (input_size, input_size, 3)
        direction : ndarray of float, shape (width,)
            How much each feature counts for what is asked about.

        References
        ----------
        Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017.
        """
        tensorflow = self._tensorflow
        before, after = self._split
        if after.output_shape[-1] != len(direction):
            raise self._without_map()
        maps = before(self._prepared(image[None].astype(np.float32)), training=False)
        with tensorflow.GradientTape() as tape:
            tape.watch(maps)
            asked = tensorflow.reduce_sum(after(maps, training=False) * direction.astype(np.float32))
        weights = tensorflow.reduce_mean(tape.gradient(asked, maps), axis=(1, 2), keepdims=True)
        found: Floats = tensorflow.nn.relu(tensorflow.reduce_sum(weights * maps, axis=-1))[0].numpy()
        return found

    def dream(
        self,
        layer: str,
        unit: int | None,
        start: Pixels | None,
        seed: int,
        advance: Callable[[int], None] = lambda _: None,
    ) -> Pixels:
        """Change a picture until a layer, or one unit of it, responds more, shape (input_size, input_size, 3).

        Parameters
        ----------
        layer : str
        unit : int or None
            A channel of the layer; None for the layer as a whole, whatever it sees.
        start : ndarray of uint8, shape (input_size, input_size, 3), or None
            None for grey noise.
        seed : int
        advance : callable
            Called after each step, `dream_steps()` times.

        References
        ----------
        Mordvintsev, Olah, Tyka, Inceptionism: Going Deeper into Neural Networks, 2015; Olah, Mordvintsev, Schubert,
        Feature Visualization, Distill 2017.
        """
        tensorflow, model, size = self._tensorflow, self._up_to(layer), self.input_size
        channels = int(model.output_shape[-1])
        if unit is not None and not 0 <= unit < channels:
            raise ConfigError(
                f"--dream: {layer!r} of {self.name!r} has no unit {unit}; 0 to {channels - 1} are allowed"
            )
        rng = np.random.default_rng(seed)
        picture = rng.normal(GREY, NOISE, (1, size, size, 3)) if start is None else start[None]
        picture = tensorflow.constant(picture, tensorflow.float32)

        def climb(picture: Any, shift: Any, scale: Any) -> Any:
            with tensorflow.GradientTape() as tape:
                tape.watch(picture)
                moved = tensorflow.roll(picture, shift, axis=(1, 2))
                given = model(self._prepared(moved), training=False)
                asked = tensorflow.reduce_mean(given**2) if unit is None else tensorflow.reduce_mean(given[..., unit])
            gradient = tape.gradient(asked, picture)
            coarse = tensorflow.image.resize(gradient, (size // scale, size // scale), "area")
            smooth = tensorflow.image.resize(coarse, (size, size), "bicubic")
            smooth /= tensorflow.reduce_mean(tensorflow.abs(smooth)) + 1e-12
            return tensorflow.clip_by_value(picture + RATE * smooth, 0.0, 255.0)

        step = tensorflow.function(climb)
        for scale in SCALES:
            for _ in range(STEPS):
                shift = tensorflow.constant(rng.integers(-SHIFT, SHIFT + 1, 2), tensorflow.int32)
                picture = step(picture, shift, tensorflow.constant(scale))
                advance(1)
        pixels: Pixels = np.rint(picture.numpy()[0]).astype(np.uint8)
        return pixels

    @cached_property
    def _split(self) -> tuple[keras.Model, keras.Model]:
        """What comes before and after the last feature map."""
        import keras

        last = next((layer for layer in reversed(self._model.layers) if _has_places(layer)), None)
        if last is None:
            raise self._without_map()
        try:
            return keras.Model(self._model.input, last.output), keras.Model(last.output, self._model.output)
        except ValueError:  # another branch goes around it
            raise self._without_map() from None

    def _without_map(self) -> ConfigError:
        return ConfigError(
            f"--method: 'gradcam' does not do for {self.name!r}, whose features do not all come from one feature map "
            "of Keras; use occlusion, which suits every backbone"
        )

    def _up_to(self, layer: str) -> keras.Model:
        import keras

        try:
            return keras.Model(self._model.input, self._model.get_layer(layer).output)
        except (AttributeError, ValueError) as error:  # one that is used twice, or has no output
            raise ConfigError(f"layer {layer!r} of {self.name!r} cannot be looked at ({error}); take another") from None

    def _prepared(self, images: Any) -> Any:
        return self._preprocess(self._tensorflow.convert_to_tensor(images))


def dream_steps() -> int:
    """How many steps one dream takes."""
    return STEPS * len(SCALES)


def _pooled(model: keras.Model, pooling: str) -> keras.Model:
    """The network with the features that a matrix holds as its output, where Keras has a layer for them."""
    import keras

    layers = {"average": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}
    if len(model.output_shape) != 4 or pooling not in layers:
        return model
    return keras.Model(model.input, layers[pooling](name="pooled_features")(model.output))


def _has_places(layer: Any) -> bool:
    """Whether a layer gives a map of several places."""
    try:
        shape: tuple[int | None, ...] = getattr(layer.output, "shape", ())
    except (AttributeError, ValueError):  # used twice, or without an output
        return False
    return len(shape) == 4 and (shape[1] or 0) * (shape[2] or 0) > 1
