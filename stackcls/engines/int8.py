"""8-bit networks: ranges fitted on the user's images by NNCF, written down, and set again without it.

NNCF's post-training quantisation finds, for every step of a network that can run in 8 bits, the range of its input
over a sample of images, scales for the weights, and a correction of the biases (Nagel et al., A White Paper on Neural
Network Quantization, 2021). These numbers are the basis of the feature matrix: with them and the float32 network the
8-bit network is made again anywhere.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13

from stackcls.bases import RANGES, Basis
from stackcls.errors import ConfigError, EngineError

Floats = NDArray[np.float32]


def made_with() -> dict[str, str]:
    """Name what decides, beside network and sample, which ranges are fitted."""
    try:
        return {"nncf": version("nncf"), "ranges": "1"}
    except ModuleNotFoundError as error:
        raise ConfigError(
            "features.precision: 'int8' needs NNCF to fit ranges on your images; `pip install nncf`"
        ) from error


def fit_ranges(model: openvino.Model, images: NDArray[np.uint8]) -> Basis:
    """Fit ranges, weight scales and bias corrections.

    Parameters
    ----------
    model : openvino.Model
        From 8-bit images to features, steps named by their place.
    images : ndarray of uint8, shape (n, size, size, 3)

    Returns
    -------
    Basis
        Of kind `int8-ranges`.
    """
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    network = _structure(model)  # before the batch size is fixed, as `apply_ranges` sees it
    model.reshape([1, *images.shape[1:]])
    with _without_progress_bars():
        narrow = nncf.quantize(
            model, nncf.Dataset(list(images[:, None])), subset_size=len(images), target_device=nncf.TargetDevice.CPU
        )
    layout: dict[str, list[dict[str, Any]]] = {"ranges": [], "weights": [], "biases": []}
    values: dict[str, list[Floats]] = {kind: [] for kind in layout}

    def note(kind: str, arrays: list[Floats], **said: Any) -> None:
        layout[kind].append({**said, "shapes": [list(array.shape) for array in arrays]})
        values[kind].extend(arrays)

    before = {step.get_friendly_name(): step for step in model.get_ordered_ops()}
    for step in narrow.get_ordered_ops():
        name = step.get_friendly_name()
        if step.get_type_name() == "FakeQuantize":
            _note_range(step, before, note)
        elif name in before:
            _note_constants(step, before[name], note)
    flat = [array.ravel() for kind in layout for array in values[kind]]
    return Basis(
        RANGES,
        json.dumps({**layout, "network": network}, sort_keys=True),
        np.concatenate([np.empty(0, np.float32), *flat]),
    )


def apply_ranges(model: openvino.Model, basis: Basis, name: str) -> None:
    """Turn a float32 network into an 8-bit one, in place.

    Parameters
    ----------
    model : openvino.Model
        As for `fit_ranges`.
    basis : Basis
    name : str
        The backbone's, for messages.

    Raises
    ------
    EngineError
        If the ranges are not of this network.
    """
    steps = {step.get_friendly_name(): step for step in model.get_ordered_ops()}
    numbers = _Reader(basis.values)
    try:
        layout = json.loads(basis.layout)
        if layout["network"] != _structure(model):
            raise ValueError("its steps are others")
        for item in layout["ranges"]:
            arrays = [numbers.take(shape) for shape in item["shapes"]]
            source = steps[item["after"]].output(item["output"])
            narrow = opset13.fake_quantize(source, *map(opset13.constant, arrays), levels=item["levels"])
            for target, port in item["into"]:
                steps[target].input(port).replace_source_output(narrow.output(0))
        for item in layout["weights"]:
            target = steps[item["of"]].input(item["port"])
            (scale,) = (numbers.take(shape) for shape in item["shapes"])
            target.replace_source_output(_narrow_weights(target.get_source_output().get_node(), scale).output(0))
        for item in layout["biases"]:
            target = steps[item["of"]].input(item["port"])
            (bias,) = (numbers.take(shape) for shape in item["shapes"])
            target.replace_source_output(opset13.constant(bias).output(0))
        numbers.end()
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise EngineError(
            f"{name!r}: the 8-bit ranges are of another form of this network, made by other versions of TensorFlow or "
            f"OpenVINO ({error}); fit new ones with `stackcls features --refit`, or set the versions that "
            "the store's provenance names"
        ) from error
    model.validate_nodes_and_infer_types()


def _structure(model: openvino.Model) -> str:
    """Digest of which steps there are, of what shapes, and which feeds which."""
    said = [
        (
            step.get_friendly_name(),
            [(value.get_node().get_friendly_name(), value.get_index()) for value in step.input_values()],
            [str(output.get_partial_shape()) for output in step.outputs()],
        )
        for step in model.get_ordered_ops()
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _note_range(step: Any, before: dict[str, Any], note: Callable[..., None]) -> None:
    """Write down the range of one step's output, and which steps read it."""
    source = step.input_value(0)
    after = source.get_node().get_friendly_name()
    if after not in before:
        raise EngineError(f"NNCF has put a range after {after}, which is not a step of the network")
    readers = step.output(0).get_target_inputs()
    note(
        "ranges",
        [_constant(step.input_value(place).get_node()) for place in range(1, 5)],
        after=after,
        output=source.get_index(),
        levels=step.get_levels(),
        into=sorted((item.get_node().get_friendly_name(), item.get_index()) for item in readers),
    )


