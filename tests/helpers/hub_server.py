"""A hub on loopback with the part of the Hugging Face Hub's HTTP interface that its library uses to fetch files.

As on the Hub, a file is asked for under `resolve`, which redirects to its bytes on another host.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from file_server import FileServer, answer, part_of, serve

COMMIT = "c0" * 20


class HubServer(FileServer):
    """`repos[repo][path]` is a file. `refused[repo]` is the status and the error code of its files.

    `plan[path]` holds what the next requests for a whole file meet, and `requests` counts these by path. Requests for
    parts of a file meet `plan["parts of " + path]`, and `parts` counts their bytes. `asked` has all other requests, by
    method and address. The Hub names the SHA-256 of each file, or `hashes[path]`. `tokens` has those that came with
    requests, and whether these were for bytes.
    """

    def __init__(self) -> None:
        super().__init__(HubHandler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.refused: dict[str, tuple[int, str]] = {}
        self.asked: list[str] = []
        self.parts: Counter[str] = Counter()
        self.hashes: dict[str, str] = {}
        self.tokens: set[tuple[str | None, bool]] = set()
        self.url = self.url.removesuffix("/files/")
        self.bytes_url = self.url.replace("127.0.0.1", "localhost") + "/bytes"


class HubHandler(BaseHTTPRequestHandler):
    """One connection, one request."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub: HubServer = self.server.file_server  # type: ignore[attr-defined]
        words = unquote(urlsplit(self.path).path).strip("/").split("/")
        hub.tokens.add((self.headers.get("Authorization"), words[0] == "bytes"))
        if words[0] == "bytes":
            path = "/".join(words[3:])
            content = hub.repos["/".join(words[1:3])][path]
            part = part_of(self, content)
            if part is None:
                hub.requests[path] += 1
            else:
                hub.parts[path] += len(part)
            plan = hub.plan[path if part is None else f"parts of {path}"]
            behaviour = plan.pop(0) if plan else serve
            behaviour(self, content)  # type: ignore[arg-type]
            return
        hub.asked.append(f"{self.command} {unquote(self.path)}")
        if len(words) < 4:  # what the library asks beside files
            self._refuse(404, "")
            return
        is_api = words[0] == "api"
        kind = words[1 if is_api else 0] in {"datasets", "models"}
        owner, name, what, revision, *path_words = words[is_api + kind :]
        self._answer(hub, f"{owner}/{name}", what, revision, "/".join(path_words))

    def _answer(self, hub: HubServer, repo: str, what: str, revision: str, path: str) -> None:
        files = hub.repos.get(repo)
        commit = COMMIT if revision == "main" else revision
        if files is None:
            self._refuse(404, "RepoNotFound")
        elif what == "revision":
            self._send_json({"id": repo, "sha": commit})
        elif what == "tree":
            self._send_json([self._row(hub, name, body) for name, body in files.items()])
        elif repo in hub.refused:
            self._refuse(*hub.refused[repo])
        elif path not in files:
            self._refuse(404, "EntryNotFound")
        else:
            etag = hashlib.sha256(files[path]).hexdigest()
            headers = {"X-Linked-Size": str(len(files[path])), "X-Linked-ETag": f'"{etag}"', "X-Repo-Commit": commit}
            answer(302, {"Location": f"{hub.bytes_url}/{repo}/{path}", **headers})(self, b"")  # type: ignore[arg-type]

    def _row(self, hub: HubServer, name: str, body: bytes) -> dict[str, object]:
        digest = hub.hashes.get(name, hashlib.sha256(body).hexdigest())
        large = {"oid": digest, "size": len(body), "pointerSize": 130}
        return {"type": "file", "path": name, "size": len(body), "oid": "0", "lfs": large}

    def _refuse(self, status: int, code: str) -> None:
        answer(status, {"X-Error-Code": code} if code else {})(self, b"")  # type: ignore[arg-type]

    def _send_json(self, content: object) -> None:
        serve(self, json.dumps(content).encode())  # type: ignore[arg-type]

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at `requests` and `asked`."""
