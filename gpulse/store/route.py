"""The way to the one server of a store that takes commands, and its one subscriber.

A *route* opens connections to it: to the address of the URL, or to the primary that the sentinels
name (:mod:`gpulse.store.sentinel`).  Clusters have many servers and their own modules.

Source: https://valkey.io/commands/select/
"""

from typing import Protocol

from gpulse.store.endpoint import Endpoint
from gpulse.store.ledger import pack
from gpulse.store.link import Dialer, Link
from gpulse.storeurl import StoreURL


class Route(Protocol):
    """How to reach the server.  Its methods block the caller; one caller at a time."""

    probe: bytes
    """A packed command whose reply tells whether a connection still leads to the right server;
    empty: it always does."""

    def open(self, deadline: float, *commands: bytes) -> Link:
        """A connection that is logged in and has run the packed ``commands``.

        :raises AwayError, OSError: there is none by ``deadline`` (monotonic seconds).
        """

    def accepts(self, reply: object) -> bool:
        """Whether that is what the right server answers to ``probe``."""


class FixedRoute:
    """To one address, of the URL or of a cluster's node.

    :param endpoint: by default the URL's.
    """

    probe = b""

    def __init__(self, url: StoreURL, dialer: Dialer, endpoint: Endpoint | None = None) -> None:
        self._dialer = dialer
        self.endpoint = endpoint or Endpoint(url.host, url.port, url.path)

    def open(self, deadline: float, *commands: bytes) -> Link:
        return self._dialer.open(self.endpoint, deadline, *commands)[0]

    def accepts(self, reply: object) -> bool:
        return True


def select(db: int) -> tuple[bytes, ...]:
    """The commands that a connection for commands begins with."""
    return (pack(b"SELECT", b"%d" % db),) if db else ()
