"""OpenVINO's narrower arithmetic, ranges that outlive NNCF, and starts that build nothing; slow: real networks."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from stackcls import backbones, config, covariance, engines, matrices
from stackcls.backbones import Located
from stackcls.bases import Basis, joined
from stackcls.engines import cache
from stackcls.errors import EngineError
from stackcls.files import digest_file

pytestmark = pytest.mark.slow

BATCH = 8
SIZE = 32


def located(precision, name="mini_xception"):
    """One of the small trained networks of the package."""
    backbone = backbones.resolve(config.build({"features": {"backbones": [name]}}).features)[0]
    return Located(backbone, backbone.file, backbone.identity(digest_file(backbone.file), precision))


def photos(count, size, seed=0):
    """Smooth noise, which is nearer to photos than white noise is."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.ascontiguousarray(small.repeat(size // 4, axis=1).repeat(size // 4, axis=2))


def cosine(one, two):
    if one.ndim == 4:
        one, two = one.mean(axis=(1, 2)), two.mean(axis=(1, 2))
    return (one * two).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)


@pytest.fixture(scope="module")
def engine():
    return engines.choose("openvino", "float32").engine


@pytest.fixture(scope="module")
def ranges(engine):
    return engine.calibrate(located("int8"), ["a sample"], lambda size: photos(16, size))


@pytest.mark.parametrize(("name", "network"), [("openvino", "mini_xception"), ("tensorflow", "mini_resnet")])
def test_bfloat16_is_near_float32_and_not_the_same(name, network):
    chosen = engines.choose(name, "float32").engine
    if reason := chosen.refusal("bfloat16"):
        pytest.skip(reason)
    images = photos(BATCH, SIZE, seed=1)
    exact = chosen.prepare(located("float32", network), BATCH)(images)
    narrow = chosen.prepare(located("bfloat16", network), BATCH)(images)
    assert narrow.dtype == np.float32
    assert not np.array_equal(exact, narrow)
    assert cosine(exact, narrow).mean() > 0.999


def test_int8_is_near_float32_and_a_row_does_not_depend_on_its_neighbours(engine, ranges):
    images = photos(BATCH, SIZE, seed=1)
    exact = engine.prepare(located("float32"), BATCH)(images)
    extractor = engine.prepare(located("int8").with_basis(ranges), BATCH)
    narrow = extractor(images)
    assert not np.array_equal(exact, narrow)
    assert cosine(exact, narrow).mean() > 0.99
    assert np.array_equal(extractor(images[:3]), narrow[:3])


