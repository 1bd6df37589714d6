"""Mistakes in what the command line says are not blamed on `pipeline.yaml`; types are asked for in plain words."""

import re
from pathlib import Path

import pytest

from stackcls import complaints, config
from stackcls.errors import ConfigError
from stackcls.settings import Settings
from tests.test_config import pipeline

BLAMED = [
    (["--set", "cv.folds=x"], r"--set cv\.folds: 'x' does not do: a whole number is needed"),
    (["--set", "stack.C=3"], r"--set stack\.C: unknown key; .* did you mean stack\.base\.C or stack\.meta\.C\?"),
    (["--set", "cv={folds: x}"], r"--set cv: cv\.folds: 'x' does not do: "),
    (
        ["--set", "features.backbones.1.pooling=median"],
        r"--set features\.backbones\.1\.pooling: .*pooling\.0: 'median' is",
    ),
    # What is wrong may be in either.
    (
        ["--set", "features.backbones.0=m"],
        r"{file} with --set features\.backbones\.0: features: backbones has m more than",
    ),
    (["--set", "cv.folds=5"], r"{file}: cv\.sed: unknown key"),
    (["--cv", "1"], r"--cv: cv\.folds: 1 does not do: a number greater than or equal to 2 is needed"),
    (["--set", "cv.folds=4", "--cv", "x"], r"--cv: cv\.folds: 'x' does not do"),
    (["--seed", "x"], r"--seed: cv\.seed: "),
    (["--holdout", "7"], r"--holdout: cv\.holdout: "),
    (["--recipe", "stacked"], r"--recipe: stack\.recipe: 'stacked' is not one of in-sample, out-of-fold"),
    (["--class-weight", "3"], r"--class-weight: stack\.class_weight: 3 is not one of balanced, null"),
    (["--report", "some"], r"--report: report\.depth: "),
    (["--cluster", "nowhere"], r"--cluster: cluster\.address: "),
    (["--cv", "[3"], r"--cv: the value is not valid YAML: "),
    (["--tune", "0"], r"--tune: stack\.tune: 0 does not do: a number greater than 0 is needed"),
    (["--tune", "long"], r"--tune: stack\.tune: 'long' does not do: a number is needed"),
    (["--tune", "-1"], r"--tune: -1 does not do: minutes, a number greater than 0, are needed"),
    (["--tune=-.5", "--cv", "3"], r"--tune: -\.5 does not do: minutes, "),
]


@pytest.mark.parametrize(("given", "message"), BLAMED, ids=[" ".join(given) for given, _ in BLAMED])
def test_a_mistake_is_blamed_on_who_made_it(stackcls, tmp_path, given, message):
    file = pipeline(tmp_path, "cv: {sed: 3}\nfeatures: {backbones: [vgg19, {name: m, architecture: MobileNet}]}")
    status, _, err = stackcls("fit", "-c", file, *given)
    assert status == 2
    lines = err.replace("error: ", "").replace("Error: ", "").splitlines()
    assert any(re.match(message.replace("{file}", str(file)), line) for line in lines), err


def test_options_of_finetune_are_named_too(stackcls, tmp_path):
    for option, key in (("--share", "share"), ("--epochs", "epochs"), ("--seed", "seed")):
        _, _, err = stackcls("finetune", "vgg19", "--images", tmp_path, option, "-7")
        assert err.startswith(f"error: {option}: finetune.{key}: -7 does not do: a number greater than")


def test_a_password_in_an_address_is_not_shown(stackcls):
    for given in (["--images", "zip://x::s3://user:pass-word@b"], ["--set", "images=zip://x::s3://user:pass-word@b"]):
        _, _, err = stackcls("features", *given)
        assert err.startswith(f"error: {given[0]}")
        assert "pass-word" not in err


WRONG_TYPES = [
    ({"artifacts": 3}, "artifacts: 3 does not do: a path is needed"),
    ({"features": {"backbones": "x"}}, r"features\.backbones: 'x' does not do: a list is needed: \[\.\.\.\]"),
    ({"features": {"engine": None}}, r"features\.engine: null is not one of auto, "),
    ({"features": {"engine": True}}, r"features\.engine: true is not one of auto, "),
    ({"features": {"image_seconds": "x"}}, r"features\.image_seconds: 'x' does not do: a number is needed"),
    ({"cv": {"folds": 2.5}}, r"cv\.folds: 2\.5 does not do: a whole number is needed"),
    (
        {"finetune": {"multipliers": 3}},
        r"finetune\.multipliers: 3 does not do: keys with values are needed: {key: value}",
    ),
    ({"finetune": {"augment": {"flip": "x"}}}, r"finetune\.augment\.flip: 'x' does not do: true or false is needed"),
    (
        {"finetune": {"unfreeze": 3}},
        r"finetune\.unfreeze: 3 does not do: text is needed \(a number that is meant as text",
    ),
    (
        {"weights": {"base_url": "ftp://x"}},
        r"weights\.base_url: 'ftp://x' does not do: an address that begins with http",
    ),
]


@pytest.mark.parametrize(("raw", "message"), WRONG_TYPES)
def test_types_are_asked_for_in_plain_words(raw, message):
    with pytest.raises(ConfigError, match=f"^settings: {message}"):
        config.build(raw)


def test_no_setting_is_asked_for_in_python_s_words():
    wrong = ("x", "", 3, -1, 2.5, True, None, [], [1], {}, {"a": 1}, "9" * 5000, "²", float("nan"), 10**400)
    said = [refusal(nested(key, value)) for key in complaints.keys(Settings, "") for value in wrong]
    words = re.compile(r"\b(input|should|valid|tuple|dict\w*|string|integer|int|boolean|pathlib|None)\b")
    assert [line for line in said if words.search(line)] == []
    assert sum(map(bool, said)) > 400


def refusal(raw):
    try:
        config.build(raw)
    except ConfigError as error:
        return str(error)
    return ""


def nested(key, value):
    """Settings that say this alone; of a backbone where `N` stands for it."""
    raw, below = key.partition(".N.")[::2]
    for part in reversed(below.split(".") if below else []):
        value = {part: value}
    value = [{"name": "m", **value}] if below else value
    for part in reversed(raw.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize(
    ("text", "kind"), [("3", "a number"), ("x", "text"), ("[x]", "a list"), ("true", "true or false")]
)
def test_a_file_that_holds_something_else_is_told_so(tmp_path, text, kind):
    with pytest.raises(ConfigError, match=f"must hold `key: value` lines, but holds {kind}$"):
        config.read(Path(pipeline(tmp_path, text)))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--set", "images=[https://me:SECRET@host/a]"],
        ["--set", "images=[https://me:SECRET@host/a?sig=SECRET]"],
        ["--set", "https://me:SECRET@host/a?sig"],
        ["--set", "nothing https://me:SECRET@host/a?sig=SECRET"],
        ["--set", "cv.folds=https://me:SECRET@host/a?sig=SECRET"],
    ],
)
def test_what_is_secret_in_an_address_is_in_no_message(stackcls, arguments):
    status, _, err = stackcls("fit", *arguments)
    assert status == 2
    assert "SECRET" not in err
