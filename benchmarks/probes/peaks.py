"""Arithmetic peak of this machine: the fastest of many equal steps, in each precision. Prints JSON.

float32 is a product of square matrices by numpy's BLAS. OpenVINO, where it is installed, adds a convolution of many
channels, which is the same product, in every precision; its own clock of that one step counts, and what it says it ran.
"""

import json
import sys
import time
from functools import partial
from typing import Any

import numpy as np

SIDE = 1024
# Milliseconds each, so that the best of many finds a moment in which nothing else ran.
CHANNELS, POSITIONS, BATCH, IN_A_ROW = 256, 14, 8, 4
SECONDS = 3.0
# How OpenVINO's names of what it ran end.
ENDS = {"float32": ("f32",), "bfloat16": ("bf16",), "int8": ("i8", "u8")}


def blas() -> float:
    """Billions of operations per second of numpy's product; a multiply-add is two operations."""
    random = np.random.default_rng(0)
    left, right = (random.standard_normal((SIDE, SIDE), dtype=np.float32) for _ in range(2))
    product = np.matmul(left, right)
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < SECONDS:
        start = time.perf_counter()
        np.matmul(left, right, out=product)
        best = min(best, time.perf_counter() - start)
    return 2 * SIDE**3 / best / 1e9


def convolutions(precision: str) -> tuple[Any, float]:
    """A few convolutions in a row as a network of OpenVINO's, and the number of operations in each."""
    import openvino
    from openvino import opset13

    random = np.random.default_rng(0)
    kernel = (CHANNELS, CHANNELS, 3, 3)
    inputs = source = opset13.parameter((BATCH, CHANNELS, POSITIONS, POSITIONS), np.float32)
    weights: Any = opset13.constant(random.standard_normal(kernel, dtype=np.float32))
    narrow = partial(opset13.fake_quantize, **dict.fromkeys(("input_low", "output_low"), np.float32(0)), levels=256)
    high = dict.fromkeys(("input_high", "output_high"), np.float32(4))
    if precision == "int8":
        source = narrow(source, **high)
        integers = opset13.constant(random.integers(-127, 128, kernel, dtype=np.int8))
        weights = opset13.multiply(opset13.convert(integers, np.float32), np.float32(1 / 32))
    # In a row, so that all but the last write their results as narrow as a network's inner layers do.
    for _ in range(IN_A_ROW):
        source = opset13.relu(opset13.convolution(source, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
        source = narrow(source, **high) if precision == "int8" else source
    return openvino.Model([source], [inputs]), 2 * BATCH * CHANNELS**2 * 9 * POSITIONS**2


def openvino_rate(precision: str) -> tuple[float, str]:
    """Billions of operations per second of one step, and what OpenVINO says it ran."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    model, operations = convolutions(precision)
    hint = "bf16" if precision == "bfloat16" else "f32"
    settings = {"INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": "1", "PERF_COUNT": "YES"}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    values = np.random.default_rng(0).standard_normal(tuple(model.inputs[0].shape), dtype=np.float32)
    request.set_input_tensor(openvino.Tensor(values))
    best, begin = (0.0, ""), time.perf_counter()
    while time.perf_counter() - begin < SECONDS:
        request.infer()
        step = min(
            (item for item in request.profiling_info if item.node_type == "Convolution"),
            key=lambda item: item.real_time,
        )
        best = max(best, (operations / step.real_time.total_seconds() / 1e9, step.exec_type))
    return best


def main() -> None:
    """Measure every precision there is."""
    peaks: dict[str, dict[str, Any]] = {"float32": {"rate": blas(), "by": "product, numpy"}}
    for precision, ends in ENDS.items():
        try:
            found, ran = openvino_rate(precision)
        except (ImportError, RuntimeError) as error:
            peaks.setdefault(precision, {"error": f"{type(error).__name__}: {error}".splitlines()[0]})
            continue
        if not ran.lower().endswith(ends):
            peaks.setdefault(precision, {"error": f"OpenVINO ran {ran}"})
        elif found > peaks.get(precision, {}).get("rate", 0):
            peaks[precision] = {"rate": found, "by": f"convolution, OpenVINO's {ran}"}
    print(json.dumps(peaks))


if __name__ == "__main__":
    main()
