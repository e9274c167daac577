"""The HTTP client below openai's: each request ends within its time, and a reply has a limited size and comes from the
host that was named."""

from __future__ import annotations

import ipaddress
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx2
import openai

from eva.endpoint.errors import ServerError
from eva.errors import EvaError
from eva.text import printable

# A completion of 2,048 tokens has some kilobytes, a long list of models a megabyte. The worst JSON of this size takes
# two seconds to read. The run does not react to signals in that time.
MAX_REPLY_BYTES = 8 * 2**20


class UnusableServerError(openai.APIError):
    """A server that is not to be used, whatever it answers; the message says why."""

    def __init__(self, message: str, request: httpx2.Request) -> None:
        super().__init__(message, request, body=None)


class BoundedClient(openai.DefaultAsyncHttpxClient):
    """Reads each reply whole, within the request's own timeout and MAX_REPLY_BYTES. All requests go to the host of
    `url`, through the proxy that the environment names for it."""

    def __init__(self, url: httpx2.URL) -> None:
        """Raises ServerError for a proxy that cannot be used, OSError for certificates that cannot be read."""
        super().__init__(transport=_make_transport(url), headers={"Accept-Encoding": "identity"})

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Raises UnusableServerError, APITimeoutError, and what httpx2 raises if a connection fails or breaks.

        It can be cancelled at any time, also in the middle of a reply.
        """
        try:
            with anyio.fail_after(request.extensions["timeout"]["read"]):
                return await self._send(request, options)
        except TimeoutError:
            raise openai.APITimeoutError(request) from None
        except httpx2.ConnectError as error:
            if problem := _handshake_problem(error):
                raise UnusableServerError(problem, request) from error
            raise

    async def _send(self, request: httpx2.Request, options: dict[str, Any]) -> httpx2.Response:
        response = await super().send(request, **{**options, "stream": True, "follow_redirects": False})
        try:
            _check_head(response)
            body = await _body(response)
        finally:
            await response.aclose()
        whole = httpx2.Response(response.status_code, headers=response.headers, content=body, request=request)
        # The headers do not decide: some character sets of Python unpack data, or take quadratic time.
        whole.encoding = "utf-8"
        return whole


def _make_transport(url: httpx2.URL) -> httpx2.AsyncHTTPTransport:
    try:
        return httpx2.AsyncHTTPTransport(limits=openai.DEFAULT_CONNECTION_LIMITS, proxy=find_proxy(url))
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        # The message of an invalid address may hold a part of the password.
        cause = "a SOCKS proxy needs  pip install socksio" if isinstance(error, ImportError) else "it is not valid"
        raise ServerError(
            f"the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names for {url.host} cannot be used: {cause}, or set "
            f"NO_PROXY={url.host} to reach the server without it"
        ) from error


def find_proxy(url: httpx2.URL) -> str | None:
    """The proxy that the environment names for the host of `url`. This machine is never behind one."""
    if _is_this_machine(url.host) or urllib.request.proxy_bypass(url.netloc.decode("ascii")):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _is_this_machine(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def proxy_note(url: httpx2.URL) -> str:
    """What each message about the server at `url` ends with: its proxy may be the cause. Empty where there is none."""
    proxy = find_proxy(url)
    if proxy is None:
        return ""
    shown = shown_address(httpx2.URL(proxy))
    return f"; requests to it go through the proxy {shown} of the environment, unless you set NO_PROXY={url.host}"


@contextmanager
def naming_proxy(url: httpx2.URL) -> Iterator[None]:
    """Adds `proxy_note` to the errors that leave it."""
    try:
        yield
    except (EvaError, openai.APIError) as error:
        error.args = (f"{error}{proxy_note(url)}",)
        raise


def _check_head(response: httpx2.Response) -> None:
    here = shown_address(response.request.url)
    if response.is_redirect:
        target = response.next_request
        there = shown_address(target.url) if target else "no address"
        raise UnusableServerError(
            f"{here} redirects to {there}, which is not followed: give the server's own address with --base-url",
            response.request,
        )
    encoding = printable(response.headers.get("Content-Encoding", "identity"), limit=40)
    if encoding.strip().lower() != "identity":
        # The unpacked reply may have any size.
        raise UnusableServerError(f"{here} packs its reply ({encoding}), which was not requested", response.request)


async def _body(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > MAX_REPLY_BYTES:
            here = shown_address(response.request.url)
            raise UnusableServerError(f"the reply of {here} is longer than {MAX_REPLY_BYTES} bytes", response.request)
    return bytes(body)


def _handshake_problem(error: BaseException) -> str:
    """What is wrong with the certificate or the TLS of the server; the empty text if neither is the cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({cause.verify_message}): if this is the right server, "
                "let SSL_CERT_FILE name a file with its certificate or that of its authority"
            )
        if isinstance(cause, ssl.SSLError):
            return f"the TLS handshake fails ({cause.reason}): is https the right protocol for this port?"
        cause = cause.__cause__ or cause.__context__
    return ""


def shown_address(url: httpx2.URL) -> str:
    """The address without name, password and query, for people and files."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}{url.path}".rstrip("/")
