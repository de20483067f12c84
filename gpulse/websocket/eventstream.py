"""An open event stream: a parked HTTP response that never ends (Server-Sent Events).

Runs on the hub.  The client only listens; what it sends is thrown away, up to a bound.  The stream
ends with its connection, so it has no length; a comment every ``COMMENT`` seconds keeps proxies
from ending it and finds out a client that is gone.

A stream begins with an ``id`` line, and an event that has a position is preceded by one: the newest
position of each channel, ``CHANNEL POSITION CHANNEL POSITION``, which browsers send back as
``Last-Event-ID``.  Where a handler of the application's takes the event, the ``id`` precedes the
last of what it sends, for before that the client has not all of it; where it sends nothing, or the
last has gone out before the handler ends, the ``id`` goes alone, which moves the browser's
Last-Event-ID and is no event.  Where what waits for the client may be dropped, nothing that waits
has an ``id``; it follows when the client has read all.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import logging
from collections.abc import Mapping

from gpulse.connection.connection import Connection
from gpulse.store.message import Event
from gpulse.websocket.closecodes import GOING_AWAY, NORMAL, RESTART
from gpulse.websocket.handlers import Handlers
from gpulse.websocket.limits import DROP, SocketLimits
from gpulse.websocket.losses import DropBacklog
from gpulse.websocket.outlet import Outlet
from gpulse.websocket.sockets import RESTART_REASON, Sockets

COMMENT = 15.0
"""Seconds between two signs of life: a quarter of the time after which proxies give up (nginx's
proxy_read_timeout is 60)."""
HERE = b"id: -\n"
"""The ``id`` line of a stream whose channels have no history."""
READ_AND_THROWN_AWAY = 65_536
"""Bytes that a client may send on a stream before it is cut."""

log = logging.getLogger("gpulse.sse")


def encode_event(payload: bytes) -> bytes:
    """One event of the stream; its data are ``payload``, UTF-8 text of any number of lines."""
    if b"\n" not in payload and b"\r" not in payload:
        return b"data: %s\n\n" % payload
    lines = payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"".join(b"data: %s\n" % line for line in lines) + b"\n"


def encode_id(positions: Mapping[str, str]) -> bytes:
    """The ``id`` line that names the newest position of each channel."""
    text = " ".join(f"{channel} {position}" for channel, position in positions.items())
    return b"id: %s\n" % text.encode()


def decode_id(text: str) -> dict[str, str]:
    """The positions of an ``id``; those that are no pairs are left out."""
    words = text.split(" ")
    return dict(zip(words[::2], words[1::2], strict=False))


class EventStreamSession(Outlet):
    """One open stream; what its connection speaks after the head of the response.

    :param connection: owned from now on.
    :param sockets: the worker's; streams count among its sockets.
    :param handlers: the application's side.
    """

    __slots__ = ("_last_sent", "_positions", "_reacting", "_thrown_away")

    def __init__(
        self,
        connection: Connection,
        sockets: Sockets,
        handlers: Handlers,
        limits: SocketLimits | None = None,
    ) -> None:
        super().__init__(connection, sockets, handlers, limits, (handlers.shape, "event-stream"))
        self._last_sent = b""  # while a handler reacts; empty before anything was
        self._positions: dict[str, str] = {}
        self._reacting: Event | None = None  # the one with a position that a handler works on
        self._thrown_away = 0

    def start(self, data: bytes) -> None:
        """Begin."""
        self._sockets.sessions.add(self)
        self._sockets.opened += 1
        self._put("on_open")
        self._rest()
        self.connection.resume_reading()
        if self._sockets.draining:
            self.close(RESTART, RESTART_REASON)

    # -- from the connection

    def data_received(self, data: bytes) -> None:
        self._thrown_away += len(data)
        if self._thrown_away > READ_AND_THROWN_AWAY:
            self.connection.abort()

    def eof_received(self) -> None:
        self.connection.abort()

    def deadline_passed(self, now: float) -> None:
        if self._ending or self.connection.buffered:
            log.debug("%s: takes nothing; the stream is cut", self.connection.peer)
            self.connection.abort()
            return
        self._write(b":\n\n")
        if not self.connection.is_closing and not self.connection.buffered:
            self._rest()

    # -- output

    def framed(self, opcode: int, payload: bytes) -> bytes:
        return encode_event(payload)

    def deliver(self, event: Event) -> None:
        if event.position is None or self._held is not None:
            super().deliver(event)
            return
        if self._handled and self._is_kept(event):
            return  # the client has it when its handler has ended: reacted()
        self._positions[event.channel] = event.position
        frame = event.forms[self._form] if self._form in event.forms else self._frame_of(event)
        if frame is not None:
            # In one piece: an id that went out alone would say that the client has the event.
            line = b"" if self._may_drop else encode_id(self._positions)
            super().send_frame(self._marked(event, line + frame))

    def send_frame(self, frame: bytes) -> None:
        if self._reacting is not None:
            # Where it is dropped its event is lost: the next id says that the client has it.
            frame = self._last_sent = self._marked(self._reacting, frame)
        super().send_frame(frame)

    def react(self, event: Event) -> None:
        """A handler begins with an event that has a position."""
        self._reacting, self._last_sent = event, b""

    def reacted(self, *, done: bool) -> None:
        """The handler is done with its event, or it is not and the event is to come again.

        Nothing happens without :meth:`react`.
        """
        event, self._reacting = self._reacting, None
        last, self._last_sent = self._last_sent, b""
        if event is None or event.position is None or not done:
            return
        self._positions[event.channel] = event.position
        if self._may_drop:
            return
        line, pending = encode_id(self._positions), self._pending
        if pending and pending[-1] is last:
            pending[-1] = self._marked(event, line + last)
        else:
            self.send_frame(line + b"\n")

    @property
    def _may_drop(self) -> bool:
        """What waits may be dropped: no id may come behind it that says that the client has it."""
        return self.limits.slow == DROP and self.connection.buffered > 0

    def _drained(self) -> None:
        backlog = self._backlog
        # After a loss the gap is told first, and the id comes with the next event.
        is_whole = isinstance(backlog, DropBacklog) and not backlog.lost
        super()._drained()
        if is_whole and self._positions and not self._withheld and not self._may_drop:
            self.tell()

    def at(self, channel: str, position: str | None) -> None:
        """The client has all of ``channel`` up to ``position``; None: it listens no more."""
        if position is None:
            self._positions.pop(channel, None)
        else:
            self._positions[channel] = position

    def tell(self) -> None:
        """Send the positions by themselves: who leaves before the first event knows them, too.

        Without any the id only says that the client was here: it is not refused for good.
        """
        self.send_frame((encode_id(self._positions) if self._positions else HERE) + b"\n")

    def _rest(self) -> None:
        self.connection.set_deadline(self._sockets.clock() + COMMENT)

    # -- the end

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """End the stream; the client comes back after its ``retry`` time unless it is told not to.

        A stream has no close codes: a comment tells whoever looks.
        """
        if self.is_closing:
            return
        self._reacting = None  # whether its handler has done all, nobody knows
        self.flush()
        if self.is_closing:
            return  # that found out a client that is too slow, and said so
        self._write(b": closed %d %s\n\n" % (code, reason.replace("\n", " ").encode()))
        self._ending = True
        self.connection.set_deadline(self._sockets.clock() + self.limits.close_timeout)
        self.connection.close()

    def fail(self, code: int, reason: str) -> None:
        self.close(code, reason)

    def _last_words(self) -> tuple[int, str]:
        return GOING_AWAY, "the stream ended"
