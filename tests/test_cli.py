"""The command line: exit statuses, one clear message for each mistake, results apart from progress."""

import json
import os
import subprocess
import sys

import pytest
import yaml

import stackcls as package
from stackcls import backbones, cli, config
from stackcls.settings import Settings
from stackcls.stages import features as features_stage
from tests.conftest import FAKE_BACKBONES, write_photos

HEAVY = ("tensorflow", "keras", "sklearn", "mlxtend", "numpy", "scipy", "h5py", "joblib", "PIL", "matplotlib")
LEARNING = ("init", "features", "fit", "finetune", "predict", "evaluate", "explain", "backbones", "weights", "demo")
VERBS = (*LEARNING, "report", "similar", "duplicates", "map", "check")


@pytest.fixture
def folder(tmp_path, monkeypatch, photos, fake_engine):
    """Work in a folder with a pipeline.yaml for the photos."""
    raw = {"images": "photos", "features": {"backbones": FAKE_BACKBONES, "batch_size": 4}}
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(raw))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_the_verbs_are_these():
    assert set(cli.cli.commands) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_one_sentence_of_help(stackcls, verb):
    sentence = cli.cli.commands[verb].help
    assert sentence.endswith(".")
    assert ". " not in sentence
    assert "\n" not in sentence
    status, out, err = stackcls(verb, "--help")
    assert (status, err) == (0, "")
    assert sentence.split()[0] in out
    assert stackcls(verb, "-h") == (0, out, "")


def test_help_lists_every_command(stackcls):
    status, out, _ = stackcls("--help")
    assert status == 0
    assert {line.split()[0] for line in out.split("Commands:\n")[1].splitlines()} == set(VERBS)


