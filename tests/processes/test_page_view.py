"""Which samples the page shows, the address that says so, and what leaves the page as a table or as records."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from browser import needs_chromium
from harness import read_records
from page_runs import INDEX
from playwright.sync_api import Page
from report_pages import Open, Pair, made, rows_shown, sample

pytestmark = needs_chromium

Record = Mapping[str, Any]


def is_wrong(record: Record) -> bool:
    return bool(record["answer"]) and record["answer"] != record["gt"]


FILTERS: Mapping[str, Callable[[Record], bool]] = {
    "wrong and rounds > 1 and category = odd": lambda r: is_wrong(r) and r["num_rounds"] > 1 and r["category"] == "odd",
    'not (right or wrong) or tokens>=265 AND answer = "b"': lambda r: (
        (r["answer"] != r["gt"] and not is_wrong(r)) or (r["total_tokens"] >= 265 and r["answer"] == "B")
    ),
    'question ~ "OVER BUDGET" or index = 5 or video = absent.mp4': lambda r: (
        r["index"] in (INDEX["over budget"], 5, INDEX["no video"])
    ),
    "rounds<=1 and status!=failed and stop != answer_found": lambda r: (
        r["num_rounds"] <= 1 and r["stop_reason"] not in ("answer_found", "exception")
    ),
}


def test_a_filter_asks_the_columns(runs: Pair, page_file: Path, open_page: Open) -> None:
    watched = open_page(page_file)
    records = read_records(runs.first)
    for text, meant in FILTERS.items():
        watched.page.fill("#filter", text)
        owed = [f"own/{record['index']}" for record in records if meant(record)]
        assert owed and rows_shown(watched.page) == owed, text
    watched.page.fill("#search", "over budget")
    watched.page.fill("#filter", "right")
    assert rows_shown(watched.page) == [f"own/{INDEX['over budget']}"], "search and filter hold together"
    watched.calm()


def test_a_filter_that_cannot_be_read_is_said_beside_it_and_the_one_before_stays(
    page_file: Path, open_page: Open
) -> None:
    watched = open_page(page_file)
    page = watched.page
    page.fill("#filter", "failed")
    (failed,) = rows_shown(page)
    for text, why in {
        "rouns > 2": "“rouns” is none of right, wrong", "rounds > many": "rounds is a number, and “many” is not",
        "wrong and": "ends too early", "(wrong": "a bracket is not closed", "wrong right": "needs “and” or “or”",
        "rounds 2": "after rounds must come a sign", "category > b": "category is a text",
        'answer = "B': "cannot be read",
        "constructor = 1": "“constructor” is none of", "__proto__": "“__proto__” is none of", "&": "“&” is none of",
        "window.pwned=1": "“window.pwned” is none of", "rounds ~ 2": "rounds is a number: ask with",
        "(" * 500: "too early",
    }.items():  # fmt: skip
        page.fill("#filter", text)
        assert why in page.locator("#problem").inner_text(), text
        assert page.get_attribute("#filter", "aria-invalid") == "true"
        assert rows_shown(page) == [failed]
    page.fill("#filter", "")
    assert page.locator("#problem").is_hidden() and len(rows_shown(page)) == len(INDEX)
    watched.calm()


def test_a_link_carries_the_filter_the_search_the_order_and_the_sample(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file).page
    page.fill("#search", "shown zebrafish")
    page.fill("#search", "shown")
    page.fill("#filter", "wrong and rounds > 1")
    page.select_option("select[name=category]", "odd")
    for _ in range(2):
        page.locator("#table").get_by_role("columnheader", name="Tokens").get_by_role("button").click()
    owed = rows_shown(page)
    page.locator("#table tbody a").nth(1).click()
    page.wait_for_selector("#sample h2")
    page.wait_for_function("() => location.hash.includes('down=true')")

    other = open_page(page_file, hash=page.evaluate("() => location.hash"))
    assert other.page.locator("#sample").get_attribute("aria-label") == f"Sample {owed[1]}"
    assert rows_shown(other.page) == owed
    assert other.page.input_value("#search") == "shown"
    assert other.page.input_value("#filter") == "wrong and rounds > 1"
    assert other.page.input_value("select[name=category]") == "odd"
    other.page.keyboard.press("Escape")
    assert rows_shown(other.page) == owed
    other.page.goto(page_file.as_uri() + "#own/3")
    other.page.wait_for_selector("#sample[aria-label$='own/3']")
    assert len(rows_shown(other.page)) == len(INDEX), "a link without a view shows everything"
    other.page.go_back()
    other.page.wait_for_function(
        "(count) => document.querySelectorAll('#table tbody a').length === count", arg=len(owed)
    )
    other.calm()


def test_a_strangers_link_runs_nothing(page_file: Path, open_page: Open) -> None:
    text = "%3Cimg%20src%3Dx%20onerror%3Dwindow.pwned%3D1%3E"
    names = ("search", "filter", "status", "run", "category", "rounds", "change", "by", "down")
    watched = open_page(page_file, hash="#own/1?" + "&".join(f"{name}={text}" for name in names) + "&__proto__=1&%=%")
    watched.page.wait_for_selector("#sample[aria-label$='own/1']")
    assert rows_shown(watched.page) == []
    assert watched.page.locator("#problem").inner_text().startswith("The filter is not read: ")
    watched.calm()


# --- what leaves the page


def saved(page: Page, where: str, name: str) -> str:
    """The text that a button saves."""
    with page.expect_download() as download:
        page.locator(where).get_by_role("button", name=name).click()
    return Path(download.value.path()).read_bytes().decode()


def test_what_is_filtered_leaves_as_csv_and_as_records(runs: Pair, tmp_path: Path, open_page: Open) -> None:
    records = read_records(runs.first)
    records[5] |= {"answer": '=HYPERLINK("http://x")', "category": "a|b,\n<i>\\", "num_rounds": None}
    result = tmp_path / "result_x.jsonl"
    result.write_text("".join(json.dumps(record) + "\n" for record in records))
    page = open_page(made(result, "--frame-root", runs.frames, cwd=tmp_path)).page
    page.fill("#filter", "wrong")
    owed = [record for record in records if is_wrong(record)]
    rows = list(csv.DictReader(io.StringIO(saved(page, "#save", "Save as CSV"), newline="")))
    assert [int(row["index"]) for row in rows] == [record["index"] for record in owed]
    formula = next(row for row in rows if row["index"] == "5")
    assert formula["answer"] == "'" + records[5]["answer"], "a spreadsheet takes it for a text"
    assert (formula["category"], formula["rounds"]) == (records[5]["category"], "")
    text = saved(page, "#save", "Save as JSONL")
    assert [json.loads(line) for line in text.split("\n")[:-1]] == owed


def test_the_record_of_a_sample_can_be_read_and_saved(runs: Pair, page_file: Path, open_page: Open) -> None:
    line = runs.first.read_text().splitlines()[INDEX["two looks"]]
    page = sample(open_page(page_file).page, "two looks")
    page.locator("#sample summary", has_text="Raw record").click()
    page.wait_for_function("() => document.querySelector('.record').textContent")
    assert json.loads(page.locator(".record").inner_text()) == json.loads(line)
    assert saved(page, "#sample details", "Save") == line + "\n"
