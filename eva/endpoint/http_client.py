"""HTTP to one server: each request ends within its time, has a connection of its own, and a reply has a limited size.

A failure says whose it is: RefusedError is the request's, UnavailableError the server's.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eva.endpoint.completion import NOTHING
from eva.endpoint.errors import BadRequestError, RefusedError, ServerError, UnavailableError
from eva.json_text import mapping

if TYPE_CHECKING:
    import httpx2

# A completion of 2,048 tokens has some kilobytes, a long list of models a megabyte. The worst JSON of this size takes
# two seconds to read. The run does not react to signals in that time.
MAX_REPLY_BYTES = 8 * 2**20
# Statuses from 400 to 499 by which a server says that it cannot serve now: the key is not valid any more, the model is
# not there (404), the server is slow or busy.
UNAVAILABLE_STATUS = frozenset({401, 403, 404, 407, 408, 409, 425, 429})
_BAD_REQUEST, _BUSY, _BROKEN = 400, 429, 500


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
        except httpx2.InvalidURL as error:
            # The message does not repeat the address: the password may be what makes it invalid.
            raise ServerError("--base-url has an address that is not valid (special characters: as %40)") from error
        try:
            # A transport of its own has no proxy of the environment.
            direct = httpx2.AsyncHTTPTransport(limits=limits) if _is_this_machine(self.base_url.host) else None
            self._http = httpx2.AsyncClient(
                transport=direct,
                limits=limits,
                timeout=None,
                headers={"Accept-Encoding": "identity", "Authorization": f"Bearer {api_key}", **headers},
            )
        except (OSError, ImportError, ValueError, httpx2.InvalidURL) as error:
            # The message of an invalid address may hold a part of the password.
            cause = error if isinstance(error, (OSError, ImportError)) else "its address is not valid"
            raise ServerError(
                f"the proxy or the certificates of the environment (HTTP_PROXY, ALL_PROXY, SSL_CERT_FILE) for "
                f"{self.base_url.host} cannot be used: {cause}"
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
        request = self._http.build_request(
            "GET" if content is None else "POST",
            self.base_url.join(page),
            content=content,
            headers={**({} if content is None else {"Content-Type": "application/json"}), **headers},
        )
        try:
            async with asyncio.timeout(seconds):
                response = await self._http.send(request, stream=True)
                try:
                    return await _read(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise UnavailableError(f"no answer within {seconds:g} s", overload=True) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise UnavailableError(f"no connection: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        await self._http.aclose()

    @property
    def proxy_note(self) -> str:
        """How messages about a server that fails end: its proxy may be the cause. Empty where there is none."""
        host, proxies = self.base_url.host, urllib.request.getproxies()
        behind = not _is_this_machine(host) and not urllib.request.proxy_bypass(host)
        if not behind or not proxies.keys() & {self.base_url.scheme, "all"}:
            return ""
        return f"; requests to it go through the proxy of the environment, unless you set NO_PROXY={host}"


async def _read(response: httpx2.Response) -> str:
    if response.is_redirect:
        raise UnavailableError(f"it redirects to {response.headers['Location']}, which is not followed: see --base-url")
    body = bytearray()
    # Not unpacked: a packed reply may have any size.
    async for part in response.aiter_raw():
        body += part
        if len(body) > MAX_REPLY_BYTES:
            raise UnavailableError(f"its reply is longer than {MAX_REPLY_BYTES} bytes")
    text, status = body.decode("utf-8", errors="replace"), response.status_code
    if status < _BAD_REQUEST:
        return text
    raise failure_of(status, text)


def failure_of(status: int, text: str) -> RefusedError | UnavailableError:
    """What an HTTP status from 400 on means. The text may be JSON with the words of the server."""
    try:
        said = mapping(json.loads(text))
        message = mapping(said.get("error", said)).get("message")
    except (ValueError, RecursionError):
        message = None
    message = f"Error code: {status}" + (f" - {message}" if message and isinstance(message, str) else "")
    if status >= _BROKEN or status in UNAVAILABLE_STATUS:
        return UnavailableError(message, overload=status >= _BROKEN or status == _BUSY, status=status)
    return BadRequestError(message) if status == _BAD_REQUEST else RefusedError(message)


def _is_this_machine(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified
