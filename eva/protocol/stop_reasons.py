"""Why a sample ended, and whose doing it was (docs/protocol.md, section 3)."""

from __future__ import annotations

# The agent ended the sample, or used all its rounds.
ANSWER_FOUND = "answer_found"
MAX_TURNS_EXCEEDED = "max_turns_exceeded"
# A reply asked for nothing that can run.
NO_ANSWER_NO_TOOL_CALL = "no_answer_no_tool_call"
NO_VALID_TOOL_CALL = "no_valid_tool_call"
# Why one call failed. If every call of a reply failed, the stop reason is their list, joined by "; ".
ARGUMENTS_NOT_JSON = "arguments_not_json"
NO_START_OR_END_TIME = "no_start_or_end_time"
NO_NFRAMES = "no_nframes"
CALL_FAILED = "call_frame_select_failed"
# The server refused the request (HTTP 400), mostly because the conversation is too long.
BAD_REQUEST = "openai_bad_request"
# The only stop reason that is not the model's doing: the sample, a server, this machine or the agent's code failed.
EXCEPTION = "exception"
# Whose failure a record without an answer is.
MODEL, SAMPLE, INFRASTRUCTURE, AGENT = FAILURES = ("model", "sample", "infrastructure", "agent")
# `--retry-error` keeps the records with these stop reasons and runs all others again.
SETTLED = frozenset({ANSWER_FOUND, MAX_TURNS_EXCEEDED, NO_ANSWER_NO_TOOL_CALL, NO_VALID_TOOL_CALL})
