"""What a backbone is: how entries are filled in, and which fields make features comparable."""

import dataclasses
import hashlib
import json

import pytest

from stackcls import backbones, config
from stackcls.backbones import Backbone, Identity
from stackcls.errors import ConfigError

PLAIN = Backbone("m", "MobileNet", (("alpha", 0.5),), 160, "imagenet", 0, None, "average", "keras")


def resolve(*entries, **features):
    settings = config.build({"features": {"backbones": list(entries), **features}})
    return backbones.resolve(settings.features)


def test_a_name_is_enough():
    assert resolve("xception") == (Backbone("xception", "Xception", (), 299, "imagenet", 0, None, "average", "keras"),)


def test_the_articles_four_have_their_own_input_sizes():
    found = backbones.resolve(config.build({}).features)
    assert [(item.architecture, item.input_size) for item in found] == [
        ("VGG19", 224),
        ("ResNet50", 224),
        ("InceptionV3", 299),
        ("Xception", 299),
    ]


def test_the_table_of_architectures_holds_together():
    table = backbones.architectures()
    assert list(table) == [item.name for item in table.values()]
    assert len({item.architecture for item in table.values()}) == len(table)
    for item in table.values():
        assert item.weights_url.startswith("https://")
        assert len(item.weights_md5) in (0, 32, 64)
        assert min(item.input_size, item.width, item.parameters) > 0


def test_every_name_and_every_architecture_resolves():
    table = backbones.architectures().values()
    by_name = resolve(*(item.name for item in table))
    by_function = resolve(*({"name": item.name, "architecture": item.architecture} for item in table))
    assert by_name == by_function
    assert [item.architecture for item in by_name] == [item.architecture for item in table]


def test_an_entry_says_everything_itself():
    entry = {
        "name": "mn",
        "architecture": "MobileNet",
        "arguments": {"depth_multiplier": 1, "alpha": 0.5},
        "input_size": 160,
        "weights": "w.h5",
        "layer": "conv_pw_11",
        "pooling": "max",
        "preprocessing": "tf",
    }
    (found,) = resolve(entry)
    arguments = (("alpha", 0.5), ("depth_multiplier", 1))
    assert found == Backbone("mn", "MobileNet", arguments, 160, "w.h5", 0, "conv_pw_11", "max", "tf")
    assert str(found.file) == "w.h5"


def test_pooling_of_an_entry_wins_over_the_common_one():
    common, own = resolve("vgg16", {"name": "vgg19", "pooling": "average"}, pooling="max")
    assert (common.pooling, own.pooling) == ("max", "average")


@pytest.mark.parametrize(("weights", "seed"), [("random", 7), ("imagenet", 0), (None, 0)])
def test_a_seed_is_for_random_weights_alone(weights, seed):
    entry = {"name": "m", "architecture": "MobileNet", "seed": 7}
    (found,) = resolve({**entry, "weights": weights} if weights else entry)
    assert found.seed == seed
    assert found.file is None


def test_a_saved_model_keeps_its_input_size_open():
    (found,) = resolve({"name": "mine", "model": "m.keras", "preprocessing": "caffe"})
    assert found == Backbone("mine", "", (), None, "m.keras", 0, None, "average", "caffe")


def test_a_saved_model_needs_preprocessing():
    with pytest.raises(ConfigError, match="'mine': a saved model needs `preprocessing`: one of caffe, tf, "):
        resolve({"name": "mine", "model": "m.keras"})


def test_unknown_preprocessing_is_refused():
    with pytest.raises(ConfigError, match=r"'vgg19': preprocessing 'keras2' is not one of caffe, tf, torch, none"):
        resolve({"name": "vgg19", "preprocessing": "keras2"})


@pytest.mark.parametrize("name", backbones.BUNDLED)
def test_bundled_models_are_known_by_name(name):
    (found,) = resolve(name)
    assert (found.architecture, found.input_size, found.preprocessing) == ("", 32, "tf")
    assert found.file == backbones.bundled_file(name)


def test_a_bundled_model_may_have_another_name():
    (found,) = resolve({"name": "small", "architecture": "mini_resnet", "pooling": "max"})
    assert (found.name, found.architecture, found.input_size, found.pooling) == ("small", "", 32, "max")
    assert found.file == backbones.bundled_file("mini_resnet")


def test_a_bundled_name_may_be_given_to_something_else():
    (found,) = resolve({"name": "mini_vgg", "architecture": "VGG16"})
    assert (found.architecture, found.weights) == ("VGG16", "imagenet")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "resnet5",
            r"'resnet5': 'resnet5' is not a known architecture; did you mean .*resnet50.*\? `stackcls backbones`",
        ),
        ({"name": "x", "architecture": "Xcepton"}, r"'x': 'Xcepton' is not a known .*did you mean Xception"),
        ("mini_vg", r"did you mean .*mini_vgg"),
        ("猫", r"'猫' is not a known architecture; `stackcls backbones` lists them"),
    ],
)
def test_unknown_architectures_are_refused_with_close_ones(entry, message):
    with pytest.raises(ConfigError, match=message):
        resolve(entry)


@pytest.mark.parametrize(
    ("poolings", "names"),
    [
        ("average", ["vgg19"]),
        ("max", ["vgg19"]),
        ("covariance", ["vgg19+covariance"]),
        (["covariance", "average"], ["vgg19+covariance", "vgg19"]),
        (["max", "average"], ["vgg19+max", "vgg19"]),
        (["max", "covariance"], ["vgg19", "vgg19+covariance"]),
    ],
)
def test_matrices_of_one_backbone_are_told_apart_by_a_suffix(poolings, names):
    found = resolve("vgg19", pooling=poolings)
    assert [item.name for item in found] == names
    assert [item.pooling for item in found] == ([poolings] if isinstance(poolings, str) else poolings)


