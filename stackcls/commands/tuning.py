"""The command that trains a backbone further."""

from pathlib import Path

import click

from stackcls.exits import DONE, FAILED
from stackcls.options import as_text, settings_from, shared_options, strict_option


@click.command()
@click.argument("backbone")
@shared_options
@click.option("--images", metavar="PATH", help="Class folders, a manifest or a CUB-200-2011 folder.")
@click.option("--from", "start", metavar="WEIGHTS", help="imagenet, random, or a file [the backbone's own].")
@click.option("--head-only", is_flag=True, help="Only a new head learns.")
@click.option("--unfreeze", metavar="LAYER", help="Learn from this layer on [all of them].")
@click.option("--share", metavar="SHARE", help="Share of the images that it may see; `fit` leaves these out.")
@click.option("--epochs", metavar="N", help="At most.")
@click.option("--seed", metavar="N", help="Seed of all that is drawn at random.")
@click.option("--name", metavar="NAME", help="Name of the result [the backbone's, with -tuned, -head or -scratch].")
@click.option("--compare", is_flag=True, help="Train from scratch, the head alone, and as said, side by side.")
@click.option("--offline", is_flag=True, help="Never fetch weights.")
@click.option("--replace", is_flag=True, help="Let another result of this name go.")
@strict_option
def finetune(
    backbone: str,
    config: Path | None,
    overrides: tuple[str, ...],
    artifacts: str | None,
    images: str | None,
    start: str | None,
    head_only: bool,
    unfreeze: str | None,
    share: str | None,
    epochs: str | None,
    seed: str | None,
    name: str | None,
    compare: bool,
    offline: bool,
    replace: bool,
    strict: bool,
) -> int:
    """Train one backbone further on a share of the images; the result is an entry of `backbones:`."""
    from stackcls.console import Console
    from stackcls.report import curves
    from stackcls.stages import finetune as stage

    if head_only and unfreeze:
        raise click.UsageError("--head-only and --unfreeze exclude each other; give one of them")
    given = [
        ("--share", "finetune.share", share),
        ("--epochs", "finetune.epochs", epochs),
        ("--seed", "finetune.seed", seed),
        as_text("--from", "finetune.start", start),
        as_text("--unfreeze", "finetune.unfreeze", "none" if head_only else unfreeze),
    ]
    settings = settings_from(config, overrides, given, artifacts=artifacts, images=images)
    console = Console()
    if compare:
        runs, picture = stage.compare(settings, backbone, name=name, offline=offline, replace=replace, listener=console)
        click.echo(curves.side_by_side(runs), nl=False)
        click.echo(f"\nwrote {picture}")
    else:
        runs = [stage.run(settings, backbone, name=name, offline=offline, replace=replace, listener=console)]
        click.echo(curves.summary(runs[0]), nl=False)
        click.echo(f"\nwrote {settings.files.finetuned(runs[0].name).folder}")
    console.list_rejected(dict(runs[0].rejected))
    return FAILED if strict and any(run.rejected for run in runs) else DONE
