"""Conversation -> text, through the chat template of the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2.exceptions import TemplateError

from eva.errors import EvaError
from eva.protocol.messages import Message, ShownFrame, assistant_message, tool_response

IMAGE_PAD = "<|image_pad|>"

Transcribe = Callable[[Sequence[Message]], str]


class TokenizerError(EvaError):
    """A tokenizer that cannot be loaded, or whose chat template cannot render the agent's messages."""


def load_transcriber(tokenizer: str) -> Transcribe:
    """A function that renders messages with the chat template of `tokenizer` (a folder, or a model id of the Hub).

    The text has no `<|image_pad|>`, as in the records of the reference. Raises TokenizerError.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415  the import takes a second

    if Path(tokenizer).is_absolute() and not Path(tokenizer).is_dir():
        raise TokenizerError(f"there is no tokenizer folder {tokenizer}: give the model's folder with --tokenizer")
    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError, KeyError) as error:
        raise TokenizerError(
            f"no tokenizer can be loaded from {tokenizer!r}, give the model's folder with --tokenizer: "
            f"{str(error).splitlines()[0]}"
        ) from error

    def transcribe(messages: Sequence[Message]) -> str:
        text = loaded.apply_chat_template(list(messages), tokenize=False)
        return str(text).replace(IMAGE_PAD, "")

    _try_out(transcribe, tokenizer)
    return transcribe


def _try_out(transcribe: Transcribe, tokenizer: str) -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        assistant_message("a"),
        tool_response([ShownFrame(0, "file:///frame.png")], "q"),
    ]
    try:
        transcribe(messages)
    except (TemplateError, ValueError, TypeError) as error:
        raise TokenizerError(
            f"the chat template of {tokenizer!r} cannot render the agent's messages: {error}"
        ) from error
