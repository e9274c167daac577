"""The report's page in a real Chromium: what it shows, finds and never does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from browser import needs_chromium
from harness import called, only_sentence, read_records, write_rows
from many_samples import ALL_READ, HOSTILE, MANY, record, write_many
from page_runs import INDEX, LONG, NASTY, PWN
from report_pages import Open, Pair, made, report, rows_shown, sample

pytestmark = needs_chromium


# --- the figures


def figures_in(pattern: str, text: str) -> tuple[str, ...]:
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None, f"{pattern} in {text}"
    return found.groups()


def test_the_figures_are_those_of_accuracy_py(runs: Pair, page_file: Path, open_page: Open) -> None:
    said = called("accuracy.py", runs.first).stdout
    correct, total, accuracy = figures_in(r"Accuracy: (\d+)/(\d+) = ([\d.]+)%", said)
    rounds, tokens = (
        float(figures_in(rf"{name}: ([\d.]+)", said)[0]) for name in ("Average rounds", "Average total tokens")
    )

    watched = open_page(page_file)
    page = watched.page
    cells = page.locator("#runs tbody tr td").all_inner_texts()
    assert cells[0].split("\n") == [f"{float(accuracy):.2f} %", f"{correct} of {total}"]
    assert page.locator("#runs .interval").inner_text() == "no interval: few videos"
    assert (cells[2], cells[3].split("\n")[0]) == (f"{rounds:.2f}", f"{tokens:,.0f}")
    reasons = re.findall(r"^  (\S+): (\d+)$", said, re.MULTILINE)
    assert len(reasons) > 1
    for reason, count in reasons:
        assert f"{reason} {count}" in cells[5]
    assert page.locator("[data-status=right]").inner_text().split() == ["right", correct]
    assert page.locator("#count").inner_text() == f"{total} samples"
    watched.calm()


def test_the_settings_and_what_the_figures_are_not_are_said(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file).page
    page.locator("#runs summary", has_text="Settings of").click()
    settings = page.locator("#runs .settings").inner_text()
    assert re.search(r"max_visual_tokens\s+60\b", settings) and re.search(r"dataset\s+own\b", settings)


# --- the samples


def test_filters_show_just_the_rows_that_are_so(runs: Pair, page_file: Path, open_page: Open) -> None:
    records = read_records(runs.first)
    page = open_page(page_file).page
    status = {
        "right": lambda r: r["answer"] == r["gt"],
        "wrong": lambda r: r["answer"] and r["answer"] != r["gt"],
        "unanswered": lambda r: not r["answer"] and r["failure"] == "model",
        "failed": lambda r: r.get("failure") in ("sample", "infrastructure"),
    }
    for name, holds in status.items():
        page.locator(f"[data-status={name}]").click()
        owed = [f"own/{record['index']}" for record in records if holds(record)]
        assert owed and rows_shown(page) == owed
    page.locator("[data-status=all]").click()
    page.select_option("select[name=category]", "even")
    assert rows_shown(page) == [f"own/{r['index']}" for r in records if r["category"] == "even"]
    page.fill("#filter", "rounds = 2")
    owed = [f"own/{r['index']}" for r in records if r["category"] == "even" and r["num_rounds"] == 2]
    assert owed and rows_shown(page) == owed
    assert page.locator("#count").inner_text() == f"{len(owed)} of {len(records)} samples"


def test_the_search_finds_questions_answers_videos_and_replies(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file).page
    for text, name in {"[[OVER budget]]": "over budget", "absent.mp4": "no video", "zebrafish": "needle"}.items():
        page.fill("#search", text)
        page.wait_for_function("() => document.querySelector('#count').textContent.startsWith('1 of')")
        assert rows_shown(page) == [f"own/{INDEX[name]}"]
    page.fill("#search", "no such thing anywhere")
    assert rows_shown(page) == [] and page.locator("#nothing").is_visible()


def test_the_keyboard_walks_searches_and_clears(page_file: Path, open_page: Open) -> None:
    watched = open_page(page_file)
    page = watched.page
    page.keyboard.press("j")
    page.wait_for_selector("#sample[aria-label$='own/0']")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.wait_for_selector("#sample[aria-label$='own/2']")
    page.keyboard.press("k")
    page.wait_for_selector("#sample[aria-label$='own/1']")
    assert page.url.endswith("#own/1")
    assert page.locator("tr[aria-current=true] a").inner_text() == "own/1"
    page.keyboard.press("/")
    page.keyboard.type("jk")
    assert page.input_value("#search") == "jk" and page.url.endswith("#own/1")
    page.keyboard.press("Escape")
    assert page.input_value("#search") == ""
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert page.locator("#sample").is_hidden()
    watched.calm()


def test_a_sample_has_an_address_and_the_way_back_is_the_browser_s(page_file: Path, open_page: Open) -> None:
    watched = open_page(page_file, hash=f"#own/{INDEX['two looks']}")
    page = watched.page
    page.wait_for_selector(f"#sample[aria-label$='own/{INDEX['two looks']}']")
    page.locator("#table tbody a", has_text=re.compile(r"^own/1$")).click()
    page.wait_for_selector("#sample[aria-label$='own/1']")
    page.go_back()
    page.wait_for_selector(f"#sample[aria-label$='own/{INDEX['two looks']}']")
    page.go_forward()
    page.wait_for_selector("#sample[aria-label$='own/1']")
    page.goto(page_file.as_uri() + "#own/4711")
    page.wait_for_selector("text=There is no sample 4711 of own")
    watched.calm()


# --- one sample


def test_a_trajectory_shows_its_frames_its_windows_and_its_words(runs: Pair, page_file: Path, open_page: Open) -> None:
    watched = open_page(page_file)
    page = sample(watched.page, "two looks")
    record = read_records(runs.first)[INDEX["two looks"]]
    frames = [frame for round_ in record["trajectory"] for look in round_["calls"] for frame in look["frames"]]
    loaded = "() => [...document.querySelectorAll('.frames img')].filter((image) => image.naturalWidth > 0).length"
    page.wait_for_function(f"() => ({loaded})() === {len(frames)}")
    times_s = [
        time for round_ in record["trajectory"] for look in round_["calls"] for time in look["executed"]["times_s"]
    ]
    captions = page.locator(".frames small").all_inner_texts()
    assert [caption.split(",")[0] for caption in captions] == [f"0:{time:04.1f}".replace(".0", "") for time in times_s]
    timeline = page.locator("div.timeline").first
    assert (timeline.locator(".asked").count(), timeline.locator(".executed").count()) == (2, 2)
    assert timeline.locator(".frame").count() == len(times_s)
    assert timeline.locator(".reference title").text_content() == "annotated: 0:02 to 0:03"
    assert "Looked into the annotated time: 100.0%" in (page.locator("#runs").text_content() or "")
    assert page.locator(".round").count() == 3
    assert "I look at 2." in page.locator(".round").nth(1).inner_text()
    assert page.locator(".options .truth").inner_text().startswith("B")
    assert page.locator(".options .truth.answer").count() == 1
    watched.calm()


def test_a_frame_s_picture_is_the_frame(page_file: Path, open_page: Open) -> None:
    page = sample(open_page(page_file).page, "one look")
    page.wait_for_function("() => document.querySelectorAll('.frames img').length === 3")
    grey = page.evaluate(
        """async () => Promise.all([...document.querySelectorAll('.frames img')].map(async (image) => {
            await image.decode();
            const canvas = document.createElement('canvas');
            canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0);
            return context.getImageData(image.naturalWidth / 2, image.naturalHeight / 2, 1, 1).data[0];
        }))"""
    )
    # Frame n of the video is grey of level 2 n; those of 1 to 4 seconds at 10 frames a second.
    assert grey == pytest.approx([20, 50, 78], abs=6)


def test_what_the_budget_changed_and_what_failed_is_said(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file).page
    cut = sample(page, "over budget").locator(".call-line").inner_text()
    assert re.search(r"40 frames at .1, cut to the budget 25 frames at .0\.63, 50 visual tokens", cut), cut
    failed = sample(page, "bad call").locator(".call-line").inner_text()
    assert "call_frame_select_failed" in failed and "many" in failed
    assert "Not the agent's doing (sample)" in sample(page, "no video").locator(".trouble").inner_text()
    beyond = sample(page, "beyond the end")
    assert re.search(r"0:04.75:07, 3 frames", beyond.locator(".call-line").inner_text())
    assert "told 75:07" in beyond.locator(".frames").inner_text()


def test_a_long_reply_is_cut_until_it_is_asked_for(page_file: Path, open_page: Open) -> None:
    page = sample(open_page(page_file).page, "long")
    words = page.locator(".words").first
    assert len(words.inner_text()) < 30_000
    words.get_by_role("button").click()
    assert words.inner_text() == LONG


QUESTIONS = (
    "What?\nA. one\nB. two\nOnly the letter.",
    "What?\\nA: one\\nB: two\\nOnly the letter.",
    "What?\n(A) one\n(B) two\nOnly the letter.",
    " What?\n A) one\n B) two\nOnly the letter. ",
    "What?\nA. one\nmore\nB. two",
    "A. Lincoln was who?",
    "Q\nB. two\nC. three",
)


def test_options_are_read_in_each_dataset_s_form_and_a_lone_letter_is_none(tmp_path: Path, open_page: Open) -> None:
    records = [record(index=n, schema=1, trajectory=[], question=text) for n, text in enumerate(QUESTIONS)]
    page = open_page(made(write_rows(tmp_path / "result_x.jsonl", records), cwd=tmp_path), hash="#x/0").page
    found = []
    for number in range(len(QUESTIONS)):
        page.wait_for_selector(f"#sample[aria-label$='x/{number}']")
        options = page.locator(".options li").evaluate_all(
            "(items) => items.map((item) => [item.children[0].textContent, item.children[1].textContent])"
        )
        found.append((page.locator(".question").text_content(), options))
        page.keyboard.press("j")
    assert found[:4] == [("What?", [["A", "one"], ["B", "two"]])] * 4
    assert found[4:] == [("What?", [["A", "one\nmore"], ["B", "two"]]), (QUESTIONS[5], []), (QUESTIONS[6], [])]


# --- hostile text


def test_every_record_opens_whatever_is_in_its_fields(tmp_path: Path, open_page: Open) -> None:
    records = [record(index=n, **more) for n, more in enumerate(HOSTILE)]
    watched = open_page(made(write_rows(tmp_path / "result_x.jsonl", records), cwd=tmp_path), hash="#x/0")
    page = watched.page
    for number in range(len(HOSTILE)):
        page.wait_for_selector(f"#sample[aria-label$='x/{number}'] .question")
        assert "cannot be shown" not in page.locator("#sample").inner_text()
        page.keyboard.press("j")
    page.fill("#search", "nothing")
    page.wait_for_function(ALL_READ)
    watched.calm()


def test_nothing_in_a_result_runs_or_reaches_out(runs: Pair, tmp_path: Path, open_page: Open) -> None:
    result = tmp_path / f"result_<img src=x onerror={PWN}>&.jsonl"
    records = read_records(runs.first)
    for name, text in NASTY.items():
        more = {"error": text, "error_detail": text, "stop_reason": text, "video_file": text, "why": text, text: text}
        records[INDEX[name]] |= {**more, "finish_reason": text, "gt": text, "time_reference": text}
        for round_ in records[INDEX[name]]["trajectory"]:
            round_["finish_reason"] = text
            for one in round_["calls"]:
                one["executed"]["decoder"] = one["error"] = one["reason"] = text
                one["asked"] = {text: text}
                one["frames"] = [text, f"javascript:{PWN}", "//example.com/x.png", "https://example.com/x.png"]
    result.write_text("".join(json.dumps(record) + "\n" for record in records))
    meta = json.loads(runs.first.with_suffix(".meta.json").read_text())
    meta["settings"] |= {
        "dataset": NASTY["a title"],
        "model": NASTY["an end of script"],
        NASTY["an image"]: NASTY["a comment"],
    }
    meta["mixed"] = [{"x": NASTY["an image"]}]
    result.with_suffix(".meta.json").write_text(json.dumps(meta))

    watched = open_page(made(result, "--frame-root", runs.frames, cwd=tmp_path))
    page = watched.page
    assert page.locator("#runs th small").inner_text() == str(result)
    page.locator("#runs summary", has_text="Settings of").click()
    page.keyboard.press("j")
    for number in range(len(records)):
        page.wait_for_selector(f"#sample[aria-label$='/{number}']")
        shown = page.locator("#sample").inner_text()
        for name in ("an image", "an end of script", "a comment", "an attribute", "a title", "a template"):
            assert INDEX[name] != number or shown.count(NASTY[name]) >= 6, shown
        page.keyboard.press("j")
    page.locator("#sample summary").first.click()
    assert (
        page.evaluate("() => document.querySelectorAll('[onerror], [onload], [onmouseover], iframe, object').length")
        == 0
    )
    assert page.evaluate("() => [...document.links].every((a) => a.hash || a.getAttribute('href') === '#')")
    page.fill("#search", NASTY["an end of script"])
    watched.calm()


def test_the_page_s_policy_runs_no_script_but_its_own(page_file: Path, open_page: Open) -> None:
    watched = open_page(page_file)
    page = watched.page
    page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = 'window.pwned = 1';
            document.body.append(script);
            const image = '<img src="https://example.com/x.png" onerror="window.pwned=2">';
            document.body.insertAdjacentHTML('beforeend', image);
        }"""
    )
    page.wait_for_timeout(100)
    assert page.evaluate("() => window.pwned") is None
    refused = "\n".join(watched.trouble)
    assert refused.count("Content Security Policy") >= 2, refused


