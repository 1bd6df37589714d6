"""The command line: with `commands`, `options`, `console` and `exits`, all that prints, exits, or makes a message."""

import sys
from typing import NoReturn

import click

from stackcls import __version__, exits, waiting
from stackcls.commands import applying, explaining, learning, looking, tuning
from stackcls.console import Console


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Learn to classify images from what several frozen, pretrained CNNs see in them."""


for module in (learning, tuning, applying, looking, explaining):
    for command in vars(module).values():
        if isinstance(command, click.Command):
            cli.add_command(command)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and exit."""
    waiting.tell_to(Console().say)
    sys.exit(exits.run(cli, sys.argv[1:] if arguments is None else arguments))
