"""Whole responses gathered within a turn of the hub, and sent together at its end.

Each send wakes the process that waits for it, which on a busy machine costs as much as a small
request: measured with 50 busy connections, gathering takes a sixth to a third off the CPU time of a
request.  It is done only while no other member of the pool is within a job, for what one does when
it is resumed in the same turn may take long.  So a response waits GATHER seconds and one slice of
new work at the most.
After a slice that took longer than SLOW, responses are sent as they come for PAUSES times as long:
where slow work is frequent nobody waits for it, and where it is rare few do.

Runs on the hub and its greenlets, all on one native thread; native threads of a pool do not use it.
"""

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpulse.connection.connection import Connection

GATHER = 0.001
"""Seconds for which responses are gathered before they are sent."""
SLOW = 0.001
"""Seconds of work without a switch to the hub that count as slow."""
PAUSES = 20
"""How many times as long as slow work took nothing is gathered after it: more of the kind is
likely, and would delay others."""


class Outbox:
    """The gathered responses of a worker.

    :param loop: the hub's loop.
    """

    __slots__ = ("_connections", "_direct_until", "_loop", "_since")

    def __init__(self, loop: Any) -> None:
        self._connections: list[Connection] = []
        self._since = 0.0  # when the first of them came
        self._direct_until = 0.0

        self._loop = loop

    def add(self, connection: "Connection") -> bool:
        """Have the connection's :meth:`~Connection.flush_gathered` called at the end of the turn.

        :returns: False if responses are to be sent as they come, for now.
        """
        now = time.monotonic()
        if not self._connections:
            if now < self._direct_until:
                return False
            self._since = now
            # Before the loop looks for events again.
            self._loop.run_callback(self.flush)
        elif now - self._since > GATHER:
            self.flush()
            return False
        self._connections.append(connection)
        return True

    def slice_ended(self, begun: float) -> None:
        """Work that began at ``begun`` has ended or waits: see whether the others can."""
        now = time.monotonic()
        if now - begun > SLOW:
            self._direct_until = now + PAUSES * (now - begun)
            self.flush()
        elif self._connections and now - self._since > GATHER:
            self.flush()

    def flush(self) -> None:
        """Send everything now."""
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.flush_gathered()
