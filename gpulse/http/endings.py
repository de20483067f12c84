"""How a request can end early: what is raised beneath the application.

Raised on a pool member by the server's side of PEP 3333 (``write``, the iteration of a response) or
thrown into a greenlet that waits.  The application may clean up; the exchange answers.
"""


class ClientGone(OSError):  # noqa: N818 - an event, not a fault
    """The client closed the connection; there is nobody to write to."""


class Refusal(BaseException):
    """Raised beneath the application to answer with a plain response of the server's own.

    No Exception, for a framework would catch that and answer 500 with a traceback in the log.

    :param status: the status code.
    :param reason: one line for the client.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class RequestTimeout(Refusal):
    """Raised in the application when its request is over its time."""

    def __init__(self) -> None:
        super().__init__(503, "Service Unavailable")
