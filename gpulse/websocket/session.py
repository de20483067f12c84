"""An open WebSocket: a parked connection that speaks frames.

Runs on the hub.  Here is the half that takes: frames, pings, the closing handshake; the half that
gives is its base class.  A socket with nothing to do holds neither a greenlet nor a thread nor a
database connection.

Bounds, all in :class:`~gpulse.websocket.limits.SocketLimits`:

* messages that wait for a handler: beyond it reading stops, and TCP holds the client back;
* messages per second: beyond it they are refused one by one, and then the socket is closed (4429);
* pings and pongs per second (``CONTROLS``): beyond it the socket is closed with 1008;
* a message's size: beyond it the client is closed with 1009;
* silence: a ping after ``ping_interval``, and the connection is cut when nothing comes back.

The end.  Whoever closes says why in a close frame.  After ours the client has ``close_timeout`` to
answer and is not listened to otherwise; after the client's we answer and close, for the server is
the one to end the connection (RFC 6455, 7.1.1).
"""

import logging
from collections.abc import Callable

from gpulse.connection.connection import Connection
from gpulse.connection.timers import NEVER
from gpulse.websocket.closecodes import (
    ABNORMAL,
    NO_STATUS,
    NORMAL,
    POLICY,
    RATE,
    RESTART,
    TOO_SLOW,
)
from gpulse.websocket.codec import Decoder, short_text
from gpulse.websocket.deflate import Deflate, compress
from gpulse.websocket.frames import BINARY, CLOSE, PING, PONG, TEXT, encode_close, encode_frame
from gpulse.websocket.handlers import NO_HANDLERS, Handlers
from gpulse.websocket.limits import SocketLimits
from gpulse.websocket.outlet import Outlet
from gpulse.websocket.rate import CONTROLS, CONTROLS_AT_ONCE, TokenBucket, pace
from gpulse.websocket.sockets import RESTART_REASON, Sockets

DATA = (TEXT, BINARY)
SLICE = 4096
"""Bytes of compressed input that are decoded before the inbox is looked at."""

log = logging.getLogger("gpulse.websocket")


