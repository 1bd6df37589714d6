"""Commands that use a model."""

import io
import sys
from pathlib import Path

import click

from stackcls.exits import DONE, FAILED
from stackcls.options import model_from, model_option, shared_options, show, strict_option
from stackcls.printable import counted


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGE_OR_FOLDER...")
@shared_options
@model_option
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Labels to name for each image.")
@click.option(
    "--reject", type=click.FloatRange(0, 1), metavar="P", help="Answer unknown where a label is right with less than P."
)
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@strict_option
def predict(
    inputs: tuple[str, ...],
    config: Path | None,
    overrides: tuple[str, ...],
    artifacts: str | None,
    model_path: Path | None,
    top: int,
    reject: float | None,
    form: str,
    strict: bool,
) -> int:
    """Predict the classes of images, of all images in a folder, tar file or URL, or of paths on standard input (-)."""
    from stackcls.console import Console
    from stackcls.stages import predict as stage

    path, chosen = model_from(model_path, config, overrides, artifacts)
    stream = io.TextIOWrapper(sys.stdin.buffer, "utf-8", "surrogateescape") if "-" in inputs else ()
    found = stage.run(inputs, path, top=top, reject=reject, features=chosen, standard_input=stream, listener=Console())
    rows = list(found)
    show(stage.WRITERS[form](rows))
    bad = sum(row.error is not None for row in rows)
    if bad:
        click.echo(f"warning: {bad} of {counted(len(rows), 'image')} could not be read", err=True)
    return FAILED if strict and bad else DONE


@click.command()
@click.argument("folder")
@shared_options
@model_option
@click.option("--output", type=click.Path(path_type=Path), help="Also write the report as JSON.")
@strict_option
def evaluate(
    folder: str,
    config: Path | None,
    overrides: tuple[str, ...],
    artifacts: str | None,
    model_path: Path | None,
    output: Path | None,
    strict: bool,
) -> int:
    """Score a model on labelled images that it never saw."""
    from stackcls.console import Console
    from stackcls.report import text
    from stackcls.stages import evaluate as stage

    path, chosen = model_from(model_path, config, overrides, artifacts)
    console = Console()
    report, rejected = stage.run(folder, path, features=chosen, output=output, listener=console)
    console.list_rejected(rejected)
    if output:
        console.say(f"wrote {output}")
    click.echo(text.summary(report), nl=False)
    return FAILED if strict and rejected else DONE
