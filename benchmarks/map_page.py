"""Size of the page of a map, how soon it is drawn, and drawings per second while it is dragged and zoomed.

    python benchmarks/map_page.py [--images 1000 10000 100000] [--chromium /usr/bin/chromium]

The points are generated; the small pictures are 500 bytes of noise each, as real ones of 32 pixels. There is no
GPU. On a machine in use, processor time per drawing says more than drawings per second.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from playwright.sync_api import sync_playwright

from stackcls.report import mappage
from stackcls.report.maps import Map

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PICTURES_UP_TO = 12_000
# Counts how often Bokeh draws.
DRAWN = """() => { window.drawn = 0; const view = Bokeh.index.find_one(Bokeh.documents[0].roots()[0]);
  const paint = view.paint.bind(view); view.paint = (...all) => { window.drawn += 1; return paint(...all); }; }"""


def write(folder: Path, count: int) -> Path:
    """Write the page of so many images in 50 classes."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 50, count)
    places = (rng.normal(size=(50, 2)) * 40)[classes] + rng.normal(size=(count, 2)) * 3
    labels = tuple(f"class {number}" for number in classes)
    predicted = [f"class {number}" for number in np.where(rng.random(count) < 0.05, (classes + 1) % 50, classes)]
    paths = tuple(f"{label}/{row:06d}.jpg" for row, label in enumerate(labels))
    pictures = [rng.bytes(500) if count <= PICTURES_UP_TO else None for _ in range(count)]
    mappage.save(
        Map("map", places.astype(np.float32), paths, labels, tuple(predicted)), paths, pictures, folder / "map.html"
    )
    return folder / "map.html"


def processor_seconds() -> float:
    """What the browser's processes have taken."""
    return sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children(recursive=True))


def measure(browser: object, path: Path) -> str:
    """Open, drag and zoom for two seconds each."""
    page = browser.new_page(viewport={"width": 1300, "height": 850})  # type: ignore[attr-defined]
    start = time.perf_counter()
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]", timeout=120_000)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    opened = time.perf_counter() - start
    page.evaluate(DRAWN)
    said = [f"open and drawn in {opened:.1f} s"]
    for what in ("drag", "zoom"):
        page.mouse.move(500, 450)
        if what == "drag":
            page.mouse.down()
        used = processor_seconds()
        before, start, step = page.evaluate("window.drawn"), time.perf_counter(), 0
        while time.perf_counter() - start < 2:
            step += 1
            if what == "drag":
                page.mouse.move(500 + step % 40 * 5, 450 + step % 30 * 4)
            else:
                page.mouse.wheel(0, 40 if step // 10 % 2 else -40)
        seconds = time.perf_counter() - start
        page.mouse.up()
        drawn = page.evaluate("window.drawn") - before
        each = 1000 * (processor_seconds() - used) / max(drawn, 1)
        said.append(f"{what} {drawn / seconds:.0f} drawings/s of {each:.0f} ms of processor time")
    page.close()
    return ", ".join(said)


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=arguments.chromium, args=FLAGS)
        for count in arguments.images:
            path = write(Path(name), count)
            print(f"{count} images, {path.stat().st_size / 1e6:.1f} MB: {measure(browser, path)}", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
