"""A bound for messages per second: a token bucket.  Pure; time is passed in."""

from collections import OrderedDict
from collections.abc import Hashable

CONTROLS, CONTROLS_AT_ONCE = 20.0, 100
"""Pings and pongs of one client, per second in the long run and at once; keeping a connection alive
takes one in some seconds."""


class TokenBucket:
    """Full at first.

    :param now: monotonic seconds.
    """

    __slots__ = ("_at", "_tokens")

    def __init__(self, now: float, burst: int) -> None:
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float, rate: float, burst: int) -> float:
        """Take one; 0.0 if there was one, else the seconds until there is one again."""
        tokens = min(float(burst), self._tokens + (now - self._at) * rate)
        self._at = now
        if tokens >= 1.0:
            self._tokens = tokens - 1.0
            return 0.0
        self._tokens = tokens
        return (1.0 - tokens) / rate


def pace(full_at: float, now: float, rate: float, burst: int) -> float | None:
    """Take one from a bucket that is a mere number, for such as nearly always are full.

    :param full_at: when it will be full again, as the last call said; 0.0 at first.
    :param now: monotonic seconds.
    :returns: when it will be full now; None: there was none to take.

    Source: the generic cell rate algorithm, ITU-T I.371, annex A.
    """
    full_at = max(full_at, now) + 1.0 / rate
    # A thousandth more, so that rounding does not count.
    return full_at if (full_at - now) * rate < burst + 0.001 else None


class Buckets:
    """A bucket for each of many; the one that was used longest ago is forgotten first.

    :param most: buckets kept.
    """

    __slots__ = ("_buckets", "_most")

    def __init__(self, most: int = 10_000) -> None:
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()
        self._most = most

    def take(self, who: Hashable, now: float, rate: float, burst: int) -> float:
        """As :meth:`TokenBucket.take`.  From any thread: a race costs a token at most."""
        bucket = self._buckets.pop(who, None) or TokenBucket(now, burst)
        self._buckets[who] = bucket
        while len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return bucket.take(now, rate, burst)
