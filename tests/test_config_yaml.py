"""What pipeline.yaml may hold as YAML, and what is refused, with the line."""

import pytest

from stackcls import config
from stackcls.errors import ConfigError
from tests.test_config import pipeline

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
BAD_FILES = {
    "key twice": (
        "cv:\n  folds: 3\n  folds: 4\n",
        r"yaml:3: .*key 'folds' is given twice, first on line 2",
    ),
    "section twice": ("cv: {}\nstack: {}\ncv: {}\n", r"yaml:3: .*key 'cv' is given twice, first on line 1"),
    "tab": ("cv:\n\tfolds: 3\n", r"pipeline\.yaml:2: not valid YAML: "),
    "open bracket": ("images: x\nfeatures: {backbones: [vgg19\n", r"pipeline\.yaml:3: not valid YAML: "),
    "two colons": ("images: x\ncv: folds: 3\n", r"pipeline\.yaml:2: not valid YAML: mapping values"),
    "code": ("images: !!python/object/apply:os.getcwd []\n", r"pipeline\.yaml:1: not valid YAML: could not determine"),
    "no such date": ("images: 2024-13-45\n", r"pipeline\.yaml: not valid YAML: month must be"),
    "not utf-8": (b"cv: {}\nimages: caf\xe9\n", r"pipeline\.yaml:2: not UTF-8; save it as UTF-8"),
    "utf-16": ("images: x\n".encode("utf-16"), r"pipeline\.yaml:1: not UTF-8"),
    "nul": ("images: a\0b\n", r"pipeline\.yaml.*: not valid YAML: .*special characters"),
    "huge": (b"# " + b"x" * 2**20, r"pipeline\.yaml: is longer than 262144 bytes"),
    "alias bomb": (LAUGHS, r"pipeline\.yaml:\d+: not valid YAML: more than 20000 values, aliases written out"),
    "merge bomb": (MERGES, r"pipeline\.yaml:\d+: not valid YAML: more than 20000 values, aliases written out"),
    "alias in itself": ("images: &a [*a]\n", r"pipeline\.yaml:1: not valid YAML: an alias stands inside of what it"),
    "alias of nothing": ("images: *a\n", r"pipeline\.yaml:1: not valid YAML: found undefined alias"),
    "deep": ("images: " + "[" * 100 + "]" * 100, r"pipeline\.yaml:1: not valid YAML: over 50 levels deep"),
    "very deep": ("[" * 50_000, r"pipeline\.yaml: not valid YAML: nested more than 50 levels deep"),
    "a long number": ("cv: {seed: " + "9" * 9999 + "}", r"pipeline\.yaml: not valid YAML: .*4300"),
    "long text": ("cv: {seed: " + "x" * 9999 + "}", r"pipeline\.yaml: cv\.seed: 'x{119}… does not do: "),
    "a number as key": ("3: x", r"pipeline\.yaml: 3.*: unknown key; known here are images"),
    "line breaks in a key": ('"a\\nb": x', r"pipeline\.yaml: 'a\\nb': unknown key; known here are images"),
    "a list as key": ("? [a, b]\n: x", r"pipeline\.yaml:1: not valid YAML: found unhashable key"),
    "two documents": ("cv: {}\n---\ncv: {}\n", r"pipeline\.yaml:2: not valid YAML: but found another document"),
    "a list": ("- images\n", r"pipeline\.yaml: must hold `key: value` lines, but holds a list"),
    "text": ("images\n", r"pipeline\.yaml: must hold `key: value` lines, but holds text"),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_refused_with_the_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        config.read(pipeline(tmp_path, text))


@pytest.mark.parametrize(
    "text", ["x: &a 5\n", "\ufeff", "cv: {<<: {seed: 4}, folds: 5}\n", "cv: &c {folds: 5, seed: 4}\n"]
)
def test_what_yaml_has_beyond_the_plain_is_understood(tmp_path, text):
    if text.startswith("x"):
        text = "cv: {folds: &a 5, seed: *a}\n"
    elif text == "\ufeff":
        text += "cv: {folds: 5}\n"
    assert config.read(pipeline(tmp_path, text)).cv.folds == 5
