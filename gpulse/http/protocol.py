"""The parked side of an HTTP connection: from bytes to exchanges, in order, within deadlines.

Runs on the hub.  A connection is in one of these states, told by what is set:

=============  ==========================================  ===================================
state          told by                                     its deadline
=============  ==========================================  ===================================
idle           nothing below                               keep_alive, then closed
head           ``parser.has_begun``                        head_timeout, then 408
body           ``parser.current``                          a bucket of body_stall; then 408
spooling       ``_spooling``                               none: a file thread works
queued         ``_exchange``, still in the pool's queue    queue_timeout, then 503
running        ``_exchange``                               request_timeout, then stopped
flushing       ``connection.buffered``                     a bucket of write_stall; then cut off
lingering      ``_lingering``                              linger, then closed
=============  ==========================================  ===================================

A bucket is time that a connection may spend: it holds ``body_stall`` (``write_stall``) seconds when
full, time takes from it, and every byte of progress adds the time that the byte may take at the
least rate.  So silence and a drip end alike, and there is one deadline for both.

One request at a time is taken from a connection; what is pipelined behind it waits unparsed in
``_backlog``; at ``limits.pipelined`` bytes reading stops.
"""

import logging
import time
from typing import TYPE_CHECKING, Any, BinaryIO

from gpulse.connection.connection import Connection
from gpulse.connection.timers import NEVER
from gpulse.http import spool
from gpulse.http.exchange import GIVEN_UP, Exchange
from gpulse.http.parser import RequestParser
from gpulse.http.refusals import plain_response, refusal
from gpulse.http.request import Request
from gpulse.http.upgrade import Upgrade

if TYPE_CHECKING:
    from gpulse.http.server import HttpServer

log = logging.getLogger("gpulse.http")

STOPS = 3
"""How often a request that is over its time is stopped, a second apart, before it is given up: it
may catch what stops it."""

CLIENT_LEFT = "499 Client Left"
"""In the access log: a request whose client left before it ran (nginx's status)."""


