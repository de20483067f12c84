"""How long the oldest byte has waited for a slow reader.  Pure; made only while something waits.

A note is taken at most once a second of how far the output reached then, so a reader that is ever
so slow costs a note for each second of its backlog and not one for each message.
"""

from collections import deque

STEP = 1.0
"""Seconds between two notes: how much older than said the oldest byte may be."""


class Backlog:
    """Positions count the bytes that were ever given to the connection to send.

    :param now: monotonic seconds.
    """

    __slots__ = ("_notes",)

    def __init__(self) -> None:
        self._notes: deque[tuple[int, float]] = deque()

    def grew(self, end: int, now: float) -> None:
        """Output up to position ``end`` waits since ``now`` or earlier."""
        if not self._notes or now - self._notes[-1][1] >= STEP:
            self._notes.append((end, now))
        else:
            self._notes[-1] = (end, self._notes[-1][1])

    def age(self, sent: int, now: float) -> float:
        """Seconds that the oldest byte behind position ``sent`` has waited; 0.0 if none does."""
        notes = self._notes
        while notes and notes[0][0] <= sent:
            notes.popleft()
        return now - notes[0][1] if notes else 0.0

    def shrank(self, size: int) -> None:
        """``size`` bytes that waited will not be sent: what was behind them moved up."""
        self._notes = deque((end - size, since) for end, since in self._notes)
