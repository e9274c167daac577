"""Conversation -> text, through the chat template of the tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eva.errors import EvaError
from eva.json_text import mapping, text
from eva.protocol.messages import Frame, Message, assistant_message, tool_response
from eva.records.schema import Transcript

IMAGE_PAD = "<|image_pad|>"

# --tokenizer none: a server that is reached by its address alone may not say what its tokenizer is.
NO_TOKENIZER = "none"

Transcribe = Callable[[Sequence[Message]], Transcript]


class TokenizerError(EvaError):
    """A tokenizer that cannot be loaded, or whose chat template cannot render the agent's messages."""


def load_transcriber(tokenizer: str) -> Transcribe:
    """A function that renders messages with the chat template of `tokenizer` (a folder, or a model id of the Hub).

    The text has no `<|image_pad|>`, as in the records of the reference. `none` keeps the messages. Raises
    TokenizerError.
    """
    if tokenizer == NO_TOKENIZER:
        return keep_messages
    from transformers import AutoTokenizer  # noqa: PLC0415  the import takes a second

    if not Path(tokenizer).is_dir():
        _check_hub(tokenizer)
    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError, KeyError) as error:
        raise TokenizerError(
            f"no tokenizer can be loaded from {tokenizer!r}, give the model's folder with --tokenizer: "
            f"{str(error).splitlines()[0]}"
        ) from error

    def transcribe(messages: Sequence[Message]) -> str:
        rendered = loaded.apply_chat_template(list(map(_with_read_arguments, messages)), tokenize=False)
        return str(rendered).replace(IMAGE_PAD, "")

    _try_out(transcribe, tokenizer)
    return transcribe


def keep_messages(messages: Sequence[Message]) -> Transcript:
    """The messages, but for the content of images that travel inside the requests."""
    return tuple(map(_without_image_data, messages))


def _without_image_data(message: Message) -> Message:
    content = message.get("content")
    return {**message, "content": list(map(_without_data, content))} if isinstance(content, list) else message


def _without_data(part: Any) -> Any:
    url = text(mapping(mapping(part).get("image_url")).get("url"))
    return {**part, "image_url": {"url": url.partition(",")[0]}} if url.startswith("data:") else part


def _with_read_arguments(message: Message) -> Message:
    """Servers read the arguments of a native call before the template writes them. This does the same."""
    if "tool_calls" not in message:
        return message
    functions = [call["function"] for call in message["tool_calls"]]
    read = [{**function, "arguments": json.loads(function["arguments"])} for function in functions]
    return {**message, "tool_calls": [{"type": "function", "function": function} for function in read]}


def _check_hub(name: str) -> None:
    """Raises TokenizerError at once where there is no such model: loading would ask an absent hub for a minute."""
    from eva.dataset.hub import HubError, check_model  # noqa: PLC0415  the import takes half a second

    absent = f"there is no tokenizer folder {name}: give the model's folder with --tokenizer"
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise TokenizerError(absent)
    try:
        check_model(name, "tokenizer_config.json")
    except HubError as error:
        raise TokenizerError(f"{absent} (as a name of the Hub: {error})") from error


def _try_out(transcribe: Transcribe, tokenizer: str) -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        assistant_message("a"),
        tool_response([Frame(0, "file:///frame.png")], "q"),
    ]
    from jinja2.exceptions import TemplateError  # noqa: PLC0415  `--help` does not need it

    try:
        transcribe(messages)
    except (TemplateError, ValueError, TypeError) as error:
        raise TokenizerError(
            f"the chat template of {tokenizer!r} cannot render the agent's messages (--tokenizer none keeps them "
            f"as they are): {error}"
        ) from error
