"""`stackcls report`: one report as a table or a page, or several side by side."""

from collections.abc import Sequence
from pathlib import Path

from stackcls import page, runtables
from stackcls.artifacts import Artifacts
from stackcls.errors import ConfigError
from stackcls.evidence import Search
from stackcls.files import write_text
from stackcls.report import curves, html, text
from stackcls.report.results import Report
from stackcls.report.tuned import Tuned, is_tuned
from stackcls.runtables import Tables
from stackcls.settings import Settings


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


def write_page(path: Path, settings: Settings, search: Search | None = None) -> Path:
    """Write a report's page beside it, again or for the first time; other files than pages are not replaced.

    Parameters
    ----------
    path : Path
        A report. The tables beside it are shown too, as far as they are there.
    settings : Settings
        Which say where the images are.
    search : Search, optional
        How to look for what made the stack err; by default that is left out.

    Returns
    -------
    Path
        The page, named as the report is.

    Raises
    ------
    SourceError
        If it is no report, or the tables beside it are not of the same run.
    ConfigError
        If something else has the page's name.
    """
    if is_tuned(path):
        raise ConfigError(f"--html: {path} is of `finetune`, whose reports have no page; curves.png lies beside it")
    target = path.with_suffix(".html")
    if target.exists() and not html.is_page(target):
        raise ConfigError(f"--html: {target} is there, and not written by this command; move it away")
    report, files = Report.load(path), Artifacts(path.parent)
    tables = runtables.read(files, report) if report.kind == "cross-validation" else Tables()
    write_text(target, page.make(report, tables, settings, files, search))
    return target


def _short_names(paths: Sequence[Path]) -> list[str]:
    """File names where they differ, else folders with them, else whole paths with a number."""
    for names in ([path.stem for path in paths], [f"{path.parent.name}/{path.stem}" for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {path}" for number, path in enumerate(paths, 1)]
