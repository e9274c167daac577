"""Reading one sample on the page in a real Chromium: its frames, its timeline, its record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browser import needs_chromium
from harness import read_records
from page_runs import INDEX
from playwright.sync_api import Page
from report_pages import Open, Pair, made, report, rows_shown, sample

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
        "Round 1, asked for 0:04 to 75:07, executed 0:04 to 0:06, 3 frames"
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


# --- which samples have their frames, and which are there at all


def frames_of(page: Page, name: str, *, run: str = "own") -> set[str]:
    """Whence the frames of a sample come: `data` is the page, `file` their files."""
    sample(page, name, run=run)
    page.wait_for_function("() => document.querySelectorAll('.frames img').length > 0")
    sources = page.locator(".frames img").evaluate_all("(images) => images.map((image) => image.src.split(':')[0])")
    return set(sources)


def test_a_page_of_the_wrong_samples_says_so_and_counts_all(runs: Pair, tmp_path: Path, open_page: Open) -> None:
    page_file = made(
        *(runs.first, "--only", "wrong", "--only", "failed", "--ids", "0-5,12", "--frame-root", runs.frames),
        cwd=tmp_path,
    )
    page = open_page(page_file).page
    assert rows_shown(page) == ["own/5", "own/12"]
    assert page.locator("#chosen").inner_text() == (
        f"2 of {len(INDEX)} samples (--only wrong, --only failed, --ids). The figures and charts are of all."
    )
    assert page.locator("#runs td small").first.inner_text() == f"7 of {len(INDEX)}"
    sample(page, "no video")
    assert page.locator(".question").inner_text() == "[[no video]] What is shown?", "a failed sample shows its question"
    pair = made(
        "--against", runs.second, runs.first, *("--only", "wrong", "--name", "old", "--name", "new"), cwd=tmp_path
    )
    page = sample(open_page(pair).page, "flips to right", run="new")
    assert page.locator(".column > h3").all_inner_texts() == ["old", "new"]
    assert page.locator(".column").count() == 2, "the other run's sample is there, although it is right"
    assert "no sample is as --only" in report(runs.first, "--ids", "99", cwd=tmp_path).stderr


def test_the_frames_are_found_where_the_meta_files_say_and_nowhere_else_in_there(
    runs: Pair, tmp_path: Path, open_page: Open
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    result = folder / "result_own.jsonl"
    records = read_records(runs.first)
    found = records[INDEX["one look"]]["trajectory"][0]["calls"][0]["frames"]
    # Somebody else's result and meta file: a picture of this machine that is not a frame.
    private = tmp_path / "store" / "private.bmp"
    private.parent.mkdir()
    private.write_bytes(Path(found[0]).read_bytes())
    records[INDEX["wrong"]]["trajectory"][0]["calls"][0]["frames"] = [str(private)] * 2
    result.write_text("".join(json.dumps(record) + "\n" for record in records))
    meta = json.loads(runs.first.with_suffix(".meta.json").read_text())
    assert meta["environment"]["frame_root"] == str(runs.frames), "a run notes it"
    result.with_suffix(".meta.json").write_text(json.dumps(meta))
    page = open_page(made(result, cwd=tmp_path)).page
    assert frames_of(page, "one look") == {"data"}

    meta["environment"]["frame_root"] = str(tmp_path)
    result.with_suffix(".meta.json").write_text(json.dumps(meta))
    page = sample(open_page(made(result, cwd=tmp_path)).page, "wrong")
    assert page.locator(".frames .gone").all_inner_texts() == ["outside --frame-root"] * 2
    both = ("--frame-root", tmp_path / "store", "--frame-root", runs.frames)
    page = open_page(made(result, *both, cwd=tmp_path)).page
    assert (frames_of(page, "wrong"), frames_of(page, "one look")) == ({"data"}, {"data"})
