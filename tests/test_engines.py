"""Engines against Keras's own documented use, one backbone at a time; slow, since TensorFlow is imported."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from stackcls import backbones, config, covariance, engines, matrices
from stackcls.backbones import Located
from stackcls.errors import ConfigError, WeightsError
from stackcls.files import digest_file

pytestmark = pytest.mark.slow

BATCH = 4


@pytest.fixture(scope="module", params=["tensorflow", "openvino"])
def engine(request):
    """Every engine runs the whole of this file."""
    return engines.choose(request.param, "float32").engine


def resolve(**entry) -> backbones.Backbone:
    settings = config.build({"features": {"backbones": [entry]}})
    return backbones.resolve(settings.features)[0]


class Pooled(NamedTuple):
    """A prepared network with its pooling."""

    width: int
    input_size: int
    run: Callable[[np.ndarray], np.ndarray]

    def __call__(self, images):
        return self.run(images)


def prepare(engine, backbone, weights, batch_size, precision="float32"):
    digest = digest_file(weights) if weights else f"random:{backbone.seed}"
    located = Located(backbone, weights, backbone.identity(digest, precision))
    network = engine.prepare(located, batch_size)
    return Pooled(network.width, network.input_size, lambda images: matrices.pool_of(located)([network(images)]))


def noise(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def photos(count: int) -> np.ndarray:
    """Smooth noise: white noise has hardly any covariance."""
    small = np.random.default_rng(1).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return small.repeat(8, axis=1).repeat(8, axis=2)


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float((np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)).max())


@pytest.mark.parametrize(
    ("name", "function", "module", "size", "width"),
    [
        ("vgg19", "VGG19", "vgg19", 224, 512),
        ("resnet50", "ResNet50", "resnet50", 224, 2048),
        ("inception_v3", "InceptionV3", "inception_v3", 299, 2048),
        ("xception", "Xception", "xception", 299, 2048),
    ],
)
def test_the_article_s_backbones_equal_keras(engine, tmp_path: Path, name, function, module, size, width):
    import keras
    from keras import applications
    from keras.utils import img_to_array, load_img

    from stackcls import images

    file = tmp_path / "photo.png"
    Image.fromarray(noise(1, 333)[0][:, :250]).save(file)
    keras.utils.set_random_seed(7)
    model = getattr(applications, function)(weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3))
    loaded = img_to_array(load_img(file, target_size=(size, size), interpolation="bilinear"))
    theirs = model.predict(getattr(applications, module).preprocess_input(loaded[None].copy()), verbose=0)

    extractor = prepare(engine, resolve(name=name, weights="random", seed=7), None, BATCH)
    assert (extractor.input_size, extractor.width) == (size, width)
    ours = extractor(images.resize(images.decode(file.read_bytes(), "photo"), size)[None])
    assert ours.shape == (1, width)
    assert ours.dtype == np.float32
    assert relative_error(ours, theirs) < 1e-4


@pytest.fixture(scope="module")
def small(engine):
    """A small backbone with random weights, prepared for batches of four."""
    backbone = resolve(
        name="small", architecture="MobileNet", input_size=32, weights="random", arguments={"alpha": 0.25}
    )
    return prepare(engine, backbone, None, BATCH)


def test_a_row_does_not_depend_on_its_neighbours_or_on_padding(small):
    images = noise(BATCH, 32)
    whole = small(images)
    for count in range(1, BATCH):
        assert np.array_equal(small(images[:count]), whole[:count])
    assert np.array_equal(small(images[::-1].copy())[::-1], whole)


@pytest.mark.parametrize("size", [1, 2, 16])
def test_the_batch_size_changes_the_last_digits_at_most(engine, small, size):
    backbone = resolve(
        name="small", architecture="MobileNet", input_size=32, weights="random", arguments={"alpha": 0.25}
    )
    other, images = prepare(engine, backbone, None, size), noise(BATCH, 32)
    parts = [other(images[start : start + size]) for start in range(0, BATCH, size)]
    assert relative_error(np.concatenate(parts), small(images)) < 1e-5


def test_the_input_is_left_as_it_was(small):
    images = noise(BATCH, 32)
    before = images.copy()
    small(images)
    assert np.array_equal(images, before)


def test_the_same_seed_gives_the_same_features_and_another_seed_others(engine):
    def features(seed: int) -> np.ndarray:
        entry = {"name": "x", "architecture": "MobileNet", "input_size": 32, "weights": "random", "seed": seed}
        return prepare(engine, resolve(**entry), None, BATCH)(noise(2, 32))

    first = features(1)
    assert np.array_equal(first, features(1))
    assert not np.array_equal(first, features(2))


def test_max_pooling_is_the_largest_over_positions(engine, tmp_path: Path):
    import keras

    inputs = keras.Input((16, 16, 3))
    keras.Model(inputs, keras.layers.MaxPooling2D(4)(inputs)).save(tmp_path / "m.keras")
    entry = {"name": "m", "model": str(tmp_path / "m.keras"), "preprocessing": "none"}
    images = noise(3, 16)
    largest = prepare(engine, resolve(**entry, pooling="max"), tmp_path / "m.keras", BATCH)(images)
    assert np.array_equal(largest, images.max(axis=(1, 2)))
    mean = prepare(engine, resolve(**entry, pooling="average"), tmp_path / "m.keras", BATCH)(images)
    assert mean.shape == (3, 3)
    assert not np.allclose(mean, largest)


def test_all_poolings_are_of_one_feature_map(engine):
    """Against Keras's own; covariances agree between engines, and with other batch sizes to the bit."""
    import keras

    (bundled,) = backbones.resolve(config.build({"features": {"backbones": ["mini_vgg"]}}).features)
    digest = digest_file(bundled.file)
    images = photos(6)
    prepared = Located(bundled, bundled.file, bundled.identity(digest, "float32"))
    maps = engine.prepare(prepared, BATCH)(images[:BATCH])
    theirs = keras.saving.load_model(bundled.file).predict(images[:BATCH] / np.float32(127.5) - 1, verbose=0)
    assert maps.shape == theirs.shape == (BATCH, 8, 8, 96)
    assert np.allclose(maps, theirs, rtol=1e-4, atol=1e-5)

    fit = covariance.Fit("b")
    fit.add(theirs)
    basis = fit.basis()
    expected = covariance.pool([theirs], covariance.components(basis), "b")
    pooled = replace(bundled, pooling="covariance")
    located = Located(pooled, bundled.file, pooled.identity(digest, "float32")).with_basis(basis)
    found = {}
    for size in (1, 3, BATCH):
        network, pool = engine.prepare(located, size), matrices.pool_of(located)
        found[size] = np.concatenate([pool([network(images[at : at + size])]) for at in range(0, BATCH, size)])[:BATCH]
    assert np.allclose(found[BATCH], expected, atol=0.02)
    assert all(np.array_equal(rows, found[BATCH]) for rows in found.values())


