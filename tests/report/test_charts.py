"""The pictures of a report: what stands in them, that they are safe and the same each time, and what is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from eva.records.meta import Meta
from eva.records.schema import read_record
from eva.report.charts import Chart, charts, density
from eva.report.drawing import render
from eva.report.grouping import (
    beside_published,
    by_category,
    by_evidence,
    by_length,
    by_rounds,
    by_source,
    by_stop_reason,
    by_tokens,
    curves,
    token_edges,
)
from eva.report.samples import Run, read_sample
from eva.scoring.published import Figure, Published

SVG = "{http://www.w3.org/2000/svg}"
PUBLISHED = Published("lvbench", 1549, (Figure(0.4332, "repository", 20412), Figure(0.5, "paper")), {}, "")
HOSTILE = '</text><script>alert(1)</script>$\\frac{$_\x00\x1b\ud800\u202e" onload=alert(1) café 日本'


def record(index: int, *, right: bool = True, **more: Any) -> dict[str, Any]:
    basic = {"gt": "B", "answer": "B" if right else "C", "stop_reason": "answer_found", "num_rounds": 1 + index % 3}
    video = {"videos": [f"{index % 13}.mp4"], "video_duration_s": 30.0 * 4 ** (index % 5)}
    return {"index": index, **basic, **video, "total_tokens": 1000 * (1 + index % 10), **more}


def look(*times_s: float) -> dict[str, Any]:
    return {"calls": [{"executed": {"times_s": list(times_s)}}]}


def run(records: Sequence[Mapping[str, Any]], name: str = "result_a", dataset: str = "own", **more: Any) -> Run:
    return Run(name, dataset, [read_sample(dataset, read_record(dict(one))) for one in records], **more)


def full_run(name: str = "result_lvbench", *, shift: int = 0) -> Run:
    """Every chart has something to draw; one sample in three is right."""
    records = [
        record(
            n,
            right=(n + shift) % 3 == 0,
            question_type=("['reasoning']", "['reasoning', 'summarization']")[n % 2],
            time_reference="00:10-00:20",
            trajectory=[look(1.0, 15.0 if n % 4 == 0 else 2.0), look(29.0)],
        )
        for n in range(60)
    ]
    return run(records, name, "lvbench", published=PUBLISHED)


ALL = [
    "Accuracy",
    "Accuracy by rounds",
    "Accuracy by total tokens",
    "Accuracy by video length",
    "Accuracy by category, lvbench",
    "Stop reasons",
    "Tokens and accuracy",
    "Where in the video the agent looked",
    "Frames in the annotated time",
]


@pytest.fixture(scope="module")
def drawn() -> dict[str, Chart]:
    return {chart.title: chart for chart in charts([full_run(), full_run("result_again", shift=1)])}


def texts(chart: Chart) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(chart.svg).iter(f"{SVG}text")]  # noqa: S314


def test_every_picture_is_there_in_its_order(drawn: Mapping[str, Chart]) -> None:
    assert list(drawn) == ALL


# --- the numbers


def test_the_rows_of_a_picture_stand_in_it_with_their_numbers_of_samples(drawn: Mapping[str, Chart]) -> None:
    shown = texts(drawn["Accuracy by rounds"])
    assert {"1", "2", "3", "result_lvbench", "result_again"} <= set(shown)
    assert shown.count("n = 20") == 6


def test_the_description_says_every_number_in_words(drawn: Mapping[str, Chart]) -> None:
    said = drawn["Accuracy by category, lvbench"].description
    assert said.startswith("Accuracy by category, lvbench. result_lvbench: reasoning 33.3% (")
    assert re.search(r"summarization 33\.3% \(\d+\.\d% to \d+\.\d%\) of 30\.", said)


def test_every_published_figure_is_under_the_accuracy_of_its_datasets_first_run() -> None:
    own, first, second = (run([record(0), record(1, right=False)], name) for name in ("own", "first", "second"))
    known = [replace(one, dataset="lvbench", published=PUBLISHED) for one in (first, second)]
    chart = charts([own, *known])[0]
    assert chart.description == (
        "Accuracy. own: This result 50.0% of 2. first: This result 50.0% of 2; "
        "Published (repository) 43.3% of 1,549; Published (paper) 50.0% of 1,549. "
        "second: This result 50.0% of 2."
    )
    assert texts(chart).count("n = 1,549") == 2


def test_the_published_figure_stands_beside_the_run_where_its_tokens_are_known(drawn: Mapping[str, Chart]) -> None:
    said = drawn["Tokens and accuracy"].description
    assert "result_lvbench: 5,500 tokens, 33.3% (" in said
    assert said.count("Published for lvbench: 20,412 tokens, 43.32%.") == 1, "once for all runs of the dataset"
    assert "50.00%" not in said


def test_the_annotated_time_is_told_with_both_accuracies(drawn: Mapping[str, Chart]) -> None:
    said = drawn["Frames in the annotated time"].description
    assert "Looked into the annotated time 25.0% (" in said
    assert re.search(r"Accuracy where it did not 33\.3% .* of 45\.", said)


def test_a_row_is_the_accuracy_of_its_own_samples() -> None:
    records = [record(n, right=n < 12, num_rounds=1 + n // 10) for n in range(20)]
    (one, two) = by_rounds([run(records)])
    assert [(row.label, row.estimates[0].count, row.estimates[0].value) for row in (one, two) if row.estimates[0]] == [
        ("1", 10, 1.0),
        ("2", 10, 0.2),
    ]
    assert two.estimates[0] is not None
    assert two.estimates[0].interval is not None
    assert two.estimates[0].interval.low < 0.2 < two.estimates[0].interval.high


def test_very_many_rounds_share_a_row() -> None:
    rows = by_rounds([run([record(n, num_rounds=rounds) for n, rounds in enumerate((0, 9, 10, 500))])])
    assert [row.label for row in rows] == ["0", "9", "10 or more"]


def test_lengths_have_fixed_borders_and_a_border_belongs_to_the_longer() -> None:
    seconds = (59.9, 60, 179, 180, 3600, 1e9)
    rows = by_length([run([record(n, video_duration_s=s) for n, s in enumerate(seconds)])])
    assert [(row.label, row.estimates[0].count) for row in rows if row.estimates[0]] == [
        ("under 1 min", 1),
        ("1 to 3 min", 2),
        ("3 to 10 min", 1),
        ("60 min and more", 2),
    ]


def test_token_bins_hold_about_as_many_samples_each() -> None:
    assert token_edges([100 * n for n in range(1001)]) == [20000, 40000, 60000, 80000]
    assert token_edges([7] * 50) == [7]
    assert token_edges([]) == []
    rows = by_tokens([run([record(n, total_tokens=100 * n) for n in range(1001)])])
    assert [row.label for row in rows][:2] == ["under 20,000", "20,000 to 40,000"]
    assert [row.estimates[0].count for row in rows if row.estimates[0]] == [200, 200, 200, 200, 201]


def test_runs_stand_side_by_side_and_one_without_such_a_sample_has_a_gap() -> None:
    rows = by_rounds([run([record(0, num_rounds=1)]), run([record(0, num_rounds=2)])])
    assert [(row.label, [one is not None for one in row.estimates]) for row in rows] == [
        ("1", [True, False]),
        ("2", [False, True]),
    ]


def test_stop_reasons_are_shares_of_all_samples_and_rare_ones_stand_together() -> None:
    reasons = ["answer_found"] * 20 + [f"reason {n // 2}" for n in range(20)]
    rows = by_stop_reason([run([record(n, stop_reason=reason) for n, reason in enumerate(reasons)])])
    assert len(rows) == 9
    assert rows[0].label == "answer_found"
    assert rows[-1].label == "other (3 reasons)"
    shares = [row.estimates[0].value for row in rows if row.estimates[0]]
    assert (shares[0], sum(shares)) == (0.5, pytest.approx(1))


def test_frames_spread_evenly_have_the_density_one_and_every_sample_weighs_the_same() -> None:
    even = np.linspace(0.025, 0.975, 20, dtype=np.float32)
    assert density([even]) == pytest.approx(np.ones(20))
    both = density([even, np.array([0.01], dtype=np.float32)])
    assert both is not None
    assert (both[0], both[1], both.mean()) == (pytest.approx(10.5), pytest.approx(0.5), pytest.approx(1))
    assert density([np.array([], dtype=np.float32)]) is None


def test_places_are_relative_to_the_video_and_the_first_look_is_that_of_the_first_round_with_frames() -> None:
    rounds = [{"calls": []}, look(0.0, 15.0), look(30.0, 99.0)]
    (sample,) = run([record(0, video_duration_s=30.0, trajectory=rounds)]).samples
    assert sample.first_look.tolist() == [0.0, 0.5]
    assert sample.later_looks.tolist() == [1.0, 1.0]


# --- an agent and its baselines


def baseline(agent: str, *, tokens: int = 1000, mixed: bool = False, **settings: Any) -> Run:
    meta = Meta({"dataset": "own", "agent": agent, **settings}, {}, (), mixed=({},) if mixed else ())
    rows = [record(n, right=n % 3 > 0, total_tokens=tokens) for n in range(9)]
    return run(rows, f"run of {tokens}", agent=f"{agent}, {tokens}", meta=meta)


def test_runs_that_differ_in_the_number_of_frames_alone_are_one_curve() -> None:
    many, few = baseline("uniform", tokens=4000, nframes=32), baseline("uniform", nframes=8)
    others = [
        baseline("uniform", nframes=16, frame_tokens=64), baseline("uniform", nframes=64, mixed=True),
        baseline("uniform", match_sha256="x"), baseline("mine.py:Mine", nframes=8), run([record(0)]),
    ]  # fmt: skip
    assert curves([many, *others, few]) == [[(8, 6), (32, 0)]]
    assert curves([many, *others]) == []


def test_a_curve_is_drawn_with_its_frames_and_each_run_is_called_by_its_agent() -> None:
    uniform = [baseline("uniform", tokens=tokens, nframes=tokens // 125) for tokens in (4000, 1000)]
    drawn = ({one.title: one for one in charts(runs)} for runs in (uniform[:1], uniform))
    alone, both = (found["Tokens and accuracy"] for found in drawn)
    assert {"32", "8", "run of 1000 (uniform, 1000)", "run of 4000 (uniform, 4000)"} <= set(texts(both))
    assert "32" not in texts(alone) and "number of frames" not in " ".join(texts(alone))
    assert "run of 4000 (uniform, 4000): 4,000 tokens, 66.7%" in both.description
    assert max(numbers_at(both.svg, "-ytick_")) <= 100


def test_published_figures_belong_to_the_agent_that_they_were_measured_of() -> None:
    other, first, second = (replace(run([record(0)]), published=PUBLISHED) for _ in range(3))
    other = replace(other, agent="uniform, 8 frames")
    assert beside_published([other, first, second, replace(other, dataset="mlvu")]) == {1, 3}
    assert [one is not None for one in by_source([other, first])[1].estimates] == [False, True]


# --- the page that they stand in


def test_a_picture_has_no_ink_of_its_own_and_brings_nothing_from_outside(drawn: Mapping[str, Chart]) -> None:
    for chart in drawn.values():
        assert chart.svg.startswith('<svg role="img" aria-label="')
        assert chart.svg.endswith("</svg>")
        assert "currentColor" in chart.svg
        assert not re.search(r"#000000|#ffffff|: (black|white)", chart.svg)
        assert set(re.findall(r"\w+://[^\"']*", chart.svg)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }
        tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(chart.svg).iter()}  # noqa: S314
        assert tags <= {"svg", "defs", "g", "path", "text", "tspan", "use", "clipPath", "rect"}, tags


def test_no_two_elements_of_a_page_share_an_id(drawn: Mapping[str, Chart]) -> None:
    svgs = [chart.svg for chart in drawn.values()]
    ids = [name for svg in svgs for name in re.findall(r'\bid="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))
    referred = {name for svg in svgs for name in re.findall(r'(?:href="|url\()#([^")]+)', svg)}
    assert referred <= set(ids)


def test_the_same_numbers_give_the_same_bytes_and_leave_matplotlibs_settings_alone() -> None:
    def drawn() -> str:
        return render(lambda axes: axes.plot([1, 3, 2], label="x"), height_in=2, key="a", title="T")

    before, first = dict(mpl.rcParams), drawn()
    with mpl.rc_context({"lines.linewidth": 9, "axes.facecolor": "black", "svg.fonttype": "path"}):
        assert drawn() == first
    assert dict(mpl.rcParams) == before


def test_hostile_text_is_only_ever_text() -> None:
    records = [record(n, stop_reason=HOSTILE, category=HOSTILE + "x" * 10_000) for n in range(6)]
    runs = [run(records, name, HOSTILE) for name in (HOSTILE, "_hidden")]
    found = charts(runs)
    assert any(chart.title.startswith("Accuracy by category, </text><script>") for chart in found)
    for chart in found:
        elements = list(ElementTree.fromstring(chart.svg).iter())  # noqa: S314
        assert not any(name.startswith("on") for element in elements for name in element.attrib)
        assert f"{SVG}script" not in {element.tag for element in elements}
        assert len(chart.svg) < 200_000
        assert len(chart.description) < 5000
        assert "_hidden" in texts(chart)
        assert any(text.startswith("</text><script>") for text in texts(chart))
        assert "\ufffd" in chart.description
        chart.svg.encode()


def numbers_at(svg: str, axis: str) -> list[float]:
    """The numbers along an axis of a picture."""
    groups = [one for one in ElementTree.fromstring(svg).iter() if axis in (one.get("id") or "")]  # noqa: S314
    found = [
        "".join(text.itertext()).replace("\N{MINUS SIGN}", "-") for group in groups for text in group.iter(f"{SVG}text")
    ]
    numbers = [text.replace("\N{MINUS SIGN}", "-").replace(",", "") for text in found]
    return [float(text) for text in numbers if re.fullmatch(r"-?[\d.]+", text)]


@pytest.mark.parametrize("right", [0, 1, 4])
@pytest.mark.parametrize("count", [4, 60])
def test_no_accuracy_is_drawn_outside_of_0_to_100(count: int, right: int) -> None:
    records = [record(n, right=n % 4 < right, num_rounds=1 + n % 2, category=f"c{n % 3}") for n in range(count)]
    found = {chart.title: chart.svg for chart in charts([run(records, published=PUBLISHED)])}
    for title, svg in found.items():
        if title.startswith("Accuracy"):
            assert min(numbers_at(svg, "-xtick_")) >= 0 and max(numbers_at(svg, "-xtick_")) <= 100, title
            assert "clip-path" not in markers_of(svg), "a marker at the end of the axis would be cut in half"
    ticks = numbers_at(found["Tokens and accuracy"], "-ytick_")
    assert min(ticks) >= 0 and max(ticks) <= 100
    assert "clip-path" not in markers_of(found["Tokens and accuracy"])
    assert ("Accuracy by total tokens" in found) == (count == 60), "four samples are no bins"


def markers_of(svg: str) -> str:
    return "".join(re.findall(r'<g clip-path="[^"]*">\s*<use [^>]*style="[^"]*--run', svg))


def test_accuracies_below_each_other_have_one_scale(drawn: Mapping[str, Chart]) -> None:
    scales = {title: numbers_at(chart.svg, "-xtick_") for title, chart in drawn.items() if title.startswith("Accuracy")}
    assert len(scales) == 5
    assert len({tuple(ticks) for ticks in scales.values()}) == 1, scales


def test_every_text_has_eleven_pixels_on_a_phone(drawn: Mapping[str, Chart]) -> None:
    for chart in drawn.values():
        picture = ElementTree.fromstring(chart.svg)  # noqa: S314
        width = float((picture.get("viewBox") or "").split()[2])
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", chart.svg)]
        assert sizes and min(sizes) * 336 / width >= 11, chart.title


# --- what is left out


def test_records_of_the_reference_give_what_can_be_drawn() -> None:
    old = [record(n, messages="Video Length: 59 seconds. Original video resolution: 360p. Who?") for n in range(6)]
    for one in old:
        del one["video_duration_s"]
    assert [chart.title for chart in charts([run(old)])] == [
        "Accuracy", "Accuracy by rounds", "Stop reasons", "Tokens and accuracy"
    ]  # fmt: skip


def test_records_without_counts_give_what_can_be_drawn() -> None:
    bare = [{"index": n, "gt": "B", "answer": "B", "stop_reason": "answer_found"} for n in range(3)]
    assert [chart.title for chart in charts([run(bare)])] == ["Accuracy", "Stop reasons"]


def test_no_runs_and_empty_runs_are_no_pictures() -> None:
    assert charts([]) == []
    assert charts([run([])]) == []
    assert [row.estimates for row in by_evidence([run([])])] == []


def test_one_video_alone_is_drawn_without_intervals() -> None:
    (_, chart, *_) = charts([run([record(n, videos=["a.mp4"]) for n in range(3)])])
    assert "100.0% of 1" in chart.description


def test_of_very_many_categories_the_largest_are_drawn_and_the_rest_is_said() -> None:
    many = run([record(n, category=f"category {min(n, 40)}") for n in range(80)])
    assert len(by_category([many])) == 24
    (chart,) = [chart for chart in charts([many]) if "category" in chart.title]
    assert "category 40 100.0%" in chart.description
    assert "The 24 largest of 41 categories." in chart.description


def test_a_sample_without_the_category_that_others_have_is_drawn_as_unknown() -> None:
    records = [record(n, right=n < 2, video_duration_s=None if n < 4 else 60.0) for n in range(10)]
    groups = {group.label: group.estimates[0] for group in by_category([run(records, dataset="videomme")])}
    assert {label: one and (one.count, one.value) for label, one in groups.items()} == {
        "short": (6, 0), "unknown": (4, 0.5)
    }  # fmt: skip
    assert by_category([run([record(0)])]) == []


def test_a_run_looks_the_same_in_every_picture_also_where_it_stands_alone() -> None:
    first = run([record(n) for n in range(4)], "first", "own")
    second = run([record(n, Question_Type="SR") for n in range(4)], "second", "videoholmes")
    found = {chart.title: chart.svg for chart in charts([first, second])}
    assert "--run-2" in found["Accuracy by category, videoholmes"]
    assert "--run-1" not in found["Accuracy by category, videoholmes"]
    assert "--run-1" in found["Accuracy by rounds"]


def test_numbers_beyond_sense_are_drawn_all_the_same() -> None:
    far = [-(2.0**53), 2.0**53, 0.5, 1e-12]
    records = [
        record(n, num_rounds=value, total_tokens=value, trajectory=[look(value, 0.0)], video_duration_s=0.001)
        for n, value in enumerate(far)
    ]
    assert len(charts([run(records)])) == 5


def test_an_unfinished_run_has_no_intervals_and_is_called_so() -> None:
    whole, part = full_run(), replace(full_run("result_b"), partial=True)
    for chart in charts([part]):
        assert not re.search(r"\(\d+\.\d% to", chart.description), chart.description
        assert "95 %" not in chart.svg
    both = {chart.title: chart.description for chart in charts([whole, part])}["Accuracy by rounds"]
    first, second = both.split("result_b, so far: ")
    assert re.search(r"\(\d+\.\d% to", first) and not re.search(r"\(\d+\.\d% to", second)
