"""Looking into real networks: layers give what Keras gives, classes show where they are, units respond more."""

import json

import numpy as np
import pytest
from PIL import Image

from stackcls import backbones, config, loading, modelfile
from stackcls.engines import visualising
from stackcls.engines.visualising import Network
from stackcls.errors import ConfigError
from stackcls.explaining import Explainer
from stackcls.listener import Silent
from stackcls.stages import features, fit
from tests.test_explain import CORNERS, corner_photo, write_corners

pytestmark = pytest.mark.slow


def settings_in(folder):
    return config.build(
        {
            "images": str(folder / "photos"),
            "artifacts": str(folder / "artifacts"),
            "features": {"backbones": ["mini_vgg", "mini_resnet"]},
        }
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Settings of a model on two small networks that come with the package."""
    folder = tmp_path_factory.mktemp("visualising")
    write_corners(folder / "photos")
    settings = settings_in(folder)
    features.run(settings)
    fit.run(settings)
    corner_photo(CORNERS["red"], 99).save(folder / "red.png")
    return settings


@pytest.fixture(scope="module")
def network(fitted):
    located = loading.locate(backbones.resolve(fitted.features), fitted, True, Silent())
    return Network(located[0])


@pytest.fixture(scope="module")
def layer(network):
    """The first layer of several channels."""
    return next(item.name for item in network._model.layers if item.__class__.__name__ == "Conv2D")


@pytest.fixture
def photo(fitted):
    with Image.open(fitted.images.parent / "red.png") as image:
        return np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))


def test_a_layer_gives_what_the_engine_computes(fitted, network, photo):
    pooled = network.feature_maps(network._model.layers[-1].name, photo)
    assert pooled.shape[:2] == (1, 1)
    matrix = modelfile.load(fitted.files.safe_model).prepared(1, Silent()).extractors["mini_vgg"]
    expected = matrix.pool([matrix.network(photo[None])])[0]
    np.testing.assert_allclose(pooled[0, 0], expected, rtol=1e-3, atol=1e-4)


def test_grad_cam_shows_where_a_class_is(fitted):
    for found in Explainer(modelfile.load(fitted.files.safe_model), "gradcam").explain(
        [fitted.images.parent / "red.png"]
    ):
        assert found.label == "red"
        heat = found.maps["stack"]
        assert heat.min() >= 0
        assert heat[30:, 40:].mean() > 1.5 * heat[:30, :30].mean()


def test_features_that_do_not_come_from_a_map_are_refused(network, photo):
    with pytest.raises(ConfigError, match=r"--method: 'gradcam' does not do for 'mini_vgg'.*use occlusion"):
        network.class_map(photo, np.ones(3))


@pytest.mark.parametrize("unit", [None, 3])
@pytest.mark.parametrize("from_photo", [False, True])
def test_a_dream_makes_a_layer_respond_more(network, layer, photo, unit, from_photo):
    start = photo if from_photo else None
    dreamt = network.dream(layer, unit, start, seed=0)
    assert (dreamt.dtype, dreamt.shape) == (np.uint8, (32, 32, 3))

    def response(pixels):
        maps = network.feature_maps(layer, pixels)
        return (maps**2).mean() if unit is None else maps[..., unit].mean()

    noise = np.random.default_rng(0).normal(128, 12, (32, 32, 3)).astype(np.uint8)
    assert response(dreamt) > 1.5 * abs(response(photo if from_photo else noise))
    np.testing.assert_array_equal(dreamt, network.dream(layer, unit, start, seed=0))


def test_progress_counts_the_steps(network, layer):
    steps = []
    network.dream(layer, 0, None, 0, steps.append)
    assert sum(steps) == visualising.dream_steps()


def test_the_command_draws_layers_and_dreams(stackcls, fitted, layer, tmp_path):
    photo, common = fitted.images.parent / "red.png", ["--artifacts", fitted.artifacts, "--output", tmp_path / "out"]
    gone = tmp_path / "gone.png"
    only = ["--backbone", "mini_vgg"]
    status, out, err = stackcls("explain", photo, gone, "--layer", layer, *only, *common)
    assert status == 0
    assert "warning: 1 of 2 images could not be read\n" in err
    assert "error: file not found" in out
    with Image.open(tmp_path / "out" / f"red-mini_vgg-{layer}.png") as sheet:
        assert sheet.width == 8 * 120
    status, out, _ = stackcls("explain", "--dream", f"{layer}:2", *only, *common, "--format", "json")
    (drawn,) = json.loads(out)
    assert (status, drawn["path"], drawn["layer"]) == (0, None, f"{layer}:2")
    assert Image.open(drawn["picture"]).size == (32, 32)
    assert stackcls("explain", photo, "--dream", layer, *only, *common)[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"dream-mini_vgg-{layer}-2.png",
        f"red-dream-mini_vgg-{layer}.png",
        f"red-mini_vgg-{layer}.png",
    ]
    assert stackcls("explain", photo, "--method", "gradcam", *common)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dream", "LAYER:9999"], "has no unit 9999; 0 to "),
        (["--dream", "LAYER:x"], "is not LAYER or LAYER:UNIT, where a unit is a number from 0"),
        (["--dream", "nowhere"], "--dream: no layer 'nowhere'; 'mini_vgg' has "),
        (["red.png", "--layer", "nowhere"], "--layer: no layer 'nowhere'; 'mini_vgg' has "),
        (["--dream", "LAYER", "--backbone", "vgg"], "--backbone: 'vgg' is not in "),
    ],
)
def test_what_cannot_be_asked_for(stackcls, fitted, layer, arguments, message):
    words = [word.replace("LAYER", layer) for word in arguments]
    status, out, err = stackcls("explain", *words, "--artifacts", fitted.artifacts)
    assert (status, out) == (2, "")
    assert message in err
