"""The command that looks into a model's decisions and networks."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from stackcls.exits import DONE, FAILED
from stackcls.options import model_from, model_option, shared_options, show, strict_option
from stackcls.printable import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackcls.explaining import Method
    from stackcls.stages.explain import Explained
    from stackcls.stages.visualise import Drawn


@click.command()
@click.argument("inputs", nargs=-1, metavar="IMAGE...")
@shared_options
@model_option
@click.option("--class", "asked", metavar="NAME", help="The class to explain [the predicted one].")
@click.option(
    "--method",
    type=click.Choice(["occlusion", "gradcam"]),
    help="Cover windows of the picture, or read the last feature maps: far faster, for pooled features only "
    "[occlusion].",
)
@click.option(
    "--layer", metavar="NAME", help="Instead, draw what this layer gives, as a contact sheet of its channels."
)
@click.option("--dream", metavar="LAYER[:UNIT]", help="Instead, draw what it responds to most; needs no image.")
@click.option("--backbone", metavar="NAME", help="Whose layer [of all that have one of that name].")
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="For the pictures [ARTIFACTS/explain].")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@strict_option
def explain(
    inputs: tuple[str, ...],
    config: Path | None,
    overrides: tuple[str, ...],
    artifacts: str | None,
    model_path: Path | None,
    asked: str | None,
    method: str | None,
    layer: str | None,
    dream: str | None,
    backbone: str | None,
    output: Path | None,
    form: str,
    strict: bool,
) -> int:
    """Draw which parts of images made the stack decide, or look into its networks."""
    from stackcls.artifacts import Artifacts
    from stackcls.console import Console
    from stackcls.stages import explain as explaining
    from stackcls.stages import visualise

    _check(inputs, asked or method, layer, dream, backbone)
    path, chosen = model_from(model_path, config, overrides, artifacts)
    folder = output or Artifacts(path.parent).explanations
    console = Console()
    failed: Sequence[Explained | Drawn]
    if layer or dream:
        look = visualise.feature_maps if layer else visualise.dream
        wanted = layer or dream or ""
        drawn = look(inputs, path, folder, wanted, backbone=backbone, features=chosen, listener=console)
        shown, failed = visualise.WRITERS[form](drawn), [item for item in drawn if item.error]
    else:
        how = cast("Method", method or "occlusion")
        found = explaining.run(inputs, path, folder, asked=asked, method=how, features=chosen, listener=console)
        shown, failed = explaining.WRITERS[form](found), [item for item in found if item.error]
    show(shown)
    unwritten = [item for item in failed if item.unwritten]
    if unread := {item.path for item in failed if not item.unwritten}:
        console.warn(f"{len(unread)} of {counted(len(inputs), 'image')} could not be read")
    if unwritten:
        console.warn(f"{counted(len(unwritten), 'picture')} could not be written: {unwritten[0].error}")
    return FAILED if unwritten or (strict and unread) else DONE


def _check(
    inputs: tuple[str, ...], for_maps: str | None, layer: str | None, dream: str | None, backbone: str | None
) -> None:
    if layer and dream:
        raise click.UsageError("--layer and --dream draw different things; give one of them")
    if (layer or dream) and for_maps:
        raise click.UsageError("--class and --method do not go with --layer and --dream, which ask a layer")
    if backbone and not (layer or dream):
        raise click.UsageError("--backbone goes with --layer or --dream; without them every backbone is explained")
    if not inputs and not dream:
        raise click.UsageError("name at least one image; only --dream can do without")
    for given in inputs:
        if os.path.isdir(given):  # noqa: PTH112  (Path.is_dir may raise)
            raise click.UsageError(
                f"{given}: is a folder; name image files, for instance {os.path.join(given, '*.jpg')}"
            )
