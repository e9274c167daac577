"""How a server, or a request to it, fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eva.errors import EvaError

if TYPE_CHECKING:
    from eva.endpoint.pool import Server


class ServerError(EvaError):
    """No run can start with this server."""


class RefusedError(EvaError):
    """The server refused the request itself (400 to 499, but for the statuses of UnavailableError)."""


class BadRequestError(RefusedError):
    """The server refused the request itself with HTTP 400: too long, too many images, a file it may not read."""


class UnavailableError(EvaError):
    """The server failed, not the request: no connection, a timeout, 3xx, 5xx, 401, 403, 404, 407, 408, 409, 425, 429,
    or a reply that is not a whole completion.

    `overload`: it was a timeout, 5xx or 429, so fewer requests at a time may help. `status` is the HTTP status, if any.
    """

    def __init__(self, message: str, *, overload: bool = False, status: int | None = None) -> None:
        super().__init__(message)
        self.overload, self.status = overload, status


class RankRefusedError(UnavailableError):
    """The server does not have the data-parallel rank that the request names. The request itself is sound."""


class UnansweredError(EvaError):
    """A sample that cannot be finished now. The schedule tries it again.

    `lost`: its server or its node went down. Otherwise its request failed several times on a server that answers
    others. `server` is the one that the sample was assigned to. `record` is the one that the sample gets if it is
    given up; it holds the completed rounds.
    """

    def __init__(self, failure: Exception, *, lost: bool = False) -> None:
        super().__init__(str(failure))
        self.failure, self.lost = failure, lost
        self.server: Server | None = None
        self.record: Any = None  # a Record, a type of the room beside this one


class ServersUnusableError(EvaError):
    """No sample can be finished: a server refuses what every sample needs, or states other weights than the run began
    with."""


class OutageError(ServersUnusableError):
    """No server has answered for longer than the run may wait, or no sample has finished in that time."""
