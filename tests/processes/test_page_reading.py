"""Reading one sample on the page in a real Chromium: its frames, its timeline, its record."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import needs_chromium
from page_runs import INDEX
from playwright.sync_api import Page
from report_pages import Open, Pair, sample

pytestmark = needs_chromium

SHOWN = """() => {
    const image = document.querySelector('#viewer img');
    return image && image.complete && image.naturalWidth > 0;
}"""


def viewed(page: Page) -> tuple[str, str]:
    """The first words below the frame in the viewer, and the scheme of its address."""
    page.wait_for_function(SHOWN)
    address = page.locator("#viewer img").get_attribute("src") or ""
    return page.locator("#viewer b").first.inner_text(), address.partition(":")[0]


@pytest.mark.parametrize("how", ["click", "Enter"])
def test_a_frame_opens_whole_and_the_arrows_walk_the_sample(
    runs: Pair, page_file: Path, open_page: Open, how: str
) -> None:
    watched = open_page(page_file, frames=runs.frames)
    page = sample(watched.page, "two looks")
    page.wait_for_function("() => document.querySelectorAll('.frames img').length === 6")
    opener = page.locator(".frames button").nth(3)
    opener.focus()
    opener.click() if how == "click" else page.keyboard.press("Enter")
    assert viewed(page) == ("0:05 · round 1 · frame 4 of 6 of this sample", "file")
    assert page.evaluate("() => document.querySelector('#viewer img').naturalWidth") == 84
    assert "4 frames at" in page.locator("#viewer .call-line").inner_text()
    page.keyboard.press("ArrowRight")
    assert viewed(page)[0].startswith("0:02 · round 2 · frame 5 of 6")
    assert "2 frames at" in page.locator("#viewer .call-line").inner_text()
    for key in ("ArrowRight", "ArrowRight", "j", "ArrowLeft"):
        page.keyboard.press(key)
    assert viewed(page)[0].startswith("0:02 · round 2 · frame 5 of 6"), "it ends at the last frame"
    page.keyboard.press("Escape")
    assert page.locator("#viewer").is_hidden()
    assert page.locator("#sample").get_attribute("aria-label") == f"Sample own/{INDEX['two looks']}"
    assert opener.evaluate("(node) => node === document.activeElement")
    watched.calm()


def test_a_frame_whose_file_is_gone_is_its_thumbnail_enlarged(runs: Pair, page_file: Path, open_page: Open) -> None:
    watched = open_page(page_file, frames=runs.frames)
    page = sample(watched.page, "one look")
    hidden = runs.frames.with_name("moved")
    runs.frames.rename(hidden)
    try:
        page.locator(".frames button").first.click()
        page.wait_for_selector("#viewer small")
        assert viewed(page)[1] == "data"
    finally:
        hidden.rename(runs.frames)
    assert "thumbnail, enlarged" in page.locator("#viewer small").inner_text()
    assert page.locator("#viewer img").evaluate("(image) => image.clientHeight") > 400
    assert [line for line in watched.trouble if "ERR_FILE_NOT_FOUND" not in line] == []


@pytest.mark.parametrize("width", [1440, 800, 390])
def test_a_look_on_the_timeline_can_be_hit_and_leads_to_its_round(page_file: Path, open_page: Open, width: int) -> None:
    watched = open_page(page_file)
    watched.page.set_viewport_size({"width": width, "height": 700})
    page = sample(watched.page, "beyond the end")
    line = page.locator(".timeline .look").first
    for part in (".asked", ".executed"):
        box = line.locator(part).bounding_box()
        assert box is not None and box["width"] >= 6
    assert line.locator("title").first.text_content() == (
        "Round 1, asked for 0:04 to 75:07, executed 0:04 to 0:05.9, 3 frames"
    )
    sizes = page.locator(".timeline text").evaluate_all(
        "(texts) => texts.map((one) => parseFloat(getComputedStyle(one).fontSize) * one.getScreenCTM().a)"
    )
    assert min(sizes) >= 11
    page = sample(page, "two looks")
    page.locator(".timeline .look").nth(1).focus()
    page.keyboard.press("Enter")
    focused = "() => document.activeElement.getAttribute('aria-label')"
    assert page.evaluate(focused) == "Round 2"
    page.locator(".timeline .look").first.click(force=True)
    assert page.evaluate(focused) == "Round 1"
    watched.calm()
