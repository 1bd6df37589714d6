"""Take the pictures of a report's page that the README shows.

python tools/screenshots.py demo/artifacts/report.html docs
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars")
COLOURS = 128


def main() -> None:
    """Take pictures at the widths of a desktop and a phone, in light and dark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--whole", action="store_true", help="Whole pages, for looking at them.")
    chosen = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=[*ARGUMENTS])
        for name, scheme, width, height, show in SHOTS:
            context = chromium.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=1
            )
            page = context.new_page()
            page.goto(chosen.page.resolve().as_uri())
            if not chosen.whole:
                show(page)
            load_pictures(page)
            save(page.screenshot(full_page=chosen.whole), chosen.folder / f"report-{name}.png")
            context.close()


def load_pictures(page: Page) -> None:
    """Decode pictures that wait until they are scrolled to."""
    page.evaluate(
        "Promise.all([...document.images].filter((i) => i.offsetParent).map((i) => (i.loading = 'eager', i.decode())))"
    )


def save(png: bytes, path: Path) -> None:
    """Write a picture with few colours, which is small."""
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def confusion(page: Page) -> None:
    """Show the confusion matrix, and the images of the cell with most mistakes."""
    page.evaluate("document.getElementById('confusion').scrollIntoView({behavior: 'instant'})")
    page.evaluate(
        "[...document.querySelectorAll('.matrix a[class^=e]')]"
        ".sort((a, b) => b.textContent - a.textContent || a.href.localeCompare(b.href))[0].click()"
    )


def mistakes(page: Page) -> None:
    """Show the gallery of mistakes."""
    page.evaluate("document.getElementById('mistakes').scrollIntoView({behavior: 'instant'})")


def top(page: Page) -> None:
    """Show what the page begins with."""
    page.evaluate("scrollTo(0, 0)")


SHOTS = (
    ("light", "light", 1000, 900, top),
    ("dark", "dark", 1000, 760, confusion),
    ("phone", "light", 360, 760, mistakes),
)

if __name__ == "__main__":
    main()
