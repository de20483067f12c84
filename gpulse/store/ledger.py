"""Who subscribed to what, what the server was told of it and what it has confirmed.

The pure half of :mod:`gpulse.store.subscriber`: names and replies in, commands and answers out,
time passed in.  It rests on one rule of the protocol: a server answers the commands of a connection
in their order, so the first command sent and not yet answered is the one that a reply belongs to.

A channel is *wanted* by this side, *told* to the server, and *settled* once the server has
confirmed it.  Only the difference of wanted and told is ever sent: who subscribes and unsubscribes
between two batches costs nothing, and after a lost connection, when nothing is told, all is sent
again.
"""

from collections import deque
from collections.abc import Callable, Iterator

from gpulse.errors import SubscribeError

BATCH = 1000
"""The most channels in one command, so that no command is longer than about 200 KB."""

Done = Callable[[SubscribeError | None], None]
Answer = tuple[Done, SubscribeError | None]
"""What the caller of a ledger's method calls next, outside of it."""


def pack(*words: bytes) -> bytes:
    """A command as the server reads it: an array of bulk strings (RESP2)."""
    return b"*%d\r\n%s" % (len(words), b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))


class Channel:
    """One channel of the ledger, by its name on the wire."""

    __slots__ = ("in_flight", "name", "told", "waiting", "wanted")

    def __init__(self, name: str) -> None:
        self.name = name
        """Its name for the site, without the prefix."""
        self.wanted = True
        self.told = False
        """True if the server will have it subscribed when it has done all it was sent."""
        self.in_flight = 0
        """Commands sent for it and not yet answered."""
        self.waiting: list[tuple[float, Done]] = []
        """(deadline, done) of each subscribe that is not settled."""

    @property
    def settled(self) -> bool:
        return self.wanted and self.told and self.in_flight == 0


class _Command:
    __slots__ = ("names", "subscribes", "unanswered")

    def __init__(self, subscribes: bool, names: list[bytes]) -> None:
        self.subscribes = subscribes
        self.names = names
        self.unanswered = len(names)


