"""An OpenAI-compatible HTTP server that plays scripted replies over real sockets, and remembers what it was sent.

A question starts with `[[name]]`; `name` picks the list of replies, and the number of assistant messages in the
request picks the turn (the last reply repeats). A reply is a text, None (null content), or a dict of REPLY_KEYS.
A question that no script knows is refused with a 400 and kept in `unexpected`: drift fails, it does not pass.

    python tests/helpers/scripted_server.py --script FILE --port 0      prints its address, serves until it is killed
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import io
import json
import os
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from PIL import Image
from strict_openai import find_fault

MODEL = "scripted-eva"
ANY_QUESTION = "*"
FACTOR = 28
# Of the prefix cache, in tokens.
BLOCK_SIZE = 16
QUERIES = "prefix_cache_queries_total"
REPLY_KEYS = {
    "text": "what the assistant says; None is a null content",
    "calls": "native tool calls, as [name, arguments] or [name, arguments, id]; played only where tools were sent",
    "reasoning_content": "what a reasoning parser took out of the text",
    "status": "an HTTP error in place of the text; without `times` and `text` for ever",
    "fault": "in place of the text: drop | cut | broken_json | empty_choices | abort | hang",
    "times": "how many requests of this turn get the status or the fault; afterwards the text",
    "message": "of the HTTP error",
    "type": "of the HTTP error",
    "delay_s": "wait before answering",
    "finish_reason": "stop, where not given",
}

Reply = str | None | Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """One chat request as it came over the wire; images are replaced by their size and the hash of their RGB bytes."""

    key: str
    turn: int
    attempt: int
    body: Mapping[str, Any]
    messages: Sequence[Mapping[str, Any]]
    urls: tuple[str, ...]
    authorization: str | None
    # The data-parallel rank that answered, whether the request named it, and its tokens.
    rank: int
    named_rank: bool
    prompt_tokens: int
    cached_tokens: int


@dataclass
class Refusal(Exception):
    status: int
    message: str
    type: str = "BadRequestError"


WRONG_KEY = Refusal(401, "Unauthorized", "AuthenticationError")


def question_key(messages: Sequence[Mapping[str, Any]]) -> str:
    for message in messages:
        if message.get("role") == "user":
            content = message.get("content") or ""
            parts = content if isinstance(content, list) else [{"text": content}]
            found = re.search(r"\[\[(.+?)\]\]", "".join(part.get("text", "") for part in parts), re.DOTALL)
            if found:
                return found[1]
    raise Refusal(400, "no user message with a [[name]]")


@dataclass
class Script:
    """What to answer; `replies` maps a question's name to its turns. All of it may be changed while serving.

    `down`: every completion fails, while /health and the list of models go on. `sick`: every completion but a probe's
    with its tiny inline image fails. `context`, `most_images`, `may_read`: the server's limits. `key_of` finds the name
    in a request's messages, for questions that bear no [[name]]. `ranks`: it is a vLLM with so many data-parallel
    ranks, each of which caches its conversations; without, it has neither /metrics nor /version. `tells_cached`: its
    replies say how much was cached. `tells_usage`: they have a usage. `strict`: as OpenAI's own server
    (strict_openai.py). `new_limit`: it wants `max_completion_tokens`. `headers` are those that a request must have.
    `root` is where it says that its weights are from. `refuses` finds the refusal of a request in its body and the
    addresses of its images.
    """

    replies: Mapping[str, Sequence[Reply]] | Callable[[str], Sequence[Reply]]
    models: Sequence[str] = (MODEL,)
    api_key: str | None = None
    default_delay_s: float = 0.0
    down: bool = False
    sick: bool = False
    context: int | None = None
    most_images: int = 9999
    may_read: bool = True
    ranks: int | None = None
    tells_cached: bool = False
    tells_usage: bool = True
    key_of: Callable[[Sequence[Mapping[str, Any]]], str] = question_key
    strict: bool = False
    new_limit: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    root: str | None = "/models/EVA"
    refuses: Callable[[Mapping[str, Any], Sequence[str]], Refusal | None] = lambda body, urls: None

    def turns(self, key: str) -> Sequence[Reply]:
        if callable(self.replies):
            return self.replies(key)
        if key in self.replies:
            return self.replies[key]
        if ANY_QUESTION in self.replies:
            return self.replies[ANY_QUESTION]
        raise Refusal(400, f"the script has no question named {key!r}")


@dataclass
class Journal:
    """Thread-safe memory of a server's life; `flow` is how many requests were under way, whenever one came."""

    seen: list[Seen] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    paths: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
    flow: list[int] = field(default_factory=list)
    cached: dict[tuple[int, str], int] = field(default_factory=dict)
    _running: int = 0
    _attempts: Counter[tuple[str, int]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count_path(self, path: str) -> None:
        with self._lock:
            self.paths[path] += 1

    def next_attempt(self, key: str, turn: int) -> int:
        with self._lock:
            self._attempts[key, turn] += 1
            return self._attempts[key, turn] - 1

    def add(self, seen: Seen) -> None:
        with self._lock:
            self.seen.append(seen)

    def add_unexpected(self, what: str) -> None:
        with self._lock:
            self.unexpected.append(what)

    def enter(self) -> None:
        with self._lock:
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
            self.flow.append(self._running)

    def leave(self) -> None:
        with self._lock:
            self._running -= 1

    def metrics(self, ranks: int) -> str:
        """As vLLM writes it: a line for each rank."""
        labels = [f'{{engine="{rank}",model_name="{MODEL}"}}' for rank in range(ranks)]
        lines = [f"vllm:{name}{label} 7.0" for name in ("num_requests_running", QUERIES) for label in labels]
        return "\n".join([f"# HELP vllm:{QUERIES} Prefix cache queries.", *lines, ""])

    def of(self, key: str) -> list[Seen]:
        with self._lock:
            return [seen for seen in self.seen if seen.key == key]

    def keys(self) -> Counter[str]:
        with self._lock:
            return Counter(seen.key for seen in self.seen)


def image_bytes(url: str) -> bytes:
    """The file behind an image address, under the rules a real server applies to it."""
    if url.startswith("data:"):
        return base64.b64decode(url.split(",", 1)[1], validate=True)
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc or not parts.path.startswith("/"):
        raise Refusal(400, f"not an absolute file:// address: {url[:200]}")
    if parts.query or parts.fragment:
        raise Refusal(400, f"the address is not URL-quoted: {url[:200]}")
    try:
        return Path(os.fsdecode(unquote_to_bytes(parts.path))).read_bytes()
    except OSError as error:
        raise Refusal(500, str(error), "InternalServerError") from error


def describe_image(url: str) -> dict[str, Any]:
    data = image_bytes(url)
    try:
        with Image.open(io.BytesIO(data)) as image:
            rgb = image.convert("RGB")
    except OSError as error:  # as vLLM says it
        raise Refusal(400, f"Failed to load image: {error}") from error
    sha = hashlib.sha256(rgb.tobytes()).hexdigest()[:16]
    return {"type": "image", "w": rgb.width, "h": rgb.height, "sha": sha}


def plain_message(message: Mapping[str, Any], describe: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, list):
        content = [describe(part["image_url"]["url"]) if part["type"] == "image_url" else part for part in content]
    return {**message, "content": content}


def image_urls(messages: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    lists = (message["content"] for message in messages if isinstance(message.get("content"), list))
    return tuple(part["image_url"]["url"] for parts in lists for part in parts if part["type"] == "image_url")


def prompt_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """Texts at len // 4 a part, images at round(w/28) * round(h/28), each side at least one."""
    total = 0
    for message in messages:
        content = message.get("content")
        parts: list[dict[str, Any]] = (
            content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
        )
        for part in parts:
            if part["type"] == "image":
                total += max(1, round(part["w"] / FACTOR)) * max(1, round(part["h"] / FACTOR))
            else:
                total += len(part["text"]) // 4
    return total


def is_probe(body: Mapping[str, Any]) -> bool:
    """A request for a single token, by which a client asks whether the server can serve at all."""
    return 1 in (body.get("max_tokens"), body.get("max_completion_tokens")) and len(body["messages"]) == 1


def is_tiny(body: Mapping[str, Any]) -> bool:
    return is_probe(body) and len(json.dumps(body)) < 1000


def faulty(reply: Mapping[str, Any], attempt: int) -> bool:
    """Whether this attempt gets the reply's error rather than its text."""
    if "status" not in reply and "fault" not in reply:
        return False
    return bool(attempt < reply.get("times", float("inf")))


def said_tokens(text: str | None) -> int:
    return len(text or "") // 4


def completion(text: str | None, reply: Mapping[str, Any], used: int) -> dict[str, Any]:
    said = said_tokens(text)
    usage = {"prompt_tokens": used, "completion_tokens": said, "total_tokens": used + said}
    message: dict[str, Any] = {"role": "assistant", "content": text}
    message |= {key: reply[key] for key in ("reasoning_content",) if key in reply}
    if reply.get("calls"):
        message["tool_calls"] = [native_call(*one) for one in reply["calls"]]
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": reply.get("finish_reason", "stop")}],
        "usage": usage,
    }


def native_call(name: str, arguments: str, call_id: str | None = None) -> dict[str, Any]:
    digest = hashlib.sha256(f"{name}{arguments}".encode("utf-8", errors="surrogatepass")).hexdigest()
    identity = f"call_{digest[:12]}" if call_id is None else call_id
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the journal is the log."""

    def do_GET(self) -> None:
        self.server.journal.count_path(self.path)
        if self.path.endswith("/models") and not self.knows_key():
            self.send_refusal(WRONG_KEY)
        elif self.path.endswith("/models"):
            context = self.server.script.context
            more: dict[str, Any] = {} if context is None else {"max_model_len": context}
            if self.server.script.root is not None:
                more |= {"root": self.server.script.root}
            models = [{"id": name, "object": "model", "created": 0, **more} for name in self.server.script.models]
            self.send(200, {"object": "list", "data": models})
        elif self.path == "/health":
            self.send(200, {})
        elif self.path == "/metrics" and self.server.script.ranks:
            self.send(200, self.server.journal.metrics(self.server.script.ranks).encode())
        elif self.path == "/version" and self.server.script.ranks:
            self.send(200, {"version": "0.0.scripted"})
        else:
            self.send_refusal(Refusal(404, f"no such page: {self.path}", "NotFoundError"))

    def do_POST(self) -> None:
        self.server.journal.count_path(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.journal.enter()
        try:
            if not self.path.endswith("/chat/completions"):
                raise Refusal(404, f"no such page: {self.path}", "NotFoundError")
            self.chat(json.loads(body))
        except Refusal as refusal:
            self.send_refusal(refusal)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.server.journal.leave()

    def chat(self, body: Mapping[str, Any]) -> None:
        script, journal = self.server.script, self.server.journal
        if script.down:
            raise Refusal(503, "the engine is dead", "ServiceUnavailableError")
        if script.sick and not is_tiny(body):
            raise Refusal(500, "out of memory", "InternalServerError")
        self.check_form(body)
        self.check_images(body, image_urls(body["messages"]))
        if is_probe(body):
            self.check_caller(body)
            for url in image_urls(body["messages"]):
                self.server.describe(url)
            self.send(200, completion(".", {}, 1))
            return
        try:
            key = script.key_of(body["messages"])
            turns = script.turns(key)
        except Refusal as refusal:
            journal.add_unexpected(refusal.message)
            raise
        self.check_caller(body)
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        attempt = journal.next_attempt(key, turn)
        messages = [plain_message(message, self.server.describe) for message in body["messages"]]
        rank, named, used = self.choose_rank(), "X-data-parallel-rank" in self.headers, prompt_tokens(messages)
        cached = max(0, min(used, journal.cached.get((rank, key), 0)) - 1) // BLOCK_SIZE * BLOCK_SIZE
        journal.add(
            Seen(key, turn, attempt, body, messages, image_urls(body["messages"]),
                 self.headers.get("Authorization"), rank, named, used, cached)
        )  # fmt: skip
        reply = turns[min(turn, len(turns) - 1)]
        reply = reply if isinstance(reply, Mapping) else {"text": reply}
        if reply.get("calls") and "tools" not in body:
            reply = {**reply, "calls": []}
        journal.cached[rank, key] = used + said_tokens(reply.get("text"))
        self.play(reply, attempt, used, cached)

    def choose_rank(self) -> int:
        """As vLLM does it: a rank that is named is taken or refused."""
        ranks = self.server.script.ranks or 1
        named = self.headers.get("X-data-parallel-rank", "")
        if not named.isdigit() or self.server.script.ranks is None:
            return len(self.server.journal.seen) % ranks
        if int(named) >= ranks:
            raise Refusal(400, f"data_parallel_rank {named} is out of range [0, {ranks}).")
        return int(named)

    def check_caller(self, body: Mapping[str, Any]) -> None:
        if not self.knows_key():
            raise WRONG_KEY
        if body.get("model") not in self.server.script.models:
            raise Refusal(404, f"The model `{body.get('model')}` does not exist.", "NotFoundError")

    def check_form(self, body: Mapping[str, Any]) -> None:
        script = self.server.script
        if any(self.headers.get(name) != value for name, value in script.headers.items()):
            raise Refusal(403, "a header is missing", "PermissionDeniedError")
        if script.new_limit and "max_tokens" in body:
            advice = "Use 'max_completion_tokens' instead."
            raise Refusal(400, f"Unsupported parameter: 'max_tokens' is not supported with this model. {advice}")
        fault = find_fault(body) if script.strict else ""
        if fault:
            self.server.journal.add_unexpected(fault)
            raise Refusal(400, fault)

    def check_images(self, body: Mapping[str, Any], urls: Sequence[str]) -> None:
        script = self.server.script
        refusal = script.refuses(body, urls)
        if refusal:
            raise refusal
        if len(urls) > script.most_images:
            raise Refusal(400, f"At most {script.most_images} image(s) may be provided in one prompt.")
        if not script.may_read and any(url.startswith("file:") for url in urls):
            raise Refusal(400, "Cannot load local files without `--allowed-local-media-path`.")

    def knows_key(self) -> bool:
        key = self.server.script.api_key
        return key is None or self.headers.get("Authorization") == f"Bearer {key}"

    def play(self, reply: Mapping[str, Any], attempt: int, used: int, cached: int) -> None:
        unknown = set(reply) - set(REPLY_KEYS)
        if unknown:
            self.server.journal.add_unexpected(f"the script uses unknown keys: {sorted(unknown)}")
        self.server.wait(reply.get("delay_s", self.server.script.default_delay_s))
        whole = completion(reply.get("text"), reply, used)
        if not self.server.script.tells_usage:
            whole["usage"] = None
        elif self.server.script.tells_cached:
            whole["usage"]["prompt_tokens_details"] = {"cached_tokens": cached}
        if not faulty(reply, attempt):
            self.send(200, whole)
        elif "status" in reply:
            kind = reply.get("type", "BadRequestError")
            raise Refusal(reply["status"], reply.get("message", "scripted error"), kind)
        else:
            self.fail(reply["fault"], whole)

    def fail(self, fault: str, whole: dict[str, Any]) -> None:
        if fault == "broken_json":
            self.send(200, b'{"choices": [{"index": 0, "message": {"role": "assis')
        elif fault == "empty_choices":
            self.send(200, {**whole, "choices": []})
        elif fault == "abort":
            # As vLLM does it whose engine is stopped in the middle of a reply.
            whole["choices"][0]["finish_reason"] = "abort"
            self.send(200, whole)
        elif fault == "cut":
            self.send(200, whole, cut=True)
        elif fault == "hang":
            self.server.wait(float("inf"))
            self.drop()
        else:
            self.drop()

    def drop(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client may have gone first
            self.connection.shutdown(socket.SHUT_RDWR)

    def send_refusal(self, refusal: Refusal) -> None:
        error = {"message": refusal.message, "type": refusal.type, "param": None, "code": refusal.status}
        self.send(refusal.status, {"error": error})

    def send(self, status: int, payload: Any, *, cut: bool = False) -> None:
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.flush_together(body[: len(body) // 2] if cut else body)
        if cut or status >= 500:
            # Like vLLM after a 500: the connection ends, and no header said that it would.
            self.drop()

    def flush_together(self, body: bytes) -> None:
        """Head and body in one write: two of them wait 40 ms for each other (Nagle)."""
        self._headers_buffer += [b"\r\n", body]  # type: ignore[attr-defined]  # of BaseHTTPRequestHandler
        self.flush_headers()


class ScriptedServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, script: Script, *, port: int = 0, host: str = "127.0.0.1") -> None:
        self.script = script
        self.journal = Journal()
        self._stopping = threading.Event()
        self._images: dict[str, dict[str, Any]] = {}
        super().__init__((host, port), Handler)

    @property
    def base_url(self) -> str:
        host, port = self.server_address[:2]
        assert isinstance(host, str)
        return f"http://{host}:{port}/v1"

    def describe(self, url: str) -> dict[str, Any]:
        if url not in self._images:
            self._images[url] = describe_image(url)
        return self._images[url]

    def wait(self, seconds: float) -> None:
        if seconds > 0:
            self._stopping.wait(None if seconds == float("inf") else seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed, or left in the middle, is part of the tests."""

    def __enter__(self) -> ScriptedServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self.shutdown()
        self.server_close()


def script_from_file(path: Path) -> Script:
    """{"replies": {name: [reply, …]}, "models": […], "default_delay_s": 0.1}; golden.json's cases are also read."""
    loaded = json.loads(path.read_text(encoding="utf-8"))
    if "replies" not in loaded:
        return Script({name: case["replies"] for name, case in loaded.items()})
    return Script(**loaded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--script", type=Path, required=True, help="JSON file with the replies")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--log", type=Path, help="append one JSON line per chat request: key, turn, attempt")
    args = parser.parse_args()
    server = ScriptedServer(script_from_file(args.script), port=args.port, host=args.host)
    if args.log:
        log_to(server.journal, args.log)
    print(server.base_url, flush=True)
    server.serve_forever(poll_interval=0.05)


def log_to(journal: Journal, path: Path) -> None:
    """Write each request to a file at once, so that it outlives a killed server."""
    add = journal.add

    def add_and_write(seen: Seen) -> None:
        add(seen)
        with path.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"key": seen.key, "turn": seen.turn, "attempt": seen.attempt}) + "\n")

    journal.add = add_and_write  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