def test_the_written_ranges_make_the_network_that_nncf_made(engine, ranges):
    import nncf
    import openvino

    folder, _ = engine._float(located("float32"))
    model = openvino.Core().read_model(folder / "model.xml")
    model.reshape([1, SIZE, SIZE, 3])
    theirs = nncf.quantize(
        model, nncf.Dataset(list(photos(16, SIZE)[:, None])), subset_size=16, target_device=nncf.TargetDevice.CPU
    )
    theirs.reshape([BATCH, SIZE, SIZE, 3])
    images = photos(BATCH, SIZE, seed=1)
    compiled = openvino.Core().compile_model(theirs, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ours = engine.prepare(located("int8").with_basis(ranges), BATCH)(images)
    exact = engine.prepare(located("float32"), BATCH)(images)
    # A weight half-way between two steps may go either way; anything else amiss costs more than narrowing itself.
    ours, theirs, exact = (maps.mean(axis=(1, 2)) for maps in (ours, compiled([images])[0], exact))
    assert np.linalg.norm(ours - theirs) < np.linalg.norm(theirs - exact) / 2


def test_the_same_sample_gives_the_same_ranges(engine, ranges, tmp_path, monkeypatch):
    monkeypatch.setenv("STACKCLS_CACHE", str(tmp_path))
    again = engine.calibrate(located("int8"), ["a sample"], lambda size: photos(16, size))
    assert again.digest == ranges.digest


def test_ranges_of_a_known_sample_are_not_fitted_again(engine, ranges):
    def sample(size):
        raise AssertionError("asked for the images")

    assert engine.calibrate(located("int8"), ["a sample"], sample).digest == ranges.digest
    with pytest.raises(AssertionError, match="asked for the images"):
        engine.calibrate(located("int8"), ["another"], sample)


@pytest.mark.parametrize(
    "basis",
    [
        lambda ranges: replace(ranges, values=ranges.values[:100]),
        lambda ranges: replace(ranges, values=np.append(ranges.values, ranges.values[:1])),
        lambda ranges: replace(ranges, layout=ranges.layout.replace("Convolution_", "Convolved_")),
        lambda ranges: replace(ranges, layout=json.dumps({**json.loads(ranges.layout), "network": "another"})),
    ],
)
def test_ranges_of_another_network_are_refused(engine, ranges, basis):
    with pytest.raises(EngineError, match=r"'mini_xception': the 8-bit ranges .* another form .*--refit"):
        engine.prepare(located("int8").with_basis(basis(ranges)), BATCH)


def test_covariances_of_an_8_bit_network_are_near_those_of_the_exact_one(engine, ranges):
    pooled = {}
    for precision, parts in (("float32", []), ("int8", [ranges])):
        item = located(precision)
        network = engine.prepare(item.with_basis(*parts) if parts else item, BATCH)
        fit = covariance.Fit("b")
        fit.add(network(photos(BATCH, SIZE)))
        backbone = replace(item.backbone, pooling="covariance")
        whole = Located(backbone, item.weights, backbone.identity(item.identity.weights, precision))
        whole = whole.with_basis(joined([*parts, fit.basis()]))
        # The ranges are found in the basis of both.
        pooled[precision] = matrices.pool_of(whole)([engine.prepare(whole, BATCH)(photos(BATCH, SIZE, seed=1))])
        assert np.array_equal(engine.prepare(whole, BATCH)(photos(2, SIZE)), network(photos(2, SIZE)))
    assert not np.array_equal(pooled["int8"], pooled["float32"])
    # Each has components of its own, so that only how alike two images are can be compared.
    alike = [rows @ rows.T / covariance.LENGTH**2 for rows in pooled.values()]
    assert abs(alike[0] - alike[1]).max() < 0.1


def test_int8_without_ranges_is_refused(engine):
    with pytest.raises(EngineError, match="int8 needs ranges"):
        engine.prepare(located("int8"), BATCH)


def test_dense_layers_and_depthwise_convolutions_are_narrowed_too(engine, ranges, tmp_path):
    import keras

    inputs = keras.Input((16, 16, 3))
    hidden = keras.layers.Flatten()(keras.layers.Conv2D(8, 3, activation="relu")(inputs))
    keras.Model(inputs, keras.layers.Dense(5)(hidden)).save(tmp_path / "dense.keras")
    entry = {"name": "b", "model": str(tmp_path / "dense.keras"), "preprocessing": "tf"}
    backbone = backbones.resolve(config.build({"features": {"backbones": [entry]}}).features)[0]
    item = Located(backbone, backbone.file, backbone.identity(digest_file(backbone.file), "int8"))
    basis = engine.calibrate(item, ["x"], lambda size: photos(4, size))
    narrowed = [
        {weight["of"].split("_")[0] for weight in json.loads(each.layout)["weights"]} for each in (basis, ranges)
    ]
    assert narrowed == [{"Convolution", "MatMul"}, {"Convolution", "GroupConvolution"}]
    images = photos(4, 16, seed=1)
    exact = engine.prepare(replace(item, identity=replace(item.identity, precision="float32")), 4)(images)
    narrow = engine.prepare(item.with_basis(basis), 4)(images)
    assert cosine(exact, narrow).min() > 0.98


def test_a_second_start_builds_nothing_and_imports_no_tensorflow(engine, ranges):
    """In a process of its own, for all three precisions."""
    for precision in ("float32", "bfloat16", "int8"):
        if engine.refusal(precision):
            continue
        item = located(precision).with_basis(ranges) if precision == "int8" else located(precision)
        engine.prepare(item, BATCH)
    code = (
        "import sys; from stackcls import engines; from tests.test_int8 import SIZE, located, photos\n"
        "engine = engines.choose('openvino', 'float32').engine\n"
        "engine.prepare(located('float32'), 1)(photos(1, SIZE))\n"
        "basis = engine.calibrate(located('int8'), ['a sample'], None)\n"
        "engine.prepare(located('int8').with_basis(basis), 1)(photos(1, SIZE))\n"
        "print(sorted({'tensorflow', 'keras', 'nncf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_tensorflow_s_second_start_builds_nothing(monkeypatch):
    chosen = engines.choose("tensorflow", "float32").engine
    images = photos(2, SIZE)
    first = chosen.prepare(located("float32", "mini_vgg"), 2)(images)
    monkeypatch.setattr("stackcls.engines.keras_models.build", None)
    assert np.array_equal(chosen.prepare(located("float32", "mini_vgg"), 2)(images), first)


def test_a_damaged_entry_is_built_again(engine):
    first = engine.prepare(located("float32", "mini_inception"), 1)(photos(1, SIZE))
    folder, _ = engine._float(located("float32", "mini_inception"))
    raw = bytearray((folder / "model.bin").read_bytes())
    raw[1000] ^= 1
    (folder / "model.bin").write_bytes(raw)
    assert np.array_equal(engine.prepare(located("float32", "mini_inception"), 1)(photos(1, SIZE)), first)
    assert (cache.cache_folder() / folder.name).is_dir()


def test_a_network_that_openvino_cannot_run_goes_to_tensorflow(monkeypatch, engine):
    from stackcls import loading
    from stackcls.engines.openvino import OpenVINOEngine

    class Heard:
        def __init__(self):
            self.warnings = []

        def warn(self, line):
            self.warnings.append(line)

        def track(self, *_):
            import contextlib

            return contextlib.nullcontext(lambda _: None)

    def refuse(self, item, batch_size):
        raise EngineError("'b': OpenVINO cannot run this network")

    monkeypatch.setattr(OpenVINOEngine, "prepare", refuse)
    heard = Heard()
    prepared = loading.prepare([located("float32", "mini_vgg")], "auto", None, 2, heard, announce=False)
    assert prepared.made_by["mini_vgg"]["engine"] == "tensorflow"
    assert heard.warnings == ["'b': OpenVINO cannot run this network; mini_vgg runs on tensorflow"]
    with pytest.raises(EngineError):
        loading.prepare([located("float32", "mini_vgg")], "openvino", None, 2, heard, announce=False)


def test_an_empty_basis_is_a_float32_network(engine, ranges):
    layout = {"ranges": [], "weights": [], "biases": [], "network": json.loads(ranges.layout)["network"]}
    nothing = Basis("int8-ranges", json.dumps(layout), np.empty(0, np.float32))
    images = photos(2, SIZE)
    exact = engine.prepare(located("float32"), 2)(images)
    assert np.allclose(engine.prepare(located("int8").with_basis(nothing), 2)(images), exact, rtol=1e-5, atol=1e-6)


def test_threads_get_their_own_rows(engine):
    extractor = engine.prepare(located("float32"), BATCH)
    batches = [photos(BATCH, SIZE, seed=seed) for seed in range(12)]
    alone = [extractor(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for mine, theirs in zip(alone * 5, pool.map(extractor, batches * 5), strict=True):
            assert np.array_equal(mine, theirs)


def test_a_network_that_cannot_be_compiled_is_explained(engine, monkeypatch):
    class Core:
        def read_model(self, _):
            raise RuntimeError("Check 'x' failed at:\n  cannot be reshaped")

    monkeypatch.setattr(engine, "_core", Core())
    with pytest.raises(
        EngineError, match=r"'mini_vgg': OpenVINO cannot run this network \(cannot be reshaped\); set feat"
    ):
        engine.prepare(located("float32", "mini_vgg"), 1)
