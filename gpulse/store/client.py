"""The Redis wire: a store in any Redis or Valkey server, in many of them, embedded or by URL.

Used by requests, handlers and scripts, in greenlets or native threads; never on the hub of a worker
in thread mode, for a command blocks its thread.  All callers of a process share one connection to
each server (:mod:`gpulse.store.pipeline`); which servers there are, :mod:`gpulse.store.commands`
knows.  What arrives is read by :mod:`gpulse.store.subscriber`, on connections of its own.

Names on the wire are in :mod:`gpulse.store.names`.

Source: https://valkey.io/commands/
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import hiredis

from gpulse.errors import PublishError, StoreError
from gpulse.historyrules import HistoryRule, HistoryRules
from gpulse.store import history_scripts, names, scripts
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
    check_key,
    check_name,
    new_epoch,
    recovery,
)
from gpulse.store.cluster import ClusterCommands
from gpulse.store.commands import Command, Commands, Script, ServerCommands, Word, call
from gpulse.store.link import AwayError
from gpulse.store.message import Event
from gpulse.store.names import Names, pair, unpair
from gpulse.store.pipeline import BusyError
from gpulse.store.position import Head, Position
from gpulse.storeurl import StoreURL

PAGE = 500
"""Members that one script releases or restores: some 5 ms of the server's time."""
RECOVER_PAGE = 500
"""Channels whose history is asked for in one round trip."""
SWEEP_OWNERS = 16
"""Owners released by one sweep; the next one, seconds later, takes the rest."""
REMEMBERED = 100_000
"""Members remembered as gone, about 10 MB of the server's memory."""


_PRESENCE = {
    name: Script(scripts.PRELUDE + getattr(scripts, name))
    for name in ("JOIN", "LEAVE", "RESTORE", "RENEW", "RELEASE", "EXPIRED")
}
_PUBLISH_KEPT = Script(history_scripts.PUBLISH_KEPT)
_RECOVER = Script(history_scripts.RECOVER)


