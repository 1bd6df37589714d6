"""The reference engine: TensorFlow, each backbone as one frozen, compiled graph, on a GPU if there is one."""

import contextlib
import functools
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackcls import cores
from stackcls.backbones import Located
from stackcls.bases import Basis
from stackcls.engines import Extractor, Sample, cache, graphs, pad
from stackcls.errors import ConfigError

NO_INT8 = "TensorFlow has no 8-bit arithmetic for Keras networks"


class TensorFlowEngine:
    """Runs backbones with TensorFlow."""

    name = "tensorflow"

    def __init__(self) -> None:
        tensorflow = graphs.import_tensorflow()
        if granted := cores.granted():
            with contextlib.suppress(RuntimeError):  # of a process that has begun to compute
                tensorflow.config.threading.set_intra_op_parallelism_threads(granted)
        self._gpus = []
        for device in tensorflow.config.list_physical_devices("GPU"):
            tensorflow.config.experimental.set_memory_growth(device, True)
            details = tensorflow.config.experimental.get_device_details(device)
            self._gpus.append(str(details.get("device_name", device.name)))
        # Otherwise products of "float32" are of 10 bits on newer GPUs.
        tensorflow.config.experimental.enable_tensor_float_32_execution(False)
        self.batch_size = 64 if self._gpus else 16

    def refusal(self, precision: str) -> str | None:
        """Refuse int8."""
        return NO_INT8 if precision == "int8" else None

    def prepare(self, located: Located, batch_size: int) -> Extractor:
        """Load one frozen graph from the cache, or build it."""
        precision = located.identity.precision
        key = cache.key_of(located, precision=precision, **graphs.made_with())
        folder, meta = cache.entry(key, lambda made: graphs.write(located, made / "graph.pb", precision))
        return _FrozenGraph(folder / "graph.pb", meta, batch_size)

    def calibrate(self, located: Located, names: Sequence[str], sample: Sample) -> Basis:
        """Refuse: there is no int8 here."""
        raise ConfigError(f"features.precision: 'int8' does not do with engine tensorflow: {NO_INT8}")

    def provenance(self) -> Mapping[str, str]:
        """Versions and processor."""
        gpu = {"gpu": ", ".join(self._gpus)} if self._gpus else {}
        return {
            "engine": self.name,
            "processor": ", ".join(self._gpus) or platform.machine(),
            **{name: version(name) for name in ("tensorflow", "keras", "pillow", "numpy")},
            **gpu,
        }


class _FrozenGraph:
    """A graph whose weights are constants; see `Extractor`."""

    def __init__(self, file: Path, meta: Mapping[str, Any], batch_size: int) -> None:
        import tensorflow

        graph = tensorflow.compat.v1.GraphDef()
        graph.ParseFromString(file.read_bytes())
        import_graph = functools.partial(tensorflow.graph_util.import_graph_def, graph, name="")
        imported = tensorflow.compat.v1.wrap_function(import_graph, [])
        self._function = imported.prune(meta["input"], meta["output"])
        self._batch_size = batch_size
        self.input_size, self.width = int(meta["input_size"]), int(meta["width"])

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run one batch, padded to the full size."""
        import tensorflow

        features = self._function(tensorflow.constant(pad(images, self._batch_size)))
        rows: NDArray[np.float32] = features.numpy()[: len(images)]
        return rows
