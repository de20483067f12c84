"""What all HTTP connections of a worker share: listeners, pool, application, limits, counts.

Runs on the hub, but for :meth:`HttpServer.request_id` and ``legacy_websocket``, which pool members
call; they also read ``common``.
"""

import _socket
import email.utils
import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from gpulse import requestid
from gpulse.config import Config
from gpulse.connection.acceptor import Acceptor
from gpulse.connection.connection import Connection
from gpulse.connection.outbox import Outbox
from gpulse.connection.proxyheader import Header, ProxyHeaderProtocol
from gpulse.connection.timers import NEVER, DeadlineWheel
from gpulse.connection.tls import TlsConnection, tls_environ
from gpulse.http.accelerate import FileRoots
from gpulse.http.accesslog import AccessLog
from gpulse.http.environ import listener_environ
from gpulse.http.exchange import Exchange
from gpulse.http.files import FileWrapper
from gpulse.http.forwarded import Trust
from gpulse.http.head import HeadParser
from gpulse.http.limits import Limits
from gpulse.http.protocol import HttpProtocol
from gpulse.http.refusals import peer_text
from gpulse.paths import Deadlines

log = logging.getLogger("gpulse.http")

LIVE, READY = "live", "ready"

WARNING_PAUSE = 60.0
"""Seconds between two warnings of a worker that has all the connections it may have."""

FIRST_READS = 4
"""New connections whose first bytes are read in one turn of the hub."""
FIRST_READS_PAUSE = 0.002
"""Seconds between two of them while handshakes fill half of the pool's queue."""

WsgiApplication = Callable[..., Iterable[bytes]]


class _Clock:
    """Keeps a server's Date, driven by its wheel.  A request does not ask for the time."""

    __slots__ = ("_server", "deadline", "wheel_bucket")

    def __init__(self, server: "HttpServer") -> None:
        self._server = server
        self.deadline = NEVER
        self.wheel_bucket = 0
        self.deadline_passed(time.monotonic())

    def deadline_passed(self, now: float) -> None:
        moment = time.time()
        date = email.utils.formatdate(moment, usegmt=True)
        # One store: pool threads read it without a lock.
        self._server.common = f"Server: gpulse\r\nDate: {date}\r\n"
        self._server.wheel.set(self, now + 1.0 - moment % 1.0)


class _Newcomers:
    """Connections that were never read: a few are, per turn of the hub.

    Thousands that were accepted before they spoke may speak in one turn.  They wait here, unread,
    and open connections are read between them; their bound is ``limits.connections``, the deadline
    that of a head.  So that a storm waits here and does not fill the queue of the pool, they are
    read slowly while that is half full of handshakes; not never, for they may want a page.
    """

    __slots__ = ("_later", "_left", "_next_turn", "_server", "_waiting", "_watchers")

    def __init__(self, server: "HttpServer") -> None:
        self._watchers: dict[Connection, Any] = {}  # of those that are silent
        self._waiting: deque[Connection] = deque()
        self._left = FIRST_READS
        self._next_turn = server.loop.timer(0)
        self._later = server.loop.timer(FIRST_READS_PAUSE, FIRST_READS_PAUSE)

        self._server = server

    def add(self, connection: Connection, descriptor: int) -> None:
        watcher = self._watchers[connection] = self._server.loop.io(descriptor, 1)
        watcher.start(self._readable, connection)

    def discard(self, connection: Connection) -> None:
        """It is silent no more, or closed."""
        watcher = self._watchers.pop(connection, None)
        if watcher is not None:
            watcher.stop()
            watcher.close()

    def _readable(self, connection: Connection) -> None:
        self.discard(connection)
        self._waiting.append(connection)
        if self._left:
            self._read()
        if not (self._next_turn.active or self._later.active):
            self._next_turn.start(self._turn)

    def _turn(self) -> None:
        self._later.stop()
        room = self._server.limits.queue // 2 - self._server.pool.handshakes
        self._left = max(1, min(FIRST_READS, room))
        self._read()
        if self._waiting and room > 0:
            self._next_turn.start(self._turn)
        elif self._waiting:
            self._later.again(self._turn)

    def _read(self) -> None:
        while self._waiting and self._left:
            self._left -= 1
            self._waiting.popleft().resume_reading()


