"""How a server, or a request to it, fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eva.errors import EvaError

if TYPE_CHECKING:
    from eva.endpoint.pool import Server


class ServerError(EvaError):
    """The server cannot be used: nothing answers, it serves no model, or its answers cannot be read."""


class ServerLoadingError(ServerError):
    """The server answers that it cannot serve yet, as it does while it loads its model."""


class BadRequestError(EvaError):
    """The server refused the request itself (HTTP 400): too long, too many images, a file it may not read."""


class UnavailableError(EvaError):
    """The server failed, not the request: no connection, a timeout, 5xx, 401, 403, 404, 407, 408, 409, 425, 429, or a
    reply that is not a whole completion.

    `overload`: it was a timeout, 5xx or 429, so fewer requests at a time may help. `timeout`: it was a timeout.
    `unconnected`: no connection could be made, or the connection broke.
    """

    def __init__(
        self, message: str, *, overload: bool = False, timeout: bool = False, unconnected: bool = False
    ) -> None:
        super().__init__(message)
        self.overload, self.timeout, self.unconnected = overload, timeout, unconnected


class RefusesAllError(EvaError):
    """The server refuses what every sample of the run needs. Its settings are at fault, or the flags of the run."""


class RankRefusedError(UnavailableError):
    """The server does not have the data-parallel rank that the request names. The request itself is sound."""


class UnansweredError(EvaError):
    """A sample gets no reply. `failure` is the last failure of its request.

    `record` is the record that the sample gets if it is given up. It holds the completed rounds.
    """

    def __init__(self, failure: UnavailableError) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.record: Any = None  # a Record, a type of the room beside this one


class FailingError(UnansweredError):
    """The same, with the `server` that the sample was assigned to."""

    def __init__(self, failure: UnavailableError, server: Server) -> None:
        super().__init__(failure)
        self.server = server


class ServerLostError(FailingError):
    """The server of the sample went down, and another one is up, or it went down twice: the sample starts again."""


class KeepsFailingError(FailingError):
    """A request failed several times on a server that answers others."""


class WeightsChangedError(EvaError):
    """A server states other weights than the run began with: no sample may get a reply of both."""


class OutageError(EvaError):
    """No server has answered for longer than the run may wait."""
