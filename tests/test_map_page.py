"""The page of a map in a browser: it draws, shows images on hover, hides classes, and asks no network for anything."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stackcls import thumbnails
from stackcls.report import mappage
from stackcls.report.maps import Map
from stackcls.settings import Limits
from tests.browsing import needs_chromium
from tests.conftest import write_photo

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")

ODD = "<img src=x onerror=alert(1)>"
FORMULA = "$$x^2$$"
LABELS = ["ant", FORMULA, ODD, "猫"]
# Where a point is on the screen, in pixels of the page.
PLACE = """row => {
  const points = Bokeh.documents[0].get_model_by_name("points");
  const plot = Bokeh.index.find_one(Bokeh.documents[0].roots()[0]);
  const canvas = plot.canvas_view.el.getBoundingClientRect();
  const [x, y] = ["x", "y"].map((name) => points.data_source.data[name][row]);
  return [canvas.x + plot.frame.x_scale.compute(x), canvas.y + plot.frame.y_scale.compute(y)];
}"""

pytestmark = [pytest.mark.slow, needs_chromium]


@dataclass
class Opened:
    """A page in a browser, and what happened in it."""

    page: Any
    troubles: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: Path) -> None:
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.troubles.append(said.text))
        self.page.on("dialog", lambda dialog: self.troubles.append(dialog.message) or dialog.dismiss())
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-ready]", timeout=60_000)
        self.page.wait_for_timeout(500)

    def point(self, row: int) -> None:
        self.page.mouse.move(*self.page.evaluate(PLACE, row), steps=3)
        self.page.wait_for_timeout(400)

    def inked(self, colour: tuple[int, int, int]) -> int:
        """Pixels of a colour, as drawn at 80 % over white."""
        import io

        from PIL import Image

        image = Image.open(io.BytesIO(self.page.locator("#plot").screenshot())).convert("RGB")
        over_white = np.array(colour) * 0.8 + 255 * 0.2
        return int((np.abs(np.asarray(image) - over_white).max(axis=2) < 12).sum())


@pytest.fixture
def opened(chromium, tmp_path):
    """A map of four classes of ten images, in two of which the last image is a mistake."""
    count = 10
    places = np.array([(5 * c + n % 4, n // 4) for c in range(len(LABELS)) for n in range(count)], dtype=np.float32)
    labels = tuple(label for label in LABELS for _ in range(count))
    predicted = list(labels)
    predicted[9], predicted[19] = ODD, "ant"
    names = [f"{number:02d} {ODD}.png" for number in range(len(labels))]
    files = [write_photo(tmp_path / f"{n}.png", (6 * n, 100, 50), n) for n in range(len(labels))]
    drawn = Map("a title <b>", places, tuple(names), labels, tuple(predicted))
    small = thumbnails.thumbnails(files, Limits(10**6, 10), 24)
    mappage.save(drawn, [path.name for path in files], small, tmp_path / "map.html")
    assert mappage.is_page(tmp_path / "map.html")
    page = chromium.new_page(viewport={"width": 1100, "height": 700})
    found = Opened(page)
    found.open(tmp_path / "map.html")
    yield found
    page.close()


def test_it_draws_all_classes_and_asks_for_nothing(opened):
    assert opened.troubles == []
    assert [url.rsplit("/", 1)[1] for url in opened.requests] == ["map.html"]
    assert opened.inked((0x44, 0x77, 0xAA)) > 200
    assert opened.inked((0xEE, 0x66, 0x77)) > 200
    assert opened.page.title() == "a title <b>"
    shown = opened.page.locator("aside label").all_inner_texts()
    assert any(ODD in text for text in shown)
    assert any(FORMULA in text for text in shown)
    assert "10, 1 wrong" in shown[2]


def test_pointing_at_an_image_shows_it_and_says_what_it_is(opened):
    for row, lines in ((3, ["ant", "recognised", f"03 {ODD}.png"]), (9, ["ant", f"taken for {ODD}", f"09 {ODD}.png"])):
        opened.point(row)
        tip = opened.page.locator("#tip")
        assert tip.is_visible()
        assert tip.locator("p").all_inner_texts() == lines
        assert tip.locator("img").evaluate("image => image.naturalWidth") == 24
    opened.page.mouse.move(5, 5)
    opened.page.wait_for_timeout(400)
    assert not opened.page.locator("#tip").is_visible()
    assert opened.troubles == []
    assert all(url.startswith(("file:", "data:")) for url in opened.requests)


def test_the_legend_hides_classes_and_shows_only_mistakes(opened):
    blue, red, purple = (0x44, 0x77, 0xAA), (0xEE, 0x66, 0x77), (0xCC, 0xBB, 0x44)
    every = opened.inked(blue)
    first = opened.page.locator("input.class").first
    first.focus()
    opened.page.keyboard.press("Space")
    opened.page.wait_for_timeout(400)
    assert opened.inked(blue) == 0
    assert opened.inked(red) > 200
    opened.page.get_by_role("button", name="hide all").click()
    opened.page.wait_for_timeout(400)
    assert opened.inked(red) == opened.inked(purple) == 0
    opened.page.get_by_role("button", name="show all").click()
    opened.page.get_by_label("only mistakes").check()
    opened.page.wait_for_timeout(400)
    assert 0 < opened.inked(blue) < every / 4
    assert opened.inked(purple) == 0
    assert opened.troubles == []


def test_a_click_opens_the_image(opened):
    with opened.page.context.expect_page() as waiting:
        opened.page.mouse.click(*opened.page.evaluate(PLACE, 12))
    assert waiting.value.url.endswith("/12.png")


def test_nothing_keeps_people_out(opened):
    found = axe.Axe().run(opened.page)
    assert found.violations_count == 0, found.generate_report()
