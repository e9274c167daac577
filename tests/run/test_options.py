"""What the words of a command line stand for."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from eva.run.options import addresses, rank_count


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
