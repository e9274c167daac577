"""Where the time of samples went: the figures, and what a person is told."""

from __future__ import annotations

from typing import Any

import pytest

from eva.records.schema import Record, read_record
from eva.scoring.time_use import sample_times, time_figures, time_lines


def record(*prompts: tuple[int, int, int | None], frames_s: float = 1.0) -> Record:
    """Ten seconds, with rounds of prompt, completion and cached tokens."""
    rounds = [
        {"usage": {"prompt_tokens": prompt, "total_tokens": prompt + said, "cached_tokens": cached}}
        for prompt, said, cached in prompts
    ]
    waited = {"seat_s": 0.5, "server_s": 8.0, "frames_s": frames_s}
    return read_record({"index": 1, "trajectory": rounds, "seconds": 10, "waited": waited, "schema": 1})


def figures(*records: Record) -> dict[str, Any]:
    return time_figures(map(sample_times, records))


def test_the_figures_add_up_over_samples_and_what_can_be_cached_is_whole_blocks_of_the_round_before() -> None:
    found = figures(record((100, 20, 0), (200, 30, 96), (250, 10, 224)), record((100, 20, 64)))
    assert found["samples"] == {"count": 2, "seconds": 20, "seat_s": 1.0, "server_s": 16.0, "frames_s": 2.0}
    cacheable = 96 + 224  # of 119 and 229: each last token is computed anew, and a block has 32 tokens
    assert found["prompt_tokens"] == {
        "total": 650,
        "cacheable_share": round(cacheable / 650, 4),
        "cached_share": round((96 + 224 + 64) / 650, 4),
    }


@pytest.mark.parametrize(
    ("one", "lines"),
    [
        (
            record((100, 20, 0), (100, 20, 96)),
            [
                "Prompt tokens: cached 48% of 48% possible",
                "Samples waited 80% of their time for replies, 5% for their turn at a server, 10% for frames",
            ],
        ),
        (record((100, 20, 0), (200, 20, 10)), ["see 'Where the time goes' in docs/servers.md", "for frames"]),
        (record((100, 20, 0), frames_s=5.0), ["50% for frames: more --frame-workers may help"]),
        (record((100, 20, 0), (200, 30, None)), ["10% for frames"]),
        (read_record({"index": 1}), []),
        (read_record({"index": 2, "waited": {"seat_s": "x"}, "schema": 1}), []),
    ],
    ids=["cached", "missed", "frames", "a reply does not say it", "nothing", "no number"],
)
def test_what_is_known_has_a_line(one: Record, lines: list[str]) -> None:
    found = time_lines(figures(one))
    assert len(found) == len(lines)
    assert all(line.endswith(end) for line, end in zip(found, lines, strict=True))


@pytest.mark.parametrize("value", [None, [], "x", -1, 1e308, 10**400, float("nan"), True])
def test_a_record_from_anybody_gives_lines_or_none(value: Any) -> None:
    usage = dict.fromkeys(("prompt_tokens", "total_tokens", "cached_tokens"), value)
    waited = dict.fromkeys(("seat_s", "server_s", "frames_s"), value)
    one = {"index": 1, "seconds": value, "waited": waited, "schema": 1, "trajectory": [{"usage": usage}] * 2}
    assert "nan" not in " ".join(time_lines(figures(read_record(one), record((100, 20, 0)))))
    time_lines(figures(read_record(one)))
