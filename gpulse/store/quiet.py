"""A limit on repeated log lines: the first one is written, the rest of its interval is counted."""

import time
from collections.abc import Callable


class Quiet:
    """Says whether to log now.  Not locked: a race costs one line too many.

    :param interval: seconds between two lines.
    """

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._next = float("-inf")
        self.held_back = 0
        """Lines not written since the last one that was."""

    def allows(self) -> bool:
        """True if the line may be written; read ``held_back`` before, it restarts from 0."""
        now = self._clock()
        if now < self._next:
            self.held_back += 1
            return False
        self._next = now + self._interval
        self.held_back = 0
        return True
