"""Who is there: the members that this worker's sockets joined, kept true in the store.

The worker keeps a *mirror*: per channel and member the number of its sockets.  The store is told of
the first and the last at once, for it publishes the messages that say so in the same atomic step;
it keeps the sum over all workers, which decides who was the first and the last anywhere.  Of what
comes in between it is told the new numbers together, by a *flush* a tenth of a second after the
first change: ten tabs of one user cost it one step more, and a storm one for each ``PAGE`` members.
A number is that of all sockets, not a change, so it may be told twice, and telling it is restoring.

Three things can part the mirror and the store, and one *beat* mends them all.  Every third of the
lease, and soon after a reconnect or a failure, it renews the lease, which answers how many members
the store holds for this worker and with how many sockets.  If that is not what the store was told,
or a call failed meanwhile, it compares the two and makes the store's equal:

- the store restarted empty: the mirror is restored without ``hello``, for nobody heard of a going;
- the worker stalled for longer than its lease and was swept: everybody heard ``will``, so they hear
  ``hello`` again, which the store knows, for it remembers whom it announced gone (``RECALL``);
- a ``leave`` or a flush could not reach the store: it is done now, with its ``will``.

The beat also sweeps, so the ghosts of a killed worker are gone after at most its lease and a beat.

Used on the pool, from requests and handlers; a call blocks as long as the store takes, well under a
second.  One lock keeps the mirror and the store's answers in one order; it is held over the call to
the store, and waiting for it has a deadline.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from gpulse.errors import StoreError
from gpulse.store.base import LEASE, NOT_HELD, Held, Holding, Note, Store, check_channel, check_name
from gpulse.store.message import encode, encode_presence

PATIENCE = 2.0
"""Seconds to wait for the worker's other joins and leaves; each takes 0.1 ms, or fails fast."""
PAGE = 500
"""Members that the store is told of in one go, so that a join does not wait for thousands."""
FLUSH = 0.1
"""Seconds from a member's next socket until the store is told the number."""

_log = logging.getLogger("gpulse.store")

_Pair = tuple[str, str]