def test_help_and_import_load_no_heavy_library():
    script = f"""
import sys
import stackcls
from stackcls import cli
for arguments in (["--help"], ["--version"], *([verb, "--help"] for verb in {VERBS!r})):
    try:
        cli.main(arguments)
    except SystemExit as end:
        assert end.code == 0, end
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version(stackcls):
    assert stackcls("--version") == (0, f"{package.__version__}\n", "")
    assert python("-m", "stackcls", "--version").stdout == f"{package.__version__}\n"


def test_the_public_names_are_these():
    errors = "ArtifactsInUse ConfigError EngineError IdentityMismatch ModelError ModelMissing"
    more = "SourceError SourceMissing StackModel StackclsError StackedClassifier Store StoreDamaged StoreError"
    last = (
        "StoreMissing TrainingError UnreadableImage WeightsError WriteError __version__ extract fit load read_settings"
    )
    assert package.__all__ == f"{errors} Neighbours Settings {more} {last}".split()
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="module 'stackcls' has no attribute 'fitt'"):
        package.fitt  # noqa: B018


def test_the_python_functions_are_the_commands(folder):
    settings = package.read_settings(folder / "pipeline.yaml")
    assert package.extract(settings).n_images == 27
    assert package.fit(settings).report.n_images == 27
    assert package.load(settings.files.model).classes_.tolist() == ["blue", "green", "red"]


def test_results_and_progress_are_apart(folder, stackcls):
    status, out, err = stackcls("features")
    assert status == 0
    assert out.startswith("wrote artifacts/features.h5: 27 images, 3 classes, 2 backbones, ")
    assert len(out.splitlines()) == 1
    assert "27 images of 3 classes in photos" in err
    assert "fetching" not in err
    status, out, err = stackcls("fit")
    assert (status, err) == (0, "")
    assert out.startswith("Accuracy in %, 3-fold cross-validation: 27 images, 3 classes, recipe in-sample\n")
    assert "| stack " in out
    assert "\nwrote to artifacts: model.safetensors, model.joblib, " in out
    status, out, err = stackcls("features")
    assert (status, out.split(":")[0]) == (0, "nothing new for artifacts/features.h5")


def test_dry_run_writes_nothing(folder, stackcls):
    status, out, _ = stackcls("features", "--dry-run")
    assert (status, out) == (0, "would compute 54 rows, reuse 0\n")
    assert not (folder / "artifacts").exists()


def test_bad_images_fail_only_a_strict_run(folder, stackcls):
    (folder / "photos" / "red" / "bad.png").write_bytes(b"no image")
    status, _, err = stackcls("features")
    assert status == 0
    assert "1 image could not be read" in err
    assert "red/bad.png: not an image" in err
    assert stackcls("features", "--strict")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["--cv", "4"], "folds", 4),
        (["--set", "cv.folds=5"], "folds", 5),
        (["--set", "cv.folds=5", "--cv", "4"], "folds", 4),
        (["--seed", "7"], "seed", 7),
        (["--recipe", "out-of-fold"], "recipe", "out-of-fold"),
    ],
)
def test_options_of_fit(folder, stackcls, arguments, key, value):
    stackcls("features")
    assert stackcls("fit", *arguments)[0] == 0
    assert json.loads((folder / "artifacts" / "report.json").read_text())[key] == value


def test_artifacts_can_lie_elsewhere(folder, stackcls):
    assert stackcls("features", "--artifacts", "else where")[0] == 0
    assert (
        stackcls("fit", "--artifacts", "else where", "--class-weight", "balanced", "--baseline", "linear-svm")[0] == 0
    )
    assert not (folder / "artifacts").exists()
    report = json.loads((folder / "else where" / "report.json").read_text())
    assert report["settings"]["class_weight"] == "balanced"
    assert list(report["baselines"]["linear-svm"]) == ["one", "two"]
    assert "| one, linear-svm" in stackcls("report", "--artifacts", "else where")[1]


def test_images_option(folder, stackcls):
    write_photos(folder / "others", 2)
    assert "6 images" in stackcls("features", "--images", "others")[1]


def one_class(folder):
    write_photos(folder / "single", 9, ["red"])


def make_empty(folder):
    (folder / "empty").mkdir()


def misspell(folder):
    (folder / "pipeline.yaml").write_text("features:\n  backbonez: [vgg19]\n")


def break_yaml(folder):
    (folder / "pipeline.yaml").write_text("images: [a\n")


@pytest.mark.parametrize(
    ("prepare", "arguments", "status", "message"),
    [
        (misspell, ["features"], 2, "error: pipeline.yaml: features.backbonez: unknown key; known here are backbones"),
        (break_yaml, ["fit"], 2, "error: pipeline.yaml:2: not valid YAML"),
        (None, ["fit", "-c", "gone.yaml"], 2, "error: gone.yaml: no such file; `stackcls init` writes"),
        (None, ["features", "--set", "cv.folds=1"], 2, "error: --set cv.folds: 1 does not do: "),
        (None, ["features", "--set", "cv.folds"], 2, "error: --set 'cv.folds': must be key.path=value"),
        (None, ["fit", "--cv", "three"], 2, "cv.folds: 'three' does not do: "),
        (None, ["fit", "--recipe", "in-sampel"], 2, "'in-sampel' is not one of in-sample, out-of-fold"),
        (None, ["features", "--images", "gone"], 1, "error: images: gone does not exist; give a folder"),
        (make_empty, ["features", "--images", "empty"], 1, "error: images: no images in empty; looked for .bmp"),
        (None, ["fit"], 1, "error: artifacts/features.h5: no feature file there; `stackcls features` makes one"),
        (None, ["report"], 1, "error: artifacts/report.json: no report there; `stackcls fit` writes one"),
        (None, ["report", "pipeline.yaml"], 1, "error: pipeline.yaml: not a report of stackcls"),
        (None, ["features", "--bogus"], 2, "No such option"),
        (None, ["featurse"], 2, "No such command 'featurse'"),
        (None, ["fit", "--baseline", "svm"], 2, "Invalid value for '--baseline'"),
    ],
)
def test_mistakes_get_one_clear_message(folder, stackcls, prepare, arguments, status, message):
    if prepare:
        prepare(folder)
    found, out, err = stackcls(*arguments)
    assert (found, out) == (status, "")
    assert message in err
    assert "Traceback" not in err
    assert err.startswith("Usage:") or len(err.splitlines()) == 1


def test_fitting_on_one_class(folder, stackcls):
    one_class(folder)
    assert stackcls("features", "--images", "single")[0] == 0
    status, out, err = stackcls("fit")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == "error: a classifier needs images of at least two classes; found 'red'"


@pytest.mark.parametrize("arguments", [["--debug", "fit"], ["fit", "--debug"]])
def test_debug_shows_the_traceback(folder, stackcls, arguments):
    status, out, err = stackcls(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1].startswith("error: artifacts/features.h5: no feature file there")


def test_an_interrupted_run(folder, stackcls, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(features_stage, "run", interrupt)
    status, out, err = stackcls("features")
    assert (status, out) == (130, "")
    assert err.strip() == "interrupted"


def test_a_full_disk_is_a_message(folder, stackcls, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device", "artifacts/features.h5")

    monkeypatch.setattr(features_stage, "run", fail)
    assert stackcls("features") == (1, "", "error: [Errno 28] No space left on device: 'artifacts/features.h5'\n")


@pytest.mark.skipif(os.name != "posix", reason="needs a pipe that can be closed early")
def test_a_closed_pipe_is_no_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "stackcls", "--help"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_init_writes_the_defaults_once(stackcls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert stackcls("init") == (0, "wrote pipeline.yaml\n", "")
    assert config.read() == Settings()
    written = (tmp_path / "pipeline.yaml").read_text()
    assert "# " in written
    (tmp_path / "pipeline.yaml").write_text("cv: {folds: 7}\n")
    status, out, err = stackcls("init")
    assert (status, out) == (2, "")
    assert err == "error: pipeline.yaml: exists already; give another name, or --force to replace it\n"
    assert (tmp_path / "pipeline.yaml").read_text() == "cv: {folds: 7}\n"
    assert stackcls("init", "--force")[0] == 0
    assert (tmp_path / "pipeline.yaml").read_text() == written
    assert stackcls("init", "other/name.yaml") == (0, "wrote other/name.yaml\n", "")


def test_backbones_lists_what_can_be_named(stackcls):
    status, out, _ = stackcls("backbones")
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in out.splitlines()}
    assert rows.keys() >= {*backbones.architectures(), *backbones.BUNDLED}
    assert rows["resnet50"] == ["ResNet50", "224", "2048", "23587712"]
    assert rows["inception_v3"][1:3] == ["299", "2048"]
    assert (status, rows["mini_vgg"][1]) == (0, "32")


def test_weights_says_where_they_are(folder, stackcls):
    status, out, _ = stackcls("weights")
    assert status == 0
    said = "{}: there: no file needed (random, seed {})"
    assert out.splitlines() == [said.format("one", 1), said.format("two", 2)]
