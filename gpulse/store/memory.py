"""``memory://``: the store of one process, for a single worker and for tests.

It keeps the contract honest: both implementations pass the same suite.  It refuses what one process
cannot give: another process never hears it.

Thread-safe.  One lock guards the counts and the outbox and is held for dict operations only, never
while an event is handed out.  Events leave in the order in which the lock was taken: each change
appends its messages to the outbox, and the hub's thread alone empties it, through ``call_hub``.
Where the caller is on that thread already (greenlet mode, tests, scripts) ``call_hub`` runs inline.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from gpulse.errors import PublishError, SubscribeError
from gpulse.historyrules import HistoryRule, HistoryRules
from gpulse.store.base import (
    IDLE_SECONDS,
    KEY_SECONDS,
    LEASE,
    NOT_HELD,
    RECALL,
    Held,
    Holding,
    Note,
    Receipt,
    Recovery,
    Store,
    Subscriber,
    check_channel,
    check_key,
    check_name,
    matcher,
    new_epoch,
    recovery,
)
from gpulse.store.message import Event, decode
from gpulse.store.position import Head, Position

MAX_OUTBOX = 100_000
"""Deliveries that may wait for the hub; beyond that ``publish`` and ``join`` are refused."""

_log = logging.getLogger("gpulse.store")

_Pair = tuple[str, str]


MAX_KEPT = 10_000
"""Channels whose history is kept; beyond it the oldest is forgotten."""
MAX_KEYS = 10_000
"""Idempotency keys remembered of one channel; beyond it the oldest is forgotten."""


class _Kept:
    """The history of one channel."""

    __slots__ = ("entries", "epoch", "keys", "offset", "until")

    def __init__(self, now: float) -> None:
        self.entries: deque[tuple[float, bytes]] = deque()
        """When it came, and the payload with its position."""
        self.keys: dict[str, tuple[str, float]] = {}
        """Position of each key, and until when it is known."""
        self.epoch = new_epoch()
        self.offset = 0
        self.until = now + IDLE_SECONDS

    def append(self, payload: bytes, now: float, rule: HistoryRule) -> str:
        """Keep a message; its position."""
        self.offset += 1
        self.until = now + max(IDLE_SECONDS, rule.age)
        position = f"{self.epoch}-{self.offset}"
        self.entries.append((now, b"p%s:%s" % (position.encode(), payload)))
        while len(self.entries) > rule.size or self.entries[0][0] < now - rule.age:
            self.entries.popleft()
        while self.keys and next(iter(self.keys.values()))[1] <= now:
            del self.keys[next(iter(self.keys))]
        return position


def _inline(fn: Callable[[], None]) -> None:
    fn()


class MemoryStore(Store):
    """A store in this process's memory.

    :param call_hub: runs a function on the hub's thread soon, inline if called there.
    :param clock: monotonic seconds, for leases.
    """

    def __init__(
        self,
        call_hub: Callable[[Callable[[], None]], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        rules: HistoryRules | None = None,
    ) -> None:
        self._kept: dict[str, _Kept] = {}
        self._subscribers: dict[str, dict[_MemorySubscriber, None]] = {}
        self._totals: dict[str, dict[str, int]] = {}
        self._wills: dict[_Pair, Note] = {}
        self._held: dict[str, dict[_Pair, int]] = {}
        self._leases: dict[str, float] = {}
        self._gone: dict[_Pair, float] = {}
        self._outbox: deque[tuple[_MemorySubscriber, str, bytes]] = deque()
        self._lock = threading.Lock()
        self._handing_out = False
        self._call_hub = call_hub or _inline
        self._clock = clock
        self.rules = rules or HistoryRules()

    # Channels

    def publish(self, channel: str, payload: bytes, *, key: str = "") -> Receipt:
        rule = self.rules.of(check_channel(channel))
        check_key(key, rule)
        with self._step():
            if rule is None:
                return Receipt(self._post(Note(channel, payload)), None, False)
            now = self._clock()
            kept = self._kept_of(channel, now)
            before = kept.keys.get(key)
            if before is not None and before[1] > now:
                return Receipt(0, before[0], True)
            position = kept.append(payload, now, rule)
            if key:
                if len(kept.keys) >= MAX_KEYS:
                    del kept.keys[next(iter(kept.keys))]
                kept.keys.pop(key, None)  # so that the order is that of age
                kept.keys[key] = (position, now + max(KEY_SECONDS, rule.age))
            return Receipt(self._post(Note(channel, kept.entries[-1][1])), position, False)

    def recover(self, requests: Sequence[tuple[str, str | None]]) -> list[Recovery]:
        answers = []
        for channel, since in requests:
            rule = self.rules.of(check_channel(channel))
            if rule is None:
                raise ValueError(f"channel {channel!r} has no history, see --history")
            asked = None if since is None else Position.parse(since)
            with self._lock:
                now = self._clock()
                kept = self._kept_of(channel, now)
                head = Head(Position(kept.epoch, kept.offset))
                distance = head.distance_from(asked) or 0
                fresh = [each for at, each in kept.entries if at >= now - rule.age]
            payloads = fresh[max(len(fresh) - distance, 0) :]
            answers.append(recovery(channel, head, asked, payloads))
        return answers

    def channels(self, pattern: str = "*") -> dict[str, int]:
        matches = matcher(pattern)
        with self._lock:
            return {
                channel: len(self._subscribers[channel])
                for channel in sorted(self._subscribers)
                if matches(channel)
            }

    def _kept_of(self, channel: str, now: float) -> "_Kept":
        """The history of a channel (the lock is held)."""
        kept = self._kept.pop(channel, None)
        if kept is None or kept.until < now:
            kept = _Kept(now)
        self._kept[channel] = kept  # behind all that were used longer ago
        while len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]  # who returns to it finds another epoch
        return kept

    def open_subscriber(
        self,
        on_event: Callable[[Event], None],
        on_reconnect: Callable[[list[str] | None], None] | None = None,
    ) -> Subscriber:
        return _MemorySubscriber(self, on_event)

    @contextmanager
    def _step(self, *, bounded: bool = True) -> Iterator[None]:
        """One atomic change, and after it the delivery of what it posted."""
        with self._lock:
            if bounded and len(self._outbox) >= MAX_OUTBOX:
                raise PublishError(
                    f"{MAX_OUTBOX} messages wait for the worker's hub: it is blocked or overloaded"
                )
            before = len(self._outbox)
            try:
                yield
            finally:
                posted = len(self._outbox) > before
        if posted:
            self._call_hub(self._hand_out)

    def _post(self, note: Note) -> int:
        """Append to the outbox (the lock is held); the number of subscribers."""
        listeners = self._subscribers.get(note.channel, {})
        for subscriber in listeners:
            self._outbox.append((subscriber, note.channel, note.payload))
        return len(listeners)

    def _hand_out(self) -> None:
        """Empty the outbox; on the hub's thread.  A publish from a callback only appends."""
        if self._handing_out:
            return
        self._handing_out = True
        try:
            while self._outbox:
                subscriber, channel, payload = self._outbox.popleft()
                subscriber.receive(channel, payload)
        finally:
            self._handing_out = False

    # Presence

    def join(
        self,
        key: str,
        member: str,
        owner: str,
        will: Note | None = None,
        hello: Note | None = None,
    ) -> int:
        pair = _checked(key, member, owner)
        with self._step():
            is_first = member not in self._totals.get(key, {})
            total = self._hold(pair, owner, 1)
            if will is not None:
                self._wills[pair] = will
            if is_first:
                self._gone.pop(pair, None)
                if hello is not None:
                    self._post(hello)
            return total

    def leave(self, key: str, member: str, owner: str, farewell: Note | None = None) -> int:
        pair = _checked(key, member, owner)
        with self._step():
            count = self._held.get(owner, {}).pop(pair, 0)
            return self._let_go(pair, count, farewell) if count else NOT_HELD

    def restore(self, owner: str, holdings: Sequence[Holding]) -> None:
        for holding in holdings:
            pair = _checked(holding.key, holding.member, owner)
            with self._step():
                is_held = pair in self._held.get(owner, {})
                self._hold(pair, owner, holding.count)
                if is_held:
                    continue
                if holding.will is not None:
                    self._wills[pair] = holding.will
                # Who is remembered as gone is held by nobody else.
                announced = self._gone.pop(pair, float("-inf")) > self._clock() - RECALL
                if announced and holding.hello is not None:
                    self._post(holding.hello)

    def members(self, key: str) -> dict[str, int]:
        with self._lock:
            return dict(self._totals.get(key, {}))

    def holdings(self, owner: str) -> dict[_Pair, int]:
        with self._lock:
            return dict(self._held.get(owner, {}))

    def renew(self, owner: str, lease: float = LEASE) -> Held:
        check_name("owner", owner)
        with self._lock:
            self._leases[owner] = self._clock() + lease
            counts = self._held.get(owner, {}).values()
            return Held(len(counts), sum(counts))

    def release(self, owner: str) -> list[_Pair]:
        with self._step(bounded=False):
            return self._release(owner)

    def sweep(self) -> int:
        with self._step(bounded=False):
            now = self._clock()
            expired = [owner for owner, until in self._leases.items() if until < now]
            for owner in expired:
                self._release(owner)
            # Insertion order is time order, as a pair that goes again is inserted anew.
            while self._gone and next(iter(self._gone.values())) < now - RECALL:
                del self._gone[next(iter(self._gone))]
            return len(expired)

    def _hold(self, pair: _Pair, owner: str, count: int) -> int:
        self._leases.setdefault(owner, self._clock() + LEASE)
        held = self._held.setdefault(owner, {})
        key, member = pair
        totals = self._totals.setdefault(key, {})
        totals[member] = totals.get(member, 0) + count - held.get(pair, 0)
        held[pair] = count
        return totals[member]

    def _let_go(self, pair: _Pair, count: int, farewell: Note | None = None) -> int:
        key, member = pair
        totals = self._totals[key]
        totals[member] -= count
        if totals[member] > 0:
            return totals[member]
        del totals[member]
        if not totals:
            del self._totals[key]
        will = self._wills.pop(pair, None)
        self._gone.pop(pair, None)
        self._gone[pair] = self._clock()
        last_word = farewell or will
        if last_word is not None:
            self._post(last_word)
        return 0

    def _release(self, owner: str) -> list[_Pair]:
        self._leases.pop(owner, None)
        held = self._held.pop(owner, {})
        for pair, count in held.items():
            self._let_go(pair, count)
        return list(held)

    # The rest

    def ping(self) -> None:
        """Always answers."""

    def close(self) -> None:
        with self._lock:
            self._subscribers.clear()
            self._outbox.clear()

    def describe(self) -> str:
        return "memory://"

    def _add(self, channel: str, subscriber: "_MemorySubscriber") -> None:
        with self._lock:
            self._subscribers.setdefault(channel, {})[subscriber] = None

    def _remove(self, channel: str, subscriber: "_MemorySubscriber") -> None:
        with self._lock:
            listeners = self._subscribers.get(channel, {})
            listeners.pop(subscriber, None)
            if not listeners:
                self._subscribers.pop(channel, None)


