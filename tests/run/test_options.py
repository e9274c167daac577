"""What the words of a command line stand for."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from eva.commands.run_flags import REFERENCE_FLAGS, RunCommand, make_parser, parse_command, resume_command
from eva.run.options import addresses, rank_count

VALUES = {"--dataset": "own", "--output-dir": "x"}
WITHOUT_VALUE = {"--new-cache", "--retry-error", "--fallback", "--no-fallback"}


def parsed(*words: str) -> RunCommand:
    return parse_command("eval-eva.py", words, {}, ["own"])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("http://host:8000/v1", ["http://host:8000/v1"]),
        ("http://host:8000-8002/v1", [f"http://host:800{n}/v1" for n in range(3)]),
        ("http://host:8000-8000", ["http://host:8000"]),
        ("http://a:1-2/v1,,http://b:3/v1", ["http://a:1/v1", "http://a:2/v1", "http://b:3/v1"]),
        ("http://[::1]:8000-8001/v1?key=1-2", ["http://[::1]:8000/v1?key=1-2", "http://[::1]:8001/v1?key=1-2"]),
        ("http://me:12-34@host:80/v1", ["http://me:12-34@host:80/v1"]),
        ("http://me:12-34@host:80-81/v1", ["http://me:12-34@host:80/v1", "http://me:12-34@host:81/v1"]),
        ("http://host/a:1-2/v1", ["http://host/a:1-2/v1"]),
    ],
)
def test_a_range_of_ports_stands_for_a_server_on_each(text: str, meant: list[str]) -> None:
    assert addresses(text) == tuple(meant)


@pytest.mark.parametrize("ports", ["8007-8000", "8000-70000"])
def test_a_range_of_ports_that_cannot_be_is_refused_without_its_password(ports: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"the ports {ports}") as refused:
        addresses(f"http://me:swordfish@host:{ports}/v1")
    assert "swordfish" not in str(refused.value)


def test_ranks_are_a_number_or_left_to_the_server_or_off() -> None:
    assert [rank_count(text) for text in ("auto", "8", "0")] == [None, 8, 0]
    with pytest.raises(Exception, match="from 0 on"):
        rank_count("-1")


@pytest.mark.parametrize("flag", sorted({*REFERENCE_FLAGS} - {"--help"}))
def test_the_beginning_of_one_flag_of_the_reference_is_that_flag_whatever_other_flags_there_are(flag: str) -> None:
    value = [] if flag in WITHOUT_VALUE else [VALUES.get(flag, "7")]
    dataset = [] if flag == "--dataset" else ["--dataset", "own"]
    for end in range(3, len(flag)):
        words = [*dataset, flag[:end], *value]
        if sum(other.startswith(flag[:end]) for other in REFERENCE_FLAGS) == 1:
            assert parsed(*words) == parsed(*dataset, flag, *value)
        else:
            with pytest.raises(SystemExit):
                parsed(*words)


def test_a_flag_of_this_project_has_one_name_that_no_flag_of_the_reference_begins_with() -> None:
    own = set(make_parser({}, ["own"])._option_string_actions) - {*REFERENCE_FLAGS}
    assert not any(flag.startswith(name) for name in own for flag in REFERENCE_FLAGS if name.startswith("--"))
    with pytest.raises(SystemExit):
        parsed("--dataset", "own", "--base", "http://host/v1")


@pytest.mark.parametrize(
    ("words", "owed"),
    [
        (["--new", "--retry", "--max-t=3"], "--max-turns=3"),
        (["--api-key", "x"], "--api-key YOUR_KEY"),
        (["--base-url=http://u:p@h/v1?key=a@b"], "--base-url=http://YOUR_USER:YOUR_PASSWORD@h/v1?key=YOUR_KEY"),
        (["--base-url", "http://token@h/v1,http://h/v1"], "--base-url http://YOUR_USER:YOUR_PASSWORD@h/v1,http://h/v1"),
        (["--header", "X: secret"], "--header X: YOUR_VALUE"),
    ],
)
def test_the_command_to_go_on_deletes_nothing_and_has_placeholders_for_secrets(words: list[str], owed: str) -> None:
    assert resume_command(["eval-eva.py", *words]).replace("'", "") == f"python eval-eva.py {owed}"
