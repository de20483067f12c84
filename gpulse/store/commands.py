"""Commands and scripts to a store, whatever stands behind its URL: one server or a cluster.

:class:`ServerCommands` is for one server, also one that sentinels name;
:class:`~gpulse.store.cluster.ClusterCommands` is for many.  Both send over the pipelines of
:mod:`gpulse.store.pipeline`: one for what is short, another for what may be long (``bulk``), so
that a publish does not wait behind megabytes of history.

Source: https://valkey.io/commands/evalsha/, https://valkey.io/topics/pubsub/
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import hiredis

from gpulse.store.link import NATIVE, Dialer
from gpulse.store.pipeline import Lines, Pipeline
from gpulse.store.route import FixedRoute, Route, select
from gpulse.store.sentinel import SentinelRoute
from gpulse.storeurl import StoreURL

Word = bytes | str | int


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


def call(script: Script, keys: Sequence[bytes], arguments: Sequence[Word]) -> Command:
    """The command that runs a script; all keys are in one slot."""
    return Command(keys[0], (len(keys), *keys, *arguments), script)


def is_unknown_script(reply: object) -> bool:
    """Whether the server asks for the script's source."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")


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
        self._short = Lines(lambda: Pipeline(_route(url), select(url.db)))
        self._bulk = Lines(lambda: Pipeline(_route(url), select(url.db)))

    def run(self, commands: Sequence[Command], *, bulk: bool = False) -> list[Any]:
        line = (self._bulk if bulk else self._short).get()
        if len(commands) == 1:
            replies = line.call(commands[0].pack())
        else:
            replies = line.call(b"".join([each.pack() for each in commands]), len(commands))
        for index, reply in enumerate(replies):
            if is_unknown_script(reply):
                replies[index] = line.call(commands[index].pack(in_full=True))[0]
        return replies

    def everywhere(self, words: tuple[Word, ...]) -> list[Any]:
        return self.run([Command(b"", words)])

    def reset(self) -> None:
        for line in (*self._short.all(), *self._bulk.all()):
            line.reset()

    def close(self) -> None:
        self._short.close()
        self._bulk.close()


def _route(url: StoreURL) -> Route:
    dialer = Dialer(url, NATIVE)
    return SentinelRoute(url, dialer) if url.kind == "sentinel" else FixedRoute(url, dialer)