@pytest.mark.parametrize(("mode", "low", "high"), [("tf", -1, 1), ("none", 0, 255), ("caffe", -123.68, 151.061)])
def test_a_saved_model_gets_the_preprocessing_it_names(engine, tmp_path: Path, mode, low, high):
    import keras

    inputs = keras.Input((8, 8, 3))
    keras.Model(inputs, keras.layers.Flatten()(inputs)).save(tmp_path / "flat.keras")
    entry = {"name": "flat", "model": str(tmp_path / "flat.keras"), "preprocessing": mode}
    extractor = prepare(engine, resolve(**entry), tmp_path / "flat.keras", BATCH)
    images = np.stack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)])
    rows = extractor(images)
    assert rows.min() == pytest.approx(low, abs=1e-3)
    assert rows.max() == pytest.approx(high, abs=1e-3)


def test_a_named_layer_of_the_top_is_taken_as_it_is(engine):
    from keras import applications

    entry = {"name": "fc7", "architecture": "VGG16", "layer": "fc2", "weights": "random", "seed": 3}
    extractor = prepare(engine, resolve(**entry), None, 1)
    assert extractor.width == 4096

    import keras

    keras.utils.set_random_seed(3)
    model = applications.VGG16(weights=None)
    top = keras.Model(model.input, model.get_layer("fc2").output)
    images = noise(1, 224)
    theirs = top.predict(applications.vgg16.preprocess_input(images.astype("float32")), verbose=0)
    assert relative_error(extractor(images), theirs) < 1e-4


def test_a_layer_that_keras_named_by_counting_is_the_one_of_a_fresh_network(engine):
    """InceptionV3's convolutions are numbered through; what was built before must not shift the numbers."""
    entry = {"name": "b", "architecture": "InceptionV3", "weights": "random", "input_size": 96}
    assert prepare(engine, resolve(**entry, layer="activation_5"), None, 1).width == 64
    assert prepare(engine, resolve(**entry, layer="conv2d"), None, 1).width == 32
    with pytest.raises(ConfigError, match=r"no layer 'activation_100'|says: "):
        prepare(engine, resolve(**entry, layer="activation_100"), None, 1)


