"""The half of an open WebSocket or event stream that gives: handlers, events, output.

Runs on the hub, but for the handlers themselves, which run on the pool: one at a time for each
outlet, in the order in which things happened.

Output of one turn of the hub is gathered (see :mod:`gpulse.websocket.sockets`).  What the client
does not take waits in its connection, bounded in bytes and in age; a client beyond that is closed,
or loses its oldest messages, and is told by a gap for each channel when it reads again.

An event goes to the client as it is, in the outlet's *shape*, and all outlets of one *form* (shape
and compression) share its encoding; or a handler of the application's takes it.
"""

import logging
from typing import Any

from gpulse.connection.connection import Connection
from gpulse.errors import StoreError, SubscribeError
from gpulse.store.message import Event
from gpulse.websocket.backlog import Backlog
from gpulse.websocket.closecodes import INTERNAL_ERROR, NORMAL, TOO_SLOW
from gpulse.websocket.handlers import EVENT_HANDLERS, HANDLERS, NO_HANDLERS, Handlers
from gpulse.websocket.identities import Entry
from gpulse.websocket.limits import DROP, SocketLimits
from gpulse.websocket.losses import DropBacklog, EventFrame
from gpulse.websocket.sockets import Sockets

log = logging.getLogger("gpulse.websocket")

HELD = 16_384
"""Events that wait while a handler holds them back: more than the longest history."""
IN_A_ROW = 16
"""Handlers of one socket that a pool member runs before it looks for other work."""
PORTION = 16
"""Events of a recovery that are sent before it is looked whether the client takes them."""
GATHERED = 64
"""Frames of one turn that are sent before its end."""
LARGE = 16_384
"""Bytes of a frame that is sent before the end of the turn, with those before it."""