class WebSocketSession(Outlet):
    """One open WebSocket; what its connection speaks after the 101.

    :param connection: owned from now on.
    :param sockets: the worker's.
    :param handlers: the application's side.
    :param limits: this socket's; by default the worker's.
    :param deflate: how messages are compressed, None for not at all.
    """

    __slots__ = (
        "_answers",
        "_awaiting_pong",
        "_bits",
        "_bucket",
        "_close_received",
        "_close_sent",
        "_controls_full_at",
        "_decoder",
        "_deflates",
        "_heard",
        "_last_message",
        "_parting",
        "_paused",
        "_refused",
        "_unread",
    )

    def __init__(
        self,
        connection: Connection,
        sockets: Sockets,
        handlers: Handlers,
        limits: SocketLimits | None = None,
        deflate: Deflate | None = None,
    ) -> None:
        limits = limits or sockets.limits
        self._bits = deflate.server_bits if deflate is not None and limits.compress_from else 0
        form: object = handlers.shape
        if self._bits:
            form = (form, self._bits, limits.compress_from)
        super().__init__(connection, sockets, handlers, limits, form)
        self._decoder: Decoder | None = None  # while a message or the end of all has begun
        self._deflates = deflate is not None
        self._unread = b""
        self._bucket: TokenBucket | None = None
        self._close_received: tuple[int, str] | None = None
        self._close_sent: tuple[int, str] | None = None
        # What ends the conversation once the messages before it are handled.
        self._parting: tuple[Callable[..., None], tuple[object, ...]] | None = None
        self._answers = 0  # bytes of pongs since the client had read all
        self._awaiting_pong = False
        self._controls_full_at = 0.0  # their rate, see pace()
        self._heard = False  # since the deadline was set
        self._paused = False
        self._refused = 0  # messages in a row, for their rate
        self._last_message = 0.0

    def start(self, data: bytes) -> None:
        """Begin; ``data`` is what came behind the handshake."""
        self._sockets.sessions.add(self)
        self._sockets.opened += 1
        now = self._sockets.clock()
        if self.limits.idle_timeout:
            self._last_message = now
        if self.limits.rate:
            self._bucket = TokenBucket(now, self.limits.burst)
        self._put("on_open")
        self._set_ping(now)
        self.connection.resume_reading()
        if data:
            self.data_received(data)
        if self._sockets.draining:
            # The handshake was accepted before the drain began.
            self.close(RESTART, RESTART_REASON)

    def start_closing(self, code: int, reason: str) -> None:
        """Begin in order to say why not; no handler is called.

        A script can read a close code, but not the status of a handshake that was refused.
        """
        self._handled = frozenset()
        self._held = None
        self.handlers = NO_HANDLERS
        self._sockets.sessions.add(self)
        self.connection.resume_reading()
        self.close(code, reason)

    # -- from the connection

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._decoder is None and not (self._ending or self._unread or self._parting):
            text = short_text(data, self.limits.message)
            if text is not None:
                self._message_received(text)
                return
        if self._parting is not None or self._close_received is not None:
            return
        if not self._deflates or self._ending:
            self._take_in(data)
            return
        # A kilobyte may stand for a megabyte: look at the inbox in between.
        self._unread += data
        self._read_on()

    def _read_on(self) -> None:
        while self._unread and not self._paused and self._parting is None:
            piece, self._unread = self._unread[:SLICE], self._unread[SLICE:]
            self._take_in(piece)

    def _take_in(self, data: bytes) -> None:
        decoder = self._decoder
        if decoder is None:
            decoder = self._decoder = Decoder(self.limits.message, self._deflates)
        for opcode, payload in decoder.feed(data):
            if opcode in DATA:
                if not self._ending:
                    self._message_received(payload)
            elif opcode == CLOSE:
                self._part(self._close_came, *payload)
                return
            else:
                self._control_received(opcode, payload)
        if decoder.error is not None and not self._ending:
            self._part(self.fail, *decoder.error)
        elif decoder.is_idle:
            self._decoder = None

    def _part(self, call: Callable[..., None], *args: object) -> None:
        """End the conversation, but let what the client said before be answered first."""
        if self._ending or not self.is_answering:
            call(*args)
            return
        self._parting = (call, args)
        self.connection.pause_reading()
        self.connection.set_deadline(self._sockets.clock() + self.limits.close_timeout)

    def _answered(self) -> None:
        """No message of the client waits for its handler, or is with it."""
        if self._parting is not None:
            call, args = self._parting
            self._parting = None
            call(*args)

    def _message_received(self, message: str | bytes) -> None:
        self._sockets.messages_in += 1
        limits = self.limits
        if limits.idle_timeout or self._bucket is not None:
            now = self._last_message = self._sockets.clock()
            if self._bucket is not None:
                wait = self._bucket.take(now, limits.rate, limits.burst)
                if wait:
                    self._refuse(message, wait)
                    return
                self._refused = 0
        self._receive("on_message", message)

    def _refuse(self, message: str | bytes, wait: float) -> None:
        self._sockets.rate_refused += 1
        self._refused += 1
        if self._refused > self.limits.burst:
            self.fail(RATE, "too many messages")
        else:
            self._receive("on_rate_exceeded", message, wait)

    def _receive(self, handler: str, *args: object) -> None:
        self._put(handler, *args)
        if len(self._inbox or ()) >= self.limits.inbox and not self._paused:
            self._paused = True
            self.connection.pause_reading()

    def _control_received(self, opcode: int, payload: bytes) -> None:
        """A ping or a pong: a sign of life, and that is noted already."""
        if self._ending:
            return
        if opcode == PONG and self._awaiting_pong:
            self._awaiting_pong = False  # we asked for it
            return
        now = self._sockets.clock()
        full_at = pace(self._controls_full_at, now, CONTROLS, CONTROLS_AT_ONCE)
        if full_at is None:
            self._sockets.rate_refused += 1
            self.fail(POLICY, "too many pings or pongs")
            return
        self._controls_full_at = full_at
        if opcode == PING:
            self._pinged(payload)

    def _pinged(self, payload: bytes) -> None:
        pong = encode_frame(PONG, payload)
        if not self.connection.buffered:
            self.send_frame(pong)  # many in one read are answered in one piece
            self._answers = 0
            return
        self._send_out(pong)
        # A client that sends pings and does not read is no better than another.
        self._answers += len(pong)
        if self._answers > self.limits.outgoing:
            self._close_slow()

    def _close_came(self, code: int, reason: str) -> None:
        self._close_received = (code, reason)
        if self._close_sent is None:
            self._send_close(code if code != NO_STATUS else NORMAL, "", echo=code == NO_STATUS)
        self._ending = True
        self.connection.set_deadline(self._sockets.clock() + self.limits.close_timeout)
        self.connection.close()

    def eof_received(self) -> None:
        self.flush()
        self._ending = True
        self.connection.set_deadline(self._sockets.clock() + self.limits.close_timeout)
        self.connection.close()

    def deadline_passed(self, now: float) -> None:
        limits = self.limits
        if self._parting is not None:
            self._answered()
            return
        is_idle = now >= self._idle_end()
        unanswered = self._awaiting_pong and not self._heard and not is_idle
        if self._ending or self.connection.buffered or unanswered:
            log.debug("%s: no answer; the connection is cut", self.connection.peer)
            self.connection.abort()
            return
        self._awaiting_pong = False
        if is_idle:
            self.close(TOO_SLOW, "no message came for a long time")
        elif self._heard or self._paused:
            # While we do not read, silence says nothing; TCP finds out a dead peer.
            self._set_ping(now)
        else:
            self._send_out(encode_frame(PING, b""))
            if not self.connection.is_closing and not self.connection.buffered:
                self._awaiting_pong = True
                self.connection.set_deadline(min(now + limits.ping_timeout, self._idle_end()))

    def _taken(self) -> None:
        """Something was taken from the inbox: read on if there is room again."""
        if self._parting is not None:
            if not self.is_answering:
                self._answered()
            return
        if self._paused and len(self._inbox or ()) <= self.limits.inbox // 2:
            self._paused = False
            self._heard = True
            self._read_on()
            if not self._paused:
                self.connection.resume_reading()

    # -- output

    def send(self, opcode: int, data: bytes) -> None:
        if self._bits:
            super().send(opcode, data)
        else:
            self.send_frame(encode_frame(opcode, data))  # most are short: one call less

    def framed(self, opcode: int, payload: bytes) -> bytes:
        if self._bits and len(payload) >= self.limits.compress_from:
            return encode_frame(opcode, compress(payload, self._bits), compressed=True)
        return encode_frame(opcode, payload)

    def _send_out(self, frame: bytes) -> None:
        """Send an answer of our own, behind what was sent before."""
        self.flush()
        if self._close_sent is None:
            self._write(frame)

    def _rest(self) -> None:
        self._set_ping(self._sockets.clock())

    def _set_ping(self, now: float) -> None:
        self._heard = False
        self._awaiting_pong = False
        self.connection.set_deadline(min(now + self.limits.ping_interval, self._idle_end()))

    def _idle_end(self) -> float:
        """When the client will have sent no message for too long."""
        idle = self.limits.idle_timeout
        return self._last_message + idle if idle else NEVER

    # -- the end

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Start the closing handshake; the connection ends when the client answers or in time."""
        if self._ending or self.connection.is_closing:
            return
        self._send_close(code, reason)
        self._ending = True
        self.connection.set_deadline(self._sockets.clock() + self.limits.close_timeout)
        if self._paused:
            self._paused = False
            self._read_on()
            self.connection.resume_reading()  # to see the client's close frame

    def fail(self, code: int, reason: str) -> None:
        if self._ending or self.connection.is_closing:
            return
        self._send_close(code, reason)
        self._ending = True
        connection = self.connection
        connection.set_deadline(self._sockets.clock() + self.limits.close_timeout)
        self._unread = b""
        # The client may be amid a message that it has to end first: give it a moment to read why.
        connection.when_drained(self._half_close)

    def _send_close(self, code: int, reason: str, *, echo: bool = False) -> None:
        """:param echo: the client's close had no code, so ours has none."""
        self.flush()
        if self._close_sent is not None:
            return  # the flush found out a client that is too slow, and said so
        self._close_sent = (code, reason)
        self._write(encode_frame(CLOSE, b"") if echo else encode_close(code, reason))

    def _last_words(self) -> tuple[int, str]:
        return self._close_received or self._close_sent or (ABNORMAL, "the connection was lost")

    def _half_close(self) -> None:
        if not self.connection.lost:
            self.connection.shutdown_write()
            self.connection.resume_reading()
