"""Backbones as frozen TensorFlow graphs: 8-bit RGB in, float32 features out, weights as constants."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stackcls.backbones import Located
from stackcls.engines import keras_models

FORMAT = "2"

_ONE_IMPORT = threading.Lock()
# Keras counts layers and seeds random weights for the whole process.
_ONE_AT_A_TIME = threading.Lock()


def made_with() -> dict[str, str]:
    """Name what decides, beside the backbone, what a frozen graph computes."""
    return {"graph": FORMAT, "tensorflow": version("tensorflow"), "keras": version("keras")}


def import_tensorflow() -> Any:
    """Import TensorFlow without its greeting."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _ONE_IMPORT:
        if "tensorflow" in sys.modules:
            import tensorflow

            return tensorflow
        return _import_first()


def _import_first() -> Any:
    with _quiet_standard_error():
        import tensorflow

        tensorflow.config.list_physical_devices("GPU")  # its complaints about absent ones come with the first look
    return tensorflow


def write(located: Located, target: Path, precision: str) -> dict[str, Any]:
    """Build a backbone, freeze it and write it as a TensorFlow `GraphDef`.

    Parameters
    ----------
    located : Located
    target : Path
        The file to be written.
    precision : {'float32', 'bfloat16'}
        Of the arithmetic between the 8-bit images and the float32 features.

    Returns
    -------
    dict
        `width`, `input_size`, and the names of the graph's `input` and `output` tensors.
    """
    with _ONE_AT_A_TIME:
        return _write(located, target, precision)


def _write(located: Located, target: Path, precision: str) -> dict[str, Any]:
    tensorflow = import_tensorflow()
    import keras
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model, preprocess, size = keras_models.build(located.backbone, located.weights)
    if precision != "float32":
        model = keras_models.in_precision(model, precision)

    def features(images: Any) -> Any:
        prepared = preprocess(tensorflow.cast(images, tensorflow.float32))
        return tensorflow.cast(model(prepared, training=False), tensorflow.float32)

    signature = tensorflow.TensorSpec((None, size, size, 3), tensorflow.uint8)
    # Constants let batch normalisation fold into convolutions, and the Keras model go.
    frozen = convert_variables_to_constants_v2(tensorflow.function(features).get_concrete_function(signature))
    target.write_bytes(frozen.graph.as_graph_def().SerializeToString())
    width = int(model.output_shape[-1])
    keras.backend.clear_session()
    return {"width": width, "input_size": size, "input": frozen.inputs[0].name, "output": frozen.outputs[0].name}


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
