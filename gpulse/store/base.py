"""The contract of a data store: channels that carry messages, and presence that outlives a crash.

**Who calls what, where.**  A :class:`Store` is used from requests, handlers, scripts: it may block
its caller, but never longer than a fraction of a second, and never the hub of a worker in thread
mode, so do not call it on the hub.  A :class:`Subscriber` is the opposite: it belongs to the hub's
thread, every method is called there, none blocks, and its callbacks run there and must not block.

**Channels.**  Delivery is at most once.  Two messages published one after the other by one caller
on one channel arrive in that order at every subscriber; concurrent publishers are ordered by the
store, the same for all subscribers of a channel.  What is published while a subscriber has no
connection is not delivered to it.  Stores of different app names, or of different database numbers,
do not hear each other.

**History.**  Channels that :class:`~gpulse.historyrules.HistoryRules` names keep their newest
messages.  Publishing one stores it and hands it out in one atomic step, which also gives it its
*position*: the offset is one more than that of the message before it, the epoch is another one
whenever the count had to start anew (the store restarted, or the channel was idle for very long).
``recover`` gives exactly what came after a position, or says that it cannot.

**Presence.**  An *owner* is one life of one worker; it holds *members* of *keys*, each with a count
of connections.  A member's total is the sum over all owners.  Owners say what their counts are, not
by how much they change, so a call that is repeated harms nothing.  Each call is one atomic step of
the store: the change of the count and the message that tells of it (``hello``, ``will``,
``farewell``) are seen together or not at all.  An owner that stops renewing its lease is released
by any worker's ``sweep``: so a killed worker leaves no ghost.  Time here is the store's own clock,
for the clocks of two machines do not agree.  The counts live in the store's memory: after a restart
they are gone, and ``renew`` tells its caller how much it still holds (see
:mod:`gpulse.store.presence`).

**Errors.**  ``ValueError``: a bad name, nothing was sent.  ``PublishError`` from ``publish`` and
``StoreError`` from the rest: the store is away or refused, told within about ``ANSWER`` seconds, or
at once when it was found away a moment ago.  Nothing is retried here, for only the caller knows
whether twice is worse than never.  After a timeout the store may have done what was asked.
"""

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gpulse.errors import SubscribeError
from gpulse.historyrules import HistoryRule, HistoryRules
from gpulse.store.message import Event, decode
from gpulse.store.position import Head, Position

ANSWER = 0.25
"""Seconds to connect, and seconds to wait for a reply.  The store is near and answers in under a
millisecond: what takes longer is away, and a request must not wait for it."""

LEASE = 15.0
"""Seconds an owner lives without renewal: the longest that a ghost of a killed worker is seen."""

RECALL = 300.0
"""Seconds for which a store remembers that it announced a member's going (see ``restore``)."""

NOT_HELD = -1
"""What ``leave`` returns when the owner did not hold the member."""

MAX_NAME = 200
"""The longest channel, key or owner in UTF-8 bytes."""

MAX_MEMBER = 1000
"""The longest member in UTF-8 bytes: a Django username of 150 characters fits with a prefix."""

KEY_SECONDS = 300.0
"""How long a key is remembered at least: longer than a client tries on."""
IDLE_SECONDS = 86_400.0
"""How long the count of an idle channel lives at least; after that its next message begins a new
epoch."""
MAX_KEY = 100
"""Characters of an idempotency key."""

EPOCH_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"

_FORBIDDEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")


def check_channel(channel: str) -> str:
    """Return ``channel`` if it is one: 1..200 UTF-8 bytes, no space, no control character.

    :raises ValueError: it is not.
    """
    check_name("channel", channel)
    if _FORBIDDEN.search(channel):
        raise ValueError(f"the channel {channel!r} holds a space or a control character")
    return channel


def check_name(what: str, name: str) -> str:
    """Return ``name`` if it is a str of 1..200 UTF-8 bytes, or 1..1000 where ``what`` is "member".

    :param what: the word for the message: "channel", "key", "member" or "owner".

    :raises ValueError: it is not.
    """
    if not isinstance(name, str):
        raise ValueError(f"the {what} is a {type(name).__name__}, not a str")
    size = len(name.encode())
    longest = MAX_MEMBER if what == "member" else MAX_NAME
    if not 0 < size <= longest:
        raise ValueError(f"the {what} {name[:40]!r} has {size} bytes, not 1 to {longest}")
    return name