class Outlet:
    """See the module's text; :class:`~gpulse.websocket.session.WebSocketSession` and
    :class:`~gpulse.websocket.eventstream.EventStreamSession` are the two.

    :param connection: owned from now on.
    :param sockets: the worker's.
    :param handlers: the application's side.
    :param limits: this one's; by default the worker's.
    :param form: the key under which an event keeps its encoding for all outlets like this one.
    """

    __slots__ = (
        "__weakref__",
        "_backlog",
        "_closed",
        "_ending",
        "_events",
        "_form",
        "_handled",
        "_handler",
        "_held",
        "_inbox",
        "_pending",
        "_sockets",
        "_turn",
        "_withheld",
        "connection",
        "entry",
        "handlers",
        "limits",
    )

    def __init__(
        self,
        connection: Connection,
        sockets: Sockets,
        handlers: Handlers,
        limits: SocketLimits | None,
        form: object,
    ) -> None:
        # From the first that happens until the last is handled; only the hub makes and drops it.
        # A list, though it is taken from in front: it is short, and an empty deque is 760 bytes.
        self._inbox: list[tuple[str, tuple[Any, ...]]] | None = None
        # Events that came while on_open runs: they go out after what on_open sends, so that a
        # snapshot sent there is never overtaken by a change that it does not know.
        self._held: list[Event] | None = []
        self._withheld = True
        self._pending: list[bytes] | None = None  # this turn's frames
        self._backlog: Backlog | None = None
        self._handler = ""  # the one that runs
        self._closed = False
        self._ending = False
        self._events = 0
        self._turn = 0  # in which an event was delivered last
        self._form: object = form
        self._handled = handlers.handled
        self._sockets = sockets
        self.connection = connection
        self.entry: Entry | None = None
        """Whose it is, see :mod:`gpulse.websocket.identities`."""
        self.handlers = handlers
        self.limits = limits or sockets.limits
        if self.limits.slow == DROP:
            self._form = (form, DROP)  # whose frames know their channels

    # -- what the two kinds differ in

    def framed(self, opcode: int, payload: bytes) -> bytes:
        """The bytes on the wire of one message; of an event, the same for all of one form."""
        raise NotImplementedError

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Start to close."""
        raise NotImplementedError

    def fail(self, code: int, reason: str) -> None:
        """Close because of the client or of ourselves: say why, then end without waiting."""
        raise NotImplementedError

    def _rest(self) -> None:
        """The client has taken all: set the deadline of an idle one."""
        raise NotImplementedError

    def _taken(self) -> None:
        """A handler ended."""

    # -- handlers

    @property
    def is_answering(self) -> bool:
        """A message of the client waits for its handler, or is with it."""
        return self._handler == "on_message" or any(
            handler == "on_message" for handler, _ in self._inbox or ()
        )

    @property
    def is_closing(self) -> bool:
        """Nothing more can be sent."""
        return self._ending or self.connection.is_closing

    @property
    def is_closed(self) -> bool:
        """The connection is gone."""
        return self._closed

    def _put(self, handler: str, *args: object) -> None:
        if self._inbox is not None:
            self._inbox.append((handler, args))
            return
        self._inbox = [(handler, args)]
        self._sockets.pool.submit_handler(self._run)

    def _run(self) -> None:
        """On a pool member: what happened, one after the other, but not for ever."""
        pool, inbox = self._sockets.pool, self._inbox
        assert inbox is not None
        handle = self.handlers.handle
        handler, failed, events, left = "", True, 0, IN_A_ROW
        try:
            while left:  # not a range: it would cost a tenth of what is done here
                left -= 1
                failed = True  # whatever ends it: gevent.Timeout and SystemExit are no Exception
                handler, args = inbox.pop(0)
                self._handler = handler
                if handler in EVENT_HANDLERS:
                    events += 1
                try:
                    handle(handler, *args)
                    failed = False
                except Exception as error:
                    failed = self._has_failed(handler, error)
                # Behind the jobs of others: a socket that sends much does not keep a member.
                if failed or not inbox or handler == "on_open" or pool.has_waiting:
                    break
        finally:
            if pool.is_on_hub:  # one call less
                self._ran(failed, handler == "on_open", events)
            else:
                pool.call_hub(self._ran, failed, handler == "on_open", events)

    def _has_failed(self, handler: str, error: Exception) -> bool:
        """A handler raised: log why; False if that is of no consequence."""
        name = type(self.handlers).__name__
        if isinstance(error, SubscribeError) and self._closed:
            # The client left while its handler waited for the store.
            log.debug("%s.%s: %s", name, handler, error)
            return False
        if isinstance(error, StoreError) and not isinstance(error, SubscribeError):
            log.error("%s.%s: %s", name, handler, error)
        else:
            log.error("%s.%s raised", name, handler, exc_info=error)
        return True

    def _ran(self, failed: bool, opened: bool, events: int) -> None:
        if opened:
            self.release()
        self._events -= events  # on the hub, as it is counted up
        if self._held is not None:
            self._hand_out_held()
        if failed and not self._ending and not self._closed:
            self.fail(INTERNAL_ERROR, "the server failed on this message")
        self._handler = ""
        self._taken()
        if self._inbox:
            self._sockets.pool.submit_handler(self._run)
            return
        self._inbox = None
        if self._closed:
            # That was on_close.  The application's side refers back to us: without this, both would
            # wait for the garbage collector.
            self.handlers = NO_HANDLERS

    # -- output

    def send(self, opcode: int, data: bytes) -> None:
        """Send one whole message (TEXT or BINARY); dropped when the client is being closed."""
        self.send_frame(self.framed(opcode, data))

    def send_frame(self, frame: bytes) -> None:
        """Send an encoded frame at the end of this turn."""
        if self._ending or self._closed:
            return
        pending = self._pending
        if pending is None:
            self._pending = [frame]
            sockets = self._sockets
            sockets.outbox.append(self)
            if len(sockets.outbox) == 1:
                sockets.plan_flush()
        else:
            pending.append(frame)
            if len(pending) >= GATHERED or len(frame) > LARGE:
                self.flush()

    def flush(self) -> None:
        """Give this turn's frames to the connection."""
        frames, self._pending = self._pending, None
        connection = self.connection
        if frames is None:
            return
        self._sockets.deliveries += len(frames)
        if not connection.buffered:
            self._write(frames[0] if len(frames) == 1 else b"".join(frames))
            return
        limits = self.limits
        for frame in frames:
            too_much = connection.buffered + len(frame) - limits.outgoing
            if too_much > 0 and connection.buffered and not self._make_room(too_much):
                self._close_slow()
                return
            self._write(frame)
        if self._is_too_old(self._sockets.clock()) and not self._make_room(0):
            self._close_slow()

    def _write(self, data: bytes) -> None:
        connection = self.connection
        backlog = self._backlog
        connection.write(data)
        if not connection.buffered:
            return
        now = self._sockets.clock()
        if backlog is None:
            drops = self.limits.slow == DROP
            backlog = self._backlog = DropBacklog(connection.flushed) if drops else Backlog()
            if not self._ending:
                connection.set_deadline(now + self.limits.write_stall)
            connection.when_drained(self._drained)
        end = connection.flushed + connection.buffered
        backlog.grew(end, now)
        if isinstance(backlog, DropBacklog):
            backlog.holds(end, data, connection.flushed)

    def _drained(self) -> None:
        backlog, self._backlog = self._backlog, None
        if not self.is_closing:
            self._rest()
            self._tell_lost(backlog)
            if self._held is not None:
                self._hand_out_held()

    def write_progressed(self) -> None:
        """From the connection: the client took something of what waits."""
        if self._ending:
            return  # close_timeout holds, however slowly the client reads
        now = self._sockets.clock()
        self.connection.set_deadline(now + self.limits.write_stall)
        if self._is_too_old(now) and not self._make_room(0):
            self._close_slow()
            return
        if self.connection.buffered <= self.limits.outgoing // 2:
            self._tell_lost(self._backlog)
        if self._held is not None:
            self._hand_out_held()

    def _tell_lost(self, backlog: Backlog | None) -> None:
        """There is room again: a gap of each channel that lost something, before what is held."""
        if isinstance(backlog, DropBacklog) and backlog.lost:
            gaps = [self._sockets.gap_event(channel, None) for channel in backlog.take_lost()]
            self._held = gaps + (self._held or [])

    def _is_too_old(self, now: float) -> bool:
        limits, backlog = self.limits, self._backlog
        return (
            backlog is not None
            and limits.outgoing_age > 0
            and backlog.age(self.connection.flushed, now) > limits.outgoing_age
        )

    def _make_room(self, size: int) -> bool:
        """Drop the oldest messages where that is the policy; False where it is not or no use.

        :param size: bytes; 0: all that have waited for too long.
        """
        if self.limits.slow != DROP:
            return False
        connection = self.connection
        count, freed = connection.drop_oldest(size or connection.buffered)
        self._sockets.dropped += count
        if count and isinstance(self._backlog, DropBacklog):
            self._backlog.dropped(connection.flushed, count, freed)
        return count > 0 and freed >= size

    def _close_slow(self) -> None:
        connection = self.connection
        if self._ending or connection.is_closing:
            connection.abort()
            return
        self._sockets.slow_closed += 1
        log.info("%s reads too slowly and is closed", connection.peer)
        self._pending = None
        connection.drop_unsent()
        self.fail(TOO_SLOW, "this client reads too slowly")

    # -- events

    def hold(self) -> None:
        """Keep events back until :meth:`release`: a handler is about to send what precedes them."""
        self._withheld = True
        if self._held is None and not self._closed:
            self._held = []

    def release(self) -> None:
        """Hand out what was kept back, as fast as the client takes it."""
        self._withheld = False
        self._hand_out_held()

    def forget(self, channel: str) -> None:
        """The channel was left: what is kept back of it is not wanted any more."""
        if isinstance(self._backlog, DropBacklog):
            self._backlog.lost.pop(channel, None)
        if self._held:
            self._held = [event for event in self._held if event.channel != channel]

    def _hand_out_held(self) -> None:
        """In portions: a long recovery is no reason to find the client too slow."""
        held = self._held
        if held is None or self._withheld or self._closed:
            return
        room, at = self.limits.outgoing // 2, 0
        self._held = None
        while at < len(held) and not self._ending:
            if self.connection.buffered > room or self._events >= self.limits.events:
                break
            self.deliver(held[at])
            at += 1
            if at % PORTION == 0:
                self.flush()  # to see what the client takes
        if at < len(held) and not self._ending:
            # Goes on when the client has read, or a handler has run.
            self._held = held[at:] + (self._held or [])
            self.flush()

    def deliver(self, event: Event) -> None:
        """From the fan-out: an event on a subscribed channel."""
        if (self._held is not None or self._handled) and self._is_kept(event):
            return
        try:
            frame = event.forms[self._form]
        except KeyError:
            frame = self._frame_of(event)
        if frame is None or self._ending or self._closed:
            return
        sockets = self._sockets
        turn = sockets.turn or sockets.begin_turn()
        if turn == self._turn:
            sockets.again = True
            self.send_frame(frame)
            return
        self._turn = turn
        if sockets.gathers or self._pending is not None or self.connection.buffered:
            self.send_frame(frame)
        else:
            # At once, as flush() does it: this is the innermost loop of a broadcast.
            sockets.deliveries += 1
            self._write(frame)

    def gap(self, channel: str, position: str | None) -> None:
        """From the fan-out: messages of ``channel`` were lost on the way."""
        self.deliver(self._sockets.gap_event(channel, position))

    def _is_kept(self, event: Event) -> bool:
        """True if the event waits, or a handler takes it."""
        if self._closed or self._ending:
            return True
        if self._held is not None:
            if len(self._held) < HELD:
                self._held.append(event)
            else:
                self._too_slow_inside("a handler is slower than its channels")
            return True
        handler = HANDLERS.get(event.kind, "on_event")
        if handler not in self._handled:
            return False
        if self._events >= self.limits.events:
            self._too_slow_inside(f"{handler} is slower than its channels")
        else:
            self._events += 1
            self._put(handler, event)
        return True

    def _too_slow_inside(self, reason: str) -> None:
        self._sockets.slow_closed += 1
        self.fail(TOO_SLOW, reason)

    def _frame_of(self, event: Event) -> bytes | None:
        """Encode the event for all outlets of this form; None: it says nothing to them."""
        payload = self.handlers.shape(event)
        frame = None if payload is None else self._marked(event, self.framed(*payload))
        event.forms[self._form] = frame
        return frame

    def _marked(self, event: Event, frame: bytes) -> bytes:
        """The frame of an event; where it may be dropped, one that knows the event's channel."""
        return EventFrame.of(frame, event.channel) if self.limits.slow == DROP else frame

    # -- the end

    def connection_lost(self) -> None:
        """From the connection: it is gone."""
        if self._closed:
            return
        self._closed = self._ending = True
        self._pending = self._held = None
        self._sockets.sessions.discard(self)
        self._sockets.identities.unregister(self)
        self._sockets.forget(self)
        self._put("on_close", *self._last_words())

    def _last_words(self) -> tuple[int, str]:
        """Close code and reason for the application."""
        raise NotImplementedError