class _MemorySubscriber(Subscriber):
    def __init__(self, store: MemoryStore, on_event: Callable[[Event], None]) -> None:
        self._channels: set[str] = set()
        self._store = store
        self._on_event = on_event
        self.connected = True
        self.malformed = 0

    def subscribe(self, channel: str, done: Callable[[SubscribeError | None], None]) -> None:
        check_channel(channel)
        if not self.connected:
            done(SubscribeError("the subscriber is closed"))
            return
        self._channels.add(channel)
        self._store._add(channel, self)
        done(None)

    def unsubscribe(self, channel: str) -> None:
        self._channels.discard(channel)
        self._store._remove(channel, self)

    def close(self) -> None:
        self.connected = False
        for channel in tuple(self._channels):
            self.unsubscribe(channel)

    def receive(self, channel: str, payload: bytes) -> None:
        """Hand one event out; it may have been unsubscribed while it was in the outbox."""
        if channel not in self._channels:
            return
        try:
            event = decode(channel, payload)
        except ValueError as error:
            self.malformed += 1
            _log.warning("a payload on channel %s was dropped: %s", channel, error)
            return
        try:
            self._on_event(event)
        except Exception:
            _log.exception("an event of channel %s was not handed out", channel)


def _checked(key: str, member: str, owner: str) -> _Pair:
    check_name("owner", owner)
    return check_name("key", key), check_name("member", member)
