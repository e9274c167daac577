"""What of a stranger's text comes before people's eyes."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from eva.text import printable, printable_lines


@pytest.mark.parametrize(
    ("text", "owed"),
    [
        ("plain <b> text", "plain <b> text"),
        ("日本 café", "日本 café"),
        ("two\nlines\tand\u2028more", "two lines and more"),
        ("\x1b[31mred\x00", "\ufffd[31mred\ufffd"),
        ("\ud800", "\ufffd"),
        ("\u202ereversed", "\ufffdreversed"),
        ("x" * 12, "x" * 9 + "…"),
        ("x" * 10, "x" * 10),
    ],
)
def test_it_is_one_line_of_printable_characters(text: str, owed: str) -> None:
    assert printable(text, limit=10 if text.startswith("xx") else 200) == owed


def test_every_character_is_one_that_xml_can_hold() -> None:
    for code in [*range(0x3000), *range(0xD7F0, 0xE010), *range(0xFFF0, 0x10010), 0x10FFFF]:
        text = printable(chr(code)).replace("&", "").replace("<", "")
        ElementTree.fromstring(f"<a>{text}</a>".encode())  # noqa: S314  our own text


def test_several_lines_stay_lines_and_each_is_printable() -> None:
    assert printable_lines(["one", "  \x1b[2Jtwo\r\u2028three\n", ""]) == "one\n  \ufffd[2Jtwo  three \n"
