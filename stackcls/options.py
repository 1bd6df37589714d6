"""Options that several commands have, and what they stand for."""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stackcls.printable import printable

if TYPE_CHECKING:
    from stackcls.settings import FeatureSettings, Settings

Command = Callable[..., Any]
Option = tuple[str, str, str | None]  # its name, the setting that it stands for, and what was given


def shared_options(command: Command) -> Command:
    """Add the options of every command that reads settings."""
    for option in (
        click.option("--artifacts", metavar="DIR", help="Folder of the artifacts."),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting: cv.folds=5."),
        click.option("-c", "--config", type=click.Path(path_type=Path), help="Settings [./pipeline.yaml if there]."),
    ):
        command = option(command)
    return command


def model_option(command: Command) -> Command:
    """Add the option that names a model."""
    return click.option(
        "--model",
        "model_path",
        type=click.Path(path_type=Path),
        help="The model [ARTIFACTS/model.safetensors]. Opening a .joblib file runs whatever code is in it: give one "
        "only if you trust who made it; a .safetensors file runs none.",
    )(command)


strict_option = click.option("--strict", is_flag=True, help="Exit with 1 if an image could not be read.")


def settings_from(
    config: Path | None, overrides: tuple[str, ...], options: Iterable[Option] = (), **texts: str | None
) -> "Settings":
    """Read the settings; options of their own win over `--set`, which wins over the file.

    `options` have values in YAML, `texts` are options of the keys' own names.
    """
    from stackcls import config as reader

    named = [*options, *(as_text(f"--{key}", key, value) for key, value in texts.items())]
    return reader.read(config, overrides, {name: f"{key}={value}" for name, key, value in named if value is not None})


def as_text(name: str, key: str, value: str | None) -> Option:
    """Return an option whose value is text, whatever it looks like."""
    return name, key, None if value is None else json.dumps(value, ensure_ascii=False)


def model_from(
    path: Path | None, config: Path | None, overrides: tuple[str, ...], artifacts: str | None
) -> "tuple[Path, FeatureSettings | None]":
    """Return the model's file, and how the settings want features made; a named model needs no settings."""
    from stackcls import modelfile

    if path is not None and config is None and not overrides:
        return path, None
    settings = settings_from(config, overrides, artifacts=artifacts)
    return path or modelfile.choose(settings.files), settings.features


def show(text: str) -> None:
    """Print what programs may read: names as they are, but for what would act on a terminal where there is one."""
    if sys.stdout.isatty():
        text = "\n".join(map(printable, text.split("\n")))
    click.echo(text, nl=False, color=True)  # which keeps names that look like colours