# --- against another run


def test_the_flips_come_first_and_the_first_other_round_is_marked(runs: Pair, tmp_path: Path, open_page: Open) -> None:
    watched = open_page(made("--against", runs.first, runs.second, "--frame-root", runs.frames, cwd=tmp_path))
    page = watched.page
    changes = page.locator("#table tbody tr:not(.space)").evaluate_all(
        "(rows) => rows.slice(0, 6).map((row) => [row.children[1].textContent, row.children[4].textContent])"
    )
    now = page.locator("#runs .name").nth(1).inner_text()
    assert changes == [
        [f"{now}/{INDEX['flips to wrong']}", "right → wrong, differs from round 2"],
        [f"{now}/{INDEX['flips to right']}", "wrong → right, differs from round 2"],
        [f"{now}/{INDEX['wrong']}", "wrong → no answer, differs from round 1"],
        [f"{now}/{INDEX['wrong again']}", "wrong, another answer, differs from round 1"],
        [f"{now}/{INDEX['other course']}", "right, differs from round 2"],
        [f"{now}/{INDEX['at once']}", "the same"],
    ]
    page.select_option("select[name=change]", "flips")
    assert len(rows_shown(page)) == 2
    said = page.locator("#paired").inner_text()
    assert "McNemar" in said and re.search(r"Right only in .*\n1\nRight only in .*\n1\n", said), said
    sample(page, "flips to right", run=now)
    columns = page.locator(".column")
    assert [column.locator(".facts").inner_text().split()[2] for column in columns.all()] == ["wrong", "right"]
    assert page.locator(".column > h3").all_inner_texts() == page.locator("#runs .name").all_text_contents()
    for column in columns.all():
        assert column.locator(".round").nth(1).locator(".badge").inner_text() == "first difference"
        assert column.locator(".badge").count() == 1
    watched.calm()


