"""The engine for processors: OpenVINO, in float32, bfloat16 or 8-bit integers."""

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackcls import cores
from stackcls.backbones import Located
from stackcls.bases import RANGES, Basis
from stackcls.engines import Extractor, Sample, cache, graphs, pad
from stackcls.errors import EngineError, StackclsError, WriteError

# OpenVINO tells its maker about every import unless its reporting module is absent; nothing here phones home.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402

DEVICE = "CPU"
MODEL = "model.xml"
NEEDS = {"float32": "FP32", "bfloat16": "BF16", "int8": "INT8"}
# What int8 leaves to floating point stays float32, so that ranges mean the same on every processor.
ARITHMETIC = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


class OpenVINOEngine:
    """Runs backbones with OpenVINO on the processor."""

    name = "openvino"
    batch_size = 8

    def __init__(self) -> None:
        self._core = openvino.Core()

    def refusal(self, precision: str) -> str | None:
        """Refuse what the processor has no instructions for."""
        if NEEDS[precision] in self._core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"):
            return None
        return f"this processor ({self._processor()}) has no {precision} arithmetic that OpenVINO can use"

    def prepare(self, located: Located, batch_size: int) -> Extractor:
        """Load one network from the cache, or build it; compile it for batches of one size."""
        if located.identity.precision == "int8":
            folder, meta = self._quantised(located)
        else:
            folder, meta = self._float(located)
        size = int(meta["input_size"])
        settings = {
            "INFERENCE_PRECISION_HINT": ARITHMETIC[located.identity.precision],
            # One stream on all cores: as fast as one stream per core, and a batch is in memory once.
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(cores.available()),
        }
        with _explained(located):
            model = self._core.read_model(folder / MODEL)
            model.reshape([batch_size, size, size, 3])
            compiled = self._core.compile_model(model, DEVICE, settings)
        return _Compiled(compiled.create_infer_request(), batch_size, size, int(meta["width"]))

    def calibrate(self, located: Located, names: Sequence[str], sample: Sample) -> Basis:
        """Fit ranges with NNCF, or take those that were fitted on the same images."""
        from stackcls.engines import int8

        def make(folder: Path) -> cache.Meta:
            built, meta = self._float(located)
            images = sample(int(meta["input_size"]))
            with _explained(located):
                basis = int8.fit_ranges(self._core.read_model(built / MODEL), images)
            np.save(folder / "values.npy", basis.values)
            return {"kind": basis.kind, "layout": basis.layout}

        key = cache.key_of(
            located,
            form="ranges",
            sample=",".join(names),
            resize=located.identity.resize,
            **int8.made_with(),
            **self._made_with(),
        )
        folder, meta = cache.entry(key, make)
        return Basis(meta["kind"], meta["layout"], np.load(folder / "values.npy"))

    def provenance(self) -> Mapping[str, str]:
        """Versions and processor."""
        return {
            "engine": self.name,
            "processor": self._processor(),
            **{name: version(name) for name in ("openvino", "tensorflow", "keras", "pillow", "numpy")},
        }

    def _processor(self) -> str:
        return str(self._core.get_property(DEVICE, "FULL_DEVICE_NAME")).strip()

    def _made_with(self) -> dict[str, str]:
        return {"openvino": version("openvino"), **graphs.made_with()}

    def _float(self, located: Located) -> tuple[Path, cache.Meta]:
        """The network in OpenVINO's own form, its steps named by their place so that ranges find them again."""

        def make(folder: Path) -> cache.Meta:
            frozen = folder / "graph.pb"
            meta = graphs.write(located, frozen, "float32")
            with _explained(located):
                # Unlike reading alone, this folds batch normalisation into weights, which ranges need.
                model = openvino.convert_model(frozen)
                for place, step in enumerate(model.get_ordered_ops()):
                    step.set_friendly_name(f"{step.get_type_name()}_{place}")
                _save(model, folder / MODEL)
            frozen.unlink()
            return meta

        return cache.entry(cache.key_of(located, form="openvino", **self._made_with()), make)

    def _quantised(self, located: Located) -> tuple[Path, cache.Meta]:
        """The network with its weights as 8-bit integers and its ranges set."""
        from stackcls.engines import int8

        basis = located.basis.part(RANGES) if located.basis else None
        if basis is None:
            raise EngineError(f"{located.backbone.name!r}: int8 needs ranges, and there are none")

        def make(folder: Path) -> cache.Meta:
            built, meta = self._float(located)
            model = self._core.read_model(built / MODEL)
            int8.apply_ranges(model, basis, located.backbone.name)
            _save(model, folder / MODEL)
            return meta

        return cache.entry(cache.key_of(located, form="int8", basis=basis.digest, **self._made_with()), make)


class _Compiled:
    """A network compiled for one batch size; see `Extractor`."""

    def __init__(self, request: Any, batch_size: int, input_size: int, width: int) -> None:
        self._request, self._batch_size, self._one_at_a_time = request, batch_size, threading.Lock()
        self.input_size, self.width = input_size, width

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run one batch, padded to the full size."""
        batch = np.ascontiguousarray(pad(images, self._batch_size))
        with self._one_at_a_time:
            self._request.infer([batch], share_inputs=True)
            rows: NDArray[np.float32] = self._request.get_output_tensor(0).data[: len(images)].copy()
        return rows


def _save(model: Any, file: Path) -> None:
    """Write a network; of a full disk OpenVINO says no more than that a stream failed."""
    try:
        openvino.save_model(model, file, compress_to_fp16=False)
    except RuntimeError as error:
        raise WriteError(
            f"{file}: cannot be written ({error}): free space there, and run the same command again"
        ) from None


@contextmanager
def _explained(located: Located) -> Iterator[None]:
    """Turn OpenVINO's and NNCF's errors, which are of many kinds, into one that says what to do."""
    try:
        yield
    except StackclsError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        narrower = located.identity.precision == "int8"
        raise EngineError(
            f"{located.backbone.name!r}: OpenVINO cannot run this network{' in 8 bits' if narrower else ''} "
            f"({lines[-1] if lines else type(error).__name__}); set "
            f"{'features.precision to float32' if narrower else 'features.engine to tensorflow'}"
        ) from error
