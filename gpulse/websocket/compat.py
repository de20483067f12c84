"""``environ["wsgi.websocket"]``: gevent-websocket's object, for code written as a loop over one.

Only its Python API is gevent-websocket's; every byte on the wire is ours.  The handshake is done
by the first ``receive``, ``send`` or ``close``: a view that touches none of them answers in HTTP.

Such a loop keeps its greenlet (or native thread) as long as the socket is open, so it leaves the
pool's bound at the handshake; ``--max-websockets`` and, on threads, THREADS bound it instead.
"""

import logging
from collections.abc import Callable
from typing import Any

from geventwebsocket.exceptions import WebSocketError
from geventwebsocket.handler import Client
from geventwebsocket.websocket import MSG_ALREADY_CLOSED, MSG_SOCKET_DEAD, WebSocket

from gpulse.http.endings import ClientGone, Refusal
from gpulse.http.exchange import Exchange
from gpulse.http.upgrade import Upgrade
from gpulse.websocket.closecodes import NORMAL
from gpulse.websocket.frames import BINARY, TEXT
from gpulse.websocket.handlers import NO_HANDLERS
from gpulse.websocket.handshake import HandshakeError, accept
from gpulse.websocket.session import WebSocketSession
from gpulse.websocket.sockets import Sockets

THREADS = 64
"""Loops at once on native threads, per worker: each is a thread with its own stack."""

log = logging.getLogger("gpulse.websocket")


class _Server:
    """What applications of gevent-websocket reach through ``ws.handler.server``."""

    def __init__(self, application: Any) -> None:
        self.clients: dict[Any, Client] = {}
        """The worker's open sockets by peer, as WebSocketServer keeps them."""
        self.application = application


class _Handler:
    """What they reach through ``ws.handler``."""

    logger = log

    def __init__(self, server: _Server, active_client: Client) -> None:
        self.server = server
        self.active_client = active_client


class _LoopSession(WebSocketSession):
    """A session whose messages are fetched by a loop instead of being handed to handlers."""

    __slots__ = ("_in_hand", "_readers", "takes", "wake")

    def __init__(self, connection: Any, sockets: Sockets) -> None:
        super().__init__(connection, sockets, NO_HANDLERS)
        self.wake: Callable[[], None] | None = None
        self._in_hand = False  # the loop works on something that it took
        self.takes = 0
        """How often it took something."""
        self._readers: list[Callable[[], None]] = []

    @property
    def is_answering(self) -> bool:
        return self._in_hand or bool(self._inbox)

    def waits(self, takes: int) -> None:
        """On the hub: the loop came back, and found nothing.

        :param takes: what it had taken by then.  A loop on a thread may have taken more since.
        """
        if not self._inbox and takes == self.takes:
            self._in_hand = False
            self._answered()

    def when_read(self, call: Callable[[], None]) -> None:
        """On the hub: call once when the client has taken all that was sent, or never will."""
        self.flush()
        if self.is_closed or not self.connection.buffered:
            call()
        else:
            self._readers.append(call)
            self.connection.when_drained(self._drained)

    def _drained(self) -> None:
        super()._drained()
        self._call_readers()

    def connection_lost(self) -> None:
        super().connection_lost()
        self._call_readers()

    def taken(self) -> None:
        """On the hub: the loop took something from the inbox."""
        self._taken()

    def _call_readers(self) -> None:
        readers, self._readers = self._readers, []
        for call in readers:
            call()

    def _put(self, handler: str, *args: object) -> None:
        if handler == "on_open":
            return
        if self._inbox is None:
            self._inbox = []
        self._inbox.append((handler, args))
        if self.wake is not None:
            self.wake()

    def take(self) -> tuple[str, tuple[Any, ...]] | None:
        """On the member: the next thing that happened, None if nothing waits."""
        if not self._inbox:
            return None
        self._in_hand = True
        self.takes += 1  # before the inbox shows it
        return self._inbox.pop(0)


class LegacyWebSockets:
    """Makes ``wsgi.websocket`` objects; one per worker.

    :param sockets: the worker's.
    :param threads: whether members are native threads.
    """

    def __init__(self, sockets: Sockets, application: Any, *, threads: bool) -> None:
        self.server = _Server(application)
        self.sockets = sockets
        self._threads = threads

    def __call__(self, exchange: Exchange) -> "LegacyWebSocket":
        return LegacyWebSocket(exchange, self)

    @property
    def are_full(self) -> bool:
        loops = self.sockets.pool.detached
        return self.sockets.are_full or (self._threads and loops >= THREADS)