class Presence:
    """Presence of one worker.

    :param spawn: runs a function beside the pool: a greenlet or a daemon thread.
    :param lease: seconds that the members outlive a worker that was killed.
    :param owner: the name of this life of the worker; a random one by default.
    """

    def __init__(
        self,
        store: Store,
        spawn: Callable[[Callable[[], None]], object],
        *,
        lease: float = LEASE,
        owner: str | None = None,
    ) -> None:
        self._mirror: dict[_Pair, Holding] = {}
        self._sockets = 0
        """The sum of the mirror's counts."""
        self._untold: dict[_Pair, int] = {}
        """Pairs of the mirror whose count has changed, with the count that the store knows."""
        self._lock = threading.Lock()
        self._flushing = False
        self._started = False
        self._stopped = False
        self._due = False
        self._doubtful = False
        self._store = store
        self._spawn = spawn
        self._lease = lease
        self.owner = owner or uuid.uuid4().hex

    def join(self, channel: str, member: str, hello: Any = None, will: Any = None) -> bool:
        """One more socket of ``member`` is on ``channel``; True if it is the first one anywhere.

        ``hello`` and ``will`` are messages (str, bytes or JSON-able) published on the channel: the
        one if this is the first, the other when the last has left or its worker is dead.

        :raises StoreError: the store is away; the member has not joined, so do not ``leave``.
        :raises ValueError: a bad channel, member or message.
        """
        return self._join(channel, member, _note(channel, hello), _note(channel, will))

    def _join(self, channel: str, member: str, hello: Note | None, will: Note | None) -> bool:
        pair = (check_channel(channel), check_name("member", member))
        with self._in_turn():
            self._start()
            holding = self._mirror.get(pair)
            if holding is not None:
                self._count(pair, holding, 1)
                return False
            with self._doubt():
                total = self._store.join(channel, member, self.owner, will, hello)
            self._mirror[pair] = Holding(channel, member, will, hello)
            self._sockets += 1
            return total == 1

    def enter(self, channel: str, member: str) -> bool:
        """As :meth:`join`; its messages are events of presence, ``on_presence`` of a consumer."""
        hello, will = encode_presence(True, member), encode_presence(False, member)
        return self._join(channel, member, Note(channel, hello), Note(channel, will))

    def leave(self, channel: str, member: str) -> bool:
        """One socket of ``member`` less; True if it was the last one anywhere.

        False too for what was never joined.

        :raises StoreError: the store is away.  The socket is off the count all the same, and the
            store hears of it when it is back; do not repeat the call.
        """
        pair = (channel, member)
        with self._in_turn():
            holding = self._mirror.get(pair)
            if holding is None:
                return False
            if holding.count > 1:
                self._count(pair, holding, -1)
                return False
            del self._mirror[pair]
            self._untold.pop(pair, None)
            self._sockets -= 1
            with self._doubt():
                left = self._store.leave(channel, member, self.owner)
                if left == NOT_HELD:
                    # The store restarted and the beat has not been here yet: without this, nobody
                    # would hear that the member is gone.
                    self._store.restore(self.owner, [holding])
                    left = self._store.leave(channel, member, self.owner)
            return left == 0

    def members(self, channel: str) -> list[str]:
        """Who is on ``channel``, over all workers and machines, sorted.

        :raises StoreError: the store is away.
        """
        return sorted(self._store.members(check_channel(channel)))

    def roster(self, channel: str) -> dict[str, int]:
        """Each member of ``channel`` with its number of open connections, over all workers and
        machines, exact within about a tenth of a second.

        :raises StoreError: the store is away.
        """
        return self._store.members(check_channel(channel))

    def nudge(self) -> None:
        """Beat soon and compare: the store was away, and another server may have its place, without
        the last writes.  From any thread, the hub's too; blocks nobody."""
        self._doubtful = self._due = True

    def flush(self) -> None:
        """Tell the store the numbers that changed; done by itself ``FLUSH`` seconds after one did.

        :raises StoreError: the store is away; the beat mends.
        """
        while self._flush_page():
            pass

    def release(self) -> None:
        """The worker stops: leave everything and end the beat.  Call it on the pool, once.

        A store that is away is only logged: the lease will run out.
        """
        self._stopped = True
        try:
            with self._in_turn():
                self._mirror.clear()
                self._untold.clear()
                self._sockets = 0
                if self._started:
                    self._store.release(self.owner)
        except StoreError as error:
            _log.warning("presence is not released, its lease will run out: %s", error)

    def beat(self) -> None:
        """Renew the lease, mend what differs, sweep; the loop's one pass.

        :raises StoreError: the store is away; the next beat mends.
        """
        with self._in_turn():
            if self._stopped:
                return
            held = self._store.renew(self.owner, self._lease)
            differs = self._doubtful or held != self._told()
        if differs:
            self._mend()
        self._store.sweep()

    def _mend(self) -> None:
        """Make the store's holdings of this owner those of the mirror, a page at a time."""
        with self._in_turn():
            self._doubtful = False
            with self._doubt():
                held = self._store.holdings(self.owner)
            self._untold.clear()  # what is wrong is found here
            wrong = [pair for pair, ours in self._mirror.items() if held.get(pair) != ours.count]
            surplus = [pair for pair in held if pair not in self._mirror]
        for pair in surplus:
            with self._in_turn():
                if pair not in self._mirror:
                    with self._doubt():
                        self._store.leave(*pair, self.owner)
        for start in range(0, len(wrong), PAGE):
            with self._in_turn():
                self._tell(wrong[start : start + PAGE])
        _log.info(
            "presence mended: %d members restored to the store, %d taken from it",
            len(wrong),
            len(surplus),
        )

    # With the lock held

    def _count(self, pair: _Pair, holding: Holding, change: int) -> None:
        """A socket more or less of a member that stays."""
        self._untold.setdefault(pair, holding.count)
        holding.count += change
        self._sockets += change
        if not (self._flushing or self._doubtful):  # in doubt, the beat compares all of them
            try:
                self._spawn(self._flush_soon)
                self._flushing = True
            except RuntimeError:  # there is no thread to be had
                self._doubtful = self._due = True

    def _told(self) -> Held:
        """How much the store has to hold for this worker by what it was told."""
        news = sum(self._mirror[pair].count - known for pair, known in self._untold.items())
        return Held(len(self._mirror), self._sockets - news)

    def _tell(self, pairs: list[_Pair]) -> None:
        """Tell the store the counts of those that are still there."""
        page = [self._mirror[pair] for pair in pairs if pair in self._mirror]
        with self._doubt():
            self._store.restore(self.owner, page)
        for pair in pairs:
            self._untold.pop(pair, None)
        if not self._untold:
            self._untold.clear()  # a dict that was emptied key by key keeps its size

    def _start(self) -> None:
        """Before the first join (the lock is held): a lease, and the beat that renews it."""
        if self._started:
            return
        self._store.renew(self.owner, self._lease)
        self._spawn(self._beat_forever)
        self._started = True

    # Beside the pool

    def _flush_soon(self) -> None:
        """One at a time: what changes while it sleeps is told together."""
        more = True
        try:
            while more:
                time.sleep(FLUSH)
                self.flush()
                with self._in_turn():
                    more = self._flushing = bool(self._untold)
        except StoreError as error:
            _log.debug("numbers of presence were not told, the next beat mends: %s", error)
        except Exception:
            _log.exception("numbers of presence were not told")
        finally:
            if more:
                self._doubtful = self._due = True
                self._flushing = False

    def _flush_page(self) -> bool:
        """One page; whether there may be more."""
        with self._in_turn():
            page = list(islice(self._untold, PAGE))
            if page:
                self._tell(page)
            return len(page) == PAGE

    def _beat_forever(self) -> None:
        step = min(0.5, self._lease / 12)
        next_beat = 0.0
        while not self._stopped:
            now = time.monotonic()
            if self._due or now >= next_beat:
                self._due = False
                next_beat = now + self._lease / 3
                try:
                    self.beat()
                except StoreError as error:
                    _log.debug("a beat of presence failed, the next one mends: %s", error)
                    self._due = True
                except Exception:
                    _log.exception("a beat of presence failed")
            # time.sleep is cooperative where the worker is patched, and native where it is not;
            # an event could not be set from the hub in both.
            time.sleep(step)

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=PATIENCE):
            raise StoreError(
                f"presence is busy: other joins and leaves took over {PATIENCE:g} s; "
                "see whether the data store is overloaded"
            )
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _doubt(self) -> Iterator[None]:
        """Where a call fails, the store may have done it or not: a beat soon compares."""
        try:
            yield
        except BaseException:
            self._doubtful = self._due = True
            raise


def _note(channel: str, message: Any) -> Note | None:
    return None if message is None else Note(channel, encode(message))
