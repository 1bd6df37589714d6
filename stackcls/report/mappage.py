"""A map of images as one page that needs no network: pan, zoom, small pictures on hover, classes to hide."""

import base64
import typing
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stackcls.files import write_text
from stackcls.report.maps import Map

if typing.TYPE_CHECKING:
    from bokeh.plotting import figure

GENERATOR = '<meta name="generator" content="stackcls map">'
HEAD = 4096
POINT, RING = 8, 13
MOVING = 1000  # points that are drawn while the plot is dragged or zoomed, so that it stays fluid with any number
MANY = 20_000  # points, which are drawn smaller


def save(drawn: Map, links: Sequence[str | None], pictures: Sequence[bytes | None], path: Path) -> None:
    """Write the page.

    Parameters
    ----------
    drawn : Map
    links : sequence of str or None
        Of each image, relative to the page.
    pictures : sequence of bytes or None
        Small ones, as WebP.
    path : Path
        Written whole, or not at all.
    """
    import jinja2
    from bokeh.core.types import ID
    from bokeh.embed import json_item
    from bokeh.resources import Resources

    folder = Path(__file__).with_name("page")
    pages = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True)
    pages.policies["json.dumps_kwargs"] = {"sort_keys": False}  # Bokeh defines before it refers
    library = Resources(mode="inline", components=["bokeh"], log_level="error")
    data = {
        "plot": json_item(_figure(drawn), ID("plot")),
        "paths": drawn.paths,
        "classes": [group.name for group in drawn.groups],
        "class": _class_of(drawn).tolist(),
        "predicted": drawn.predicted,
        "mistaken": np.flatnonzero(drawn.mistaken).tolist(),
        "links": list(links),
        "pictures": [None if item is None else base64.b64encode(item).decode() for item in pictures],
    }
    html = pages.get_template("map.html").render(
        drawn=drawn,
        n_mistakes=int(drawn.mistaken.sum()),
        library="\n".join(library.js_raw),
        script=(folder / "map.js").read_text("utf-8"),
        data=data,
    )
    write_text(path, html)


def is_page(path: Path) -> bool:
    """Whether a file is a page that `save` wrote."""
    try:
        with open(path, "rb") as file:
            return GENERATOR.encode() in file.read(HEAD)
    except OSError:
        return False


def _class_of(drawn: Map) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    classes = np.zeros(len(drawn.paths), dtype=np.int64)
    for number, group in enumerate(drawn.groups):
        classes[group.rows] = number
    return classes


def _figure(drawn: Map) -> "figure":
    """The plot without its texts, which the page has, since Bokeh would set some names as formulas.

    It is drawn without WebGL, which is faster on a graphics card and fifty times slower where the processor stands in
    for one.
    """
    from bokeh.models import BooleanFilter, CDSView, ColumnDataSource, HoverTool, TapTool
    from bokeh.plotting import figure

    plot = figure(
        lod_factor=max(1, len(drawn.paths) // MOVING),
        sizing_mode="stretch_both",
        tools="pan,wheel_zoom,box_zoom,reset",
        active_scroll="wheel_zoom",
        match_aspect=True,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        toolbar_location="above",
    )
    plot.axis.visible = plot.grid.visible = False
    plot.toolbar.logo = None
    classes, groups = _class_of(drawn), drawn.groups
    source = ColumnDataSource(
        {
            "x": drawn.places[:, 0],
            "y": drawn.places[:, 1],
            "colour": [groups[number].colour for number in classes],
            "shape": [groups[number].shape.page for number in classes],
        },
        name="images",
    )
    size = 1 if len(classes) <= MANY else 0.5
    shown = BooleanFilter(booleans=[True] * len(classes), name="shown")
    points = plot.scatter(
        "x",
        "y",
        source=source,
        view=CDSView(filter=shown),
        marker="shape",
        color="colour",
        size=POINT * size,
        fill_alpha=0.8,
        line_alpha=0.8,
        name="points",
    )
    wrong = np.flatnonzero(drawn.mistaken)
    ringed = BooleanFilter(booleans=[True] * len(wrong), name="ringed")
    rings = plot.scatter(
        "x",
        "y",
        source=ColumnDataSource({"x": drawn.places[wrong, 0], "y": drawn.places[wrong, 1]}),
        view=CDSView(filter=ringed),
        marker="circle",
        size=RING * size,
        fill_color=None,
        line_width=1.5,
        name="rings",
    )
    for renderer in (points, rings):
        renderer.nonselection_glyph = renderer.selection_glyph = None
    plot.add_tools(HoverTool(tooltips=None, renderers=[points]), TapTool(renderers=[points]))
    return plot
