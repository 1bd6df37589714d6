"""The command line: with `console` and `exits`, all that prints, exits, or turns an error into a message."""

import io
import sys
from pathlib import Path
from typing import NoReturn

import click

from stackcls import __version__, exits
from stackcls.exits import DONE, FAILED
from stackcls.options import model_from, model_option, settings_from, shared_options, strict_option
from stackcls.printable import printable


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Learn to classify images from what several frozen, pretrained CNNs see in them."""


@cli.command()
@click.argument("target", type=click.Path(path_type=Path), default="pipeline.yaml")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(target: Path, force: bool) -> None:
    """Write a commented pipeline.yaml."""
    from stackcls.stages import init as stage

    click.echo(f"wrote {stage.run(target, force=force)}")


@cli.command()
@shared_options
@click.option("--images", metavar="PATH", help="Class folders, a manifest or a CUB-200-2011 folder.")
@click.option("--dry-run", is_flag=True, help="Only say what would be computed.")
@click.option("--offline", is_flag=True, help="Never fetch weights.")
@click.option("--replace", is_flag=True, help="Let finished features be replaced or dropped.")
@click.option("--refit", is_flag=True, help="Fit 8-bit ranges anew on the images as they are now.")
@strict_option
def features(
    config: Path | None,
    overrides: tuple[str, ...],
    artifacts: str | None,
    images: str | None,
    dry_run: bool,
    offline: bool,
    replace: bool,
    refit: bool,
    strict: bool,
) -> int:
    """Turn images into features: one matrix per backbone in features.h5."""
    from stackcls.console import Console
    from stackcls.stages import features as stage

    console = Console()
    settings = settings_from(config, overrides, artifacts=artifacts, images=images)
    result = stage.run(settings, dry_run=dry_run, offline=offline, replace=replace, refit=refit, listener=console)
    console.list_rejected(dict(result.rejected))
    if dry_run:
        click.echo(f"would compute {sum(result.computed.values())} rows, reuse {sum(result.reused.values())}")
    else:
        verb = "wrote" if result.written else "nothing new for"
        click.echo(
            f"{verb} {result.path}: {result.n_images} images, {result.n_classes} classes, "
            f"{len(result.computed)} backbones, {result.seconds:.1f} s"
        )
    return FAILED if strict and result.rejected else DONE


@cli.command()
@shared_options
@click.option("--cv", "folds", metavar="N", help="Number of folds.")
@click.option("--seed", metavar="N", help="Seed of the folds.")
@click.option("--recipe", metavar="NAME", help="in-sample (the article's) or out-of-fold.")
@click.option("--class-weight", metavar="NAME", help="balanced: rare classes weigh as much as frequent ones.")
@click.option("--baseline", type=click.Choice(["linear-svm"]), help="Also score this on each backbone's features.")
def fit(
    config: Path | None,
    overrides: tuple[str, ...],
    artifacts: str | None,
    folds: str | None,
    seed: str | None,
    recipe: str | None,
    class_weight: str | None,
    baseline: str | None,
) -> None:
    """Fit the stack, and score it beside every single backbone on the same folds."""
    from stackcls.console import Console
    from stackcls.report import text
    from stackcls.stages import fit as stage

    keys = {"cv.folds": folds, "cv.seed": seed, "stack.recipe": recipe, "stack.class_weight": class_weight}
    options = [f"{key}={value}" for key, value in keys.items() if value is not None]
    settings = settings_from(config, (*overrides, *options), artifacts=artifacts)
    result = stage.run(settings, baseline=baseline, listener=Console())
    click.echo(text.summary(result.report), nl=False)
    click.echo(f"\nwrote {', '.join(str(path) for path in result.files)}")


@cli.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGE_OR_FOLDER...")
@shared_options
@model_option
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Labels to name for each image.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@strict_option
def predict(
    inputs: tuple[str, ...],
    config: Path | None,
    overrides: tuple[str, ...],
    artifacts: str | None,
    model_path: Path | None,
    top: int,
    form: str,
    strict: bool,
) -> int:
    """Predict the classes of images, of all images in a folder, or of paths on standard input (-)."""
    from stackcls.console import Console
    from stackcls.stages import predict as stage

    path, chosen = model_from(model_path, config, overrides, artifacts)
    stream = io.TextIOWrapper(sys.stdin.buffer, "utf-8", "surrogateescape") if "-" in inputs else ()
    rows = list(stage.run(inputs, path, top=top, features=chosen, standard_input=stream, listener=Console()))
    _show(stage.WRITERS[form](rows))
    bad = sum(row.error is not None for row in rows)
    if bad:
        click.echo(f"warning: {bad} of {len(rows)} images could not be read", err=True)
    return FAILED if strict and bad else DONE


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@shared_options
@model_option
@click.option("--output", type=click.Path(path_type=Path), help="Also write the report as JSON.")
@strict_option
def evaluate(
    folder: Path,
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


@cli.command()
@click.argument("reports", nargs=-1, type=click.Path(path_type=Path), metavar="[REPORT.json ...]")
@shared_options
def report(reports: tuple[Path, ...], config: Path | None, overrides: tuple[str, ...], artifacts: str | None) -> None:
    """Show one report, or several side by side."""
    from stackcls.stages import compare

    paths = reports or (settings_from(config, overrides, artifacts=artifacts).files.report,)
    click.echo(compare.run(paths), nl=False)


@cli.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGE...")
@shared_options
@click.option("--backbone", metavar="NAME", help="Compare features of this backbone [the mean over all].")
@click.option("-k", "k", type=click.IntRange(1), default=10, show_default=True, help="Images to find for each.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--sheet", type=click.Path(path_type=Path), metavar="FILE.png", help="Also draw them as a contact sheet.")
@click.option("--matrix", type=click.Path(path_type=Path), metavar="FILE.npy", help="Also write all similarities.")
def similar(
    inputs: tuple[str, ...],
    config: Path | None,
    overrides: tuple[str, ...],
    artifacts: str | None,
    backbone: str | None,
    k: int,
    form: str,
    sheet: Path | None,
    matrix: Path | None,
) -> int:
    """Find the images of features.h5 that are most similar to given ones."""
    from stackcls.console import Console
    from stackcls.stages import similar as stage

    settings, console = settings_from(config, overrides, artifacts=artifacts), Console()
    found = stage.run(inputs, settings, backbone=backbone, k=k, sheet=sheet, matrix=matrix, listener=console)
    if sheet:
        console.say(f"wrote {sheet}")
    if matrix:
        console.say(f"wrote {matrix}")
    click.echo(stage.WRITERS[form](found), nl=False, color=True)
    return FAILED if any(item.error for item in found) else DONE


@cli.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[STORE_OR_MODEL ...]")
@shared_options
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check(
    paths: tuple[Path, ...], config: Path | None, overrides: tuple[str, ...], artifacts: str | None, form: str
) -> int:
    """Verify feature files and models, and say what they are."""
    from stackcls.console import Console
    from stackcls.stages import check as stage

    paths = paths or (settings_from(config, overrides, artifacts=artifacts).files.folder,)
    results = stage.run(paths, listener=Console())
    _show(stage.WRITERS[form](results))
    return DONE if all(item.sound for item in results) else FAILED


@cli.command()
def backbones() -> None:
    """List what can be named in `backbones:`."""
    from stackcls.stages import catalogue

    click.echo(catalogue.run(), nl=False)


@cli.command()
@shared_options
@click.option("--offline", is_flag=True, help="Only verify; fetch nothing.")
def weights(config: Path | None, overrides: tuple[str, ...], artifacts: str | None, offline: bool) -> None:
    """Fetch and verify the weights that the configured backbones need."""
    from stackcls.console import Console
    from stackcls.stages import weights as stage

    for row in stage.run(settings_from(config, overrides, artifacts=artifacts), offline=offline, listener=Console()):
        what = "fetched" if row.fetched else "there"
        click.echo(f"{row.name}: {what}: {row.path or 'no file needed'} ({row.sha256})")


@cli.command()
@click.option("--folder", type=click.Path(path_type=Path), default="demo", show_default=True, help="Where to work.")
def demo(folder: Path) -> None:
    """Run the whole job offline, on handwritten digits and four small backbones, in about a minute."""
    from stackcls.console import Console
    from stackcls.report import text
    from stackcls.stages import demo as stage
    from stackcls.stages import features as features_stage
    from stackcls.stages import fit as fit_stage
    from stackcls.stages import predict as predict_stage

    console = Console()
    data = stage.prepare(folder)
    console.say(f"wrote digits as PNG files to {data.images}")
    features_stage.run(data.settings, offline=True, replace=True, listener=console)
    result = fit_stage.run(data.settings, listener=console)
    click.echo(text.summary(result.report))
    rows = predict_stage.run([str(data.new_images)], data.settings.files.safe_model, top=3, listener=console)
    click.echo(predict_stage.as_table(rows))
    click.echo(f"The model and its report are in {data.settings.artifacts}.\n\n{stage.CLOSING}", nl=False)


def _show(text: str) -> None:
    """Print what programs may read: names as they are, but for what would act on a terminal where there is one."""
    if sys.stdout.isatty():
        text = "\n".join(map(printable, text.split("\n")))
    click.echo(text, nl=False, color=True)  # which keeps names that look like colours


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and exit."""
    sys.exit(exits.run(cli, sys.argv[1:] if arguments is None else arguments))
