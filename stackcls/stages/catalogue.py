"""`stackcls backbones`: what can be named in `backbones:`."""

import json

from stackcls import backbones
from stackcls.report import tables


def rows() -> list[tuple[str, str, int, int, int]]:
    """Name, architecture, input size, feature width and parameters of every known backbone."""
    record = json.loads(backbones.bundled_file("training").with_suffix(".json").read_text("utf-8"))
    known = [
        (item.name, item.architecture, item.input_size, item.width, item.parameters)
        for item in backbones.architectures().values()
    ]
    bundled = [
        (name, "part of stackcls", backbones.BUNDLED_SIZE, record[name]["width"], record[name]["parameters"])
        for name in backbones.BUNDLED
    ]
    return known + bundled


def run() -> str:
    """The same as a table."""
    return tables.table(["name", "architecture", "input size", "features", "parameters"], rows()) + "\n"
