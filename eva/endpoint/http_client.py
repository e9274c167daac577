"""HTTP to one server: each request has its time and a connection of its own, and a reply has a limited size."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

from eva.endpoint.completion import NOTHING
from eva.endpoint.errors import BadRequestError, RefusedError, ServerError, UnavailableError
from eva.json_text import mapping

# A completion of 2,048 tokens has some kilobytes, a long list of models a megabyte.
MAX_REPLY_BYTES = 8 * 2**20
# Statuses from 400 to 499 by which a server says that it cannot serve now: the key is not valid any more, the model is
# not there (404), the server is slow or busy.
UNAVAILABLE_STATUS = frozenset({401, 403, 404, 407, 408, 409, 425, 429})
_THIS_MACHINE = re.compile(r"(.*\.)?localhost|127(\.\d+){3}|0\.0\.0\.0|::1?")


class Client:
    """One server. `timeout_s` is the time of each request, from its connection to the last byte.

    Connections are not kept: after a 500, vLLM closes its own without a notice. Requests go through the proxy that the
    environment names. This machine is never behind one.
    """

    def __init__(self, base_url: str, api_key: str, timeout_s: float, headers: Mapping[str, str] = NOTHING) -> None:
        """Raises ServerError for an address or an environment that cannot be used."""
        import httpx2  # noqa: PLC0415  `--help` does not need it

        if not re.match("https?://", base_url, re.IGNORECASE):
            shown = base_url.rpartition("@")[2].partition("?")[0]  # without name, password and query
            raise ServerError(f"--base-url: write http:// or https:// before the address {shown}")
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        try:
            self.base_url = httpx2.URL(base_url.rstrip("/") + "/")
            # A transport of its own has no proxy of the environment.
            direct = httpx2.AsyncHTTPTransport(limits=limits) if _THIS_MACHINE.fullmatch(self.base_url.host) else None
            # Not packed: a packed reply may have any size.
            fields = {"Accept-Encoding": "identity", "Authorization": f"Bearer {api_key}", **headers}
            self._http = httpx2.AsyncClient(transport=direct, limits=limits, timeout=None, headers=fields)
        except (OSError, ImportError, ValueError, httpx2.InvalidURL) as error:
            # The message of an invalid address may hold a part of the password.
            cause = error if isinstance(error, (OSError, ImportError)) else "an address is not valid (@ is %40)"
            raise ServerError(
                "the address of --base-url, or what the environment says of proxies and certificates (HTTP_PROXY, "
                f"ALL_PROXY, SSL_CERT_FILE), cannot be used: {cause}"
            ) from error
        self.timeout_s = timeout_s

    @property
    def address(self) -> str:
        """The base URL without name, password and query, for people and files."""
        return f"{self.base_url.scheme}://{self.base_url.netloc.decode('ascii')}{self.base_url.path}".rstrip("/")

    async def ask(self, page: str, body: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """As `fetch`, the JSON."""
        text = await self.fetch(page, body, **options)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UnavailableError(f"the reply of the server is not JSON: {error}") from error

    async def fetch(
        self,
        page: str,
        body: Mapping[str, Any] | None = None,
        *,
        at_most_s: float | None = None,
        headers: Mapping[str, str] = NOTHING,
    ) -> str:
        """The text of a page, by its place seen from the API, such as `models` or `../version`; with a body, the reply
        to it. Takes at most `at_most_s` and `timeout_s`. Raises RefusedError, UnavailableError."""
        import httpx2  # noqa: PLC0415

        # UTF-8 has no lone surrogates, and a reply that is sent back may hold one as a JSON escape.
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", errors="replace")
        seconds = min(self.timeout_s, at_most_s or self.timeout_s)
        method, kind = ("GET", {}) if content is None else ("POST", {"Content-Type": "application/json"})
        received = bytearray()
        try:
            async with (
                asyncio.timeout(seconds),
                self._http.stream(
                    method, self.base_url.join(page), content=content, headers={**kind, **headers}
                ) as response,
            ):
                async for part in response.aiter_raw():
                    received += part
                    if len(received) > MAX_REPLY_BYTES:
                        raise UnavailableError(f"its reply is longer than {MAX_REPLY_BYTES} bytes")
        except TimeoutError:
            raise UnavailableError(f"no answer within {seconds:g} s", overload=True) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise UnavailableError(f"no connection: {type(error).__name__}: {error}") from error
        text = received.decode("utf-8", errors="replace")
        if response.is_success:
            return text
        try:
            said = mapping(json.loads(text))
            words = mapping(said.get("error", said)).get("message")
        except (ValueError, RecursionError):
            words = None
        status = response.status_code
        message = f"Error code: {status}" + (f" - {words}" if words and isinstance(words, str) else "")
        if not 400 <= status < 500 or status in UNAVAILABLE_STATUS:
            raise UnavailableError(message, overload=status >= 500 or status == 429, status=status)
        raise BadRequestError(message) if status == 400 else RefusedError(message)

    async def close(self) -> None:
        await self._http.aclose()
