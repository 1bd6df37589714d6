"""The network that is trained: what of it learns and how fast, how images are varied, in which precision."""

import itertools
import sys

import numpy as np
import pytest

from stackcls import backbones, config
from stackcls.backbones import Located
from stackcls.errors import ConfigError
from stackcls.files import digest_file
from stackcls.settings import AugmentSettings, FinetuneSettings

pytestmark = pytest.mark.slow

NONE = AugmentSettings(flip=False, crop=0, scale=0, brightness=0)


@pytest.fixture(scope="module")
def networks():
    from stackcls.engines import graphs

    graphs.import_tensorflow()
    from stackcls.finetuning import networks

    return networks


def located(name="mini_vgg"):
    backbone = backbones.resolve(config.build({"features": {"backbones": [name]}}).features)[0]
    return Located(backbone, backbone.file, backbone.identity(digest_file(backbone.file), "float32"))


def built(networks, fresh=False, name="mini_vgg", **settings):
    return networks.built(located(name), fresh, 3, FinetuneSettings(**settings), "net", (2, 4))


def kernels(network):
    return [weights for weights in network.backbone.get_weights() if weights.ndim == 4]


def step(network, count=8):
    """Learn from one batch; how much each weight changed, by layer."""
    before = {layer.name: layer.get_weights() for layer in network.model.layers}
    images = np.random.default_rng(0).uniform(0, 255, (count, 32, 32, 3)).astype(np.float32)
    for _ in range(2):
        network.model.train_on_batch(network.preprocess(images), np.eye(3, dtype=np.float32)[np.arange(count) % 3])
    after = {layer.name: layer.get_weights() for layer in network.model.layers if layer.weights}
    pairs = {name: zip(before[name], after[name], strict=True) for name in after}
    return {name: max(np.abs(old - new).max() for old, new in pairs[name]) for name in after}


def test_multipliers_of_head_backbone_and_a_layer(networks):
    multipliers = {"head": 1, "backbone": 0, "conv2d_3": 0.5, "conv2d_5": 0}
    with built(networks, multipliers=multipliers, rate=0.01) as network:
        moved = step(network)
    learning = [name for name, change in moved.items() if change > 0]
    assert learning == ["conv2d_3", "conv2d_4", "head"]
    # Adam's first steps are as long as the rate, whatever the gradient.
    assert moved["conv2d_4"] == pytest.approx(moved["head"] / 2, rel=0.2)


@pytest.mark.parametrize(("unfreeze", "learn"), [("none", ["head"]), ("conv2d_5", ["conv2d_5", "head"])])
def test_what_is_frozen_stays(networks, unfreeze, learn):
    with built(networks, unfreeze=unfreeze, rate=1.0) as network:
        assert [name for name, change in step(network).items() if change] == learn
        assert network.learned == sum(np.prod(one.shape) for one in network.model.trainable_variables)


def test_random_weights_learn_with_their_statistics(networks):
    with built(networks, fresh=True) as network, built(networks) as pretrained:
        first, second = kernels(network), kernels(pretrained)
        assert not any(np.array_equal(mine, theirs) for mine, theirs in zip(first, second, strict=True))
        assert all(step(network).values())
    with built(networks, fresh=True) as again:
        assert all(np.array_equal(mine, theirs) for mine, theirs in zip(first, kernels(again), strict=True))


@pytest.mark.parametrize("key", ["unfreeze", "multipliers"])
def test_a_layer_that_is_not_there(networks, key):
    value = "block5_conv1" if key == "unfreeze" else {"block5_conv1": 1}
    message = f"finetune.{key}: 'block5_conv1' is not .* or a layer; the last layers with weights are .*conv2d_5"
    with pytest.raises(ConfigError, match=message), built(networks, **{key: value}):
        pass


def test_a_network_that_ends_in_its_largest_values_learns_from_those(networks, tmp_path):
    import keras

    whole = keras.saving.load_model(backbones.bundled_file("mini_vgg"), compile=False)
    pooled = keras.Model(whole.input, keras.layers.GlobalMaxPooling2D()(whole.output))
    pooled.save(tmp_path / "max.keras")
    entry = {"name": "user", "model": str(tmp_path / "max.keras"), "preprocessing": "tf"}
    with built(networks, name=entry) as network:
        before_head = keras.Model(network.model.input, network.model.get_layer("head").input)
        np.testing.assert_allclose(before_head(images()), pooled(images()), rtol=1e-5, atol=1e-5)
        assert network.backbone.output_shape == whole.output_shape
        assert network.entry == {"preprocessing": "tf", "pooling": "max"}
    with built(networks) as network:
        assert network.entry == {"preprocessing": "tf"}


