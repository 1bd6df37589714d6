"""`stackcls report`: one report as a table, or several side by side."""

from collections.abc import Sequence
from pathlib import Path

from stackcls.report import curves, text
from stackcls.report.results import Report
from stackcls.report.tuned import Tuned, is_tuned


def run(paths: Sequence[Path]) -> str:
    """Read reports and return them as text.

    Parameters
    ----------
    paths : sequence of Path
        Files that `stackcls fit`, `stackcls evaluate --output` or `stackcls finetune` wrote.

    Raises
    ------
    SourceError
        If one of them is no report.
    """
    runs = [Tuned.load(path) for path in paths if is_tuned(path)]
    paths = [path for path in paths if not is_tuned(path)]
    reports = [Report.load(path) for path in paths]
    tables = []
    if reports:
        named = dict(zip(_short_names(paths), reports, strict=True))
        tables.append(text.summary(reports[0]) if len(reports) == 1 else text.side_by_side(named))
    if runs:
        tables.append(curves.summary(runs[0]) if len(runs) == 1 else curves.side_by_side(runs))
    return "\n".join(tables)


def _short_names(paths: Sequence[Path]) -> list[str]:
    """File names where they differ, else folders with them, else whole paths with a number."""
    for names in ([path.stem for path in paths], [f"{path.parent.name}/{path.stem}" for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {path}" for number, path in enumerate(paths, 1)]
