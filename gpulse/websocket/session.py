"""An open WebSocket: a parked connection on the sans-I/O core of ``websockets``.

Runs on the hub.  What the application does with a socket (its handlers) runs on the pool, one
handler at a time per socket, in the order in which things happened: open, messages and events,
close.  A socket with nothing to do holds neither a greenlet nor a thread nor a database connection.

Bounds, all in :class:`SocketLimits`:

* messages that wait for a handler: beyond it reading stops, and TCP holds the client back;
* bytes that wait for the client: beyond it the client is closed with 1008, and counted;
* a message's size: beyond it the client is closed with 1009;
* silence: a ping after ``ping_interval``, and the connection is cut when nothing at all comes back.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER
from websockets.protocol import Protocol as WireProtocol

from gpulse.connection.connection import Connection
from gpulse.connection.timers import DeadlineWheel
from gpulse.errors import SubscribeError
from gpulse.store.message import BINARY as BINARY_EVENT
from gpulse.store.message import Event
from gpulse.websocket.frames import BINARY, TEXT, encode_frame

log = logging.getLogger("gpulse.websocket")

# The wire core tells of every opening and closing at INFO.
_wire_log = logging.getLogger("gpulse.websocket.wire")
_wire_log.setLevel(logging.WARNING)

NORMAL, GOING_AWAY, NO_STATUS, ABNORMAL = 1000, 1001, 1005, 1006
INVALID_DATA, POLICY, INTERNAL_ERROR, RESTART = 1007, 1008, 1011, 1012
RESTART_REASON = "the server restarts; connect again"


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Sizes in bytes, times in seconds, the rest counts."""

    message: int = 1_048_576
    """Largest message (the default of ``websockets``)."""
    inbox: int = 32
    """Messages that wait for a handler before reading stops."""
    events: int = 1024
    """Events that wait for an ``on_event`` of the application's before the socket is closed."""
    outgoing: int = 1_048_576
    """Bytes that wait for the client before it counts as too slow."""
    ping_interval: float = 20.0
    """Silence before a ping, and the time the client then has to answer (``websockets``)."""
    write_stall: float = 30.0
    """Longest time in which a client takes not one byte."""
    close_timeout: float = 5.0
    """From our close frame to the end of the connection."""


class Handlers(Protocol):
    """What the application does with a socket.  Called on the pool, one at a time."""

    @property
    def takes_events(self) -> bool:
        """False: an event goes to the client as it is and ``on_event`` is not called."""

    def handle(self, handler: str, *args: object) -> None:
        """Call ``on_open()``, ``on_message(message)``, ``on_event(channel, message, position)`` or
        ``on_close(code, reason)``; whatever else belongs around a handler is its matter."""


class Sockets:
    """All open WebSockets of a worker.

    :param limit: ``--max-websockets``.
    :param forget: called on the hub with a session that ended: its subscriptions are dropped.
    """

    def __init__(
        self,
        pool: Any,
        wheel: DeadlineWheel,
        limit: int,
        limits: SocketLimits,
        forget: Callable[["WebSocketSession"], None],
    ) -> None:
        self.sessions: set[WebSocketSession] = set()
        self.pool = pool
        self.wheel = wheel
        self.limit = limit
        self.limits = limits
        self.forget = forget
        self.draining = False
        self.messages_in = 0
        self.deliveries = 0
        self.slow_closed = 0

    @property
    def are_full(self) -> bool:
        """No further handshake is accepted."""
        return self.draining or len(self.sessions) >= self.limit

    def drain(self) -> None:
        """Ask every client to come back (1012): another worker will take it."""
        self.draining = True
        for session in list(self.sessions):
            session.close(RESTART, RESTART_REASON)


