"""The page on screens of each size, in the dark, and on paper."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from browser import needs_chromium
from report_pages import Open, sample

pytestmark = needs_chromium

# The contrast of every visible text with what lies behind it, the lowest first, as [ratio, text].
CONTRASTS = """() => {
    const numbers = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
    const part = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const [r, g, b, alpha = 1] = numbers(getComputedStyle(at).backgroundColor);
            if (alpha === 1) return [r, g, b];
        }
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        const text = walker.currentNode.textContent.trim();
        if (!text || !node.checkVisibility() || node.closest('script, style, .skip, [disabled]')) continue;
        const style = getComputedStyle(node);
        const ink = node.closest('svg') ? style.fill : style.color;
        const [a, b] = [light(numbers(ink)), light(behind(node))].sort((x, y) => y - x);
        found.push([(a + 0.05) / (b + 0.05), text.slice(0, 60)]);
    }
    return found.sort((x, y) => x[0] - y[0]);
}"""
# What reaches beyond the right edge, boxes that scroll by themselves aside.
OUTSIDE = """() => [...document.querySelectorAll('button, input, select, h1, #runs td, figure')]
    .filter((node) => node.checkVisibility() && !node.closest('#scroller'))
    .filter((node) => node.getBoundingClientRect().right > innerWidth + 1)
    .map((node) => node.outerHTML.slice(0, 100))"""
SMALLEST = """() => Math.min(...[...document.querySelectorAll('#charts svg text')].map((text) => {
    const place = text.getScreenCTM();
    return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(place.a, place.b);
}))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_those_of_the_charts_too(page_file: Path, open_page: Open, scheme: str) -> None:
    page = open_page(page_file, scheme=scheme).page
    page.locator("#charts summary").click()
    found = page.evaluate(CONTRASTS)
    assert len(found) > 100 and found[0][0] >= 4.5, found[:5]
    found = sample(page, "two looks").evaluate(CONTRASTS)
    assert len(found) > 50 and found[0][0] >= 4.5, found[:5]


@pytest.mark.parametrize("width", [1440, 800, 390])
def test_each_screen_shows_the_figures_then_samples_and_nothing_beyond_its_edge(
    page_file: Path, open_page: Open, width: int
) -> None:
    page = open_page(page_file).page
    page.set_viewport_size({"width": width, "height": 900})
    cell = page.locator("#table tbody td:nth-child(3)").first
    cell.wait_for()
    question = cell.bounding_box()
    assert question is not None and question["width"] >= 100, "the question is in the table"
    assert question["y"] < 900, "samples are on the first screen"
    assert page.evaluate(OUTSIDE) == []
    title = page.locator("h1").bounding_box()
    assert title is not None and title["height"] < 30, "the title is one line"
    page.locator("#charts summary").click()
    assert page.evaluate(SMALLEST) >= 11
    assert page.evaluate(OUTSIDE) == []
    assert sample(page, "two looks").evaluate(OUTSIDE) == []


def test_charts_are_folded_until_somebody_opens_them_and_stay_as_they_were_left(
    page_file: Path, open_page: Open
) -> None:
    page = open_page(page_file).page
    figure = page.locator("#charts figure").first
    assert figure.is_hidden()
    page.locator("#charts summary").click()
    page.wait_for_function("() => localStorage.getItem('eva-charts') === 'open'")
    page.reload()
    figure.wait_for()


def test_a_chart_is_saved_as_a_picture_of_its_own(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file).page
    page.locator("#charts summary").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the chart Accuracy by rounds as SVG").click()
    assert download.value.suggested_filename == "accuracy_by_rounds.svg"
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314
    assert "currentColor" not in text and "var(" not in text
