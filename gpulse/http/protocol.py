"""The parked side of an HTTP connection: from bytes to exchanges, in order, within deadlines.

Runs on the hub.  A connection is in one of these states, told by what is set:

=============  ==========================================  ===================================
state          told by                                     its deadline
=============  ==========================================  ===================================
idle           nothing below                               keep_alive, then closed
head           ``parser.current`` without its head          head_timeout, then 408
body           ``parser.current`` with its head             body_stall, moved by each byte; 408
spooling       ``_spooling``                               none: a file thread works
queued         ``_exchange``, still in the pool's queue     queue_timeout, then 503
running        ``_exchange``                               none: the application works
flushing       ``connection.buffered``                     write_stall, moved by progress
lingering      ``_lingering``                              linger, then closed
=============  ==========================================  ===================================

One request at a time is taken from a connection; what is pipelined behind it waits unparsed in
``_backlog``, at most ``limits.pipelined`` bytes, then reading stops.
"""

import logging
import os
import tempfile
import time
from typing import TYPE_CHECKING, Any, BinaryIO

from gpulse.connection.connection import Connection
from gpulse.connection.timers import NEVER
from gpulse.http.exchange import Exchange, Upgrade
from gpulse.http.parser import Request, RequestError, RequestParser
from gpulse.http.response import plain_response

if TYPE_CHECKING:
    from gpulse.http.server import HttpServer

log = logging.getLogger("gpulse.http")

_REASONS = {
    400: "400 Bad Request",
    405: "405 Method Not Allowed",
    408: "408 Request Timeout",
    413: "413 Content Too Large",
    414: "414 URI Too Long",
    417: "417 Expectation Failed",
    431: "431 Request Header Fields Too Large",
    501: "501 Not Implemented",
    503: "503 Service Unavailable",
    505: "505 HTTP Version Not Supported",
    507: "507 Insufficient Storage",
}


