"""How a server, or a request to it, fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eva.errors import EvaError

if TYPE_CHECKING:
    from eva.endpoint.pool import Server


class ServerError(EvaError):
    """The server cannot be used at all: nothing answers, or it serves no model."""


class BadRequestError(EvaError):
    """The server refused the request itself (HTTP 400): too long, too many images, a file it may not read."""


class UnavailableError(EvaError):
    """The server failed, not the request: no connection, a timeout, 5xx, no such model, a reply that is none.

    `overload`: it was a timeout, 5xx or 429, so that fewer requests at a time may help. `unconnected`: no connection
    could be made, or it broke.
    """

    def __init__(
        self, message: str, *, overload: bool = False, timeout: bool = False, unconnected: bool = False
    ) -> None:
        super().__init__(message)
        self.overload, self.timeout, self.unconnected = overload, timeout, unconnected


class UnansweredError(EvaError):
    """A sample gets no reply where it is; `failure` is the last one.

    `record` is the sample's, with the rounds that it completed, for the case that it is given up.
    """

    def __init__(self, failure: UnavailableError) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.record: Any = None  # a Record, a type of the room beside this one


class FailingError(UnansweredError):
    """The same, with the `server` that the sample was on."""

    def __init__(self, failure: UnavailableError, server: Server) -> None:
        super().__init__(failure)
        self.server = server


class ServerLostError(FailingError):
    """The sample's server went down, and others stand or it went down under the sample before: start again."""


class KeepsFailingError(FailingError):
    """A request failed time after time on a server that answers others."""


class OutageError(EvaError):
    """No server has answered for longer than the run may wait."""
