"""What all HTTP connections of a worker share: listeners, pool, application, limits, counts.

Runs on the hub, but for :meth:`HttpServer.common_headers`, :meth:`HttpServer.log_access` and
:meth:`HttpServer.legacy_websocket`, which pool members call.
"""

import _socket
import email.utils
import logging
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from gpulse.config import Config
from gpulse.connection.acceptor import Acceptor
from gpulse.connection.connection import Connection
from gpulse.connection.timers import DeadlineWheel
from gpulse.http.accesslog import AccessLog
from gpulse.http.environ import listener_environ
from gpulse.http.exchange import Exchange
from gpulse.http.files import FileWrapper
from gpulse.http.limits import Limits
from gpulse.http.protocol import HttpProtocol, peer_text

log = logging.getLogger("gpulse.http")

WsgiApplication = Callable[..., Iterable[bytes]]


class HttpServer:
    """See the module's text.

    :param pool: runs exchanges; see :mod:`gpulse.worker.pools`.
    :param legacy_websocket: makes ``environ["wsgi.websocket"]`` for an upgrade request.
    :param served: called after each exchange.
    :param environ: what every request's environ has besides PEP 3333's keys.
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
        served: Callable[[], None],
        environ: dict[str, Any],
    ) -> None:
        self.connections: set[Connection] = set()
        self._acceptors: list[Acceptor] = []
        self._listeners: list[socket.socket] = []
        self._bases: dict[int, dict[str, Any]] = {}
        self._common = (0, "")

        self.loop = loop
        self.pool = pool
        self.application = application
        self.config = config
        self.limits = limits
        self.keep_alive = config.keep_alive
        self.wheel = wheel
        self.legacy_websocket = legacy_websocket
        self._access_log = access_log
        self._served = served
        self._environ = environ

        self.draining = False
        self.requests = 0
        self.refusals = 0

    def listen(self, listeners: Iterable[socket.socket]) -> None:
        """Begin to accept on listeners shared with the other workers."""
        self._listeners = list(listeners)
        for listener in self._listeners:
            base = listener_environ(listener, self.config.mode, self.config.workers)
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

    def hurry_idle(self, deadline: float) -> None:
        """While draining: idle connections end at ``deadline`` instead of their keep-alive's end.

        Not at once: a request may be on its way, and closing on it would lose it.
        """
        self.keep_alive = 0.0
        for connection in self.connections:
            protocol = connection.protocol
            if isinstance(protocol, HttpProtocol) and protocol.is_idle:
                connection.set_deadline(min(connection.deadline, deadline))

    def _accepted(self, sock: _socket.socket, peer: Any, listener: socket.socket) -> None:
        connection = Connection(
            self.loop, sock, peer, listener, self.wheel, self.connections.discard
        )
        self.connections.add(connection)
        connection.protocol = HttpProtocol(connection, self, self._bases[id(listener)])
        connection.resume_reading()

    # -- for exchanges and protocols

    def common_headers(self) -> str:
        """The Server and Date lines, made anew once a second."""
        now = int(time.time())
        second, lines = self._common
        if second != now:
            lines = f"Server: gpulse\r\nDate: {email.utils.formatdate(now, usegmt=True)}\r\n"
            self._common = (now, lines)  # one store: pool threads read it without a lock
        return lines

    def exchange_ended(self) -> None:
        self._served()

    def refused(self, status: int, peer: Any, reason: str) -> None:
        """Count a refusal of the server's own."""
        self.refusals += 1
        if self._access_log is not None:
            self._access_log.write_refusal(status, peer_text(peer), reason)

    def log_access(self, exchange: Exchange) -> None:
        if self._access_log is not None:
            self._access_log.write_exchange(exchange)