def check_key(key: str, rule: HistoryRule | None) -> str:
    """Return an idempotency key if it is one and the channel, which has ``rule``, can keep it.

    :raises ValueError: it is not.
    """
    if not (isinstance(key, str) and len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise ValueError(f"the key {key!r:.50} is not 1 to {MAX_KEY} printable ASCII characters")
    if key and rule is None:
        raise ValueError(
            f"the key {key!r} needs a channel with a history, see --history: without one nothing "
            "remembers it"
        )
    return key


def matcher(pattern: str) -> Callable[[str], object]:
    """Whether a channel matches a pattern in which ``*`` is any run of characters."""
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL).fullmatch


def new_epoch() -> str:
    """A name that no count of a channel had before, 51 random bits."""
    return "".join(secrets.choice(EPOCH_ALPHABET) for _ in range(10))


class Receipt(NamedTuple):
    """What became of a published message."""

    receivers: int
    """Workers that were subscribed; 0 for a duplicate."""
    position: str | None
    """Its place in the channel's history; None without one."""
    duplicate: bool
    """It had been published before with the same key, and was not again."""


class Recovery(NamedTuple):
    """What is known of a channel's history."""

    position: str
    """Of the newest message."""
    recovered: bool
    """Whether ``events`` are all that came after the position asked about."""
    events: tuple[Event, ...]
    """Those that are kept of the newest after the position asked about, in order and without a
    hole; none where nothing is known of its epoch."""
    earlier: tuple[Position, ...] = ()
    """The last position of each epoch that this one continues, the latest first."""


def recovery(
    channel: str, head: Head, since: Position | None, payloads: Sequence[bytes]
) -> Recovery:
    """What a store's answer says: how far it goes, and the payloads kept after ``since``."""
    kept: list[Event] = []
    for back, payload in enumerate(reversed(payloads)):
        try:
            event = decode(channel, payload)
        except ValueError:
            break
        if event.position != str(head.at(head.newest.offset - back)):
            break  # something was deleted behind our back
        kept.append(event)
    events = tuple(reversed(kept))
    distance = head.distance_from(since)
    recovered = distance is not None and distance <= len(events)
    return Recovery(str(head.newest), recovered, events, head.earlier)


class Note(NamedTuple):
    """A message that the store publishes by itself when presence changes."""

    channel: str
    payload: bytes
    """Of :func:`gpulse.store.message.encode`."""


@dataclass(slots=True)
class Holding:
    """One member that an owner holds, with what is to be said of it."""

    key: str
    member: str
    will: Note | None = None
    hello: Note | None = None
    count: int = 1
    """Connections, at least 1."""


class Held(NamedTuple):
    """How much an owner holds."""

    members: int
    """Pairs of a key and a member."""
    connections: int
    """The sum of its counts."""


class Subscriber(ABC):
    """The receiving end of a store in one worker.  All on the hub's thread; nothing blocks."""

    connected: bool = False
    """True while events can arrive."""
    malformed: int = 0
    """Payloads dropped because gpulse cannot have published them."""

    @abstractmethod
    def subscribe(self, channel: str, done: Callable[[SubscribeError | None], None]) -> None:
        """Ask for the events of ``channel``.

        ``done`` is called once: with None when the store has confirmed, so that every message
        published from now on arrives while the connection lasts; or with the reason why not,
        within two seconds, and then the channel is not subscribed.  It may be called before this
        returns.  A lost connection is repaired and the channel subscribed again without a word to
        ``done``: see ``on_reconnect`` of :meth:`Store.open_subscriber`.

        :raises ValueError: not a channel name.
        """

    @abstractmethod
    def unsubscribe(self, channel: str) -> None:
        """No event of ``channel`` is handed out from now on.

        A ``done`` of it that still waits is called with an error.  Unknown channels are ignored.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connection; every waiting ``done`` gets an error, no callback comes after."""