class Ledger:
    """See the head of this file.

    :param limit: the most channels; one more is refused.
    """

    def __init__(self, limit: int) -> None:
        self._channels: dict[bytes, Channel] = {}
        self._changed: dict[bytes, None] = {}
        self._pending: dict[bytes, Channel] = {}
        self._sent: deque[_Command] = deque()
        self._behind: set[bytes] = set()
        self._limit = limit

    def __len__(self) -> int:
        return len(self._channels)

    @property
    def pending(self) -> bool:
        """True while a subscribe waits: call ``expire`` now and then."""
        return bool(self._pending)

    @property
    def behind(self) -> bool:
        """True while a channel that was there before the connection was lost is not confirmed."""
        return bool(self._behind)

    def wanted(self, wire: bytes) -> Channel | None:
        """The channel of a message, None if it is no longer wanted."""
        channel = self._channels.get(wire)
        return channel if channel is not None and channel.wanted else None

    def subscribe(self, wire: bytes, name: str, done: Done, deadline: float) -> list[Answer]:
        """Want the channel; an answer at once if it is settled or there are too many."""
        channel = self._channels.get(wire)
        if channel is None:
            if len(self._channels) >= self._limit:
                return [(done, _error(name, f"this worker has {self._limit} channels, the most"))]
            channel = self._channels[wire] = Channel(name)
        channel.wanted = True
        if channel.settled:
            return [(done, None)]
        channel.waiting.append((deadline, done))
        self._pending[wire] = channel
        self._changed[wire] = None
        return []

    def unsubscribe(self, wire: bytes) -> list[Answer]:
        """Want the channel no more."""
        channel = self._channels.get(wire)
        if channel is None:
            return []
        return self._drop(wire, channel, "it was unsubscribed before the store confirmed it")

    def commands(self) -> bytes:
        """All that the server must be told now; it counts as sent."""
        names: dict[bool, list[bytes]] = {True: [], False: []}
        for wire in self._changed:
            channel = self._channels[wire]
            if channel.wanted != channel.told:
                channel.told = channel.wanted
                channel.in_flight += 1
                names[channel.wanted].append(wire)
        self._changed.clear()
        data = []
        for subscribes, wires in names.items():
            for start in range(0, len(wires), BATCH):
                batch = wires[start : start + BATCH]
                self._sent.append(_Command(subscribes, batch))
                data.append(pack(b"SUBSCRIBE" if subscribes else b"UNSUBSCRIBE", *batch))
        return b"".join(data)

    def confirm(self, subscribes: bool, wire: bytes) -> list[Answer]:
        """The server has done its part for one channel.

        :raises ValueError: a reply to nothing that was sent; the connection is of no use.
        """
        command = self._sent[0] if self._sent else None
        channel = self._channels.get(wire)
        if command is None or command.subscribes != subscribes or channel is None:
            raise ValueError("the server confirms what it was not asked for")
        command.unanswered -= 1
        if command.unanswered == 0:
            self._sent.popleft()
        channel.in_flight -= 1
        self._forget_if_idle(wire, channel)
        if not channel.settled:
            return []
        self._behind.discard(wire)
        self._pending.pop(wire, None)
        waiting, channel.waiting = channel.waiting, []
        return [(done, None) for _, done in waiting]

    def refuse(self, reason: str) -> list[Answer]:
        """The server answered a whole command with an error, as for channels that an ACL forbids.

        :raises ValueError: there is no such command.
        """
        if not self._sent:
            raise ValueError(f"the server refuses what it was not asked for: {reason}")
        command = self._sent.popleft()
        answers: list[Answer] = []
        for wire in command.names:
            channel = self._channels[wire]
            channel.in_flight -= 1
            if command.subscribes and channel.in_flight == 0:
                channel.told = False
                answers.extend(self._drop(wire, channel, reason))
            self._forget_if_idle(wire, channel)
        return answers

    def lost(self) -> None:
        """The connection is gone: nothing is told, all that is wanted is to be sent again."""
        self._sent.clear()
        for wire, channel in list(self._channels.items()):
            channel.told = False
            channel.in_flight = 0
            if channel.wanted:
                self._changed[wire] = None
                if not channel.waiting:
                    self._behind.add(wire)
            self._forget_if_idle(wire, channel)

    def expire(self, now: float) -> list[Answer]:
        """Fail the subscribes whose deadline has passed; drop channels that nobody waits for."""
        answers: list[Answer] = []
        for wire, channel in list(self._pending.items()):
            late = [done for deadline, done in channel.waiting if deadline <= now]
            if not late:
                continue
            channel.waiting = [entry for entry in channel.waiting if entry[0] > now]
            reason = "the data store has not confirmed it in time"
            answers.extend((done, _error(channel.name, reason)) for done in late)
            if not channel.waiting:
                del self._pending[wire]
                if wire not in self._behind:
                    self._drop(wire, channel, reason)
        return answers

    def clear(self, reason: str) -> list[Answer]:
        """Forget everything; the answers of all that wait."""
        answers = [
            answer for channel in self._channels.values() for answer in _fail(channel, reason)
        ]
        self._channels.clear()
        self._changed.clear()
        self._pending.clear()
        self._sent.clear()
        self._behind.clear()
        return answers

    def _drop(self, wire: bytes, channel: Channel, reason: str) -> list[Answer]:
        channel.wanted = False
        self._changed[wire] = None
        self._pending.pop(wire, None)
        self._behind.discard(wire)
        self._forget_if_idle(wire, channel)
        return list(_fail(channel, reason))

    def _forget_if_idle(self, wire: bytes, channel: Channel) -> None:
        if not channel.wanted and not channel.told and channel.in_flight == 0:
            self._channels.pop(wire, None)
            self._changed.pop(wire, None)


def _fail(channel: Channel, reason: str) -> Iterator[Answer]:
    waiting, channel.waiting = channel.waiting, []
    for _, done in waiting:
        yield done, _error(channel.name, reason)


def _error(name: str, reason: str) -> SubscribeError:
    return SubscribeError(f"channel {name!r} is not subscribed: {reason}")
