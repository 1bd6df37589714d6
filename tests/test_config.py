"""Settings: defaults, overrides, and messages that say where, what was given and what is allowed."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from stackcls import complaints, config, runtables
from stackcls.errors import ConfigError
from stackcls.settings import ARTICLE, Settings
from stackcls.stages import init


def pipeline(folder, text):
    path = folder / "pipeline.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture(autouse=True)
def _empty_working_folder(tmp_path, monkeypatch):
    # A pipeline.yaml that happens to lie in the working folder would be read.
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def test_defaults_are_the_articles():
    settings = config.read()
    assert settings == Settings()
    assert (settings.images, settings.artifacts) == (Path("data/images"), Path("artifacts"))
    assert tuple(entry.name for entry in settings.features.backbones) == ARTICLE
    assert (settings.features.pooling, settings.features.precision) == (("average",), "float32")
    assert settings.features.views == ("original",)
    assert settings.features.batch_size is None
    assert (settings.stack.recipe, settings.stack.base.C, settings.stack.meta.C) == ("in-sample", 1.0, 1.0)
    assert (settings.cv.folds, settings.cv.seed) == (3, 0)


def test_the_template_says_exactly_the_defaults(tmp_path):
    written = init.run(tmp_path / "cwd" / "pipeline.yaml")
    assert config.read() == Settings()
    assert config.read(Path("pipeline.yaml")) == Settings()
    named = yaml.safe_load(written.read_text("utf-8"))
    for section, values in Settings().model_dump().items():
        assert section in named
        assert not isinstance(values, dict) or set(named[section]) == set(values)


def test_the_template_replaces_nothing_unasked(tmp_path):
    path = pipeline(tmp_path, "cv: {folds: 7}")
    with pytest.raises(ConfigError, match=r"pipeline\.yaml: exists already; .*--force"):
        init.run(path)
    assert path.read_text() == "cv: {folds: 7}"
    init.run(path, force=True)
    assert path.read_text("utf-8") == init.template()


def test_a_file_in_the_working_folder_is_read():
    Path("pipeline.yaml").write_text("cv: {folds: 7}")
    assert config.read().cv.folds == 7


@pytest.mark.parametrize("text", ["", "# only a comment\n", "{}"])
def test_an_empty_file_means_the_defaults(tmp_path, text):
    settings = config.read(pipeline(tmp_path, text))
    assert (settings.features, settings.cv) == (Settings().features, Settings().cv)


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().cv.folds = 5


def test_paths_are_relative_to_the_file(tmp_path):
    text = """
images: pictures
artifacts: ../out
features:
  backbones:
    - vgg19
    - {name: a, architecture: MobileNet, weights: w.h5}
    - {name: b, model: m/b.keras, preprocessing: tf}
    - {name: c, architecture: MobileNet, weights: imagenet}
    - {name: d, architecture: MobileNet, weights: random}
