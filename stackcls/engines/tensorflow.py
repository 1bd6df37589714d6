"""The reference engine: TensorFlow, each backbone as one frozen, compiled graph."""

import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackcls.backbones import Backbone
from stackcls.engines import Extractor, keras_models


class TensorFlowEngine:
    """Runs backbones with TensorFlow, on a GPU if it sees one."""

    name = "tensorflow"

    def __init__(self) -> None:
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        with _quiet_standard_error():
            import tensorflow

            self._devices = [device.name for device in tensorflow.config.list_physical_devices("GPU")]
            for device in tensorflow.config.list_physical_devices("GPU"):
                tensorflow.config.experimental.set_memory_growth(device, True)

    def prepare(self, backbone: Backbone, weights: Path | None, batch_size: int) -> Extractor:
        """Build, freeze and compile one backbone for batches of one size."""
        import keras
        import tensorflow

        model, preprocess, size = keras_models.build(backbone, weights)

        def features(images: Any) -> Any:
            return model(preprocess(tensorflow.cast(images, tensorflow.float32)), training=False)

        signature = tensorflow.TensorSpec((batch_size, size, size, 3), tensorflow.uint8)
        function = tensorflow.function(features).get_concrete_function(signature)
        extractor = _FrozenGraph(_freeze(function), batch_size, size, int(model.output_shape[-1]))
        keras.backend.clear_session()
        return extractor

    def provenance(self) -> Mapping[str, str]:
        """Versions and processor."""
        return {
            "engine": self.name,
            "processor": ", ".join(self._devices) or platform.machine(),
            **{name: version(name) for name in ("tensorflow", "keras", "pillow", "numpy")},
        }


class _FrozenGraph:
    """A compiled graph whose weights are constants; see `Extractor`."""

    def __init__(self, function: Any, batch_size: int, input_size: int, width: int) -> None:
        self._function = function
        self._batch_size = batch_size
        self.input_size = input_size
        self.width = width

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run one batch, padded to the full size."""
        import tensorflow

        count = len(images)
        if count < self._batch_size:
            images = np.concatenate([images, np.zeros((self._batch_size - count, *images.shape[1:]), np.uint8)])
        (features,) = self._function(tensorflow.constant(images))
        rows: NDArray[np.float32] = features.numpy()[:count]
        return rows


def _freeze(function: Any) -> Any:
    """Turn variables into constants: batch normalisation folds into convolutions, and the Keras model can go."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function)


@contextmanager
def _quiet_standard_error() -> Iterator[None]:
    """Hold back what TensorFlow's C++ code writes while it is imported; show it if the import fails."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
