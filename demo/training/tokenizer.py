"""The tiny model's tokenizer: Qwen's special tokens, and few tokens for the words of the demo.

Byte-level, so any text is encoded and decoded byte for byte. One token for a colour, a number, a clock time and
each fixed text of the protocol keeps an episode near a hundred tokens and makes copying a single step.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from demo.questions import clock
from demo.scenes import COLOURS, MAX_DURATION_S, SIZES
from demo.training.episodes import FIRST_LOOK, LAST_LOOK
from demo.training.forms import EVA, HERMES, RESIZE
from eva.agents.hermes import DESCRIPTION
from eva.protocol.messages import SYSTEM_PROMPT
from eva.protocol.messages import clock as stamp
from eva.protocol.option import ANSWER_FORM

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
IMAGE_PAD, VISION_START, VISION_END = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"
SPECIAL = (
    *(END_OF_TEXT, IM_START, IM_END, "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
    *("<|quad_start|>", "<|quad_end|>", VISION_START, VISION_END, "<|vision_pad|>", IMAGE_PAD, "<|video_pad|>"),
)
OPTION_MARKS = ("\nA.", "\nB.", "\nC.", "\nD.")
BRANCH_MARKS = ("\n1.", "\n2.", "\n3.")
PROTOCOL = (
    SYSTEM_PROMPT,
    *("Video Length:", " seconds. Original video resolution:"),
    *(EVA.call_start, ', "end_time":'),
    *(', "resize":', EVA.call_end, "<tool_call>", "</tool_call>", "<tool_response>", "Frame"),
    "\nIf more information is needed, call the frame selection tool again.\n\nQuestion:",
    *("</tool_response>", "<answer>", "</answer>", ". <answer>", *OPTION_MARKS, *BRANCH_MARKS),
    *(" Time to look at, by the colour of the screen at", "\nWhat colour is the screen at that time?"),
    *(" What colour is the screen at", "?", *(f" {ratio}" for ratio in RESIZE.values())),
    *('.5, "nframes":', FIRST_LOOK, LAST_LOOK),
)
# What the other forms say besides; behind the rest, so that the rest keeps its numbers.
OTHER_FORMS = (
    *(DESCRIPTION, HERMES.call_start, HERMES.call_end, f"\n{ANSWER_FORM}", "You are a helpful assistant."),
    *("What colour is the screen at", "Time to look at, by the colour of the screen at"),
)
WORDS = ("system", "user", "assistant", "tool", "\n", " ", "p", ".", ":", " seconds", " colour", " screen")
# Qwen's split, but up to three digits and a leading space in one piece, so that a number can be one token.
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def build_tokenizer() -> Tokenizer:
    """The tokenizer, the same on every run."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([word for word in _words() for _ in range(20)], trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    texts = (*PROTOCOL, *_times(), *OTHER_FORMS)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in texts])
    return tokenizer


def _words() -> list[str]:
    numbers = [f" {number}" for number in range(MAX_DURATION_S + 2)]
    resolutions = sorted({f" {min(size)}" for size in SIZES})
    return [*(f" {colour}" for colour in COLOURS), *numbers, *resolutions, *WORDS, *"ABCD"]


def _times() -> list[str]:
    return [spelling for second in range(MAX_DURATION_S + 1) for spelling in spellings(second)[1:]]


def spellings(second: int) -> tuple[str, str, str]:
    """The three tokens for one second: the number, the clock time of the questions, the stamp of a frame."""
    return f" {second}", f" {clock(second)}", f" at [{stamp(second)}]:"


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json, its config and the chat template (Qwen2.5-VL's ChatML)."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": IM_END,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 131072,
        "additional_special_tokens": list(SPECIAL[1:]),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    template = Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
