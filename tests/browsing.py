"""The system's Chromium, driven by Playwright: pages are opened from disk, and may load nothing else."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
)
PHONE = (360, 740)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser that all tests of a module share."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])
        yield browser
        browser.close()


@dataclass
class Seen:
    """A page that is open, what it asked for, and what went wrong in it."""

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def opened(chromium: Any, path: Path, size: tuple[int, int] = (1200, 900), **options: Any) -> Iterator[Seen]:
    """Open a file; at the end nothing must have gone wrong, and nothing but the file have been asked for."""
    context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, **options)
    page = context.new_page()
    seen = Seen(page)
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("dialog", lambda dialog: seen.errors.append(f"{dialog.type}: {dialog.message}"))
    page.on("console", lambda said: seen.errors.append(said.text) if said.type in ("error", "warning") else None)
    try:
        page.goto(path.as_uri())
        yield seen
        asked = {url.partition("#")[0] for url in seen.requests if not url.startswith("data:")}
        assert asked == {path.as_uri()}
        assert seen.errors == []
    finally:
        context.close()
