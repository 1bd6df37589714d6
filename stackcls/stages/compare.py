"""`stackcls report`: one report as a table, or several side by side."""

from collections.abc import Sequence
from pathlib import Path

from stackcls.report import text
from stackcls.report.results import Report


def run(paths: Sequence[Path]) -> str:
    """Read reports and return them as text.

    Parameters
    ----------
    paths : sequence of Path
        Files that `stackcls fit` or `stackcls evaluate --output` wrote.

    Raises
    ------
    SourceError
        If one of them is no report.
    """
    reports = [Report.load(path) for path in paths]
    if len(reports) == 1:
        return text.summary(reports[0])
    return text.side_by_side(dict(zip(_short_names(paths), reports, strict=True)))


def _short_names(paths: Sequence[Path]) -> list[str]:
    """File names where they differ, else folders with them, else whole paths with a number."""
    for names in ([path.stem for path in paths], [f"{path.parent.name}/{path.stem}" for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {path}" for number, path in enumerate(paths, 1)]