class HttpServer:
    """See the module's text.

    :param pool: runs exchanges; see :mod:`gpulse.worker.pools`.
    :param legacy_websocket: makes ``environ["wsgi.websocket"]`` for an upgrade request.
    :param served: called on the hub after each exchange; None for nothing.
    :param environ: what every request's environ has besides PEP 3333's keys.
    :param tls: what the TCP listeners speak beneath HTTP; a unix socket speaks plain HTTP.
    """

    def __init__(
        self,
        loop: Any,
        pool: Any,
        application: WsgiApplication,
        config: Config,
        *,
        limits: Limits,
        wheel: DeadlineWheel,
        access_log: AccessLog | None,
        legacy_websocket: Callable[[Exchange], Any],
        served: Callable[[], None] | None,
        environ: dict[str, Any],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.connections: set[Connection] = set()
        self.heads = HeadParser(limits)
        self.trust = Trust(config.trusted_proxies, config.forwarded_headers)
        self.deadlines = Deadlines(config.request_timeout)
        # Native threads send for themselves.
        self.outbox = Outbox(loop) if pool.is_on_hub else None
        self.has_deadlines = bool(self.deadlines)
        self.files = FileRoots(config.sendfile_root) if config.sendfile_root else None
        self._acceptors: list[Acceptor] = []
        self._listeners: list[socket.socket] = []
        self._bases: dict[int, dict[str, Any]] = {}
        self._is_full = False
        self._may_warn = 0.0

        self.loop = loop
        self.pool = pool
        self.application = application
        self.config = config
        self.limits = limits
        self.keep_alive = config.keep_alive
        self.gives_ids = config.request_id
        self.wheel = wheel
        self.legacy_websocket = legacy_websocket
        self.access_log = access_log
        self.served = served
        self._environ = environ
        self._tls = tls

        self.first_look = min(
            [limits.queue_timeout, *(each for _, each in config.request_timeout if each)]
        )
        """Seconds after which the deadlines of an exchange are looked at first."""
        probes = ((config.live_path, LIVE), (config.ready_path, READY))
        self.probes = {path.encode("ascii"): probe for path, probe in probes if path}
        """Targets of the health checks."""

        self.common = ""
        """The Server and Date lines of every response, made anew as the seconds pass."""
        self._clock = _Clock(self)
        self._newcomers = _Newcomers(self)

        self.draining = False
        self.body_memory = 0
        """Bytes of bodies in memory, of requests that arrive, wait or run."""
        self.requests = 0
        self.refusals = 0

    def listen(self, listeners: Iterable[socket.socket]) -> None:
        """Begin to accept on listeners shared with the other workers."""
        self._listeners = list(listeners)
        for listener in self._listeners:
            scheme = "https" if self._speaks_tls(listener) else "http"
            base = listener_environ(listener, self.config.mode, self.config.workers, scheme)
            base["wsgi.file_wrapper"] = FileWrapper
            self._bases[id(listener)] = base | self._environ
            acceptor = Acceptor(self.loop, listener, self._accepted)
            self._acceptors.append(acceptor)
            acceptor.start()

    def stop_accepting(self) -> None:
        """Leave new connections to the other workers; responses from now on close theirs."""
        self.draining = True
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()
        for listener in self._listeners:
            # With the last copy of it the kernel refuses, instead of taking connections that
            # nobody would answer.
            listener.close()

    def _speaks_tls(self, listener: socket.socket) -> bool:
        return self._tls is not None and listener.family != socket.AF_UNIX

    def flush(self) -> None:
        """Send what is gathered; before the process ends."""
        if self.outbox is not None:
            self.outbox.flush()

    def hurry_idle(self, deadline: float) -> None:
        """While draining: idle connections, and those that only begin, end at ``deadline`` instead
        of their keep-alive's end.

        Not at once: a request may be on its way, and closing on it would lose it.
        """
        self.keep_alive = 0.0
        for connection in self.connections:
            protocol = connection.protocol
            if isinstance(connection, TlsConnection) and not connection.is_secure:
                is_idle = True
            else:
                is_idle = isinstance(protocol, HttpProtocol) and protocol.is_idle
            if is_idle:
                connection.set_deadline(min(connection.deadline, deadline))

    def _accepted(self, sock: _socket.socket, peer: Any, listener: socket.socket) -> None:
        kind = TlsConnection if self._speaks_tls(listener) else Connection
        connection = kind(self.loop, sock, peer, listener, self.wheel, self._connection_closed)
        self.connections.add(connection)
        try:
            if not self.config.proxy_protocol:
                self._begin(connection, b"")
            elif not self._await_proxy_header(connection):
                return
            self._newcomers.add(connection, sock.fileno())
        except Exception:
            connection.abort()  # or it would be counted for ever
            raise
        if len(self.connections) >= self.limits.connections:
            self._pause_accepting()

    def _begin(self, connection: Connection, data: bytes) -> None:
        """The client itself speaks from now on; ``data`` is what it has said already."""
        if isinstance(connection, TlsConnection):
            assert self._tls is not None
            connection.start_handshake(
                self._tls,
                self.config.tls_handshake_timeout,
                self._speak_http,
                self.connection_refused,
                data,
            )
            return
        protocol = self._speak_http(connection)
        if data:
            protocol.data_received(data)

    def _speak_http(self, connection: Connection) -> HttpProtocol:
        base = self._bases[id(connection.listener)]
        if isinstance(connection, TlsConnection):
            base = base | tls_environ(connection)
        protocol = connection.protocol = HttpProtocol(connection, self, base)
        protocol.start()
        return protocol

    def _await_proxy_header(self, connection: Connection) -> bool:
        """Expect a PROXY header; False if the peer is not to be believed and was cut off."""
        connection.protocol = ProxyHeaderProtocol(
            connection, self._proxy_header_read, self.connection_refused
        )
        if self.trust.is_trusted(connection.peer):
            return True
        self.connection_refused(
            f"{peer_text(connection.peer)} is no trusted proxy, see --trusted-proxies"
        )
        connection.abort()
        return False

    def _proxy_header_read(self, connection: Connection, header: Header, rest: bytes) -> None:
        # Where the proxy does not say whom it relays, the peer stays, and nobody is believed.
        connection.speaker = header.source
        connection.peer = header.source or connection.peer
        self._begin(connection, rest)

    def _pause_accepting(self) -> None:
        """The worker has its connections; the kernel keeps further ones for the other workers."""
        if self._is_full:
            return
        self._is_full = True
        now = time.monotonic()
        if now >= self._may_warn:
            self._may_warn = now + WARNING_PAUSE
            log.warning(
                "%d connections are open; this worker accepts no more until some end, see "
                "--max-connections",
                len(self.connections),
            )
        for acceptor in self._acceptors:
            acceptor.stop()

    def _connection_closed(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._newcomers.discard(connection)
        if self._is_full and len(self.connections) < self.limits.connections:
            self._is_full = False
            for acceptor in self._acceptors:
                acceptor.start()

    # -- for exchanges and protocols

    def request_id(self, environ: dict[str, Any], peer: Any) -> str:
        """The X-Request-ID of a trusted proxy, if it is a proper one, or a new id."""
        given = environ.get("HTTP_X_REQUEST_ID")
        if given is not None and self.trust.is_trusted(peer):
            return requestid.accept(given) or requestid.make()
        return requestid.make()

    @property
    def is_busy(self) -> bool:
        """No further page may wait.  Handshakes that wait do not count: a storm of connects is no
        reason to refuse one."""
        waiting: int = self.pool.queued - self.pool.handshakes
        return waiting >= self.limits.queue

    def health(self, probe: str) -> str:
        """The status line that answers a health check."""
        if probe == READY and (self.draining or self.is_busy):
            return "503 Service Unavailable"
        return "200 OK"

    def refused(self, exchange: Exchange) -> None:
        """Count and log a request that gets an answer of the server's own instead of running."""
        self.refusals += 1
        if self.access_log is not None:
            self.access_log.write_exchange(exchange)

    def refused_unread(self, status: int, peer: Any, reason: str) -> None:
        """Count and log what could not be read as a request."""
        self.refusals += 1
        if self.access_log is not None:
            self.access_log.write_refusal(status, peer_text(peer), reason)

    def connection_refused(self, reason: str) -> None:
        """Count a connection that never spoke HTTP."""
        log.debug("a connection is refused: %s", reason)
        self.refusals += 1