def _note_constants(step: Any, original: Any, note: Callable[..., None]) -> None:
    """Write down the weight scales of one step and its bias, where they are not the network's own."""
    for port, (value, was) in enumerate(zip(step.input_values(), original.input_values(), strict=True)):
        if was.get_node().get_type_name() != "Constant":
            continue
        node = value.get_node()
        if node.get_type_name() == "Constant":
            new = _constant(node)
            if new.shape != tuple(was.get_shape()):
                raise EngineError(f"NNCF has changed the shape of a constant of {step.get_friendly_name()}")
            if not np.array_equal(new, was.get_node().data):
                note("biases", [new], of=step.get_friendly_name(), port=port)
        else:
            note("weights", [_scale(node)], of=step.get_friendly_name(), port=port)


def _scale(multiply: Any) -> Floats:
    """Scale of 8-bit weights, which NNCF writes as Multiply(Convert(Constant), Constant)."""
    convert = multiply.input_value(0).get_node()
    if multiply.get_type_name() != "Multiply" or convert.get_type_name() != "Convert":
        raise EngineError(f"NNCF has written weights as {multiply.get_type_name()} of {convert.get_type_name()}")
    return _constant(multiply.input_value(1).get_node())


def _narrow_weights(weights: Any, scale: Floats) -> Any:
    # Rounded as NNCF and OpenVINO round: counted from the lowest step, which decides where halves go.
    integers = (np.clip(np.rint(weights.data / scale + np.float32(127)), 0, 254) - 127).astype(np.int8)
    return opset13.multiply(opset13.convert(opset13.constant(integers), np.float32), opset13.constant(scale))


def _constant(node: Any) -> Floats:
    return np.asarray(node.data, dtype=np.float32)


class _Reader:
    """Takes arrays of given shapes one after another from a flat one."""

    def __init__(self, values: Floats) -> None:
        self._values, self._at = values, 0

    def take(self, shape: list[int]) -> Floats:
        """The next array."""
        start, self._at = self._at, self._at + int(np.prod(shape))
        if self._at > len(self._values):
            raise ValueError("there are too few numbers")
        return self._values[start : self._at].reshape(shape)

    def end(self) -> None:
        """Make sure that nothing is left."""
        if self._at != len(self._values):
            raise ValueError("there are too many numbers")


def _without_progress_bars() -> Any:
    """NNCF draws its own bars on standard output; there is no public way to ask it not to."""
    import contextlib
    import io

    return contextlib.redirect_stdout(io.StringIO())
