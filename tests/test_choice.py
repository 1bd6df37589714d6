"""Which engine is taken, what is said of it, and what is refused."""

import importlib.util
import subprocess
import sys

import pytest

from stackcls import engines
from stackcls.errors import ConfigError


class Known:
    """An engine that knows some precisions, and may see a GPU."""

    def __init__(self, name, refused=(), gpu=None):
        self.name, self.refused, self.gpu = name, refused, gpu

    def refusal(self, precision):
        return f"no {precision} here" if precision in self.refused else None

    def provenance(self):
        return {"gpu": self.gpu} if self.gpu else {}


@pytest.fixture
def machine(monkeypatch):
    """A machine with or without GPU, OpenVINO, and the processor's bfloat16."""

    def make(gpu=None, openvino=True, bfloat16=True):
        asked = []
        known = {
            "tensorflow": Known("tensorflow", ["int8"], gpu),
            "openvino": Known("openvino", [] if bfloat16 else ["bfloat16"]),
        }
        monkeypatch.setattr(engines, "_known", lambda name: asked.append(name) or known[name])
        monkeypatch.setattr(engines, "_may_have_gpu", lambda: gpu is not None)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if openvino else None)
        return asked

    return make


@pytest.mark.parametrize(
    ("about", "precision", "taken", "said"),
    [
        ({}, "float32", "openvino", "engine: openvino, float32: there is no GPU that TensorFlow can use"),
        ({}, "bfloat16", "openvino", "engine: openvino, bfloat16"),
        ({}, "int8", "openvino", "it alone has 8-bit arithmetic"),
        ({"gpu": "H200"}, "float32", "tensorflow", "engine: tensorflow, float32, on H200"),
        ({"gpu": "H200"}, "bfloat16", "tensorflow", "on H200"),
        ({"gpu": "H200"}, "int8", "openvino", "it alone has 8-bit arithmetic"),
        ({"gpu": ""}, "float32", "openvino", "there is no GPU that TensorFlow can use"),
        ({"openvino": False}, "float32", "tensorflow", "since OpenVINO is not installed"),
        ({"bfloat16": False}, "float32", "openvino", "openvino"),
    ],
)
def test_auto_takes_the_fastest_and_says_why(machine, about, precision, taken, said):
    machine(**about)
    choice = engines.choose("auto", precision)
    assert choice.engine.name == taken
    assert said in choice.why
    assert "\n" not in choice.why
    assert not choice.makeshift


@pytest.mark.parametrize("about", [{"bfloat16": False}, {"openvino": False}])
def test_what_the_processor_lacks_falls_back_with_one_line(machine, about):
    machine(**about)
    choice = engines.choose("auto", "bfloat16")
    assert choice.engine.name == "tensorflow"
    assert choice.makeshift
    assert "emulates this precision, slower than float32" in choice.why


@pytest.mark.parametrize(
    ("name", "precision", "message"),
    [
        ("tensorflow", "int8", r"precision: 'int8' does not do with engine tensorflow: .*; allowed here: float32, bf"),
        (
            "openvino",
            "bfloat16",
            r"'bfloat16' does not do with engine openvino: .*; allowed here: float32, int8; .* auto$",
        ),
    ],
)
def test_what_an_engine_cannot_do_is_refused(machine, name, precision, message):
    machine(bfloat16=False)
    with pytest.raises(ConfigError, match=message):
        engines.choose(name, precision)


def test_int8_without_openvino_is_refused(machine):
    machine(openvino=False)
    with pytest.raises(ConfigError, match=r"'int8' does not do on this machine: OpenVINO is not installed.*: float32$"):
        engines.choose("auto", "int8")


def test_tensorflow_is_not_asked_for_a_gpu_that_cannot_be_there(machine):
    asked = machine()
    engines.choose("auto", "float32")
    assert asked == ["openvino"]


def test_hidden_gpus_count_as_none(monkeypatch):
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert engines._may_have_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not engines._may_have_gpu()


def test_openvino_does_not_phone_home():
    """Its reporting module is kept from being imported, by NNCF too."""
    code = "import stackcls.engines.openvino, sys; assert sys.modules['openvino_telemetry'] is None; print('quiet')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "quiet\n"
