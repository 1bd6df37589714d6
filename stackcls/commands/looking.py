"""Commands that look at what is there."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from stackcls.errors import ConfigError
from stackcls.exits import DONE, FAILED
from stackcls.options import settings_from, shared_options, show
from stackcls.printable import counted

MOST_EXPLAINED = 30  # and as many of the hold-out: some 600 kB of the page

if TYPE_CHECKING:
    from stackcls.evidence import Search
    from stackcls.explaining import Method


@click.command()
@click.argument("reports", nargs=-1, type=click.Path(path_type=Path), metavar="[REPORT.json ...]")
@shared_options
@click.option("--html", "page", is_flag=True, help="Write one report's page for a browser, anew.")
@click.option(
    "--explain",
    "count",
    type=click.IntRange(0, MOST_EXPLAINED),
    default=0,
    metavar="N",
    help="With --html: beside so many mistakes, those it was surest of, what in the image speaks for the wrong class "
    "and for the right one. Takes seconds for each.",
)
@click.option(
    "--method", type=click.Choice(["occlusion", "gradcam"]), help="How to find that out, as in `explain` [occlusion]."
)
def report(
    reports: tuple[Path, ...],
    config: Path | None,
    overrides: tuple[str, ...],
    artifacts: str | None,
    page: bool,
    count: int,
    method: str | None,
) -> None:
    """Show one report, or several side by side."""
    from stackcls.stages import compare

    if count and not page:
        raise click.UsageError("--explain adds pictures to a page; give --html too")
    if method and not count:
        raise click.UsageError("--method says how --explain works; give --explain N too")
    if page:
        if len(reports) > 1:
            raise ConfigError(f"--html: makes the page of one report, not of {len(reports)}; give one")
        settings = settings_from(config, overrides, artifacts=artifacts)
        search = _search(count, cast("Method", method or "occlusion")) if count else None
        click.echo(f"wrote {compare.write_page(reports[0] if reports else settings.files.report, settings, search)}")
        return
    paths = reports or (settings_from(config, overrides, artifacts=artifacts).files.report,)
    click.echo(compare.run(paths), nl=False)


def _search(count: int, method: "Method") -> "Search":
    from stackcls.console import Console
    from stackcls.evidence import Search

    return Search(count, method, Console())


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGE...")
@shared_options
@click.option("--backbone", metavar="NAME", help="Compare features of this backbone [the mean over all].")
@click.option("--stack", is_flag=True, help="Compare what the stack thinks they are instead; it knows the classes.")
@click.option("--exact", is_flag=True, help="Compare with all images; beyond 100,000 an index answers otherwise.")
@click.option("-k", "k", type=click.IntRange(1), default=10, show_default=True, help="Images to find for each.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--sheet", type=click.Path(path_type=Path), metavar="FILE.png", help="Also draw them as a contact sheet.")
@click.option(
    "--matrix",
    type=click.Path(path_type=Path),
    metavar="FILE.npy",
    help="Also write the similarities of all images to all; rows and columns are the images of features.h5, sorted by "
    "path, as `/images/path` there lists them.",
)
def similar(
    inputs: tuple[str, ...],
    config: Path | None,
    overrides: tuple[str, ...],
    artifacts: str | None,
    backbone: str | None,
    stack: bool,
    exact: bool,
    k: int,
    form: str,
    sheet: Path | None,
    matrix: Path | None,
) -> int:
    """Find the images of features.h5 that are most similar to given ones."""
    from stackcls.console import Console
    from stackcls.stages import similar as stage

    settings, console = settings_from(config, overrides, artifacts=artifacts), Console()
    found = stage.run(
        inputs,
        settings,
        backbone=backbone,
        stack=stack,
        exact=exact,
        k=k,
        sheet=sheet,
        matrix=matrix,
        listener=console,
    )
    if sheet:
        console.say(f"wrote {sheet}")
    if matrix:
        console.say(f"wrote {matrix}")
    click.echo(stage.WRITERS[form](found), nl=False, color=True)
    return FAILED if any(item.error for item in found) else DONE


@click.command("map")
@shared_options
@click.option("--backbone", metavar="NAME", help="Lay out by features of this backbone [all together].")
@click.option("--stack", is_flag=True, help="Lay out by what the stack thinks they are instead.")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", help="Where to write [the artifacts' folder]."
)
def draw_map(
    config: Path | None,
    overrides: tuple[str, ...],
    artifacts: str | None,
    backbone: str | None,
    stack: bool,
    output: Path | None,
) -> None:
    """Draw all images of features.h5 in a plane, similar ones together: PNG, SVG, table, and a page to explore."""
    from stackcls.console import Console
    from stackcls.stages import map as stage

    settings = settings_from(config, overrides, artifacts=artifacts)
    result = stage.run(settings, backbone=backbone, stack=stack, output=output, listener=Console())
    click.echo(f"wrote {', '.join(str(path) for path in result.files)}: {counted(result.n_images, 'image')}")


@click.command()
@shared_options
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@click.option("--sheet", type=click.Path(path_type=Path), metavar="FILE.png", help="Also draw them as a contact sheet.")
def duplicates(
    config: Path | None, overrides: tuple[str, ...], artifacts: str | None, form: str, sheet: Path | None
) -> None:
    """Find images of features.h5 that are the same, or nearly."""
    from stackcls.console import Console
    from stackcls.stages import duplicates as stage

    settings, console = settings_from(config, overrides, artifacts=artifacts), Console()
    groups = stage.run(settings, sheet=sheet, listener=console)
    console.say(f"{counted(len(groups), 'group')} of duplicates, {counted(sum(map(len, groups)), 'image')}")
    if sheet:
        console.say(f"wrote {sheet}")
    show(stage.WRITERS[form](groups))


@click.command()
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
    show(stage.WRITERS[form](results))
    return DONE if all(item.sound for item in results) else FAILED
