"""Who subscribed to what, what the server was told of it and what it has confirmed.

The pure half of :mod:`gpulse.store.subscriber`: names and replies in, commands and answers out,
time passed in.  It rests on one rule of the protocol: a server answers the commands of a connection
in their order, so the first command sent and not yet answered is the one that a reply belongs to.

A channel is *wanted* by this side, *told* to the server, and *settled* once the server has
confirmed it.  Only the difference of wanted and told is ever sent: who subscribes and unsubscribes
between two batches costs nothing, and after a lost connection, when nothing is told, all is sent
again.

A channel that was there before a loss is *behind* until it is confirmed again: it missed messages.

On a cluster there is a ledger for each node, and channels move between them: one is *released* by
the ledger of its old node and *adopted* by that of the new one.  A node that does not have the slot
*bounces* the command, and one that gave it away ends the subscription by itself.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from gpulse.errors import SubscribeError, SubscribeTimeoutError

BATCH = 1000
"""The most channels in one command, so that no command is longer than about 200 KB."""

SUBSCRIBE = (b"SUBSCRIBE", b"UNSUBSCRIBE")
SSUBSCRIBE = (b"SSUBSCRIBE", b"SUNSUBSCRIBE")
"""For sharded channels: one in each command, for two slots in one would be refused."""

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


class Move(NamedTuple):
    """A channel on its way from one ledger to another."""

    wire: bytes
    name: str
    waiting: list[tuple[float, Done]]
    behind: bool


class _Command:
    __slots__ = ("answered", "names", "subscribes")

    def __init__(self, subscribes: bool, names: list[bytes]) -> None:
        self.subscribes = subscribes
        self.names = names
        self.answered = 0


class Ledger:
    """See the head of this file.

    :param limit: the most channels; one more is refused.
    :param words: the commands, ``SUBSCRIBE`` or ``SSUBSCRIBE``.
    """

    def __init__(self, limit: int, words: tuple[bytes, bytes] = SUBSCRIBE) -> None:
        self._channels: dict[bytes, Channel] = {}
        self._changed: dict[bytes, None] = {}
        self._pending: dict[bytes, Channel] = {}
        self._sent: deque[_Command] = deque()
        self._behind: set[bytes] = set()
        self._back: list[str] = []
        self._limit = limit
        self._words = words
        self._batch = 1 if words is SSUBSCRIBE else BATCH

    def __contains__(self, wire: bytes) -> bool:
        """Whether the channel is wanted."""
        return self.wanted(wire) is not None

    def __iter__(self) -> Iterator[bytes]:
        """The channels that are wanted."""
        return iter([wire for wire, channel in self._channels.items() if channel.wanted])

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
            for start in range(0, len(wires), self._batch):
                batch = wires[start : start + self._batch]
                self._sent.append(_Command(subscribes, batch))
                data.append(pack(self._words[0 if subscribes else 1], *batch))
        return b"".join(data)

    def confirm(self, subscribes: bool, wire: bytes) -> list[Answer]:
        """The server has done its part for one channel.

        :raises ValueError: a reply to nothing that was sent; the connection is of no use.
        """
        command = self._sent[0] if self._sent else None
        channel = self._channels.get(wire)
        if (
            command is None
            or channel is None
            or command.subscribes != subscribes
            or command.names[command.answered] != wire
        ):
            raise ValueError("the server confirms what it was not asked for")
        command.answered += 1
        if command.answered == len(command.names):
            self._sent.popleft()
        channel.in_flight -= 1
        self._forget_if_idle(wire, channel)
        return self._settle(wire, channel) if channel.settled else []

    def _settle(self, wire: bytes, channel: Channel) -> list[Answer]:
        if wire in self._behind:
            self._behind.discard(wire)
            self._back.append(channel.name)
        self._pending.pop(wire, None)
        waiting, channel.waiting = channel.waiting, []
        return [(done, None) for _, done in waiting]

    def take_back(self) -> list[str]:
        """The names of the channels that were behind and are confirmed since the last call."""
        back, self._back = self._back, []
        return back

    def is_expected(self, wire: bytes) -> bool:
        """Whether the next reply may be that the channel is unsubscribed."""
        command = self._sent[0] if self._sent else None
        return (
            command is not None
            and not command.subscribes
            and command.names[command.answered] == wire
        )

    def ended(self, wire: bytes) -> bool:
        """The server has ended a subscription by itself; True if the channel is wanted.

        It is behind then, and is told again to nobody before ``again`` or ``release``.
        """
        channel = self._channels.get(wire)
        if channel is None:
            return False
        if channel.in_flight == 0:
            if channel.settled:
                self._behind.add(wire)
            channel.told = False
            self._changed.pop(wire, None)
        self._forget_if_idle(wire, channel)
        return channel.wanted

    def bounce(self) -> list[bytes]:
        """The server answered a command with an error that is no refusal: its channels.

        Of these the ones that are wanted are told again to nobody before ``again`` or ``release``.

        :raises ValueError: there is no such command.
        """
        if not self._sent:
            raise ValueError("the server answers what it was not asked for")
        command = self._sent.popleft()
        wires = []
        for wire in command.names:
            channel = self._channels[wire]
            channel.in_flight -= 1
            if channel.in_flight == 0:
                channel.told = False
                self._changed.pop(wire, None)
                if channel.wanted:
                    wires.append(wire)
            self._forget_if_idle(wire, channel)
        return wires

    def again(self, wire: bytes) -> None:
        """Tell the server of the channel once more."""
        if wire in self._channels:
            self._changed[wire] = None

    def release(self, wire: bytes) -> Move | None:
        """Give the channel away; the server is told to unsubscribe it.  None: it is not wanted."""
        channel = self.wanted(wire)
        if channel is None:
            return None
        waiting, channel.waiting = channel.waiting, []
        move = Move(wire, channel.name, waiting, wire in self._behind or channel.settled)
        self._drop(wire, channel, "")
        return move

    def adopt(self, move: Move) -> list[Answer]:
        """Want a channel that another ledger had, with all who wait for it."""
        channel = self._channels.get(move.wire)
        if channel is None:
            channel = self._channels[move.wire] = Channel(move.name)
        channel.wanted = True
        channel.waiting.extend(move.waiting)
        if move.behind:
            self._behind.add(move.wire)
        if channel.settled:
            # It came back before the server was told that it had gone.
            return self._settle(move.wire, channel)
        if channel.waiting:
            self._pending[move.wire] = channel
        self._changed[move.wire] = None
        return []

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
            answers.extend((done, _late(channel.name, reason)) for done in late)
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
        self._back.clear()
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


def _late(name: str, reason: str) -> SubscribeTimeoutError:
    return SubscribeTimeoutError(f"channel {name!r} is not subscribed: {reason}")


def _error(name: str, reason: str) -> SubscribeError:
    return SubscribeError(f"channel {name!r} is not subscribed: {reason}")