class RedisStore(Store):
    """A store behind a Redis-protocol URL.  Connects at first use.

    :param app_name: sites with different names share a server without hearing each other.
    :param rules: which channels have a history.
    """

    def __init__(self, url: StoreURL, app_name: str, rules: HistoryRules | None = None) -> None:
        self._names = Names(app_name, url.db)
        self._commands: Commands = (
            ClusterCommands(url) if url.kind == "cluster" else ServerCommands(url)
        )
        sharded = self._commands.sharded
        self._publish_word = b"SPUBLISH" if sharded else b"PUBLISH"
        self._pubsub_word = b"SHARD" if sharded else b""
        self._presence_keys = [self._names.presence, *([self._names.notes] if sharded else ())]
        self.rules = rules or HistoryRules()
        self._url = url

    # Channels

    def publish(self, channel: str, payload: bytes, *, key: str = "") -> Receipt:
        wire = self._names.wire(channel)
        rule = self.rules.of(channel)
        if rule is None:
            if key:
                check_key(key, rule)
            command = Command(wire, (self._publish_word, wire, payload))
            return Receipt(self._answer(command, PublishError), None, False)
        check_key(key, rule)
        # While a slot is moved, a script runs only where all keys that it names exist.
        keys = [names.stream(wire), names.position(wire)]
        if key:
            keys.append(names.idempotency(wire, key))
        remember = max(KEY_SECONDS, rule.age) if key else 0.0
        arguments = [wire, payload, self._publish_word, *_kept(rule), _ms(remember)]
        receivers, position, duplicate = self._answer(
            call(_PUBLISH_KEPT, keys, arguments, self._url.replicas), PublishError
        )
        return Receipt(receivers, position.decode(), bool(duplicate))

    def recover(self, requests: Sequence[tuple[str, str | None]]) -> list[Recovery]:
        asked: list[tuple[str, Position | None]] = []
        commands: list[Command] = []
        for channel, since in requests:
            wire = self._names.wire(channel)
            rule = self.rules.of(channel)
            if rule is None:
                raise ValueError(f"channel {channel!r} has no history, see --history")
            position = None if since is None else Position.parse(since)
            asked.append((channel, position))
            epoch, offset = position or ("", 0)
            keys = [names.stream(wire), names.position(wire)]
            commands.append(call(_RECOVER, keys, [epoch, offset, *_kept(rule)]))
        replies: list[Any] = []
        for start in range(0, len(commands), RECOVER_PAGE):
            replies += self._answers(commands[start : start + RECOVER_PAGE], bulk=True)
        return [
            recovery(channel, _head(newest, earlier), since, payloads)
            for (channel, since), (newest, earlier, payloads) in zip(asked, replies, strict=True)
        ]

    def channels(self, pattern: str = "*") -> dict[str, int]:
        counts: dict[str, int] = {}
        glob = self._names.glob(pattern)
        for wires in self._everywhere(b"CHANNELS", glob):
            for start in range(0, len(wires), PAGE):
                for found in self._everywhere(b"NUMSUB", *wires[start : start + PAGE]):
                    for wire, count in zip(found[::2], found[1::2], strict=True):
                        if count:
                            name = self._names.channel(wire)
                            counts[name] = counts.get(name, 0) + count
        return dict(sorted(counts.items()))

    def open_subscriber(
        self,
        on_event: Callable[[Event], None],
        on_reconnect: Callable[[list[str] | None], None] | None = None,
    ) -> Subscriber:
        # A script that only publishes stays free of gevent.
        if self._url.kind == "cluster":
            from gpulse.store.shards import ClusterSubscriber

            return ClusterSubscriber(self._url, self._names, on_event, on_reconnect)
        from gpulse.store.subscriber import RedisSubscriber

        return RedisSubscriber(self._url, self._names, on_event, on_reconnect, self._commands.reset)

    # Presence

    def join(
        self,
        key: str,
        member: str,
        owner: str,
        will: Note | None = None,
        hello: Note | None = None,
    ) -> int:
        both = _pair(key, member)
        check_name("owner", owner)
        total: int = self._run("JOIN", both, owner, self._note(will), self._note(hello), _ms(LEASE))
        return total

    def leave(self, key: str, member: str, owner: str, farewell: Note | None = None) -> int:
        both = _pair(key, member)
        check_name("owner", owner)
        total: int = self._run("LEAVE", both, owner, self._note(farewell), NOT_HELD)
        return total

    def restore(self, owner: str, holdings: Sequence[Holding]) -> None:
        check_name("owner", owner)
        for start in range(0, len(holdings), PAGE):
            arguments: list[bytes] = []
            for holding in holdings[start : start + PAGE]:
                arguments.append(_pair(holding.key, holding.member))
                arguments.append(b"%d" % holding.count)
                arguments.append(self._note(holding.will))
                arguments.append(self._note(holding.hello))
            self._run("RESTORE", owner, _ms(LEASE), _ms(RECALL), *arguments)

    def members(self, key: str) -> dict[str, int]:
        name = b"%s:members:%s" % (self._names.presence, check_name("key", key).encode())
        found: list[bytes] = self._answer(Command(name, (b"HGETALL", name)))
        totals = zip(found[::2], found[1::2], strict=True)
        return {member.decode(): int(total) for member, total in totals}

    def holdings(self, owner: str) -> dict[tuple[str, str], int]:
        name = b"%s:held:%s" % (self._names.presence, check_name("owner", owner).encode())
        found: list[bytes] = self._answer(Command(name, (b"HGETALL", name)))
        counts = zip(found[::2], found[1::2], strict=True)
        return {_unpair(both): int(count) for both, count in counts}

    def renew(self, owner: str, lease: float = LEASE) -> Held:
        return Held(*self._run("RENEW", check_name("owner", owner), _ms(lease)))

    def release(self, owner: str) -> list[tuple[str, str]]:
        return self._release(check_name("owner", owner), only_expired=False)

    def sweep(self) -> int:
        expired: list[bytes] = self._run("EXPIRED", _ms(RECALL), SWEEP_OWNERS, REMEMBERED)
        for owner in expired:
            self._release(owner.decode(), only_expired=True)
        return len(expired)

    def _release(self, owner: str, *, only_expired: bool) -> list[tuple[str, str]]:
        left: list[tuple[str, str]] = []
        cursor = b"0"
        while True:
            cursor, page = self._run("RELEASE", owner, cursor, PAGE, int(only_expired))
            left.extend(_unpair(both) for both in page)
            if cursor == b"0":
                return left

    def _note(self, note: Note | None) -> bytes:
        return b"" if note is None else pair(self._names.wire(note.channel), note.payload)

    # The rest

    def ping(self) -> None:
        # A command that any user may run who can use the store at all.
        self._answer(Command(self._names.presence, (b"EXISTS", self._names.presence)))

    def close(self) -> None:
        self._commands.close()

    def describe(self) -> str:
        return str(self._url)

    def _run(self, script: str, *arguments: Word) -> Any:
        return self._answer(call(_PRESENCE[script], self._presence_keys, arguments))

    def _everywhere(self, word: bytes, *words: Word) -> list[Any]:
        """What each server answers to PUBSUB."""
        try:
            replies = self._commands.everywhere((b"PUBSUB", self._pubsub_word + word, *words))
        except (AwayError, BusyError) as failure:
            self._refuse(StoreError, failure)
        return self._checked(replies, StoreError)

    def _answer(self, command: Command, error: type[StoreError] = StoreError) -> Any:
        """The reply to one command, or ``error`` within the deadline."""
        return self._answers([command], error)[0]

    def _answers(
        self,
        commands: Sequence[Command],
        error: type[StoreError] = StoreError,
        *,
        bulk: bool = False,
    ) -> list[Any]:
        try:
            replies = self._commands.run(commands, bulk=bulk)
        except (AwayError, BusyError) as failure:
            self._refuse(error, failure)
        return self._checked(replies, error)

    def _checked(self, replies: list[Any], error: type[StoreError]) -> list[Any]:
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                self._refuse(error, reply)
        return replies

    def _refuse(self, error: type[StoreError], cause: Exception) -> NoReturn:
        if isinstance(cause, BusyError):
            what, then = "it was not sent", "see whether the store or this process is overloaded"
        elif str(cause).startswith("NOREPLICAS"):
            what = "the message may be lost" if error is PublishError else "it is not done"
            then = "see whether its replicas follow it"
        else:
            lost = error is PublishError
            what = "the message may be lost" if lost else "it may not be done"
            then = "check that it runs and lets this site in"
        raise error(f"the data store {self._url} failed ({cause}): {what}; {then}") from cause


def _kept(rule: HistoryRule) -> list[Word]:
    """What both scripts of a history are told."""
    return [rule.size, _ms(rule.age), _ms(max(IDLE_SECONDS, rule.age)), new_epoch()]


def _head(newest: bytes, earlier: bytes) -> Head:
    positions = [Position.parse(each) for each in earlier.decode().split()]
    return Head(Position.parse(newest.decode()), tuple(positions))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _pair(key: str, member: str) -> bytes:
    return pair(check_name("key", key).encode(), check_name("member", member).encode())


def _unpair(both: bytes) -> tuple[str, str]:
    key, member = unpair(both)
    return key.decode(), member.decode()
