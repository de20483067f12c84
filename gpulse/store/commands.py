"""Commands and scripts to a store, whatever stands behind its URL: one server or a cluster.

:class:`ServerCommands` is for one server, also one that sentinels name;
:class:`~gpulse.store.cluster.ClusterCommands` is for many.  Both send over the pipelines of
:mod:`gpulse.store.pipeline`: one for what is short, another for what may be long (``bulk``), so
that a publish does not wait behind megabytes of history, and a third for what replicas have to
confirm, which blocks its connection as long as that takes.

Source: https://valkey.io/commands/evalsha/, https://valkey.io/topics/pubsub/,
https://valkey.io/commands/wait/
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import hiredis

from gpulse.store.link import NATIVE, Dialer
from gpulse.store.pipeline import Lines, Pipeline
from gpulse.store.route import FixedRoute, Route, select
from gpulse.store.sentinel import SentinelRoute
from gpulse.storeurl import StoreURL

Word = bytes | str | int

CONFIRM = 0.1
"""Seconds that replicas have to confirm a command.  A server looks at its clients' deadlines ten
times a second, so WAIT may take 0.1 s longer, and that is still less than the store has."""


def pack_words(words: tuple[Word, ...]) -> bytes:
    """A command as the server reads it."""
    # Its type says that a tuple of one is meant; any is.
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]
    return packed


class Script:
    """A Lua script, known to the server by its digest once it has run there."""

    __slots__ = ("digest", "source")

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.digest = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()


class Command(NamedTuple):
    """What is to be sent.

    For a script ``words`` are the number of keys, the keys and the arguments.
    """

    key: bytes
    """A key or sharded channel of it: whose slot it belongs to."""
    words: tuple[Word, ...]
    script: Script | None = None
    replicas: int = 0
    """So many replicas have to have it, or the reply is an error."""

    def pack(self, *, in_full: bool = False) -> bytes:
        """As the server reads it.

        :param in_full: send the script's source, for the server does not know the digest.
        """
        if self.script is None:
            words = self.words
        elif in_full:
            words = (b"EVAL", self.script.source, *self.words)
        else:
            words = (b"EVALSHA", self.script.digest, *self.words)
        return pack_words(words)

    def reply(self, replies: Iterator[Any]) -> Any:
        """Take what belongs to this command from the replies of a server; behind that of one which
        replicas have to confirm comes the number of those that did, so it goes alone."""
        reply = next(replies)
        if not self.replicas:
            return reply
        confirmed = next(replies)
        if isinstance(reply, hiredis.ReplyError) or isinstance(confirmed, hiredis.ReplyError):
            return reply if isinstance(reply, hiredis.ReplyError) else confirmed
        if confirmed < self.replicas:
            return hiredis.ReplyError(
                f"NOREPLICAS {confirmed} of {self.replicas} replicas confirmed it"
            )
        return reply


def call(
    script: Script, keys: Sequence[bytes], arguments: Sequence[Word], replicas: int = 0
) -> Command:
    """The command that runs a script; all keys are in one slot."""
    return Command(keys[0], (len(keys), *keys, *arguments), script, replicas)


def is_unknown_script(reply: object) -> bool:
    """Whether the server asks for the script's source."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")


LANES = ("short", "bulk", "confirmed")
"""The connections of a process to a server."""


def lane_of(commands: Sequence[Command], bulk: bool) -> str:
    """Which one takes these commands."""
    return "bulk" if bulk else "confirmed" if commands[0].replicas else "short"


def tail_of(lane: str, url: StoreURL) -> bytes:
    """What each batch of it ends with: one WAIT for all, or they would wait one after the other."""
    if lane != "confirmed":
        return b""
    return pack_words((b"WAIT", url.replicas, round(CONFIRM * 1000)))


class Commands(Protocol):
    """How a store's commands are sent.  From greenlets and native threads; never on the hub."""

    sharded: bool
    """Channels are sharded: SPUBLISH and PUBSUB SHARDCHANNELS."""

    def run(self, commands: Sequence[Command], *, bulk: bool = False) -> list[Any]:
        """The replies in order, error replies among them; one round trip per server.

        :raises AwayError: a server is away; some of it may have been done.
        :raises BusyError: too much waits.
        """

    def everywhere(self, words: tuple[Word, ...]) -> list[Any]:
        """The reply of each server that owns channels.  :raises AwayError: one is away."""

    def reset(self) -> None:
        """Connect anew: the servers' roles changed."""

    def close(self) -> None:
        """Close the connections of this process."""


class ServerCommands:
    """Commands to the one server of ``url``, or to the primary that its sentinels name."""

    sharded = False

    def __init__(self, url: StoreURL) -> None:
        def lines(lane: str) -> Lines:
            return Lines(lambda: Pipeline(_route(url), select(url.db), tail=tail_of(lane, url)))

        self._lines = {lane: lines(lane) for lane in LANES}

    def run(self, commands: Sequence[Command], *, bulk: bool = False) -> list[Any]:
        line = self._lines[lane_of(commands, bulk)].get()
        data = b"".join([each.pack() for each in commands])
        found = iter(line.call(data, len(commands)))
        replies = [each.reply(found) for each in commands]
        for index, reply in enumerate(replies):
            if is_unknown_script(reply):
                command = commands[index]
                again = line.call(command.pack(in_full=True))
                replies[index] = command.reply(iter(again))
        return replies

    def everywhere(self, words: tuple[Word, ...]) -> list[Any]:
        return self.run([Command(b"", words)])

    def reset(self) -> None:
        for lines in self._lines.values():
            for line in lines.all():
                line.reset()

    def close(self) -> None:
        for lines in self._lines.values():
            lines.close()


def _route(url: StoreURL) -> Route:
    dialer = Dialer(url, NATIVE)
    return SentinelRoute(url, dialer) if url.kind == "sentinel" else FixedRoute(url, dialer)