def test_which_views_there_are_decides_and_not_their_order():
    first, second = (resolve("vgg19", views=views)[0] for views in (["hflip", "original"], ["original", "hflip"]))
    assert first.identity("sha", "float32") == second.identity("sha", "float32")
    assert Backbone.from_dict({**first.to_dict(), "views": ["hflip", "original"]}) == first
    with pytest.raises(ValueError, match="views hflip, hflip: each can be given once"):
        Backbone.from_dict({**first.to_dict(), "views": ["hflip", "hflip"]})


def test_a_record_from_before_there_were_views_is_of_the_original():
    written = resolve("vgg19")[0].to_dict()
    del written["views"]
    assert Backbone.from_dict(written) == resolve("vgg19")[0]


DECIDING = {
    "architecture": "MobileNetV2",
    "arguments": (("alpha", 1.0),),
    "input_size": 192,
    "layer": "conv_pw_11",
    "pooling": "max",
    "preprocessing": "torch",
    "views": ("original", "hflip"),
}
# A name, and where weights were found, say nothing about the features; their content does.
NOT_DECIDING = {"name": "other", "weights": "elsewhere/w.h5", "seed": 3}


def test_every_field_is_deciding_or_not():
    assert {field.name for field in dataclasses.fields(Backbone)} == {*DECIDING, *NOT_DECIDING}


@pytest.mark.parametrize("field", DECIDING)
def test_a_deciding_field_changes_the_identity_and_is_named(field):
    before = PLAIN.identity("sha", "float32")
    after = dataclasses.replace(PLAIN, **{field: DECIDING[field]}).identity("sha", "float32")
    assert before.digest != after.digest
    (difference,) = before.differences(after)
    assert difference.startswith(f"{field}: ")
    assert " against " in difference


@pytest.mark.parametrize("field", NOT_DECIDING)
def test_another_field_does_not(field):
    other = dataclasses.replace(PLAIN, **{field: NOT_DECIDING[field]})
    assert other.identity("sha", "float32").digest == PLAIN.identity("sha", "float32").digest


@pytest.mark.parametrize(("weights", "precision"), [("other sha", "float32"), ("sha", "bfloat16")])
def test_weights_and_precision_decide(weights, precision):
    assert PLAIN.identity(weights, precision).digest != PLAIN.identity("sha", "float32").digest


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Identity)])
def test_the_digest_covers_every_field_of_an_identity(field):
    identity = PLAIN.identity("sha", "float32")
    value = getattr(identity, field)
    other = dataclasses.replace(identity, **{field: value + 1 if isinstance(value, int) else value + "x"})
    assert other.digest != identity.digest


def test_the_identity_of_one_backbone_is_written_as_ever():
    """Stored matrices and models are found by this digest: a change here makes all of them be computed anew."""
    identity = PLAIN.identity("ab" * 32, "float32")
    expected = {
        "architecture": "MobileNet",
        "arguments": '{"alpha": 0.5}',
        "basis": "",
        "input_size": 160,
        "layer": "",
        "pooling": "average",
        "precision": "float32",
        "preprocessing": "keras",
        "resize": "pillow-bilinear-antialias-squash",
        "views": "original",
        "weights": "ab" * 32,
    }
    assert identity.to_json() == json.dumps(expected)
    assert identity.digest == hashlib.sha256(json.dumps(expected).encode()).hexdigest()


def test_the_order_of_arguments_says_nothing():
    first, second = (
        {"name": "m", "architecture": "MobileNet", "arguments": given}
        for given in ({"alpha": 0.5, "dropout": 0.1}, {"dropout": 0.1, "alpha": 0.5})
    )
    assert resolve(first) == resolve(second)


@pytest.mark.parametrize("changes", [{}, {"layer": "x", "weights": "random", "seed": 5}, {"input_size": None}])
def test_plain_values_and_back(changes):
    backbone = dataclasses.replace(PLAIN, **changes)
    assert Backbone.from_dict(json.loads(json.dumps(backbone.to_dict()))) == backbone


def test_plain_values_hold_absolute_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = dataclasses.replace(PLAIN, weights="sub/w.h5").to_dict()
    assert written["weights"] == str(tmp_path / "sub/w.h5")


@pytest.mark.parametrize(
    "broken", [{"arguments": {}}, {**PLAIN.to_dict(), "extra": 1}, {**PLAIN.to_dict(), "arguments": 3}]
)
def test_broken_plain_values_are_refused(broken):
    with pytest.raises(ValueError, match=r"backbone\.(name: Field required|extra: Extra|arguments: Input should be)"):
        Backbone.from_dict(broken)


def test_an_identity_is_written_and_read():
    identity = PLAIN.identity("sha", "float32")
    assert Identity.from_json(identity.to_json()) == identity
    assert identity.differences(identity) == []


@pytest.mark.parametrize("extra", [{"weights": "random"}, {"arguments": {"alpha": 1}}, {"input_size": 64}])
def test_a_bundled_backbone_takes_no_other_weights_or_sizes(extra):
    with pytest.raises(ConfigError, match="mini_vgg is part of stackcls with its weights; only `layer`"):
        backbones.resolve(config.build({"features": {"backbones": [{"name": "mini_vgg", **extra}]}}).features)