def test_a_screen_reader_finds_its_way(page_file: Path, open_page: Open) -> None:
    page = sample(open_page(page_file).page, "one look")
    for role in ("banner", "main", "search", "article", "navigation"):
        assert page.get_by_role(role).count() >= 1, role
    assert page.locator("#table").get_attribute("aria-rowcount") == str(len(INDEX) + 1)
    numbers = page.locator("#table tbody tr:not(.space)").evaluate_all(
        "(rows) => rows.map((row) => +row.ariaRowIndex || +row.getAttribute('aria-rowindex'))"
    )
    assert numbers == list(range(2, len(INDEX) + 2))
    assert page.locator(".frames img").evaluate_all("(images) => images.every((image) => image.alt)")


def test_ten_thousand_samples_open_and_are_found(runs: Pair, tmp_path: Path, open_page: Open) -> None:
    """How long that takes, benchmarks/limits.py measures."""
    write_many(runs.first, tmp_path / "result_many.jsonl", MANY)
    watched = open_page(made("result_many.jsonl", "--frame-root", runs.frames, cwd=tmp_path))
    page = watched.page
    page.wait_for_selector("#table tbody a")
    assert page.locator("#count").inner_text() == f"{MANY:,} samples"
    assert page.locator("#table tbody tr").count() < 100, "the page holds the rows in view alone"
    page.wait_for_function(ALL_READ, timeout=120_000)
    page.fill("#search", "word 1089")
    page.wait_for_function("() => document.querySelector('#count').textContent.startsWith('11 of')")
    page.fill("#search", "")
    page.evaluate("() => { document.querySelector('#scroller').scrollTop = 1e9; }")
    page.wait_for_selector(f"a[href='#many/{MANY - 1}']")
    watched.calm()


