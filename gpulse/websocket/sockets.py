"""All open WebSockets of a worker: their registry, what they share, and what is counted of them.

On the hub.  The *outbox*: what is sent to a socket during one turn of the hub goes to the kernel in
one piece at its end.  A burst of events, or a handler that sends three messages, costs each socket
one system call; a single message costs one entry in a list.

A socket's first event of a turn goes out at once as long as it is also the only one: of very many
sockets each is then visited once for a broadcast and not twice, for its memory is no longer in the
processor's cache when its turn comes again.  After a turn in which a socket got two events, the
next turn gathers.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gpulse.connection.timers import DeadlineWheel
from gpulse.store.message import GAP, Event
from gpulse.websocket.closecodes import RESTART
from gpulse.websocket.identities import Identities
from gpulse.websocket.limits import SocketLimits
from gpulse.websocket.rate import Buckets

if TYPE_CHECKING:
    from gpulse.websocket.outlet import Outlet

TURNS = 250
"""Turns are counted up to here and from 1 again: Python has such numbers, and makes no new ones."""
RESTART_REASON = "the server restarts; connect again"

log = logging.getLogger("gpulse.websocket")


def _at_once(call: Callable[[], None]) -> None:
    call()


class Sockets:
    """See the module's text.

    :param limit: ``--max-websockets``.
    :param limits: what the options say; a consumer's class may change them for itself.
    :param forget: called on the hub with a session that ended: its subscriptions are dropped.
    :param call_soon: runs a call later in this turn of the hub; without it each message is sent at
        once.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        pool: Any,
        wheel: DeadlineWheel,
        limit: int,
        limits: SocketLimits,
        forget: Callable[["Outlet"], None],
        call_soon: Callable[[Callable[[], None]], object] = _at_once,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sessions: set[Outlet] = set()
        self.identities = Identities()
        self.post_rates = Buckets()
        """Rates of clients that send by POST."""
        self.outbox: list[Outlet] = []
        """Those with output that is flushed at the end of this turn; whoever is the first in it
        calls :meth:`plan_flush`."""
        self._turns = 0
        self._gap: Event | None = None
        self._limits_of: dict[Any, SocketLimits] = {}
        self.pool = pool
        self.wheel = wheel
        self.limit = limit
        self.limits = limits
        self.forget = forget
        self._call_soon = call_soon
        self.clock = clock
        self.turn = 0
        """The number of this turn of the hub; 0 while no event was delivered in it."""
        self.again = False
        """One socket got a second event in this turn."""
        self.gathers = False
        """It did in the last turn: the first event of a turn is gathered, too."""
        self.draining = False
        self.opened = 0
        """Sockets and streams that were ever open."""
        self.messages_in = 0
        self.deliveries = 0
        """Messages, and answers to pings, given to clients' connections."""
        self.slow_closed = 0
        """Clients closed because they, or their handlers, were too slow."""
        self.dropped = 0
        """Messages that slow clients lost, where the policy is to drop."""
        self.rate_refused = 0
        """Messages, pings and pongs of clients that sent too many."""

    @property
    def are_full(self) -> bool:
        """No further handshake is accepted."""
        return self.draining or len(self.sessions) >= self.limit

    def limits_of(self, wanted: Mapping[str, Any], owner: str) -> SocketLimits:
        """The bounds of a consumer that asks for these in place of the site's.

        :raises ValueError: one of them is refused.
        """
        if not wanted:
            return self.limits
        key = tuple(sorted(wanted.items()))
        found = self._limits_of.get(key)
        if found is None:
            found = self._limits_of[key] = self.limits.changed(wanted, owner)
        return found

    def drain(self) -> None:
        """Ask every client to come back (1012): another worker will take it."""
        self.draining = True
        for session in list(self.sessions):
            session.close(RESTART, RESTART_REASON)

    def gap_event(self, channel: str, position: str | None) -> Event:
        """The event of a gap; one for all sockets that are told of it in a row."""
        last = self._gap
        if last is None or last.channel != channel or last.position != position:
            last = self._gap = Event(channel, GAP, b"", position=position)
        return last

    def begin_turn(self) -> int:
        """An event is delivered for the first time in this turn of the hub; the turn's number."""
        turn = self.turn = self._turns = self._turns % TURNS + 1
        self._call_soon(self._end_turn)
        return turn

    def _end_turn(self) -> None:
        self.turn = 0
        self.gathers, self.again = self.again, False

    def plan_flush(self) -> None:
        """Have the outbox flushed at the end of this turn."""
        self._call_soon(self._flush)

    def _flush(self) -> None:
        outbox, self.outbox = self.outbox, []
        for session in outbox:
            try:
                session.flush()
            except Exception:
                log.exception("%s: the connection is cut", session.connection.peer)
                session.connection.abort()
