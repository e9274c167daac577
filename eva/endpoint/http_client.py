"""The HTTP client below openai's: each request ends within its time, and a reply has a limited size and comes from the
host that was named."""

from __future__ import annotations

import asyncio
import ipaddress
import urllib.request
from typing import Any

import httpx2
import openai

# A completion of 2,048 tokens has some kilobytes, a long list of models a megabyte. The worst JSON of this size takes
# two seconds to read. The run does not react to signals in that time.
MAX_REPLY_BYTES = 8 * 2**20


class BoundedClient(openai.DefaultAsyncHttpxClient):
    """Reads each reply whole, within the request's own timeout and MAX_REPLY_BYTES.

    Each request has a connection of its own: after a 500, vLLM closes the connection without a notice.
    """

    def __init__(self, url: httpx2.URL) -> None:
        """For the server at `url`, through the proxy that the environment names for it. This machine is never behind
        one. Raises ImportError and ValueError for a proxy that cannot be used, OSError for certificates."""
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        # A transport of its own has no proxy of the environment.
        direct = httpx2.AsyncHTTPTransport(limits=limits) if is_this_machine(url.host) else None
        super().__init__(transport=direct, limits=limits, headers={"Accept-Encoding": "identity"})

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Raises APITimeoutError, APIConnectionError, and what httpx2 raises if a connection fails or breaks."""
        try:
            async with asyncio.timeout(request.extensions["timeout"]["read"]):
                response = await super().send(request, **{**options, "stream": True, "follow_redirects": False})
                try:
                    body = await _body(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise openai.APITimeoutError(request) from None
        # Without its headers: some encodings and character sets unpack data without end.
        return httpx2.Response(response.status_code, content=body, request=request)


async def _body(response: httpx2.Response) -> bytes:
    here = shown_address(response.request.url)
    if response.is_redirect:
        there = response.headers["Location"]
        text = f"{here} redirects to {there}, which is not followed: give the server's own address with --base-url"
        raise openai.APIConnectionError(message=text, request=response.request)
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > MAX_REPLY_BYTES:
            text = f"the reply of {here} is longer than {MAX_REPLY_BYTES} bytes"
            raise openai.APIConnectionError(message=text, request=response.request)
    return bytes(body)


def is_this_machine(host: str) -> bool:
    """Whether the host of an address is this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def proxy_note(url: httpx2.URL) -> str:
    """How messages about a failing server at `url` end: its proxy may be the cause. Empty where there is none."""
    proxies = urllib.request.getproxies()
    if is_this_machine(url.host) or urllib.request.proxy_bypass(url.host) or not proxies.keys() & {url.scheme, "all"}:
        return ""
    return f"; requests to it go through the proxy of the environment, unless you set NO_PROXY={url.host}"


def shown_address(url: httpx2.URL) -> str:
    """The address without name, password and query, for people and files."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}{url.path}".rstrip("/")
