"""Why a sample ended, and whose doing it was (docs/protocol.md, section 3)."""

from __future__ import annotations

ANSWER_FOUND = "answer_found"
MAX_TURNS_EXCEEDED = "max_turns_exceeded"
NO_ANSWER_NO_TOOL_CALL = "no_answer_no_tool_call"
NO_VALID_TOOL_CALL = "no_valid_tool_call"
ARGUMENTS_NOT_JSON = "arguments_not_json"
NO_START_OR_END_TIME = "no_start_or_end_time"
NO_NFRAMES = "no_nframes"
CALL_FAILED = "call_frame_select_failed"
BAD_REQUEST = "openai_bad_request"
EXCEPTION = "exception"
# Whose failure a record without an answer is.
MODEL, SAMPLE, INFRASTRUCTURE = FAILURES = ("model", "sample", "infrastructure")
# A record with any other stop reason did not end by the model's own doing; --retry-error runs it again.
SETTLED = frozenset({ANSWER_FOUND, MAX_TURNS_EXCEEDED, NO_ANSWER_NO_TOOL_CALL, NO_VALID_TOOL_CALL})