# --- the command


def test_what_cannot_be_used_is_said_and_nothing_is_written(runs: Pair, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text('{"index": 1\n')
    (tmp_path / "copy.jsonl").hardlink_to(runs.first)
    before = runs.first.read_bytes()
    inputs = (
        ("empty.jsonl",), ("broken.jsonl",), ("absent.jsonl",), (runs.first, "--against", "empty.jsonl"),
        (runs.first, "-o", "copy.jsonl"), (runs.first, "-o", runs.first.with_suffix(".meta.json")),
        (runs.first, "-o", "no/such/folder.html"), ("--live", "--output-dir", "empty.jsonl"),
    )  # fmt: skip
    refused = [report(*arguments, cwd=tmp_path) for arguments in (*inputs, ("--live",))]
    assert [done.returncode for done in refused] == [2] * len(refused), [done.stderr for done in refused]
    for done in refused[: len(inputs)]:
        assert only_sentence(done.stderr).startswith("report.py: ")
    assert runs.first.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"empty.jsonl", "broken.jsonl", "copy.jsonl"}


def test_several_results_stand_side_by_side_with_the_reference_s_and_without_foreign_frames(
    runs: Pair, tmp_path: Path, open_page: Open
) -> None:
    keys = ("index", "videos", "messages", "gt", "answer", "stop_reason", "num_rounds", "total_tokens")
    old = [{key: record[key] for key in keys} for record in read_records(runs.first)]
    (tmp_path / "result_old.jsonl").write_text("".join(json.dumps(record) + "\n" for record in old))
    for folder, result in (("a", runs.first), ("b", runs.second)):  # without the meta file, which names the frame root
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "result_own.jsonl").write_bytes(result.read_bytes())
    files = ("a/result_own.jsonl", "b/result_own.jsonl", "result_old.jsonl")
    done = report(*files, "--frame-root", tmp_path / "a", cwd=tmp_path)
    assert re.search(r"Thumbnails: 0 of (\d+) frames embedded .*, \1 outside --frame-root", done.stdout), done.stdout
    assert str(runs.frames) not in (tmp_path / "report.html").read_text()

    watched = open_page(tmp_path / "report.html")
    page = watched.page
    names = page.locator("#runs tbody .name").all_inner_texts()
    assert names[:2] == ["a", "b"], "of one dataset, so they are called by their folders"
    page.select_option("select[name=run]", names[1])
    assert page.locator("#count").inner_text() == f"{len(INDEX)} of {3 * len(INDEX)} samples"
    page.select_option("select[name=run]", "")
    sample(page, "one look", run=names[0])
    assert page.locator(".frames .gone").all_inner_texts() == ["outside --frame-root"] * 3
    sample(page, "two looks", run=names[2])
    assert page.locator(".turn h4").all_inner_texts()[:3] == ["SYSTEM", "USER", "ASSISTANT"]
    assert "I look at 2." in page.locator("#sample").inner_text()
    page.fill("#search", "zebrafish")  # in the transcript's replies too
    page.wait_for_function("() => document.querySelector('#count').textContent.startsWith('3 of')")
    watched.calm()
