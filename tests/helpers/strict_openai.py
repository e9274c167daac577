"""What OpenAI's own server refuses in a chat request: roles, ids of tool calls, images outside of user messages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

FIELDS = {"messages", "model", "max_tokens", "max_completion_tokens", "temperature", "seed", "top_p", "tools",
          "tool_choice", "reasoning_effort"}  # fmt: skip
KEYS = {
    "system": {"role", "content"},
    "developer": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls"},
    "tool": {"role", "content", "tool_call_id"},
}


def find_fault(body: Mapping[str, Any]) -> str:
    """Why OpenAI would refuse the request; the empty text if it would not."""
    unknown = body.keys() - FIELDS
    if unknown:
        return f"Unrecognized request argument supplied: {', '.join(sorted(unknown))}"
    if "tools" in body and not (isinstance(body["tools"], list) and all(map(is_function, body["tools"]))):
        return "Invalid value for 'tools'"
    return next(filter(None, map(message_fault, body["messages"])), "") or order_fault(body["messages"])


def is_function(tool: Mapping[str, Any]) -> bool:
    function = tool.get("function", {})
    return tool.get("type") == "function" and is_name(function.get("name")) and "parameters" in function


def is_name(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) is not None


def message_fault(message: Mapping[str, Any]) -> str:
    role = message["role"]
    if role not in KEYS:
        return f"Invalid role: {role}"
    if message.keys() - KEYS[role]:
        return f"Additional properties are not allowed in a message of the role {role}"
    content = message.get("content")
    if not isinstance(content, (str, list)):
        return "Invalid content"
    kinds = {part["type"] for part in content} if isinstance(content, list) else {"text"}
    if not kinds <= ({"text", "image_url"} if role == "user" else {"text"}):
        return f"Invalid 'messages': images are not allowed in a message of the role {role}"
    return next(filter(None, map(call_fault, message.get("tool_calls", []))), "")


def call_fault(call: Mapping[str, Any]) -> str:
    function = call.get("function", {})
    if call.get("type") != "function" or not is_name(function.get("name")):
        return "Invalid tool call"
    if not isinstance(call.get("id"), str) or not 1 <= len(call["id"]) <= 40:
        return "Invalid id of a tool call"
    try:
        json.loads(function["arguments"])
    except (KeyError, TypeError, ValueError):
        return "Invalid arguments of a tool call"
    return ""


def order_fault(messages: Sequence[Mapping[str, Any]]) -> str:
    """Each call is answered by one tool message right after it, and there are no other tool messages."""
    open_ids: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_ids:
                return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
            open_ids.remove(message["tool_call_id"])
        elif open_ids:
            return f"An assistant message with 'tool_calls' must be followed by tool messages, missing {open_ids}"
        open_ids += [call["id"] for call in message.get("tool_calls", [])]
        if len(open_ids) != len(set(open_ids)):
            return "Duplicate ids of tool calls"
    return f"the tool calls {open_ids} are not answered" if open_ids else ""
