"""The page of a report as people meet it: in a browser, by mouse, keyboard and screen reader, on a phone, on paper."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from stackcls.report.results import Report
from stackcls.stages import fit
from tests.browsing import PHONE, needs_chromium, opened
from tests.conftest import needs_shared
from tests.pages import HOSTILE, SECTIONS, Invented, make

pytestmark = needs_chromium

WAYS = pytest.mark.parametrize(
    ("scheme", "size"), [("light", (1200, 900)), ("dark", (1200, 900)), ("light", PHONE), ("dark", PHONE)]
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return replace(make(tmp_path_factory.mktemp("run"), n=90), search=Invented())


@pytest.fixture(scope="module")
def path(run):
    return run.write()


@WAYS
def test_every_section_is_shown_and_nothing_is_wider_than_the_window(chromium, path, scheme, size):
    with opened(chromium, path, size, color_scheme=scheme) as seen:
        for name in SECTIONS:
            assert seen.page.locator(f"#{name} h2").is_visible()
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= size[0]
        widths = seen.page.locator("#mistakes img").evaluate_all("(all) => all.map((one) => one.clientWidth)")
        assert min(widths) > 50
        dark = seen.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (sum(map(int, dark[4:-1].split(","))) < 384) == (scheme == "dark")


@WAYS
def test_axe_finds_nothing(chromium, path, scheme, size):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with opened(chromium, path, size, color_scheme=scheme) as seen:
        seen.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
        results = axe.run(seen.page)
        assert results.violations_count == 0, results.generate_report()
        seen.page.locator(".matrix a").first.click()
        results = axe.run(seen.page)
        assert results.violations_count == 0, results.generate_report()


def test_a_cell_opens_its_images_and_closing_returns_to_it(chromium, run, path):
    counts = np.array(run.report.confusion)
    given, predicted = divmod(int((counts - np.diag(counts.diagonal())).argmax()), len(counts))
    classes = run.report.classes
    with opened(chromium, path) as seen:
        page = seen.page
        cell, dialog = page.locator(f'.matrix a[href="#cell-{given}-{predicted}"]'), page.locator("dialog")
        for close in ("page.keyboard.press('Escape')", "button.click()", "page.mouse.click(5, 5)"):
            cell.click()
            assert dialog.is_visible()
            count = counts[given, predicted]
            images = "1 image" if count == 1 else f"{count} images"
            title = page.locator("dialog h2").inner_text()
            assert title == f"{classes[given]} taken for {classes[predicted]}: {images}"
            pictures = page.locator("dialog img")
            assert pictures.count() == count
            pictures.first.evaluate("(image) => { image.loading = 'eager'; return image.decode() }")
            assert pictures.first.evaluate("(image) => image.naturalWidth") == 24
            names = page.locator("dialog .path").all_inner_texts()
            assert all(name.startswith(f"{classes[given]}/") for name in names)
            eval(close, {"page": page, "button": page.locator("#viewer-close")})
            assert not dialog.is_visible()
            assert cell.evaluate("(link) => link === document.activeElement")
        assert len(page.locator("[id]").evaluate_all("(all) => [...new Set(all.map((one) => one.id))]")) == (
            page.locator("[id]").count()
        )


def column(page, place):
    return page.locator(f"#classes tbody tr > :nth-child({place})").all_inner_texts()


def test_columns_sort_by_mouse_and_keyboard(chromium, path):
    with opened(chromium, path) as seen:
        page = seen.page
        heading = page.locator("#classes th", has_text="precision")
        before = column(page, 1)
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == "ascending"
        values = [float(value) for value in column(page, 2)]
        assert values == sorted(values)
        page.keyboard.press("Enter")
        assert heading.get_attribute("aria-sort") == "descending"
        assert [float(value) for value in column(page, 2)] == sorted(values, reverse=True)
        page.locator("#classes th", has_text="class").locator("button").focus()
        page.keyboard.press("Space")
        assert column(page, 1) == sorted(before)
        assert heading.get_attribute("aria-sort") is None
        page.locator("#classes th", has_text="images").locator("button").click()
        counts = [int(value) for value in column(page, 5)]
        assert counts == sorted(counts, reverse=True)


def test_the_matrix_can_be_sorted_and_its_cells_still_open(chromium, tmp_path):
    run = make(tmp_path, n=200, classes=[f"class {number:02d}" for number in range(50)])
    counts = np.array(run.report.confusion)
    with opened(chromium, run.write()) as seen:
        page = seen.page
        rows = page.locator(".matrix tbody th")
        assert rows.count() == 30
        page.locator("#matrix-classes").select_option("50")
        assert rows.all_inner_texts() == run.report.classes
        page.locator("#matrix-order").select_option("errors")
        errors = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
        order = [run.report.classes.index(name) for name in rows.all_inner_texts()]
        assert list(errors[order]) == sorted(errors, reverse=True)
        assert page.locator(".matrix thead th").all_inner_texts() == rows.all_inner_texts()
        page.locator("#matrix-order").select_option("similarity")
        order = [run.report.classes.index(name) for name in rows.all_inner_texts()]
        assert sorted(order) == list(range(50))
        shown = page.locator(".matrix tbody td").evaluate_all("(cells) => cells.map((cell) => +cell.innerText)")
        np.testing.assert_array_equal(np.reshape(shown, (50, 50)), counts[np.ix_(order, order)])
        page.locator("#matrix-classes").select_option("10")
        assert rows.count() == 10
        link = page.locator(".matrix a").first
        title = link.get_attribute("aria-label").replace(" recognised", ", recognised")
        link.click()
        assert page.locator("dialog h2").inner_text() == title


def test_the_keyboard_alone_does(chromium, path):
    with opened(chromium, path) as seen:
        page = seen.page
        page.keyboard.press("Tab")
        focus = page.locator(":focus")
        assert focus.inner_text() == "Skip to the report"
        assert focus.bounding_box()["x"] >= 0
        page.keyboard.press("Enter")
        assert focus.get_attribute("id") == "main"
        for _ in range(60):
            page.keyboard.press("Tab")
            if focus.evaluate("(one) => one.matches('.matrix a')"):
                break
        assert focus.evaluate("(one) => getComputedStyle(one).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        assert page.locator("dialog").is_visible()
        assert focus.evaluate("(one) => !!one.closest('dialog')")
        page.keyboard.press("Escape")
        assert focus.evaluate("(one) => one.matches('.matrix a')")


def test_without_javascript_it_can_be_read_and_cells_show_their_images(chromium, path):
    with opened(chromium, path, java_script_enabled=False) as seen:
        link = seen.page.locator(".matrix a").first
        block = seen.page.locator(link.get_attribute("href"))
        assert not block.is_visible()
        link.click()
        assert block.is_visible()
        assert seen.page.locator("#classes tbody tr").count() == 4
        assert not seen.page.locator("#matrix-controls").is_visible()


def test_hostile_names_do_nothing(chromium, tmp_path):
    run = replace(make(tmp_path, classes=HOSTILE), search=Invented())
    with opened(chromium, run.write(), PHONE) as seen:
        seen.page.locator("#matrix-order").select_option("errors")
        seen.page.locator(".matrix a").first.click()
        assert seen.page.locator("dialog").is_visible()
        assert seen.page.locator("img[src=x]").count() == 0
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


@WAYS
def test_maps_stand_beside_their_picture(chromium, path, scheme, size):
    with opened(chromium, path, size, color_scheme=scheme) as seen:
        cards = seen.page.locator("#mistakes .maps")
        assert cards.count() == 4
        for card in cards.all():
            card.scroll_into_view_if_needed()
            boxes = [image.bounding_box() for image in card.locator("img").all()]
            assert len(boxes) == 3
            assert len({round(box["y"]) for box in boxes}) == 1
            assert all(a["x"] + a["width"] <= b["x"] for a, b in zip(boxes, boxes[1:], strict=False))
            assert min(box["width"] for box in boxes) > 60
        assert seen.page.locator("#holdout .maps").first.is_visible()


def test_motion_and_paper(chromium, path):
    with opened(chromium, path, reduced_motion="reduce") as seen:
        assert seen.page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
        seen.page.emulate_media(media="print")
        assert not seen.page.locator("nav").is_visible()
        assert seen.page.locator("#mistakes img").first.is_visible()


@needs_shared
@pytest.mark.slow
def test_the_page_of_birds20_is_small_and_opens(chromium, tmp_path, extracted):
    settings = extracted["birds20"].model_copy(update={"artifacts": tmp_path / "artifacts"})
    settings.artifacts.mkdir()
    shutil.copy(extracted["birds20"].files.features, settings.files.features)
    fit.run(settings)
    report = Report.load(settings.files.report)
    assert report.n_images == 1184
    errors = int(np.sum(report.confusion) - np.trace(report.confusion))
    assert settings.files.page.stat().st_size < 3_000_000
    with opened(chromium, settings.files.page) as seen:
        assert seen.page.locator("#mistakes img").count() == min(60, errors)
        loaded = seen.page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        print(f"{settings.files.page.stat().st_size / 1e6:.2f} MB, open after {loaded / 1000:.2f} s")  # noqa: T201