class HttpProtocol:
    """One connection's HTTP."""

    __slots__ = (
        "_acknowledged",
        "_answering",
        "_backlog",
        "_body_memory",
        "_bucket",
        "_eof",
        "_exchange",
        "_head_begun",
        "_lingering",
        "_parser",
        "_spooling",
        "_stops",
        "base_environ",
        "connection",
        "served",
        "server",
    )

    def __init__(
        self, connection: Connection, server: "HttpServer", base_environ: dict[str, Any]
    ) -> None:
        self._parser = RequestParser(server.limits, server.heads)
        self._exchange: Exchange | None = None
        self._backlog = b""
        self._body_memory = 0  # bytes of a body that are counted for the worker
        self._bucket = 0.0  # when the bucket of the body or of the flushing is empty
        self._answering = False  # a health check; the hub's next callback goes on
        self._acknowledged = 0  # bytes of the buffer that the client is known to have
        self._eof = False
        self._spooling = False
        self._stops = 0
        self._head_begun = True  # the deadline counts from a head's first byte; at first, from here
        self._lingering = 0  # bytes that may still be thrown away, 0 when not lingering

        self.connection = connection
        self.server = server
        self.base_environ = base_environ

        self.served = 0
        """Requests that the connection has had, the one that runs included."""

    def start(self) -> None:
        """Begin to wait for a request."""
        self.connection.set_deadline(time.monotonic() + self.server.limits.head_timeout)

    @property
    def is_idle(self) -> bool:
        """No request has begun and nothing is on its way out."""
        return self._is_free and not self._parser.has_begun

    @property
    def _is_free(self) -> bool:
        """What arrives can be parsed at once; else it goes to the backlog."""
        return not (
            self._exchange is not None
            or self._spooling
            or self._answering
            or self._backlog
            or self.connection.buffered
        )

    # -- from the connection

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self._linger(len(data))
        elif self._is_free:
            parser = self._parser
            request = parser.feed(data)
            if request is None:
                self._await_more(len(data))
            elif parser.rest or request.has_body:
                self._take(request)
            else:
                self._submit(request)
        else:
            self._backlog += data
            if len(self._backlog) >= self.server.limits.pipelined:
                self.connection.pause_reading()

    def eof_received(self) -> None:
        self._eof = True
        if self._lingering or self._is_free:
            self.connection.close()

    def peer_left(self) -> None:
        """The connection is lost while a member holds it."""
        exchange = self._exchange
        if exchange is not None and not exchange.started and self.server.pool.cancel(exchange):
            # Nobody waits for it: another takes its place in the queue.
            self._forget(exchange)
            exchange.give_up(CLIENT_LEFT)
            self.server.refused(exchange)

    def connection_lost(self) -> None:
        self._backlog = b""  # the wheel keeps this object until it next looks at it
        self._count_body(0)
        if not self._spooling:
            self._parser.stop()

    def write_progressed(self) -> None:
        """The kernel took something, or the client acknowledged something: its time goes on."""
        limits, connection = self.server.limits, self.connection
        acknowledged = connection.flushed - connection.unsent()
        progress = max(0, acknowledged - self._acknowledged)
        self._acknowledged += progress
        self._refill(progress, limits.write_rate, limits.write_stall)

    def deadline_passed(self, now: float) -> None:
        exchange = self._exchange
        if exchange is not None and (not self.connection.buffered or 0 < exchange.due <= now):
            self._exchange_overdue(exchange, now)
        elif self.connection.buffered:
            # The kernel holds megabytes of a response: no wish for more says nothing yet.
            self.write_progressed()
            if self.connection.deadline <= now:
                log.debug("%s took too little for too long: cut off", self.connection.peer)
                self.connection.abort()
        elif self._spooling:
            return
        elif self._lingering:
            self.connection.abort()
        elif self._parser.has_begun:
            self.refuse(408, "the request did not arrive in time")
        else:
            self.connection.close()

    def _refill(self, size: int, rate: int, stall: float) -> None:
        """``size`` bytes of progress add to the bucket; without a rate, the first one fills it."""
        now = time.monotonic()
        if rate:
            self._bucket = min(self._bucket + size / rate, now + stall)
        elif size:
            self._bucket = now + stall
        self._set_bucket_deadline()

    def _set_bucket_deadline(self) -> None:
        exchange = self._exchange
        due = exchange.due if exchange is not None and exchange.due else NEVER
        self.connection.set_deadline(min(self._bucket, due))

    # -- from requests to exchanges

    def _take(self, request: Request) -> None:
        """A whole request: the pool's, once its body is where the application will read it."""
        self._bucket = 0.0
        if self._parser.rest:
            # Behind nothing else: the backlog was empty, or was what the parser has just read.
            self._backlog = self._parser.rest
            self._parser.rest = b""
        in_memory = request.body_size - request.spooled
        self._count_body(in_memory)
        if (request.spool is not None and request.body) or self._has_too_much(in_memory):
            self._spool(request)
        else:
            self._submit(request)

    def _advance(self) -> None:
        """Go on to whatever comes next on this connection."""
        connection = self.connection
        if connection.lost or self._spooling or self._exchange is not None:
            return
        # Counted from the last response: empty lines that come later do not move it.
        deadline = time.monotonic() + self.server.keep_alive
        if connection.wheel_bucket and deadline >= connection.deadline:
            connection.deadline = deadline  # as the wheel would do, and the usual case
        else:
            connection.wheel.set(connection, deadline)
        if self._backlog:
            backlog, self._backlog = self._backlog, b""
            connection.resume_reading()
            request = self._parser.feed(backlog)
            if request is not None:
                self._take(request)
                return
            if not self._eof or self._parser.error is not None:
                self._await_more(len(backlog))
                return
        if self._eof:
            connection.close()
        elif self._parser.has_begun:
            self._await_more(0)

    def _await_more(self, received: int) -> None:
        """The parser wants more than it has; ``received`` bytes have just come."""
        parser, connection, limits = self._parser, self.connection, self.server.limits
        request = parser.current
        if request is not None:
            if not self._bucket:  # the body begins
                self._bucket = time.monotonic() + limits.body_stall
                if request.expects_continue and not request.body_size:
                    request.expects_continue = False
                    connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    if connection.buffered:
                        connection.when_drained(self._advance)
            self._refill(received, limits.body_rate, limits.body_stall)
            in_memory = request.body_size - request.spooled
            self._count_body(in_memory)
            if self._has_too_much(in_memory):
                self._spool(request)
        elif parser.error is not None:
            self._refuse_error()
        elif parser.has_begun and not self._head_begun:
            # Counted from the first byte: a drip of bytes does not move it.
            self._head_begun = True
            connection.set_deadline(time.monotonic() + limits.head_timeout)

    def _count_body(self, size: int) -> None:
        """So many bytes of a body are in memory because of this connection."""
        self.server.body_memory += size - self._body_memory
        self._body_memory = size

    def _has_too_much(self, in_memory: int) -> bool:
        """So much of a body has to go to its file."""
        server, limits = self.server, self.server.limits
        return in_memory > limits.spool or (
            in_memory >= spool.LEAST and server.body_memory > limits.spool_memory
        )

    def _submit(self, request: Request) -> None:
        server, connection = self.server, self.connection
        probe = server.probes.get(request.target)
        if probe is not None and request.method in ("GET", "HEAD"):
            self._answer_probe(request, probe)
            return
        pool = server.pool
        if pool.queued >= server.limits.queue and (request.upgrade or server.is_busy):
            self._refuse_exchange(
                Exchange(self, request, keep_alive=False), "the queue of the pool is full"
            )
            return
        self._head_begun = False
        self.served += 1
        server.requests += 1
        keep_alive = request.keep_alive and server.keep_alive > 0
        if (self._eof and not self._backlog) or self.served == server.limits.connection_requests:
            keep_alive = False
        exchange = self._exchange = Exchange(self, request, keep_alive)
        connection.held = True
        # The deadline that the connection has as an idle one stays: most exchanges end before it.
        if request.upgrade:
            pool.submit_handshake(exchange)
        else:
            pool.submit(exchange)
            if server.outbox is not None:
                server.outbox.slice_ended(exchange.queued_at)
        if self._exchange is exchange and not connection.buffered:
            connection.set_deadline(exchange.queued_at + server.first_look)

    def _answer_probe(self, request: Request, probe: str) -> None:
        """A health check, answered in front of the pool."""
        server = self.server
        line = server.health(probe)
        keep_alive = (
            request.keep_alive and not server.draining and not (self._eof and not self._backlog)
        )
        answer = plain_response(line, keep_alive, server.common, is_head=request.method == "HEAD")
        self._head_begun = False
        request.discard_body()
        self._count_body(0)
        self.connection.write(answer)
        if not keep_alive:
            self._close()
        elif self.connection.buffered:
            self._begin_flushing()
            self.connection.when_drained(self._drained)
        else:
            self._answering = True
            server.loop.run_callback(self._drained)  # not at once: a pipeline of them is no loop

    def _exchange_overdue(self, exchange: Exchange, now: float) -> None:
        """The deadline of a queued or running exchange passed: see which, and what of it."""
        server, connection = self.server, self.connection
        if not exchange.started:
            due = exchange.queued_at + server.limits.queue_timeout
            if now < due:
                connection.set_deadline(min(due, now + server.first_look))
            elif server.pool.cancel(exchange):
                self._forget(exchange)
                self._refuse_exchange(exchange, "no pool member became free in time")
            else:
                connection.set_deadline(now + 0.1)  # a thread is taking it at this moment
            return
        if not exchange.due:
            return
        if now < exchange.due:
            connection.set_deadline(exchange.due)
            return
        self._stops += 1
        if self._stops == 1:
            exchange.log_overdue(now)
        exchange.due = now + 1.0
        if self._stops <= STOPS and exchange.interrupt():
            if self._exchange is exchange:
                connection.set_deadline(exchange.due)
            return
        self._give_up(exchange)

    def _forget(self, exchange: Exchange) -> None:
        """A queued exchange was cancelled."""
        exchange.request.discard_body()
        self._count_body(0)
        self._exchange = None
        self.connection.release()

    def _give_up(self, exchange: Exchange) -> None:
        """Answer in place of a pool member that cannot be stopped, and let it run to its end."""
        self._stops = 0
        self._exchange = None
        if not exchange.abandon():
            self.connection.abort()  # the response has begun
            return
        # From here on the member may not write; so nobody uses the descriptor but the hub.
        self.connection.release()
        self._answer_refused(exchange, "the application did not answer in time")

    def _refuse_exchange(self, exchange: Exchange, reason: str) -> None:
        """Answer a request that is not to run with 503, and close."""
        exchange.request.discard_body()
        self._count_body(0)
        exchange.give_up(GIVEN_UP)
        self._answer_refused(exchange, reason)

    def _answer_refused(self, exchange: Exchange, reason: str) -> None:
        """Answer in place of an exchange that was given up; its line tells the request."""
        self.server.refused(exchange)
        if not self.connection.lost:
            is_head = exchange.request.method == "HEAD"
            self._write_refusal(503, reason, exchange.given_up, is_head=is_head)

    def exchange_ended(self, exchange: Exchange, is_answered: bool) -> None:
        """The response is out or buffered, or nothing more can be done for the client."""
        server, connection = self.server, self.connection
        # The response refers back to the exchange by its send; without it both are freed at once
        # instead of by the garbage collector, which would run every hundred requests.
        response, exchange.response = exchange.response, None
        if self._body_memory:
            self._count_body(0)
        if server.served is not None:
            server.served()
        if exchange.switched or exchange.abandoned:
            return
        if exchange.switching_head and is_answered and exchange.upgrade is not None:
            self.enqueue(exchange.switching_head)
            self.switch(exchange.upgrade)
            return
        self._exchange = None
        self._stops = 0
        connection.held = False
        if connection.lost:
            connection.release()
        elif response is None or not is_answered:
            connection.abort()  # a close that the client can tell from the end of the body
        elif not response.keep_alive:
            self._close()
        elif connection.buffered:
            self._begin_flushing()
            connection.when_drained(self._drained)
        else:
            self._advance()

    def _begin_flushing(self) -> None:
        connection, limits = self.connection, self.server.limits
        self._acknowledged = connection.flushed - connection.unsent()
        self._bucket = time.monotonic() + limits.write_stall
        self._set_bucket_deadline()

    def output_stalled(self) -> None:
        """The kernel did not take all of a gathered response."""
        self._begin_flushing()
        if self._exchange is None:
            self.connection.when_drained(self._drained)

    def _drained(self) -> None:
        self._bucket = 0.0
        self._answering = False
        self._advance()

    def enqueue(self, data: bytes | memoryview) -> None:
        """Buffer output for the exchange."""
        connection = self.connection
        begins = not connection.buffered and not connection.lost
        if isinstance(data, memoryview):
            connection.enqueue(data)
        else:
            connection.write(data)
        if begins and connection.buffered:
            self._begin_flushing()

    def send_file(self, fd: int, offset: int, size: int) -> None:
        """Buffer a file for the exchange; ``fd`` is the connection's from now on."""
        begins = not self.connection.buffered
        self.connection.send_file(fd, offset, size, self.server.pool.in_file_thread)
        if begins and self.connection.buffered:
            self._begin_flushing()

    def switch(self, upgrade: Upgrade) -> None:
        """The 101 is out: hand the connection to another protocol."""
        connection = self.connection
        self._exchange = None
        rest, self._backlog = self._backlog, b""
        self._parser.stop()
        connection.set_deadline(NEVER)
        connection.release()
        try:
            protocol = upgrade.open_protocol(connection, rest)
        except Exception:
            log.exception("%s: the connection is cut", connection.peer)
            connection.abort()
            return
        if connection.lost:
            protocol.connection_lost()
        elif self._eof:
            protocol.eof_received()

    # -- refusals and the end

    def _refuse_error(self) -> None:
        error = self._parser.error
        assert error is not None
        self.refuse(error.status, error.reason)

    def refuse(self, status: int, reason: str) -> None:
        """Answer what is no request with an error of the server's own, and close."""
        server, connection = self.server, self.connection
        if not connection.lost:
            server.refused_unread(status, connection.peer, reason)
            self._write_refusal(status, reason, server.common, is_head=False)

    def _write_refusal(self, status: int, reason: str, common: str, *, is_head: bool) -> None:
        connection = self.connection
        log.debug("%s: %d (%s)", connection.peer, status, reason)
        connection.write(refusal(status, common, is_head=is_head))
        self._close(is_sending=True)

    def _close(self, *, is_sending: bool = False) -> None:
        """Close so that the client sees the last response even if it is still sending.

        :param is_sending: the client has not sent all that it has begun.
        """
        connection = self.connection
        connection.flush_gathered()
        # While a response drains the client may begin to send: a close() with its bytes unread is a
        # reset, which takes from it what it has not read of the response yet (RFC 9112, 9.6).
        is_sending = (
            is_sending or bool(self._backlog) or self._parser.has_begun or connection.buffered > 0
        )
        self._parser.stop()
        self._backlog = b""
        if connection.buffered:
            self._begin_flushing()
        else:
            connection.set_deadline(time.monotonic() + self.server.limits.write_stall)
        if not is_sending or self._eof or connection.lost:
            connection.close()
            return
        self._lingering = self.server.limits.linger_bytes
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
        if self._lingering > 0:
            return
        if self.connection.buffered:
            self._lingering = 1
            self.connection.pause_reading()  # the response first
        else:
            self.connection.abort()

    # -- large bodies

    def _spool(self, request: Request) -> None:
        """Move the body's pieces from memory to its temporary file, on a file thread."""
        pieces, request.body = request.body, []
        request.spooled = request.body_size
        self._spooling = True
        self._count_body(0)
        self.connection.set_deadline(NEVER)
        directory = self.server.limits.spool_directory
        self.server.pool.in_file_thread(
            spool.append, (request.spool, pieces, directory), self._spooled, request
        )

    def _spooled(
        self, request: Request, file: BinaryIO | None, error: BaseException | None
    ) -> None:
        self._spooling = False
        if file is not None:
            request.spool = file
        if self.connection.lost:
            request.discard_body()
            self._parser.stop()
        elif error is not None:
            log.error("a request body could not be spooled to disk: %s", error)
            request.discard_body()
            self.refuse(507, "no space for the body")
        elif self._parser.current is not request:
            self._submit(request)  # it is whole
        else:
            self._bucket = time.monotonic() + self.server.limits.body_stall
            self.connection.set_deadline(self._bucket)
            self._advance()