def test_a_layer_of_a_saved_model_that_takes_any_size(engine, tmp_path: Path):
    import keras

    inputs = keras.Input((None, None, 3))
    hidden = keras.layers.Conv2D(5, 3, name="hidden")(inputs)
    keras.Model(inputs, keras.layers.Conv2D(7, 3)(hidden)).save(tmp_path / "any.keras")
    entry = {"name": "any", "model": str(tmp_path / "any.keras"), "preprocessing": "tf", "input_size": 16}
    assert prepare(engine, resolve(**entry), tmp_path / "any.keras", 1).width == 7
    assert prepare(engine, resolve(**entry, layer="hidden"), tmp_path / "any.keras", 1).width == 5


def test_a_named_convolution_is_pooled(engine):
    entry = {"name": "b", "architecture": "VGG16", "layer": "block3_conv1", "weights": "random", "input_size": 32}
    assert prepare(engine, resolve(**entry), None, 1).width == 256


def test_a_layer_that_is_not_there_is_named_with_the_last_ones(engine):
    entry = {"name": "b", "architecture": "MobileNet", "layer": "fc9", "weights": "random"}
    with pytest.raises(ConfigError, match=r"no layer 'fc9'; its last ones are .*predictions"):
        prepare(engine, resolve(**entry), None, 1)


def test_arguments_that_the_architecture_refuses_are_explained(engine):
    entry = {"name": "b", "architecture": "MobileNet", "weights": "random", "arguments": {"minimalistic": True}}
    with pytest.raises(ConfigError, match=r"'b': MobileNet says: .*minimalistic"):
        prepare(engine, resolve(**entry), None, 1)


def test_weights_of_another_architecture_are_refused(engine, tmp_path: Path):
    from keras import applications

    file = tmp_path / "other.weights.h5"
    applications.MobileNet(alpha=0.25, weights=None, include_top=False, input_shape=(32, 32, 3)).save_weights(file)
    fitting = {"name": "b", "architecture": "MobileNet", "input_size": 32, "weights": str(file)}
    assert prepare(engine, resolve(**fitting, arguments={"alpha": 0.25}), file, 1).width == 256
    with pytest.raises(WeightsError, match=r"'b': .*other.weights.h5 does not fit MobileNet"):
        prepare(engine, resolve(**fitting, arguments={"alpha": 0.5}), file, 1)


def test_a_file_that_is_no_model_is_refused(engine, tmp_path: Path):
    file = tmp_path / "no.keras"
    file.write_text("no model")
    with pytest.raises(WeightsError, match="cannot be opened as a Keras model"):
        prepare(engine, resolve(name="b", model=str(file), preprocessing="tf"), file, 1)


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v2", "densenet121"])
def test_published_weights_are_loaded_as_keras_builds_for_them(engine, tmp_path: Path, name):
    """Keras builds some networks otherwise for "imagenet" than for a file: the found file must not change that."""
    from keras import applications

    backbone = resolve(name=name, input_size=96)
    known = backbones.architectures()[name]
    reference = getattr(applications, known.architecture)(weights=None, include_top=False, input_shape=(96, 96, 3))
    file = tmp_path / "published.weights.h5"
    reference.save_weights(file)
    assert prepare(engine, backbone, file, 1).width == known.width


@pytest.mark.parametrize("name", ["vgg19", "resnet50", "mobilenet_v2", "efficientnet_b0"])
def test_the_table_of_architectures_says_what_keras_says(name):
    from stackcls.engines import keras_models

    known = backbones.architectures()[name]
    published = keras_models.published_file(resolve(name=name))
    assert (published.origin, published.md5) == (known.weights_url, known.weights_md5)
    assert published.name == known.weights_url.rsplit("/", 1)[1]
    model, _, size = keras_models.build(resolve(name=name, weights="random"), None)
    assert (size, model.output_shape[-1], model.count_params()) == (known.input_size, known.width, known.parameters)


def test_every_architecture_of_keras_is_in_the_table():
    import inspect

    from keras import applications

    offered = {name for name in dir(applications) if inspect.isfunction(getattr(applications, name))}
    assert {item.architecture for item in backbones.architectures().values()} == offered