class LegacyWebSocket(WebSocket):
    """See the module's text.  Used by the member that runs the request, and by others to send."""

    def __init__(self, exchange: Exchange, makers: LegacyWebSockets) -> None:
        # The base class's __init__ wants a stream; nothing of it is used.
        self._exchange = exchange
        self._makers = makers
        self._session: _LoopSession | None = None
        self._member = makers.sockets.pool.member()
        self._unread = 0
        """Bytes sent since the client was last known to have read all."""
        self._handler: _Handler | None = None
        self.environ = exchange.environ
        self.closed = False
        self.stream = None

    @property
    def handler(self) -> "_Handler":
        """What gevent-websocket's applications reach the other clients by.

        Made at its first use: it refers back to us, and most handshakes never look at it.
        """
        if self._handler is None:
            self._handler = _Handler(self._makers.server, Client(self._exchange.peer, self))
        return self._handler

    def __del__(self) -> None:
        """The base class closes here; the exchange does it for us, in time."""

    def _open(self) -> _LoopSession:
        """The handshake, by the first use.

        :raises Refusal: the handshake or a bound says no.
        :raises ClientGone: the client left before.
        """
        if self._session is not None:
            return self._session
        try:
            headers = accept(self._exchange.environ, deflate=False).headers
        except HandshakeError as error:
            raise Refusal(error.status, error.reason) from None
        if self._makers.are_full:
            raise Refusal(503, "no more WebSockets on this worker")
        pool = self._makers.sockets.pool
        waiter = pool.waiter()

        def open_protocol(connection: Any, data: bytes) -> _LoopSession:
            session = self._session = _LoopSession(connection, self._makers.sockets)
            connection.protocol = session
            session.start(data)
            waiter.set()
            return session

        self._exchange.switch(Upgrade(headers, open_protocol))
        pool.detach(self._member)  # not the caller: a helper that the view started may come first
        waiter.wait(self._makers.sockets.limits.write_stall)
        session: _LoopSession | None = self._session
        if session is None:
            raise ClientGone("the hub did not take the handshake in time")
        self._makers.server.clients[self.handler.active_client.address] = self.handler.active_client
        return session

    def receive(self) -> str | bytes | bytearray | None:
        """The next message; None when the socket was closed.

        :raises WebSocketError: it had been closed before.
        """
        if self.closed:
            raise WebSocketError(MSG_ALREADY_CLOSED)
        try:
            session = self._open()
        except ClientGone:
            self._mark_closed()
            return None
        pool = self._makers.sockets.pool
        while True:
            happened = session.take()
            if happened is None:
                waiter = pool.waiter()
                session.wake = waiter.set
                takes = session.takes
                happened = session.take()  # it may have come between the two lines above
                if happened is None:
                    pool.call_hub(session.waits, takes)
                    # No bound is needed here: pings end a connection that is dead.
                    waiter.wait(session.limits.ping_interval * 3)
                    continue
            pool.call_hub(session.taken)
            handler, args = happened
            if handler == "on_message":
                message: str | bytes = args[0]
                return message
            self._mark_closed()
            return None

    def send(self, message: Any, binary: bool | None = None) -> None:
        """Send a message: text unless it is bytes or ``binary`` says so.

        :raises WebSocketError: the socket is closed.
        """
        if self.closed:
            raise WebSocketError(MSG_ALREADY_CLOSED)
        try:
            session = self._open()
        except ClientGone:
            self._mark_closed()
            raise WebSocketError(MSG_SOCKET_DEAD) from None
        if session.is_closing:
            self._mark_closed()
            raise WebSocketError(MSG_SOCKET_DEAD)
        if binary is None:
            binary = not isinstance(message, str)
        if isinstance(message, str):
            data = message.encode()
        else:
            data = (
                bytes(message)
                if isinstance(message, (bytes, bytearray, memoryview))
                else (str(message or "").encode())
            )
        opcode = BINARY if binary else TEXT
        self._await_room(session, len(data))
        self._makers.sockets.pool.call_hub(session.send, opcode, data)

    def _await_room(self, session: _LoopSession, size: int) -> None:
        """Let the loop that owns the socket wait for a client that reads more slowly than it sends,
        as it does with gevent-websocket.  Others do not wait: one slow client would hold up the
        broadcast to all."""
        pool = self._makers.sockets.pool
        if pool.member() != self._member:
            return
        if self._unread and self._unread + size > session.limits.outgoing // 2:
            waiter = pool.waiter()
            pool.call_hub(session.when_read, waiter.set)
            # Ends by itself: who reads nothing for write_stall seconds is cut off.
            while not waiter.wait(session.limits.write_stall):
                pass
            self._unread = 0
        self._unread += size

    def send_frame(self, message: Any, opcode: int) -> None:
        """gevent-websocket's lower layer: only whole text and binary messages are sent."""
        self.send(message, binary=opcode == self.OPCODE_BINARY)

    def close(self, code: int = NORMAL, message: Any = b"") -> None:
        """Close; does nothing when closed already."""
        if self.closed:
            return
        reason = message.decode("utf-8", "replace") if isinstance(message, bytes) else message or ""
        try:
            session = self._open()
        except ClientGone:
            self._mark_closed()
            return
        self._makers.sockets.pool.call_hub(session.close, code, reason[:41])
        self._mark_closed()

    def end(self) -> None:
        """The application returned: what it left open is closed, and nothing can be opened."""
        if self._session is not None:
            self.close()
            self._session.wake = None
        self._mark_closed()

    def _mark_closed(self) -> None:
        self.closed = True
        clients, address = self._makers.server.clients, self._exchange.peer
        client = clients.get(address)
        if client is not None and client.ws is self:  # all peers of a unix socket have one address
            del clients[address]