finetune: {start: own.keras}
"""
    settings = config.read(pipeline(tmp_path / "project", text))
    assert settings.images == tmp_path / "project/pictures"
    assert settings.artifacts == tmp_path / "project/../out"
    entries = settings.features.backbones
    assert entries[1].weights == str(tmp_path / "project/w.h5")
    assert entries[2].model == tmp_path / "project/m/b.keras"
    assert [entry.weights for entry in entries[3:]] == ["imagenet", "random"]
    assert settings.finetune.start == str(tmp_path / "project/own.keras")
    assert config.read(pipeline(tmp_path, "finetune: {start: random}\n")).finetune.start == "random"


def test_absolute_paths_and_the_home_folder_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    settings = config.read(pipeline(tmp_path / "project", f"images: ~/pictures\nartifacts: {tmp_path}/out\n"))
    assert (settings.images, settings.artifacts) == (tmp_path / "home/pictures", tmp_path / "out")


def test_paths_in_overrides_are_relative_to_the_working_folder(tmp_path):
    path = pipeline(tmp_path / "project", "images: pictures\n")
    settings = config.read(path, ["images=others", "artifacts=out"])
    assert (settings.images, settings.artifacts) == (Path("others"), Path("out"))


def value_at(settings, key):
    for part in key.split("."):
        settings = settings[int(part)] if part.isdigit() else getattr(settings, part)
    return settings


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("cv.folds=5", "cv.folds", 5),
        ("stack.base.C=0.01", "stack.base.C", 0.01),
        ("stack.meta={C: 10}", "stack.meta.C", 10.0),
        ("stack.recipe=out-of-fold", "stack.recipe", "out-of-fold"),
        ("stack.class_weight=balanced", "stack.class_weight", "balanced"),
        ("stack.class_weight=null", "stack.class_weight", None),
        ("images=a=b", "images", Path("a=b")),
        ("images='007'", "images", Path("007")),
        ("images=猫", "images", Path("猫")),
        ("features.backbones=[mobilenet]", "features.backbones.0.name", "mobilenet"),
        ("features.backbones.0=mobilenet", "features.backbones.0.name", "mobilenet"),
        ("features.backbones.1.seed=7", "features.backbones.1.seed", 7),
        ("weights.base_url=http://mirror.local/k", "weights.base_url", "http://mirror.local/k"),
    ],
)
def test_overrides_reach_every_level(tmp_path, override, key, value):
    path = pipeline(tmp_path, "features: {backbones: [vgg19, {name: r, architecture: MobileNet, weights: random}]}")
    assert value_at(config.read(path, [override]), key) == value


def test_the_last_override_wins_and_others_stay(tmp_path):
    path = pipeline(tmp_path, "cv: {folds: 4, seed: 9}")
    settings = config.read(path, ["cv.folds=5", "cv.folds=6"])
    assert (settings.cv.folds, settings.cv.seed) == (6, 9)


BAD_OVERRIDES = {
    "no value": ("cv.folds", r"--set 'cv\.folds': must be key\.path=value, for example"),
    "no key": ("=3", r"--set '=3': must be key\.path=value"),
    "not yaml": ("cv.folds=[3", "the value is not valid YAML"),
    "no such date": ("images=2024-13-45", "the value is not valid YAML"),
    "below a number": ("cv.folds.x=3", r"there is no place 'cv\.folds\.x' in the settings"),
    "below text": ("features.backbones.0.seed=3", r"there is no place 'features\.backbones\.0\.seed'"),
    "beyond a list": ("features.backbones.9=vgg16", r"there is no place 'features\.backbones\.9'"),
    "name in a list": ("features.backbones.vgg19=vgg16", r"there is no place 'features\.backbones\.vgg19'"),
    "no section": ("stack.meta=average", r"'average' does not do: .* give stack\.meta\.kind or stack\.meta\.C"),
    "unknown": ("cv.fold=3", r"cv\.fold: unknown key; known here are folds, seed, rare"),
}


@pytest.mark.parametrize(("override", "message"), BAD_OVERRIDES.values(), ids=BAD_OVERRIDES)
def test_bad_overrides_are_refused(tmp_path, override, message):
    path = pipeline(tmp_path, "cv: {folds: 4}\nfeatures: {backbones: [vgg19]}")
    with pytest.raises(ConfigError, match=message):
        config.read(path, [override])


MOBILE = {"name": "m", "architecture": "MobileNet"}
BAD_SETTINGS = [
    ({"stack": {"recipe": "in-sampel"}}, r"stack\.recipe: 'in-sampel' is not one of in-sample, out-of-fold$"),
    (
        {"image": "x"},
        r"image: unknown key; known here are images, artifacts, features, .*; did you mean images\?$",
    ),
    ({"stack": {"base": {"c": 1}}}, r"stack\.base\.c: unknown key; known here are C"),
    ({"features": {"backbones": [{**MOBILE, "size": 3}]}}, r"features\.backbones\.0\.size: unknown key; .*input_size"),
    ({"features": {"pooling": "median"}}, r"features\.pooling\.0: 'median' is not one of average, max, covariance$"),
    ({"features": {"pooling": []}}, r"features\.pooling: is empty; name at least one"),
    ({"features": {"pooling": ["max", "max"]}}, r"features\.pooling: names max more than once; name each once$"),
    ({"features": {"views": ["vflip"]}}, r"features\.views\.0: 'vflip' is not one of original, hflip, center_crop, "),
    ({"features": {"views": ["hflip", "hflip"]}}, r"features\.views: names hflip more than once"),
    (
        {"features": {"backbones": [{"name": "vgg16", "views": []}]}},
        r"features\.backbones\.0\.views: is empty",
    ),
    ({"cv": {"groups": "name"}}, r"cv\.groups: 'name' is not one of duplicates, null$"),
    ({"features": {"engine": "torch"}}, r"features\.engine: 'torch' is not one of auto, tensorflow, openvino$"),
    ({"features": {"precision": "int4"}}, r"features\.precision: 'int4' is not one of float32, bfloat16, int8$"),
    *(
        ({"features": {"batch_size": value}}, rf"features\.batch_size.* {shown}; `auto` or a number .* from 1 to 4096")
        for value, shown in (("many", "'many'"), (0, "0"), (2.5, r"2\.5"), (True, "true"), (5000, "5000"))
    ),
    ({"features": "fast"}, r"features: 'fast' does not do: "),
    ({"features": {"backbones": []}}, r"features: backbones is empty; name at least one$"),
    ({"features": {"backbones": [{"architecture": "VGG16"}]}}, r"features\.backbones\.0\.name: is missing$"),
    ({"features": {"backbones": [3]}}, r"features\.backbones\.0: 3 does not do: "),
    ({"features": {"backbones": [{**MOBILE, "input_size": 4}]}}, r"features\.backbones\.0\.input_size: 4 does not do"),
    ({"stack": {"meta": {"C": 0}}}, r"stack\.meta\.C: 0 does not do: .*greater than 0"),
    ({"stack": {"base": {"C": float("nan")}}}, r"stack\.base\.C: nan does not do: "),
    ({"stack": {"base": {"C": float("inf")}}}, r"stack\.base\.C: inf does not do: "),
    ({"cv": {"folds": 1}}, r"cv\.folds: 1 does not do: .*greater than or equal to 2"),
    ({"cv": {"seed": -1}}, r"cv\.seed: -1 does not do: "),
    ({"images": 3}, r"images: 3 does not do: .*path"),
    ({"weights": {"base_url": "ftp://x"}}, r"weights\.base_url: 'ftp://x' does not do: "),
    ({"features": {"backbones": ["vgg19", "vgg19"]}}, r"features: backbones has vgg19 more than once"),
    (
        {"features": {"backbones": [{**MOBILE, "model": "m.keras"}]}},
        r"features\.backbones\.0: 'm' has a `model`, so .* must go$",
    ),
]


@pytest.mark.parametrize(("raw", "message"), BAD_SETTINGS)
def test_bad_settings_say_where_and_what_is_allowed(raw, message):
    with pytest.raises(ConfigError, match=f"^here.yaml: {message}"):
        config.build(raw, "here.yaml")


@pytest.mark.parametrize("name", ["a/b", "stack", "a+b", ".", "..", "a\nb", "a\0b"])
def test_names_that_cannot_be_stored_are_refused(name):
    with pytest.raises(ConfigError, match=r"features\.backbones\.0: .*cannot be a backbone's name: no '/'"):
        config.build({"features": {"backbones": [{"name": name, "architecture": "MobileNet"}]}})


@pytest.mark.parametrize("name", [*runtables.COLUMNS, *runtables.HELD_OUT])
def test_names_of_columns_are_refused(name):
    with pytest.raises(ConfigError, match=rf"features\.backbones\.0: .*'{name}' cannot be .*give another name"):
        config.build({"features": {"backbones": [{"name": name, "architecture": "MobileNet"}]}})


def test_an_empty_name_is_refused():
    with pytest.raises(ConfigError, match=r"features\.backbones\.0\.name: '' does not do"):
        config.build({"features": {"backbones": [""]}})


def test_all_complaints_come_at_once():
    with pytest.raises(ConfigError, match=r"(?s)x: cv\.folds.*\nx: stack\.recipe|x: stack\.recipe.*\nx: cv\.folds"):
        config.build({"cv": {"folds": 0}, "stack": {"recipe": "?"}}, "x")


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        ({"backbones": []}, "features.backbones"),
        ({"folds": 5}, "cv.folds"),
        ({"C": 5}, "stack.base.C or stack.meta.C"),
        ({"timeout": 5}, "weights.timeout or cluster.timeout"),
        ({"architecture": "VGG16"}, "features.backbones.N.architecture"),
        ({"cv": {"recipe": "in-sample"}}, "stack.recipe"),
        ({"features": {"fold": 3}}, "cv.folds"),
        ({"features": {"max_pixel": 3}}, "max_pixels"),
        ({"features": {"backbones": [{"name": "a", "engine": "auto"}]}}, "features.engine"),
    ],
)
def test_a_key_in_the_wrong_place_is_told_its_place(raw, hint):
    with pytest.raises(ConfigError, match=r"unknown key; known here are .*; did you mean (.*)\?$") as caught:
        config.build(raw)
    assert str(caught.value).partition("did you mean ")[2] == f"{hint}?"


def test_every_setting_is_found_from_the_top_and_from_another_section():
    keys = list(complaints.keys(Settings, ""))
    assert len(keys) > 30
    for key in keys:
        name = key.rpartition(".")[2]
        for raw in ({name: 1}, {"weights": {name: 1}}):
            if name not in Settings.model_fields and not (raw.get("weights") and name in ("base_url", "timeout")):
                with pytest.raises(ConfigError, match=f"unknown key; .*did you mean .*{key}"):
                    config.build(raw)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nope\.yaml: no such file; `stackcls init` writes"):
        config.read(tmp_path / "nope.yaml")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        config.read(tmp_path)


def test_the_command_line_says_it_and_exits_with_2(stackcls, tmp_path):
    path = pipeline(tmp_path, "stack: {recipe: in-sampel}")
    status, out, err = stackcls("features", "-c", path)
    assert (status, out) == (2, "")
    assert err == f"error: {path}: stack.recipe: 'in-sampel' is not one of in-sample, out-of-fold\n"
