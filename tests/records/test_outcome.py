"""eva/records/outcome.py: how many options a question has, and how likely a guess is right."""

from __future__ import annotations

import pytest
from harness import SHARED

from eva.dataset.items import load_items
from eva.protocol.option import count_options
from eva.records.schema import read_record
from eva.scoring.figures import sure_lines
from eva.scoring.score import Score, make_score

ANNOTATIONS = SHARED / "annotations"


def of(question: str, truth: str) -> float | None:
    return read_record({"index": 0, "schema": 1, "question": question, "gt": truth}).outcome.chance


@pytest.mark.parametrize(
    ("question", "count"),
    [
        ("Which one?\nA. Apples.\nB. Candles.\nC. Berries.\nD. All of them.", 4),  # Video-MME, Video-Holmes, our own
        ("Which?\nA. red\nB. white\nC. blue\nD. black\nE. pink\nAnswer with the option's letter directly.", 5),
        ("Question: What colour?\nOptions:\n(A) Yellow\n(B) Red\n(C) Green\n(D) Blue\nOnly give the best option.", 4),
        ("Is there one?\nOptions:\n(A) \n(B) There is\n(C) There is none\n(D)\nOnly give the best option.", 4),  # MLVU
        (r"What did they do?\nA: Picked up a tape.\nB: Gathered it.\nC: Used it.", 3),  # LSDBench
        (r"Which year?\n(A) 1636\n(B) 1366\n(C) 1363\n(D) 1633", 4),  # LVBench
        ("A. Einstein says:\nB. Russell agrees.\nWho?\nA. one\nB. two\nC. three", 3),
        ("What is shown?", None),
        ("What? A. one B. two", None),
        ("What?\nB. two\nC. three", None),
        ("What?\nA. one\nC. three", None),
        ("What?\nA. alone", None),
        ("", None),
    ],
)
def test_the_options_are_the_lines_that_begin_with_the_letters_in_their_order(question: str, count: int | None) -> None:
    assert count_options(question) == count


@pytest.mark.parametrize(
    ("truth", "owed"), [("B", 1 / 3), (" c ", 1 / 3), ("D", 0), ("@", 0), ("(B)", 0), ("three", 0)]
)
def test_a_guess_is_right_once_in_the_number_of_options(truth: str, owed: float | None) -> None:
    assert of("Who?\nA. one\nB. two\nC. three", truth) == owed


@pytest.mark.skipif(not ANNOTATIONS.exists(), reason="the annotations (../shared/annotations) are not here")
@pytest.mark.parametrize(
    ("name", "owed"),
    [
        ("LSDBench_raw_full.jsonl", 1 / 4),
        ("LVBench_raw_full_root.jsonl", 1 / 4),
        ("LongVideoBench_nosub_raw_full.jsonl", (353 / 4 + 983 / 5 + 1 / 3) / 1337),
        ("MLVU_MCQ_raw_full.jsonl", 2172 / 2174 / 4),  # two questions have the truth @
        ("videoholmes_raw_full.jsonl", 1 / 6),
        ("videomme_test_wosubtitles_raw_list_full.jsonl", 1 / 4),
    ],
)
def test_the_options_of_every_question_of_the_six_datasets_can_be_read(name: str, owed: float) -> None:
    chances = [of(item.prompt[-1]["content"], item.ground_truth) for item in load_items(ANNOTATIONS / name)]
    known = [chance for chance in chances if chance is not None]
    assert len(known) == len(chances)
    assert sum(known) / len(known) == pytest.approx(owed)


# --- the line of a summary


def lines(*questions: str) -> Score:
    records = [{"index": n, "schema": 1, "question": text, "gt": "A"} for n, text in enumerate(questions)]
    return make_score([read_record(one).outcome for one in records], 0)


def chance(score: Score) -> str:
    return sure_lines(score)[-1]


def test_the_line_says_of_how_many_questions_it_is() -> None:
    two, four = "?\nA. 1\nB. 2", "?\nA. 1\nB. 2\nC. 3\nD. 4"
    assert chance(lines(two, four)) == "Chance: 37.50%"
    assert "37.50%, of 2 of 3 questions" in chance(lines(two, four, "open"))
    assert "not known" in chance(lines("open"))
    score = lines(two, "open")
    assert (score.chance.accuracy, score.chance.questions) == (0.5, 1)


def test_a_record_of_the_reference_has_the_options_of_its_transcript() -> None:
    opening = "Video Length: 59 seconds. Original video resolution: 360p. Who?\nA. one\nB. two"
    record = read_record({"index": 0, "gt": "B", "messages": f"<|im_start|>user\n{opening}<|im_end|>\n"})
    assert record.outcome.options == 2
