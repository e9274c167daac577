"""The option that a reply of a general model chooses: one rule for all agents but EVA (docs/agents.md). Pure.

Each form is matched in time linear in the reply's length.
"""

from __future__ import annotations

import re

ANSWER_FORM = "Give only the letter of the right option, as <answer>letter</answer>."
# Marks of Markdown and LaTeX, brackets and quotes that may stand before a letter.
_DRESS = r"[\s*_`\"'\u201c\u2018#>(\[{$\\]{0,20}"
_LETTER = r"(?P<letter>[A-H])(?!\w)"
_SPOKEN = re.compile(
    r"\b(?:answer|(?:option|choice)(?=\W{0,20}(?:is\b|:)))"
    r"[\s*_]{0,10}(?:\b(?:is|would be|should be|must be)\b|[:.=\-\u2013—]|\s)[\s*_:]{0,20}"
    r"(?:(?:most likely|probably|likely|clearly|therefore|thus) )?(?:the )?(?:(?:option|choice|letter)\b)?"
    rf"{_DRESS}{_LETTER}",
    re.IGNORECASE,
)
_BOXED = re.compile(
    rf"\\boxed\s{{0,9}}\{{(?:\s{{0,9}}\\(?:text|mathrm|mathbf|textbf)\b)?{_DRESS}{_LETTER}", re.IGNORECASE
)
_LEADING = re.compile(rf"(?:option |choice )?{_DRESS}{_LETTER}", re.IGNORECASE)
# What shows that the letter is an option and not a word: a closing mark, the end, a mark behind a label, a reason.
_AFTER = re.compile(
    r"[)\]}*_`\"\u201d\u2019$]|'(?!\w)"
    r"|[ \t]{0,20}(?:\Z|[\n)\]}]|[.:;](?!\w\.)|[\u2013—(]|- |,(?!\s{0,9}(?:(?:and|or)\s{1,9})?[A-H]\b)"
    r"|(?:because|since|as|which|is (?:the )?(?:right|correct|best))\b)"
)
_OPTION_LINE = re.compile(r"^[ \t*_(>-]{0,9}([A-H])[).:]", re.MULTILINE)


def find_option(text: str) -> str:
    """The answer in a reply, or the empty text. What stands before `</think>` does not count.

    The last `<answer>` block that is not empty counts: its leading option letter, or all of it where there is none.
    Then the last `\\boxed{X}`, the last "answer: X" or "answer is X", and a letter that leads the reply.
    """
    text = text.rpartition("</think>")[2].strip()
    tagged = find_tagged(text)
    if tagged:
        return _leading(tagged) or tagged
    return _last(_BOXED, text) or _last(_SPOKEN, text) or ("" if _lists_options(text) else _leading(text))


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


def _last(pattern: re.Pattern[str], text: str) -> str:
    return next((letter for match in reversed([*pattern.finditer(text)]) if (letter := _letter(match, text))), "")


def _leading(text: str) -> str:
    match = _LEADING.match(text)
    return _letter(match, text) if match else ""


def _letter(match: re.Match[str], text: str) -> str:
    return match["letter"].upper() if _AFTER.match(text, match.end()) else ""


def _lists_options(text: str) -> bool:
    """Whether it repeats the options: then the first letter is not a choice."""
    return len(set(_OPTION_LINE.findall(text))) > 1
