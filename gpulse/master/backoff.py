"""Exponential backoff between respawns: pure, used for workers and for sidecars.

A first failure waits 0.1 s, each further one twice as long, up to 30 s.  Children that were
spawned before the last failure belong to its batch and do not count again: four workers that die
of one cause are one failure.
"""

from dataclasses import dataclass

FIRST = 0.1
"""Seconds to wait after the first failure."""
CEILING = 30.0
"""Longest wait in seconds."""
STEADY = 10.0
"""Seconds of service after which a death is an accident and not a failure to start."""

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often starting failed in a row, and until when nothing is started."""

    failures: int = 0
    failed_at: float = _NEVER
    wait_until: float = _NEVER

    def failed(self, spawned_at: float, now: float) -> "Backoff":
        """The backoff after a child that was spawned at ``spawned_at`` failed at ``now``."""
        if self.failures and spawned_at < self.failed_at:
            return self
        # The exponent is capped because a float overflows at 2**1024, after nine hours of failing.
        delay = min(CEILING, FIRST * 2.0 ** min(self.failures, 16))
        return Backoff(self.failures + 1, now, now + delay)

    def is_due(self, now: float) -> bool:
        """Whether a child may be spawned at ``now``."""
        return now >= self.wait_until
