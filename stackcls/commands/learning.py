"""Commands that end in a model: from settings and images to features, and from features to a fitted stack."""

import re
from itertools import pairwise
from pathlib import Path

import click

from stackcls.exits import DONE, FAILED
from stackcls.options import Option, as_text, settings_from, shared_options, strict_option
from stackcls.printable import counted

MINUTES = "10"  # for which `fit --tune` looks where no number is given


cluster_option = click.option(
    "--cluster", metavar="WHERE", help="Dask scheduler (tcp://host:8786), or local:N for N processes here."
)


def _at(cluster: str | None) -> Option:
    return as_text("--cluster", "cluster.address", cluster)


@click.command()
@click.argument("target", type=click.Path(path_type=Path), default="pipeline.yaml")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(target: Path, force: bool) -> None:
    """Write a commented pipeline.yaml."""
    from stackcls.stages import init as stage

    click.echo(f"wrote {stage.run(target, force=force)}")


@click.command()
@shared_options
@click.option(
    "--images", metavar="PATH", help="Class folders, a manifest, a CUB-200-2011 folder or .tar shards; a path or a URL."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be computed.")
@click.option("--offline", is_flag=True, help="Never fetch weights.")
@click.option("--replace", is_flag=True, help="Let finished features be replaced or dropped.")
@cluster_option
@click.option("--refit", is_flag=True, help="Fit 8-bit ranges and principal components anew on the images of now.")
@strict_option
def features(
    config: Path | None,
    overrides: tuple[str, ...],
    artifacts: str | None,
    images: str | None,
    dry_run: bool,
    offline: bool,
    replace: bool,
    cluster: str | None,
    refit: bool,
    strict: bool,
) -> int:
    """Turn images into features: one matrix per backbone in features.h5."""
    from stackcls.console import Console
    from stackcls.stages import features as stage

    console = Console()
    settings = settings_from(config, overrides, [_at(cluster)], artifacts=artifacts, images=images)
    result = stage.run(settings, dry_run=dry_run, offline=offline, replace=replace, refit=refit, listener=console)
    console.list_rejected(dict(result.rejected))
    if dry_run:
        click.echo(
            f"would compute {counted(sum(result.computed.values()), 'row')}, reuse {sum(result.reused.values())}"
        )
    else:
        verb = "wrote" if result.written else "nothing new for"
        click.echo(
            f"{verb} {result.path}: {counted(result.n_images, 'image')}, "
            f"{counted(result.n_classes, 'class', 'classes')}, {counted(len(result.computed), 'backbone')}, "
            f"{result.seconds:.1f} s"
        )
    return FAILED if strict and result.rejected else DONE


class _Fit(click.Command):
    """A command whose `--tune` may stand alone, after which click takes a negative number for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as any command does, after a look at what follows `--tune`."""
        for item, following in pairwise([*args, ""]):
            minutes = following if item == "--tune" else item.removeprefix("--tune=") if "=" in item else ""
            if re.fullmatch(r"-\.?[0-9].*", minutes):
                raise click.UsageError(
                    f"--tune: {minutes} does not do: minutes, a number greater than 0, are needed", ctx
                )
        return super().parse_args(ctx, args)


@click.command(cls=_Fit)
@shared_options
@click.option("--cv", "folds", metavar="N", help="Number of folds.")
@click.option("--seed", metavar="N", help="Seed of the folds.")
@click.option("--recipe", metavar="NAME", help="in-sample (the article's) or out-of-fold.")
@click.option("--class-weight", metavar="NAME", help="balanced: rare classes weigh as much as frequent ones.")
@click.option("--holdout", metavar="SHARE", help="Score this share once, unseen (0.1), or those that `split` names.")
@click.option("--baseline", type=click.Choice(["linear-svm"]), help="Also score this on each backbone's features.")
@click.option("--report", "depth", metavar="NAME", help="quick: leave out what takes long; full: do it all.")
@click.option(
    "--tune",
    is_flag=False,
    flag_value=MINUTES,
    metavar="[MINUTES]",
    help=f"Choose C, recipe and meta-classifier by inner cross-validation, in about so many minutes [{MINUTES}].",
)
@cluster_option
def fit(
    config: Path | None,
    overrides: tuple[str, ...],
    artifacts: str | None,
    folds: str | None,
    seed: str | None,
    recipe: str | None,
    class_weight: str | None,
    holdout: str | None,
    baseline: str | None,
    depth: str | None,
    tune: str | None,
    cluster: str | None,
) -> None:
    """Fit the stack, and score it beside every single backbone on the same folds."""
    from stackcls.console import Console
    from stackcls.report import text
    from stackcls.stages import fit as stage

    given = [
        ("--cv", "cv.folds", folds),
        ("--seed", "cv.seed", seed),
        ("--holdout", "cv.holdout", holdout),
        ("--report", "report.depth", depth),
        ("--recipe", "stack.recipe", recipe),
        ("--class-weight", "stack.class_weight", class_weight),
        ("--tune", "stack.tune", tune),
    ]
    settings = settings_from(config, overrides, [*given, _at(cluster)], artifacts=artifacts)
    result = stage.run(settings, baseline=baseline, listener=Console())
    click.echo(text.summary(result.report), nl=False)
    click.echo(f"\nwrote to {settings.artifacts}: {', '.join(path.name for path in result.files)}")
    click.echo(f"open {settings.files.page} in a browser to see all of it, with the images")


@click.command()
def backbones() -> None:
    """List what can be named in `backbones:`."""
    from stackcls.stages import catalogue

    click.echo(catalogue.run(), nl=False)


@click.command()
@shared_options
@click.option("--offline", is_flag=True, help="Only verify; fetch nothing.")
def weights(config: Path | None, overrides: tuple[str, ...], artifacts: str | None, offline: bool) -> None:
    """Fetch and verify the weights that the configured backbones need."""
    from stackcls.console import Console
    from stackcls.stages import weights as stage

    for row in stage.run(settings_from(config, overrides, artifacts=artifacts), offline=offline, listener=Console()):
        what = "fetched" if row.fetched else "there"
        click.echo(f"{row.name}: {what}: {row.path or 'no file needed'} ({row.sha256})")


@click.command()
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
    files = data.settings.files
    click.echo(f"The model and its report are in {files.folder}; open {files.page} in a browser.")
    click.echo(f"\n{stage.CLOSING}", nl=False)
