"""The demo, and what the README tells people to type."""

import re
import shlex
from pathlib import Path

import click
import pytest

from stackcls.backbones import BUNDLED
from stackcls.cli import cli
from stackcls.report.results import Report
from stackcls.stages import demo, init

ROOT = Path(__file__).resolve().parent.parent


def test_the_digits_are_written_as_class_folders_and_one_of_each_is_kept_back(tmp_path: Path):
    data = demo.prepare(tmp_path / "demo")
    assert len(list(data.images.glob("*/*.png"))) == 1797 - 10
    assert sorted(path.name for path in data.images.iterdir()) == [f"digit {number}" for number in range(10)]
    assert len(list(data.new_images.glob("*.png"))) == 10


def test_the_settings_of_the_demo_are_a_file_beside_the_images(tmp_path: Path):
    data = demo.prepare(tmp_path / "demo")
    assert data.settings.images == tmp_path / "demo" / "images"
    assert [entry.name for entry in data.settings.features.backbones] == list(BUNDLED)
    assert (tmp_path / "demo" / "pipeline.yaml").is_file()


def test_the_pipeline_at_the_top_is_the_one_that_init_writes():
    assert (ROOT / "pipeline.yaml").read_text() == init.template()


def test_a_folder_with_other_things_in_it_is_left_alone(stackcls, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    status, _, err = stackcls("demo", "--folder", tmp_path)
    assert status == 2
    assert "is not empty" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_the_demo_runs_offline_and_the_stack_is_at_least_as_good(stackcls, tmp_path: Path, monkeypatch):
    def no_network(*_args, **_kwargs):
        raise AssertionError("the demo went to the network")

    monkeypatch.setattr("socket.socket.connect", no_network)
    status, out, _ = stackcls("demo", "--folder", tmp_path / "demo")
    assert status == 0
    report = Report.load(tmp_path / "demo" / "artifacts" / "report.json")
    assert report.scores["stack"].mean >= max(score.mean for score in report.singles.values())
    assert (tmp_path / "demo" / "artifacts" / "model.joblib").exists()
    for name in ("mini_vgg", "mini_resnet", "mini_inception", "mini_xception", "stack"):
        assert f"| {name} " in out
    assert len(re.findall(r"^\| .*new/\d-000\.png", out, re.MULTILINE)) == 10
    commands = [line.split()[1] for line in out.splitlines() if line.startswith("    stackcls ")]
    assert commands == ["features", "fit", "predict"]
    assert {path.name for path in (tmp_path / "demo" / "artifacts").iterdir()} == {
        "features.h5",
        "model.safetensors",
        "model.joblib",
        "model.json",
        "report.json",
        "report.md",
        "report.html",
        "confusion.png",
        "cv_predictions.csv",
        "cv_probabilities.npy",
        "label_suspects.csv",
        "duplicates.csv",
    }


def documented_commands() -> list[list[str]]:
    text = "\n".join(path.read_text() for path in (ROOT / "README.md", ROOT / "docs" / "reproduce.md"))
    lines = re.findall(r"^(?:    )?(?:\$ )?(stackcls .*?)(?:\s+#.*)?$", text + demo.CLOSING, re.MULTILINE)
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.parametrize("arguments", documented_commands(), ids=" ".join)
def test_documented_commands_are_understood(arguments):
    command = cli.commands[arguments[0]]
    # With its parent, since a command keeps the names of its help option from the first context that asks.
    parent = click.Context(cli, info_name="stackcls", **cli.context_settings)
    command.make_context(arguments[0], arguments[1:], parent=parent).close()


def test_the_readme_names_every_command():
    text = (ROOT / "README.md").read_text()
    for name in cli.commands:
        assert f"`{name}" in text
    assert text.index("make demo") < text.index("make test") < text.index("## ")


def test_no_page_has_a_gap_left_to_fill():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert not re.search(r"^[A-Z]+_[A-Z_]+$", page.read_text(), re.MULTILINE), page.name
