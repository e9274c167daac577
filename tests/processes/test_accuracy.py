"""accuracy.py as a process: what it prints of a result file, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from harness import called, only_sentence

from eva.__main__ import main


def record(**more: Any) -> dict[str, Any]:
    basic = {"index": 0, "gt": "B", "answer": "B", "stop_reason": "answer_found", "num_rounds": 2, "total_tokens": 100}
    return {**basic, **more}


def score(folder: Path, *records: Any) -> subprocess.CompletedProcess[str]:
    path = folder / "result_x.jsonl"
    texts = (one if isinstance(one, str) else json.dumps(one) for one in records)
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return run(str(path))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return called("accuracy.py", *arguments)


def test_the_pieces_of_the_report_stand_in_their_order(tmp_path: Path) -> None:
    done = score(
        tmp_path,
        record(),
        record(index=1, answer=" b ", num_rounds=3, total_tokens=101),
        record(index=2, gt="b. two", answer="B. TWO"),
        record(index=3, answer="", stop_reason="max_turns_exceeded", num_rounds=6),
        record(index=4, answer="C", gt="@"),
        record(index=5, answer="", stop_reason="exception", num_rounds=0, total_tokens=0, error="RuntimeError"),
        record(index=6, answer="  ", stop_reason="no_valid_tool_call", total_tokens=2.5),
    )
    assert done.stdout.splitlines()[:7] == [
        "Total entries: 7",
        "Accuracy: 3/7 = 42.8571%",
        "Empty answers: 3",
        "Average rounds: 2.4286",
        "Average total tokens: 71.9286",
        "Stop reasons:",
        "  answer_found: 4",
    ]


def test_the_denominator_is_the_lines_of_the_file(tmp_path: Path) -> None:
    done = score(tmp_path, record(), record(), record(gt="A"))
    assert "2/3 = 66.6667%" in done.stdout


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    done = score(tmp_path)
    assert done.returncode != 0
    assert "result_x.jsonl" in only_sentence(done.stderr)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    done = run(str(tmp_path / "absent.jsonl"))
    assert done.returncode != 0
    assert "absent.jsonl" in only_sentence(done.stderr)


def test_the_package_has_the_command_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eva", "score", str(tmp_path / "absent.jsonl")]) == 2
    assert capsys.readouterr().err.startswith("eva score: ")
    assert (main(["eva", "--help"]), main(["eva"]), main(["eva", "absent"])) == (0, 2, 2)
    said = capsys.readouterr()
    assert (said.out.count("usage:"), said.err.count("usage:")) == (1, 2)


@pytest.mark.parametrize("field", ["num_rounds", "total_tokens"])
def test_a_field_that_is_missing_is_an_error_that_names_line_and_field(tmp_path: Path, field: str) -> None:
    bad = record()
    del bad[field]
    done = score(tmp_path, record(), record(), bad)
    assert done.returncode != 0
    sentence = only_sentence(done.stderr)
    assert field in sentence
    assert re.search(r"\bline 3\b", sentence)
    assert done.stdout == ""


@pytest.mark.parametrize(("field", "name"), [("num_rounds", "rounds"), ("total_tokens", "total tokens")])
def test_a_count_that_cannot_be_costs_its_average_one_record_and_not_the_file(
    tmp_path: Path, field: str, name: str
) -> None:
    values = [str(2**60), "1" + 400 * "0", "-1", '"2"', "null", "NaN", "1e400", "[]", "true"]
    bad = [
        re.sub(rf'"{field}": \d+', f'"{field}": {value}', json.dumps(record(index=90 - n)))
        for n, value in enumerate(values)
    ]
    done = score(tmp_path, record(**{field: 3}), *bad, record(index=1, **{field: 4}))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert f"Average {name}: 3.5000" in lines
    assert f"Records without a usable {field}: 9 (index 82, 83, 84, 85, 86, 87, 88, 89, 90)" in lines
    assert "Accuracy: 11/11 = 100.0000%" in lines
    assert "usable" not in score(tmp_path, record(), record(index=1, num_rounds=0, total_tokens=2**53)).stdout


@pytest.mark.parametrize("bad", ["{", "[]", "7", "null"])
def test_a_line_that_is_no_record_is_an_error_that_names_it(tmp_path: Path, bad: str) -> None:
    done = score(tmp_path, record(), bad)
    assert done.returncode != 0
    assert re.search(r"\bline 2\b", only_sentence(done.stderr))


def test_without_a_file_it_says_how_it_is_used() -> None:
    done = run()
    assert done.returncode == 2
    assert done.stderr == "accuracy.py: the following arguments are required: FILE (all flags: accuracy.py --help)\n"
