"""The option that a reply of a general model chooses: one rule for all agents but EVA (docs/agents.md). Pure.

Each form is matched in time linear in the reply's length.
"""

from __future__ import annotations

import re
import string
import unicodedata
from functools import cache

ANSWER_FORM = "Give only the letter of the right option, as <answer>letter</answer>."
# What a reply may choose where the question does not have more.
LETTERS = "ABCDEFGH"
# `A. `, `A: ` or `(A) ` at the start of a line. In some annotation files a line ends with a backslash and an n.
_LABEL = re.compile(r"(?:^|\n|\\n)[ \t]*\(?([A-Z])[.:)]")
# A ground truth that means a letter by more than the letter: `(B)`, `B. two`.
_MARKED = re.compile(r"\W*[A-Z]\W*|\(?[A-Z][.:)].*", re.DOTALL)
# Marks of Markdown and LaTeX, brackets and quotes that may stand before a letter.
_DRESS = r"[\s*_`\"'\u201c\u2018#>(\[{$\\]{0,20}"
# In all forms, A-H stands for the letters that a reply may choose.
_LETTER = r"(?P<letter>[A-H])(?!\w)"
_SPOKEN = (
    r"(?i)\b(?:answer|(?:option|choice)(?=\W{0,20}(?:is\b|:)))"
    r"[\s*_]{0,10}(?:\b(?:is|would be|should be|must be)\b|[:.=\-\u2013—]|\s)[\s*_:]{0,20}"
    r"(?:(?:most likely|probably|likely|clearly|therefore|thus) )?(?:the )?(?:(?:option|choice|letter)\b)?"
    rf"{_DRESS}{_LETTER}"
)
_BOXED = rf"(?i)\\boxed\s{{0,9}}\{{(?:\s{{0,9}}\\(?:text|mathrm|mathbf|textbf)\b)?{_DRESS}{_LETTER}"
# "I, as a model" is not an option.
_LEADING = rf"(?i)(?:option |choice )?{_DRESS}{_LETTER}(?!(?<=I),)"
# What shows that the letter is an option and not a word: a closing mark, the end, a mark behind a label, a reason.
_AFTER = (
    r"[)\]}*_`\"\u201d\u2019$]|'(?!\w)"
    r"|[ \t]{0,20}(?:\Z|[\n)\]}]|[.:;](?!\w\.)|[\u2013—(]|- |,(?!\s{0,9}(?:(?:and|or)\s{1,9})?(?!I\b)[A-H]\b)"
    r"|(?:because|since|as|which|is (?:the )?(?:right|correct|best))\b)"
)
_OPTION_LINE = r"(?m)^[ \t*_(>-]{0,9}([A-H])[).:]"


def count_options(question: str) -> int | None:
    """The number of options at the end of a question: lines that begin with A, B, C, ... None of fewer than two."""
    count = 0
    for letter in _LABEL.findall(question):
        expected = letter == chr(ord("A") + count)
        count = count + 1 if expected else int(letter == "A")
    return count if count >= 2 else None


def can_be_letter(truth: str, options: int | None) -> bool:
    """Whether a letter can equal a ground truth: a letter of its question.

    `options` is the number of these, None where they cannot be read. Then a text may be what is asked for.
    """
    truth = truth.strip().upper()
    if options is not None:
        return len(truth) == 1 and truth in string.ascii_uppercase[:options]
    marked = _MARKED.fullmatch(unicodedata.normalize("NFKC", truth))
    return any(map(str.isalnum, truth)) and (marked is None or truth in set(string.ascii_uppercase))


def option_letters(question: str) -> str:
    """The letters that a reply may choose: LETTERS, and those that the question has beyond them."""
    return string.ascii_uppercase[: max(len(LETTERS), count_options(question) or 0)]


def find_option(text: str, letters: str = LETTERS) -> str:
    """The answer in a reply, or the empty text. What stands before `</think>` does not count.

    The last `<answer>` block that is not empty counts: its leading option letter, or all of it where there is none.
    Then the last `\\boxed{X}`, the last "answer: X" or "answer is X", and a letter that leads the reply.
    """
    text = text.rpartition("</think>")[2].strip()
    tagged = find_tagged(text)
    if tagged:
        return _leading(tagged, letters) or tagged
    return (
        _last(_BOXED, text, letters)
        or _last(_SPOKEN, text, letters)
        or ("" if _lists_options(text, letters) else _leading(text, letters))
    )


def find_tagged(text: str) -> str:
    """What the last `<answer>` block with a content holds."""
    end = len(text)
    while (end := text.rfind("</answer>", 0, end)) >= 0:
        start = text.rfind("<answer>", 0, end)
        if start < 0:
            return ""
        inside = text[start + len("<answer>") : end].strip()
        if inside:
            return inside
        end = start
    return ""


@cache
def _form(pattern: str, letters: str) -> re.Pattern[str]:
    return re.compile(pattern.replace("A-H", letters))


def _last(pattern: str, text: str, letters: str) -> str:
    matches = reversed([*_form(pattern, letters).finditer(text)])
    return next((letter for match in matches if (letter := _letter(match, text, letters))), "")


def _leading(text: str, letters: str) -> str:
    match = _form(_LEADING, letters).match(text)
    return _letter(match, text, letters) if match else ""


def _letter(match: re.Match[str], text: str, letters: str) -> str:
    return match["letter"].upper() if _form(_AFTER, letters).match(text, match.end()) else ""


def _lists_options(text: str, letters: str) -> bool:
    """Whether it repeats the options: then the first letter is not a choice."""
    return len(set(_form(_OPTION_LINE, letters).findall(text))) > 1