class WebSocketSession:
    """One open WebSocket; what its connection speaks after the 101.

    :param connection: owned from now on.
    :param sockets: the worker's.
    :param handlers: the application's side.
    """

    __slots__ = (
        "__weakref__",
        "_answers",
        "_awaiting_pong",
        "_busy",
        "_closed",
        "_ending",
        "_events",
        "_held",
        "_inbox",
        "_partial",
        "_partial_opcode",
        "_paused",
        "_sockets",
        "_wire",
        "connection",
        "handlers",
    )

    def __init__(self, connection: Connection, sockets: Sockets, handlers: Handlers) -> None:
        self._wire = WireProtocol(
            SERVER, state=OPEN, max_size=sockets.limits.message, logger=_wire_log
        )
        # A list, though it is taken from in front: it is short, and an empty deque is 760 bytes.
        self._inbox: list[tuple[object, ...]] = []
        self._partial: bytearray | None = None
        self._partial_opcode = Opcode.TEXT
        self._answers = 0  # bytes of pongs and closes since the client had read all
        self._awaiting_pong = False
        self._busy = False
        self._closed = False
        self._ending = False
        self._events = 0
        # Events that came while on_open runs: they go out after what on_open sends, so that a
        # snapshot sent there is never overtaken by a change that it does not know.
        self._held: list[Event] | None = []
        self._paused = False
        self._sockets = sockets
        self.connection = connection
        self.handlers = handlers

    def start(self, data: bytes) -> None:
        """Begin; ``data`` is what came behind the handshake."""
        self._sockets.sessions.add(self)
        self._put("on_open")
        self._set_ping()
        self.connection.resume_reading()
        if data:
            self.data_received(data)
        if self._sockets.draining:
            # The handshake was accepted before the drain began.
            self.close(RESTART, RESTART_REASON)

    # -- from the connection

    def data_received(self, data: bytes) -> None:
        self._awaiting_pong = False
        self._wire.receive_data(data)
        for event in self._wire.events_received():
            assert isinstance(event, Frame)
            self._frame_received(event)
        self._flush()
        if self._answers > self._sockets.limits.outgoing:
            self._close_slow()

    def eof_received(self) -> None:
        self._wire.receive_eof()
        self.connection.close()

    def write_progressed(self) -> None:
        if self._ending:
            return  # close_timeout holds, however slowly the client reads
        self.connection.set_deadline(time.monotonic() + self._sockets.limits.write_stall)

    def deadline_passed(self, now: float) -> None:
        if self._ending or self._awaiting_pong or self.connection.buffered:
            log.debug("%s: no answer; the connection is cut", self.connection.peer)
            self.connection.abort()
            return
        # While we do not read, silence says nothing; the ping still finds out a dead peer.
        self._awaiting_pong = not self._paused
        self._wire.send_ping(b"")
        self._flush()
        self._set_ping()

    def connection_lost(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._sockets.sessions.discard(self)
        self._sockets.forget(self)
        received = self._wire.close_rcvd
        if received is not None:
            code, reason = int(received.code), received.reason
        elif self._wire.close_sent is not None:
            code, reason = int(self._wire.close_sent.code), self._wire.close_sent.reason
        else:
            code, reason = ABNORMAL, "the connection was lost"
        self._partial = None
        self._put("on_close", code, reason)

    # -- frames

    def _frame_received(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            if frame.fin:
                self._message_received(opcode, bytes(frame.data))
            else:
                self._partial_opcode = opcode
                self._partial = bytearray(frame.data)
        elif opcode is Opcode.CONT:
            # The wire core has checked that a message is under way, and its size so far.
            if self._partial is None:
                return
            self._partial += frame.data
            if frame.fin:
                data = bytes(self._partial)
                self._partial = None
                self._message_received(self._partial_opcode, data)
        # Pings are answered and closes echoed by the wire core; a pong is a sign of life.

    def _message_received(self, opcode: Opcode, data: bytes) -> None:
        if self._ending or self._closed:
            return
        self._sockets.messages_in += 1
        if opcode is Opcode.TEXT:
            try:
                message: str | bytes = data.decode()
            except UnicodeDecodeError:
                self._fail(INVALID_DATA, "text that is not UTF-8")
                return
        else:
            message = data
        self._put("on_message", message)
        if len(self._inbox) >= self._sockets.limits.inbox:
            self._paused = True
            self.connection.pause_reading()

    def _flush(self) -> None:
        """Send what the wire core has to say: pongs, closes."""
        for data in self._wire.data_to_send():
            if data:
                self._write(data)
                # A client that sends pings and does not read is no better than another.
                self._answers = self._answers + len(data) if self.connection.buffered else 0
            else:
                self._end()

    def _write(self, data: bytes) -> None:
        connection = self.connection
        was_buffered = connection.buffered
        connection.write(data)
        if connection.buffered and not was_buffered:
            self.write_progressed()
            connection.when_drained(self._drained)

    def _drained(self) -> None:
        if not self.connection.is_closing and not self._ending:
            self._set_ping()

    def _set_ping(self) -> None:
        self.connection.set_deadline(time.monotonic() + self._sockets.limits.ping_interval)

    # -- handlers

    @property
    def limits(self) -> SocketLimits:
        return self._sockets.limits

    @property
    def is_closing(self) -> bool:
        """Nothing more can be sent."""
        return self._ending or self.connection.is_closing

    @property
    def is_closed(self) -> bool:
        """The connection is gone."""
        return self._closed

    def _put(self, handler: str, *args: object) -> None:
        self._inbox.append((handler, *args))
        if not self._busy:
            self._busy = True
            self._sockets.pool.submit(self._run)

    def _run(self) -> None:
        """On a pool member: one thing that happened."""
        failed = True
        event = self._inbox.pop(0)
        try:
            handler, *args = event
            if handler == "on_event":
                args = [args[0].channel, args[0].message, None]  # type: ignore[attr-defined]
            self.handlers.handle(handler, *args)  # type: ignore[arg-type]
            failed = False
        except SubscribeError as error:
            if self._closed:  # a client that left while its handler waited for the store
                log.debug("%s.%s: %s", type(self.handlers).__name__, event[0], error)
            else:
                log.exception("%s.%s raised", type(self.handlers).__name__, event[0])
        except Exception:
            log.exception("%s.%s raised", type(self.handlers).__name__, event[0])
        finally:
            self._sockets.pool.call_hub(self._ran, failed, event[0])

    def _ran(self, failed: bool, handler: str) -> None:
        if handler == "on_open" and self._held is not None:
            held, self._held = self._held, None
            for event in held:
                self.deliver(event)
        if handler == "on_event":
            self._events -= 1  # on the hub, as it is counted up
        if failed and not self._ending and not self._closed:
            self._fail(INTERNAL_ERROR, "the server failed on this message")
        self.taken()
        if self._inbox:
            # Behind the jobs of others: a socket that sends much does not keep a member to itself.
            self._sockets.pool.submit(self._run)
        else:
            self._busy = False

    def taken(self) -> None:
        """Something was taken from the inbox: read on if there is room again."""
        if self._paused and len(self._inbox) <= self._sockets.limits.inbox // 2:
            self._paused = False
            self.connection.resume_reading()

    # -- for the application's side, on the hub

    def send(self, opcode: int, data: bytes) -> None:
        """Send one whole message (TEXT or BINARY); dropped when the socket is closing."""
        self.send_frame(encode_frame(opcode, data))

    def send_frame(self, frame: bytes) -> None:
        """Send an encoded frame; closes a client that has too much waiting."""
        connection = self.connection
        if self._ending or connection.is_closing:
            return
        if connection.buffered + len(frame) > self._sockets.limits.outgoing and connection.buffered:
            self._close_slow()
            return
        self._sockets.deliveries += 1
        self._write(frame)

    def _close_slow(self) -> None:
        connection = self.connection
        if self._ending or connection.is_closing:
            connection.abort()
            return
        self._sockets.slow_closed += 1
        log.info("%s reads too slowly and is closed", connection.peer)
        connection.drop_unsent()
        self._fail(POLICY, "this client reads too slowly")

    def deliver(self, event: Event) -> None:
        """From the fan-out: an event on a subscribed channel."""
        if self._closed:
            return  # it was held while on_open ran; nothing comes after on_close
        if self._held is not None:
            if len(self._held) < self._sockets.limits.events:
                self._held.append(event)
            else:
                self._sockets.slow_closed += 1
                self._fail(POLICY, "on_open is slower than its channels")
            return
        if self.handlers.takes_events:
            if self._events >= self._sockets.limits.events:
                self._sockets.slow_closed += 1
                self._fail(POLICY, "on_event is slower than its channels")
                return
            self._events += 1
            self._put("on_event", event)
            return
        frame = event.frame
        if frame is None:
            opcode = BINARY if event.kind == BINARY_EVENT else TEXT
            frame = event.frame = encode_frame(opcode, event.data)
        self.send_frame(frame)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Start the closing handshake; the connection ends when the client answers or in time."""
        if self._ending or self.connection.is_closing:
            return
        if self._wire.state is OPEN:
            self._wire.send_close(code, reason)
        self._ending = True
        self.connection.set_deadline(time.monotonic() + self._sockets.limits.close_timeout)
        if self._paused:
            self._paused = False
            self.connection.resume_reading()  # to see the client's close frame
        self._flush()

    def _fail(self, code: int, reason: str) -> None:
        """Close because of the client or of ourselves: say why, then end without waiting."""
        if self._ending or self.connection.is_closing:
            return
        self._wire.fail(code, reason)
        self._flush()

    def _end(self) -> None:
        """The wire core is done: flush, half-close, and give the client a moment to read it."""
        self._ending = True
        connection = self.connection
        connection.set_deadline(time.monotonic() + self._sockets.limits.close_timeout)
        if self._wire.close_rcvd is not None:
            connection.close()
        else:
            connection.when_drained(self._half_close)

    def _half_close(self) -> None:
        if not self.connection.lost:
            self.connection.shutdown_write()
            self.connection.resume_reading()
