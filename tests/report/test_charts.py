"""The charts of a report: what stands in them, that they are safe and the same each time, and what is left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from eva.records.meta import Meta
from eva.records.schema import read_record
from eva.report.charts import (
    COLOURS,
    EDGES_S,
    GREY,
    LENGTHS,
    MARKERS,
    Chart,
    Rows,
    binned,
    by_source,
    by_stop_reason,
    charts,
    in_categories,
)
from eva.report.samples import Run, read_sample
from eva.scoring.published import Figure, Published

SVG = "{http://www.w3.org/2000/svg}"
PUBLISHED = Published("lvbench", 1549, (Figure(0.4332, "repository", 20412), Figure(0.5, "paper")), {}, "")
HOSTILE = '</text><script>alert(1)</script>$\\frac{$_\x00\x1b\ud800\u202e" onload=alert(1) café 日本'
QUESTION = "User: Who?\nOptions:\nA. you\nB. they\nC. I\nD. nobody\n"


def record(index: int, *, right: bool = True, **more: Any) -> dict[str, Any]:
    basic = {"gt": "B", "answer": "B" if right else "C", "stop_reason": "answer_found", "num_rounds": 1 + index % 3}
    video = {"videos": [f"{index % 13}.mp4"], "video_duration_s": 30.0 * 4 ** (index % 5)}
    return {"index": index, **basic, **video, "total_tokens": 1000 * (1 + index % 10), **more}


def run(records: Sequence[Mapping[str, Any]], name: str = "result_a", dataset: str = "own", **more: Any) -> Run:
    return Run(name, dataset, [read_sample(dataset, read_record(dict(one))) for one in records], **more)


def full_run(name: str = "result_lvbench", *, shift: int = 0) -> Run:
    """Every chart has something to draw; one sample in three is right."""
    types = ("['reasoning']", "['reasoning', 'summarization']")
    records = [
        record(n, right=(n + shift) % 3 == 0, question_type=types[n % 2], schema=1, question=QUESTION)
        for n in range(60)
    ]
    return run(records, name, "lvbench", published=PUBLISHED)


@pytest.fixture(scope="module")
def drawn() -> dict[str, Chart]:
    return {chart.title: chart for chart in charts([full_run(), full_run("result_again", shift=1)])}


def texts(chart: Chart) -> list[str]:
    return ["".join(element.itertext()).strip() for element in ElementTree.fromstring(chart.svg).iter(f"{SVG}text")]  # noqa: S314


def counted(rows: Rows, number: int = 0) -> dict[str, tuple[int, float]]:
    """Of each row, n and the share of a run."""
    return {label: (row[number].count, row[number].value) for label, row in rows.items() if row[number]}  # type: ignore[union-attr]


# --- the numbers


def test_every_chart_is_there_in_its_order_with_values_and_their_numbers_of_samples(drawn: dict[str, Chart]) -> None:
    assert list(drawn) == [
        "Accuracy", "Accuracy by rounds", "Accuracy by video length", "Accuracy by category, lvbench", "Stop reasons",
        "Tokens and accuracy",
    ]  # fmt: skip
    shown = texts(drawn["Accuracy by rounds"])
    assert {"1", "2", "3", "result_lvbench", "result_again"} <= set(shown)
    assert shown.count("0.0%, n = 20") == 4 and shown.count("100.0%, n = 20") == 2
    assert "60 of 60" in texts(drawn["Stop reasons"])
    assert "summarization 33.3% (" in drawn["Accuracy by category, lvbench"].description


def test_published_figures_and_chance_stand_beside_the_first_run_of_eva_of_their_dataset() -> None:
    own, other, first, second = (
        run([record(0, schema=1, question=QUESTION), record(1, right=False)]) for _ in range(4)
    )
    known = [replace(one, dataset="lvbench", published=PUBLISHED) for one in (other, first, second)]
    runs = [own, replace(known[0], agent="uniform"), *known[1:]]
    rows = by_source(runs)
    whole = {"This result": (2, 0.5), "Chance": (1, 0.25)}
    published = {"Published (repository)": (1549, 0.4332), "Published (paper)": (1549, 0.5)}
    assert [counted(rows, number) for number in range(4)] == [
        whole, {"This result": (2, 0.5)}, {**whole, **published}, {"This result": (2, 0.5)}
    ]  # fmt: skip
    found = {chart.title: chart for chart in charts(runs)}
    assert {"43.3%, n = 1,549", "25.0%, n = 1"} <= set(texts(found["Accuracy"]))
    assert found["Tokens and accuracy"].description.count("published 20,412 tokens, 43.3%") == 1


@pytest.mark.parametrize(
    ("seconds", "label"),
    [(None, None), (59.9, "under 1 min"), (60, "1 to 3 min"), (179, "1 to 3 min"), (180, "3 to 10 min"),
     (3600, "60 min and more"), (1e9, "60 min and more")],
)  # fmt: skip
def test_a_length_on_a_border_belongs_to_the_longer_ones(seconds: float | None, label: str | None) -> None:
    assert list(binned(seconds, EDGES_S, LENGTHS)) == ([] if label is None else [label])


def test_very_many_rounds_share_a_row_and_a_run_without_such_a_sample_has_nothing_there() -> None:
    many = run([record(n, num_rounds=rounds) for n, rounds in enumerate((0, 9, 10, 500))], "many")
    found = {chart.title: chart for chart in charts([many, run([record(0, num_rounds=2)], "two")])}
    said = found["Accuracy by rounds"].description
    assert "many: 0 100.0% of 1; 9 100.0% of 1; 10 or more 100.0% of 2. two: 2 100.0% of 1." in said


def test_categories_stand_in_the_order_of_the_questions_and_none_of_them_is_left_out() -> None:
    durations = (2400.0, 60.0, None, 600.0, 60.0)
    records = [record(9 - n, right=n < 3, video_duration_s=duration) for n, duration in enumerate(durations)]
    found = in_categories([run(records, dataset="videomme")], "videomme")
    assert list(counted(found).items()) == [
        ("short", (2, 0.5)), ("medium", (1, 0.0)), ("long", (1, 1.0)), ("unknown", (1, 1.0))
    ]  # fmt: skip
    assert in_categories([run([record(0)])], "own") == {}


@pytest.mark.parametrize(
    "group", [lambda one: in_categories([one], "own"), lambda one: by_stop_reason([one])], ids=["category", "stop"]
)
def test_of_very_many_groups_the_rare_ones_stand_together(group: Callable[[Run], Rows]) -> None:
    kinds = [f"kind {max(0, n - 20)}" for n in range(60)]
    records = [record(n, category=kind, stop_reason=kind) for n, kind in enumerate(kinds)]
    counts = [count for count, _ in counted(group(run(records))).values()]
    assert len(counts) == 13 and counts[0] in {21, 60}
    assert list(group(run(records)))[-1] == "other (28)"


def test_stop_reasons_are_shares_of_all_samples_the_most_common_first() -> None:
    reasons = ["max_turns", "answer_found", "answer_found", "answer_found"]
    rows = by_stop_reason([run([record(n, stop_reason=reason) for n, reason in enumerate(reasons)]), run([record(0)])])
    assert list(counted(rows).items()) == [("answer_found", (4, 0.75)), ("max_turns", (4, 0.25))]
    assert counted(rows, 1)["max_turns"] == (1, 0.0)


def test_each_run_is_called_by_its_agent_and_the_number_of_its_frames_stands_at_its_point() -> None:
    meta = Meta({"dataset": "own", "agent": "uniform", "nframes": 32}, {}, ())
    runs = [run([record(n) for n in range(3)], agent="uniform", meta=meta), run([record(0)], "ours")]
    (chart,) = [one for one in charts(runs) if one.title == "Tokens and accuracy"]
    assert {"32 frames", "result_a (uniform)", "ours"} <= set(texts(chart))
    assert "result_a (uniform): 2,000 tokens, 100.0% of 3." in chart.description


def test_an_unfinished_run_has_no_intervals_and_is_called_so() -> None:
    whole, part = full_run(), replace(full_run("result_b"), partial=True)
    for chart in charts([part]):
        assert not re.search(r"\(\d+\.\d% to", chart.description) and "95 %" not in chart.svg
    both = {chart.title: chart.description for chart in charts([whole, part])}["Accuracy by rounds"]
    first, second = both.split("result_b, so far: ")
    assert re.search(r"\(\d+\.\d% to", first) and not re.search(r"\(\d+\.\d% to", second)


# --- the page that they stand in


def test_a_chart_has_only_colours_that_are_seen_on_light_and_dark_and_brings_nothing(drawn: dict[str, Chart]) -> None:
    for chart in drawn.values():
        root = ElementTree.fromstring(chart.svg)  # noqa: S314
        assert set(re.findall(r"#[0-9a-f]{6}\b(?=[;\"])", chart.svg)) <= {*COLOURS, GREY}
        assert not any("fill" in element.get("style", "") for element in root.iter(f"{SVG}text"))
        assert set(re.findall(r"\w+://[^\"']*", chart.svg)) <= {
            "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
        }  # fmt: skip
        tags = {element.tag.removeprefix(SVG) for element in root.iter()}
        assert tags <= {"svg", "defs", "g", "path", "text", "tspan", "use", "clipPath", "rect"}, tags


@pytest.mark.parametrize("page", ["#ffffff", "#1b1f23"])
def test_every_colour_has_contrast_to_a_light_and_a_dark_page(page: str) -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in (*COLOURS, GREY):
        low, high = sorted([luminance(colour), luminance(page)])
        assert (high + 0.05) / (low + 0.05) >= 3, colour


def test_runs_have_each_a_look_of_their_own_in_every_chart() -> None:
    first = run([record(n) for n in range(4)], "first", "own")
    second = run([record(n, Question_Type="SR" if n else "TA") for n in range(4)], "second", "videoholmes")
    found = {chart.title: chart.svg for chart in charts([first, second])}
    assert COLOURS[1] in found["Accuracy by category, videoholmes"]
    assert COLOURS[0] not in found["Accuracy by category, videoholmes"]
    assert len({(n % len(COLOURS), n % len(MARKERS)) for n in range(30)}) == 30


def test_the_same_numbers_give_the_same_bytes_and_leave_matplotlibs_settings_alone(drawn: dict[str, Chart]) -> None:
    before = dict(mpl.rcParams)
    with mpl.rc_context({"lines.linewidth": 9, "axes.facecolor": "black", "svg.fonttype": "path"}):
        assert charts([full_run(), full_run("result_again", shift=1)]) == list(drawn.values())
    assert dict(mpl.rcParams) == before


def test_hostile_text_is_only_ever_text() -> None:
    records = [record(n, stop_reason=HOSTILE, category=f"{n % 2}{HOSTILE}" + "x" * 10_000) for n in range(6)]
    found = charts([run(records, name, HOSTILE) for name in (HOSTILE, "_hidden")])
    assert any(chart.title.startswith("Accuracy by category, </text><script>") for chart in found)
    for chart in found:
        elements = list(ElementTree.fromstring(chart.svg).iter())  # noqa: S314
        assert not any(name.startswith("on") for element in elements for name in element.attrib)
        assert f"{SVG}script" not in {element.tag for element in elements}
        assert len(chart.svg) < 200_000 and len(chart.description) < 5000
        assert "_hidden" in texts(chart)
        assert any(text.startswith("</text><script>") for text in texts(chart))
        assert "\ufffd" in chart.description
        chart.svg.encode()


def numbers_at(svg: str, axis: str) -> list[float]:
    """The numbers along an axis of a picture."""
    groups = [one for one in ElementTree.fromstring(svg).iter() if (one.get("id") or "").startswith(axis)]  # noqa: S314
    found = ["".join(text.itertext()) for group in groups for text in group.iter(f"{SVG}text")]
    return [float(text.replace("\N{MINUS SIGN}", "-").replace(",", "")) for text in found]


@pytest.mark.parametrize("right", [0, 1, 4])
@pytest.mark.parametrize("count", [4, 60])
def test_no_accuracy_is_drawn_outside_of_0_to_100(count: int, right: int) -> None:
    records = [record(n, right=n % 4 < right, num_rounds=1 + n % 2, category=f"c{n % 3}") for n in range(count)]
    for chart in charts([run(records, published=PUBLISHED)]):
        ticks = numbers_at(chart.svg, "ytick" if chart.title.startswith("Tokens") else "xtick")
        assert min(ticks) >= 0 and max(ticks) <= 100, chart.title
        marked = re.findall(rf'<g clip-path="[^"]*">\s*<use [^>]*style="[^"]*{COLOURS[0]}', chart.svg)
        assert not marked, "a marker at the end of the axis would be cut in half"


def test_accuracies_below_each_other_have_one_scale_cropped_to_their_intervals(drawn: dict[str, Chart]) -> None:
    records = [record(n, right=n // 5 % 10 > 0, category=f"c{n % 3}", schema=1, question=QUESTION) for n in range(1000)]
    good = [chart for chart in charts([run(records)]) if chart.title.startswith("Accuracy")]
    for found in (good, [chart for title, chart in drawn.items() if title.startswith("Accuracy")]):
        assert len(found) == 4
        assert len({tuple(numbers_at(chart.svg, "xtick")) for chart in found}) == 1
    assert min(numbers_at(good[0].svg, "xtick")) > 70, "chance does not make it wide"
    assert "Chance 25.0%" in good[0].description


def test_every_text_has_eleven_pixels_on_a_phone(drawn: dict[str, Chart]) -> None:
    for chart in drawn.values():
        picture = ElementTree.fromstring(chart.svg)  # noqa: S314
        width = float((picture.get("viewBox") or "").split()[2])
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", chart.svg)]
        assert sizes and min(sizes) * 336 / width >= 11, chart.title


# --- what is left out


def test_records_of_the_reference_and_bare_ones_give_what_can_be_drawn() -> None:
    old = [record(n, messages="Video Length: 59 seconds. Original video resolution: 360p. Who?") for n in range(6)]
    for one in old:
        del one["video_duration_s"]
    assert [chart.title for chart in charts([run(old)])] == [
        "Accuracy", "Accuracy by rounds", "Stop reasons", "Tokens and accuracy"
    ]  # fmt: skip
    bare = [{"index": n, "gt": "B", "answer": "B", "stop_reason": "answer_found"} for n in range(3)]
    assert [chart.title for chart in charts([run(bare, published=PUBLISHED)])] == ["Accuracy", "Stop reasons"]
    assert charts([]) == charts([run([])]) == []


def test_numbers_beyond_sense_are_drawn_all_the_same() -> None:
    far = [-(2.0**53), 2.0**53, 0.5, 1e-12]
    records = [record(n, num_rounds=one, total_tokens=one, video_duration_s=0.001) for n, one in enumerate(far)]
    assert len(charts([run(records)])) == 4