def test_narrow_arithmetic_learns_and_is_kept_in_full(networks):
    with built(networks, precision="bfloat16", rate=0.1) as network, built(networks) as full:
        convolutions = [layer for layer in network.running.layers if layer.name.startswith("conv")]
        assert {layer.compute_dtype for layer in convolutions} == {"bfloat16"}
        assert {layer.compute_dtype for layer in network.backbone.layers} == {"float32"}
        assert all(weight.dtype == np.float32 for weight in network.weights)
        narrow, wide = (one.running.predict(one.preprocess(images(4)), verbose=0) for one in (network, full))
        assert 0 < np.abs(narrow - wide).max() < 0.1 * np.abs(wide).max()
        assert step(network)["conv2d_5"] > 0


def images(count=6):
    return np.random.default_rng(1).uniform(0, 255, (count, 32, 32, 3)).astype(np.float32)


def varied(networks, settings, given, seed=0):
    augmentation = networks.Augmentation(settings)
    for layer in augmentation.layers:
        for variable in layer.variables:
            variable.assign(np.array([seed, 1], np.uint32))
    found, targets = augmentation(given, np.eye(3, dtype=np.float32)[np.arange(len(given)) % 3])
    return np.asarray(found), np.asarray(targets)


def test_without_any_variation_images_are_as_they_were(networks):
    found, targets = varied(networks, NONE, images())
    np.testing.assert_array_equal(found, images())
    np.testing.assert_array_equal(targets.sum(axis=1), 1)


@pytest.mark.parametrize("one", [{"flip": True}, {"crop": 0.2}, {"scale": 0.3}, {"brightness": 0.3}])
def test_each_image_is_varied_for_itself(networks, one):
    given = np.repeat(images(1), 12, axis=0)
    found, targets = varied(networks, NONE.model_copy(update=one), given)
    assert any(not np.allclose(mine, theirs) for mine, theirs in itertools.combinations(found, 2))
    assert found.min() >= -0.01
    assert found.max() <= 255.01
    np.testing.assert_array_equal(targets, np.eye(3)[np.arange(12) % 3])
    again, _ = varied(networks, NONE.model_copy(update=one), given)
    np.testing.assert_array_equal(found, again)


def test_a_flip_mirrors_left_and_right_only(networks):
    found, _ = varied(networks, NONE.model_copy(update={"flip": True}), images(12))
    mirrored = [np.array_equal(mine, theirs[:, ::-1]) for mine, theirs in zip(found, images(12), strict=True)]
    same = [np.array_equal(mine, theirs) for mine, theirs in zip(found, images(12), strict=True)]
    assert any(mirrored)
    assert any(same)
    assert all(np.logical_xor(mirrored, same))


def test_mixup_mixes_classes_as_it_mixes_images(networks):
    given = np.stack([np.full((32, 32, 3), 100.0 * (number % 3), np.float32) for number in range(12)])
    found, targets = varied(networks, NONE.model_copy(update={"mixup": 1.0}), given)
    np.testing.assert_allclose(found[:, 0, 0, 0], targets @ [0, 100, 200], atol=0.01)
    assert len(np.unique(targets.round(3))) > 4


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        *(("mobilenet", "tf"), ("resnet50", "caffe"), ("densenet121", "torch")),
        *(("efficientnet_b0", "none"), ("vgg16", "caffe")),
    ],
)
def test_an_architectures_preprocessing_has_a_name(networks, architecture, name):
    import keras

    known = backbones.architectures()[architecture]
    module = sys.modules[getattr(keras.applications, known.architecture).__module__]
    assert networks.preprocessing_name(module.preprocess_input) == name


def test_another_preprocessing_has_none(networks):
    with pytest.raises(ConfigError, match="its preprocessing is none of caffe, tf, torch, none"):
        networks.preprocessing_name(lambda images: images * 2)