class Store(ABC):
    """A data store; the contract is in the head of this file."""

    rules: HistoryRules
    """Which channels have a history."""

    @abstractmethod
    def publish(self, channel: str, payload: bytes, *, key: str = "") -> Receipt:
        """Hand ``payload`` to the subscribers of ``channel``, and to its history if it has one.

        :param key: 1 to 100 printable ASCII characters: a second publish on the channel with the
            same key within ``KEY_SECONDS`` (or the history's age, if that is longer) does nothing.
        :raises PublishError: not delivered, or after a timeout perhaps delivered.
        :raises ValueError: not a channel name, or a key where there is no history.
        """

    @abstractmethod
    def recover(self, requests: Sequence[tuple[str, str | None]]) -> list[Recovery]:
        """What each channel has after a position; one round trip for all.

        :param requests: channel and position of each; None asks for the newest position only.
        :raises StoreError: the store is away.
        :raises ValueError: not a channel name or not a position; or a channel without a history.
        """

    @abstractmethod
    def channels(self, pattern: str = "*") -> dict[str, int]:
        """The channels that somebody is subscribed to, each with its number of workers, sorted.

        :param pattern: ``*`` is any run of characters, all else stands for itself.
        :raises StoreError: the store is away.
        """

    @abstractmethod
    def join(
        self,
        key: str,
        member: str,
        owner: str,
        will: Note | None = None,
        hello: Note | None = None,
    ) -> int:
        """Hold ``member`` for ``owner`` with one connection; its new total over all owners.

        ``hello`` is published if nobody held it before.  ``will`` replaces the member's stored one.
        Where ``owner`` holds it already, after a call whose answer was lost, its count becomes 1.
        An owner without a lease gets one of ``LEASE`` seconds, so that nothing is held forever.
        """

    @abstractmethod
    def leave(self, key: str, member: str, owner: str, farewell: Note | None = None) -> int:
        """Hold ``member`` no more, whatever the count; the remaining total, 0 if nobody holds it.

        With the last owner the member is removed and ``farewell``, or else its stored will, is
        published.  Where ``owner`` does not hold it nothing changes and ``NOT_HELD`` is returned.
        """

    @abstractmethod
    def restore(self, owner: str, holdings: Sequence[Holding]) -> None:
        """Make the owner hold each of ``holdings`` with its count: a new one, or one forgotten.

        Only the count changes for those it holds.  A ``hello`` is published only for a member whose
        going the store announced within the last ``RECALL`` seconds and that nobody else holds:
        after a restart nobody was told that anybody went, and saying ``joined`` again would be
        noise; after a lease lost in a stall everybody was.
        """

    @abstractmethod
    def members(self, key: str) -> dict[str, int]:
        """Each member of ``key`` with its total of connections, at least 1."""

    @abstractmethod
    def holdings(self, owner: str) -> dict[tuple[str, str], int]:
        """(key, member) of all that ``owner`` holds, with the count of each."""

    @abstractmethod
    def renew(self, owner: str, lease: float = LEASE) -> Held:
        """Let the owner live for ``lease`` seconds from now; how much it holds.

        Nothing where the caller holds some means that the store restarted or swept it: ``restore``.
        """

    @abstractmethod
    def release(self, owner: str) -> list[tuple[str, str]]:
        """Leave all that ``owner`` holds and end its lease; (key, member) of what it held.

        Each member's step is atomic (and tells its will), the whole need not be.
        """

    @abstractmethod
    def sweep(self) -> int:
        """Release every owner whose lease ran out; how many there were."""

    @abstractmethod
    def ping(self) -> None:
        """Return if the store answers.  :raises StoreError: the reason why not."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections; subscribers are closed by who opened them."""

    @abstractmethod
    def describe(self) -> str:
        """The store's URL without a password."""

    @abstractmethod
    def open_subscriber(
        self,
        on_event: Callable[[Event], None],
        on_reconnect: Callable[[list[str] | None], None] | None = None,
    ) -> Subscriber:
        """A subscriber of this store, on the hub; it connects at its first ``subscribe``.

        ``on_event`` gets every event of every subscribed channel.  ``on_reconnect`` is called each
        time a lost connection is back and its channels are confirmed again, with their names, or
        with None for all: messages published in between are missed.  What they raise is logged and
        ends there.
        """
