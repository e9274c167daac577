"""Which option real phrasings choose, and which choose none."""

from __future__ import annotations

import pytest
from hostile_replies import HOSTILE, check_linear

from eva.protocol.option import can_be_letter, find_option, option_letters

CHOSEN = {
    "<answer>B</answer>": "B",
    "<answer>(C)</answer>": "C",
    "<answer>B. The red car</answer>": "B",
    "I write <answer></answer> at the end. <answer>D</answer>": "D",
    "First <answer>A</answer>. No, wait. <answer>C</answer>": "C",
    "<think>Perhaps <answer>A</answer></think>\n<answer>B</answer>": "B",
    "<answer>three</answer>": "three",
    "<answer>A man walks</answer>": "A man walks",
    "B": "B",
    "B.": "B",
    "(B)": "B",
    "**B**": "B",
    "B. blue": "B",
    "b) blue": "B",
    "B, because the car is blue.": "B",
    "A because the man walks.": "A",
    "(D) The man walks to the left.": "D",
    "B\n\nThe car turns left at the crossing.": "B",
    "The answer is (B)": "B",
    "The answer is **B**.": "B",
    "The correct answer would be C": "C",
    "My choice: D": "D",
    "The best choice is (A) a man walks.": "A",
    "Answer: B": "B",
    "answer: c": "C",
    "Answer: B. blue": "B",
    "Answer: A. A man walks": "A",
    "**Answer: B**": "B",
    "### Final Answer\n\n**C**": "C",
    "Answer: (A) or so it seems": "A",
    "The answer is most likely B, as the light is red.": "B",
    "A. one is wrong.\nB. two is wrong.\nSo the answer is C.": "C",
    "The answer is A at first sight. But he turns, so the answer is B.": "B",
    r"\boxed{B}": "B",
    r"So it is $\boxed{\text{C}}$.": "C",
    r"The answer is \boxed{(D)}.": "D",
    r"Answer: \boxed{ A }": "A",
}
NOT_CHOSEN = [
    "",
    "I cannot determine the answer from these frames.",
    "The answer cannot be determined.",
    "I, as a language model, cannot see videos.",
    "A man walks into a room.",
    "The answer is a man who walks.",
    "The answer is A man who walks.",
    "Answer: A man walks.",
    "Answer: unclear",
    "The answer is not B.",
    "B is wrong.",
    "B or C",
    "A, B and C are all possible.",
    "E.g. the car is blue.",
    "C'est la voiture.",
    "A. one\nB. two\nC. three",
    "Let me think about the answers A, B, C and D.",
    "The video shows an answer being written on a board.",
    r"\boxed{42}",
    "<answer>B",
]


@pytest.mark.parametrize("text", CHOSEN)
def test_the_option_that_a_person_reads_is_the_answer(text: str) -> None:
    assert find_option(text) == CHOSEN[text]


@pytest.mark.parametrize("text", NOT_CHOSEN)
def test_a_reply_that_chooses_nothing_is_not_an_answer(text: str) -> None:
    assert find_option(text) == ""


TEN = "Which?\n" + "\n".join(f"{letter}. it" for letter in "ABCDEFGHIJ")
OF_TEN = {
    "<answer>J. it</answer>": "J",
    "The answer is (I).": "I",
    r"\boxed{J}": "J",
    "I": "I",
    "J, because it is.": "J",
    "I. it": "I",
    "Answer: J, I think.": "J",
    "I, as a language model, cannot see videos.": "",
    "J or I": "",
    "I. it\nJ. it": "",
    "K": "",
}


@pytest.mark.parametrize("text", OF_TEN)
def test_of_a_question_with_ten_options_the_last_ones_can_be_chosen_too(text: str) -> None:
    assert find_option(text, option_letters(TEN)) == OF_TEN[text]


def test_a_question_with_few_options_or_none_that_can_be_read_has_the_usual_letters() -> None:
    assert option_letters("Which?\nA. it\nB. it") == option_letters("Which?") == "ABCDEFGH"


@pytest.mark.parametrize(
    ("truth", "options", "owed"),
    [
        *((truth, 3, True) for truth in ("C", " c ")),
        *((truth, 3, False) for truth in ("D", "(B)", "B. two", "\uff22", "@", "", "AB", "three", "1")),
        *((truth, 10, True) for truth in ("I", "j")),
        *((truth, None, True) for truth in ("B", "J", "three", "A man walks", "1", "\u4e09")),
        *((truth, None, False) for truth in ("(B)", "b. two", "B:", "[B]", "\uff22", "@", "")),
    ],
)
def test_whether_a_letter_can_equal_a_ground_truth(truth: str, options: int | None, owed: bool) -> None:
    assert can_be_letter(truth, options) is owed


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_reply_costs_time_linear_in_its_length(name: str) -> None:
    check_linear(name, find_option)