class HttpProtocol:
    """One connection's HTTP."""

    __slots__ = (
        "_backlog",
        "_eof",
        "_exchange",
        "_head_begun",
        "_lingering",
        "_parser",
        "_spooling",
        "base_environ",
        "connection",
        "server",
    )

    def __init__(
        self, connection: Connection, server: "HttpServer", base_environ: dict[str, Any]
    ) -> None:
        self.connection = connection
        self.server = server
        self.base_environ = base_environ
        self._parser = RequestParser(server.limits)
        self._exchange: Exchange | None = None
        self._backlog = b""
        self._eof = False
        self._spooling = False
        self._head_begun = True  # the deadline counts from a head's first byte; at first, from here
        self._lingering = 0  # bytes that may still be thrown away, 0 when not lingering
        connection.set_deadline(time.monotonic() + server.limits.head_timeout)

    @property
    def is_idle(self) -> bool:
        """No request has begun and nothing is on its way out."""
        return (
            self._exchange is None
            and self._parser.current is None
            and not self._parser.requests
            and not self.connection.buffered
        )

    # -- from the connection

    def data_received(self, data: bytes) -> None:
        if self._exchange is None and not self._spooling and not self.connection.buffered:
            if self._lingering:
                self._linger(len(data))
                return
            self._feed(data)
            return
        self._backlog += data
        if len(self._backlog) >= self.server.limits.pipelined:
            self.connection.pause_reading()

    def eof_received(self) -> None:
        self._eof = True
        if self._exchange is None and not self._spooling and not self.connection.buffered:
            self.connection.close()

    def connection_lost(self) -> None:
        self._parser.stop()
        self._backlog = b""  # the wheel keeps this object until it next looks at it
        self._drop_bodies()

    def write_progressed(self) -> None:
        self.connection.set_deadline(time.monotonic() + self.server.limits.write_stall)

    def deadline_passed(self, now: float) -> None:
        parser = self._parser
        if self.connection.buffered:
            log.debug("%s took nothing for a while and was cut off", self.connection.peer)
            self.connection.abort()
        elif self._exchange is not None:
            if self.server.pool.cancel(self._exchange):
                self._exchange.request.discard_spool()
                self._exchange = None
                self.connection.release()
                self.refuse(503, "no pool member became free in time")
        elif self._spooling:
            return
        elif self._lingering:
            self.connection.abort()
        elif parser.current is None:
            self.connection.close()
        else:
            self.refuse(408, "the request did not arrive in time")

    # -- from requests to exchanges

    def _feed(self, data: bytes) -> None:
        self._parser.feed(data)
        self._advance()

    def _advance(self) -> None:
        """Go on to whatever comes next on this connection."""
        parser = self._parser
        connection = self.connection
        if connection.lost or self._spooling:
            return
        while True:
            if parser.requests:
                request = parser.requests[0]
                if request.spool is not None and request.body:
                    self._spool(request)
                    return
                parser.requests.popleft()
                self._submit(request)
                return
            if parser.error is not None:
                self._refuse_error(parser.error)
                return
            if not self._backlog:
                break
            backlog, self._backlog = self._backlog, b""
            connection.resume_reading()
            parser.feed(backlog)
        if self._eof:
            connection.close()
            return
        self._await_more(parser.current)

    def _await_more(self, request: Request | None) -> None:
        connection, limits = self.connection, self.server.limits
        now = time.monotonic()
        if request is None:
            # Counted from the last response: empty lines do not move it.
            if connection.deadline == NEVER:
                connection.set_deadline(now + self.server.keep_alive)
        elif not request.head_complete:
            # Counted from the first byte: a drip of bytes does not move it.
            if not self._head_begun:
                self._head_begun = True
                connection.set_deadline(now + limits.head_timeout)
        else:
            if request.expects_continue and not request.body_size:
                request.expects_continue = False
                connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                if connection.buffered:
                    connection.when_drained(self._advance)
            connection.set_deadline(now + limits.body_stall)
            if request.body_size - request.spooled > limits.spool:
                self._spool(request)

    def _submit(self, request: Request) -> None:
        server, connection = self.server, self.connection
        if server.pool.queued >= server.limits.queue:
            request.discard_spool()
            self.refuse(503, "the queue of the pool is full")
            return
        self._head_begun = False
        server.requests += 1
        is_last = self._eof and not self._parser.requests and not self._backlog
        exchange = self._exchange = Exchange(self, request, request.keep_alive and not is_last)
        connection.hold()
        connection.set_deadline(NEVER)
        server.pool.submit(exchange)
        if self._exchange is exchange and server.pool.queued and not connection.buffered:
            connection.set_deadline(time.monotonic() + server.limits.queue_timeout)

    def exchange_ended(self, *, keep_alive: bool, failed: bool) -> None:
        """The response is out or buffered."""
        self._exchange = None
        connection = self.connection
        connection.set_deadline(NEVER)
        connection.release()
        self.server.exchange_ended()
        if connection.lost:
            return
        if failed:
            connection.abort()  # a close that the client can tell from the end of the body
        elif not keep_alive:
            self._close()
        elif connection.buffered:
            self.write_progressed()
            connection.when_drained(self._drained)
        else:
            self._drained()

    def _drained(self) -> None:
        self.connection.set_deadline(NEVER)
        if self._parser.at_upgrade and not self._parser.requests:
            self._parser.resume()  # the view declined: what follows is HTTP
        self._advance()

    def enqueue(self, data: bytes | memoryview) -> None:
        """Buffer output for the exchange."""
        connection = self.connection
        if not connection.buffered and not connection.lost:
            self.write_progressed()
        if isinstance(data, memoryview):
            connection.enqueue(data)
        else:
            connection.write(data)

    def switch(self, upgrade: Upgrade) -> None:
        """The 101 is out: hand the connection to another protocol."""
        connection = self.connection
        self._exchange = None
        rest = self._parser.rest + self._backlog
        self._backlog = b""
        self._parser.stop()
        connection.set_deadline(NEVER)
        connection.release()
        protocol = upgrade.open_protocol(connection, rest)
        if connection.lost:
            protocol.connection_lost()
        elif self._eof:
            protocol.eof_received()

    # -- refusals and the end

    def _refuse_error(self, error: RequestError) -> None:
        self.refuse(error.status, error.reason)

    def refuse(self, status: int, reason: str) -> None:
        """Answer with an error of the server's own and close."""
        server, connection = self.server, self.connection
        line = _REASONS[status]
        log.debug("%s: %s (%s)", connection.peer, line, reason)
        server.refused(status, connection.peer, reason)
        extra = ""
        if status == 503:
            extra = "Retry-After: 1\r\n"
        elif status == 405:
            extra = "Allow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT\r\n"
        self._parser.stop()
        self._drop_bodies()
        connection.write(plain_response(line, False, server.common_headers(), extra))
        self._close()

    def _close(self) -> None:
        """Close so that the client sees the last response even if it is still sending."""
        connection = self.connection
        busy_sender = self._backlog or self._parser.current is not None or self._parser.error
        connection.set_deadline(time.monotonic() + self.server.limits.write_stall)
        if not busy_sender or self._eof or connection.lost:
            connection.close()
            return
        self._parser.stop()
        self._lingering = self.server.limits.linger_bytes
        self._backlog = b""
        connection.when_drained(self._start_linger)

    def _start_linger(self) -> None:
        connection = self.connection
        if connection.lost:
            return
        connection.shutdown_write()
        connection.set_deadline(time.monotonic() + self.server.limits.linger)
        connection.resume_reading()

    def _linger(self, received: int) -> None:
        self._lingering -= received
        if self._lingering <= 0:
            self.connection.abort()

    # -- large bodies

    def _spool(self, request: Request) -> None:
        """Move the body's pieces from memory to its temporary file, on a file thread."""
        pieces, request.body = request.body, []
        request.spooled = request.body_size
        self._spooling = True
        self.connection.set_deadline(NEVER)
        self.server.pool.in_file_thread(_append, (request.spool, pieces), self._spooled, request)

    def _spooled(
        self, request: Request, spool: BinaryIO | None, error: BaseException | None
    ) -> None:
        self._spooling = False
        if spool is not None:
            request.spool = spool
        if self.connection.lost:
            request.discard_spool()
            self._drop_bodies()
        elif error is not None:
            log.error("a request body could not be spooled to disk: %s", error)
            self.refuse(507, "no space for the body")
        else:
            self._advance()

    def _drop_bodies(self) -> None:
        if self._spooling:
            return
        current = self._parser.current
        for request in [*self._parser.requests, *([current] if current else [])]:
            request.discard_spool()
            request.body = []


def _append(spool: BinaryIO | None, pieces: list[bytes]) -> BinaryIO:
    """On a file thread; leaves the file at its beginning, for whoever reads it."""
    if spool is None:
        spool = tempfile.TemporaryFile(prefix="gpulse-body-")  # noqa: SIM115 - closed by the exchange
    spool.seek(0, os.SEEK_END)
    spool.writelines(pieces)
    spool.seek(0)
    return spool


def peer_text(peer: Any) -> str:
    """A peer's address for a log line."""
    if isinstance(peer, tuple):
        return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
    return "unix"
