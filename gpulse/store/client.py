"""The Redis wire: a store in any Redis or Valkey server, embedded or by URL.

Commands go through redis-py, which brings TLS, AUTH and connection set-up; its retries, its health
checks and its five-second timeouts are turned off, and its PubSub is not used at all: what arrives
is read by :mod:`gpulse.store.subscriber`.

Used by requests, handlers and scripts, in greenlets or native threads; never on the hub of a worker
in thread mode, for a command blocks its thread.  At most ``CONNECTIONS`` commands run at once, each
on a connection of its own from redis-py's pool; the others wait their turn, and give up with those
before them if the store is found away.  A connection that the server closed is found out and
replaced before it is used again.

Channels on the wire are ``{APP}:DB:CHANNEL``: a server's PUBLISH knows no database numbers, so the
name must carry them.

Source: https://valkey.io/commands/, https://redis.readthedocs.io
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gpulse.errors import PublishError, StoreError
from gpulse.historyrules import HistoryRule, HistoryRules
from gpulse.store import history_scripts, scripts
from gpulse.store.base import (
    ANSWER,
    IDLE_SECONDS,
    KEY_SECONDS,
    LEASE,
    NOT_HELD,
    RECALL,
    Holding,
    Note,
    Receipt,
    Recovery,
    Store,
    Subscriber,
    check_channel,
    check_key,
    check_name,
    new_epoch,
    recovery,
)
from gpulse.store.circuit import Circuit
from gpulse.store.history import Position
from gpulse.store.message import Event
from gpulse.storeurl import StoreURL

CONNECTIONS = 16
"""The most connections of one worker to the store, the subscriber's apart.  A worker's one core
sends some 15,000 commands a second; at 1 ms a round trip these connections carry as many."""
PATIENCE = 2.0
"""Seconds to wait for a free connection of a store that answers."""
PAUSE = 0.3
"""Seconds for which calls fail at once after the store was found away."""
PAGE = 500
"""Members that one script releases or restores: some 5 ms of the server's time."""
SWEEP_OWNERS = 16
"""Owners released by one sweep; the next one, seconds later, takes the rest."""
REMEMBERED = 100_000
"""Members remembered as gone, about 10 MB of the server's memory."""


class RedisStore(Store):
    """A store behind a Redis-protocol URL.  Connects at first use.

    :param app_name: sites with different names share a server without hearing each other.
    """

    def __init__(
        self,
        url: StoreURL,
        app_name: str,
        clock: Callable[[], float] = time.monotonic,
        rules: HistoryRules | None = None,
    ) -> None:
        self._client = redis.Redis(connection_pool=_pool(url))
        self._slots = threading.BoundedSemaphore(CONNECTIONS)
        self._circuit = Circuit(PAUSE, clock)
        self._presence_key = f"{{{app_name}}}:presence"
        self._script = {
            name: self._client.register_script(scripts.PRELUDE + getattr(scripts, name))
            for name in ("JOIN", "LEAVE", "RESTORE", "RENEW", "RELEASE", "EXPIRED")
        }
        self._publish_kept = self._client.register_script(history_scripts.PUBLISH_KEPT)
        self._recover = self._client.register_script(history_scripts.RECOVER)
        self.rules = rules or HistoryRules()
        self._url = url
        self._channel_prefix = f"{{{app_name}}}:{url.db}:".encode()

    # Channels

    def publish(self, channel: str, payload: bytes, *, key: str = "") -> Receipt:
        wire = self._wire(channel)
        rule = self.rules.of(channel)
        check_key(key, rule)
        if rule is None:
            count: int = self._answer(lambda: self._client.publish(wire, payload), PublishError)
            return Receipt(count, None, False)
        keys = [wire + b":stream", wire + b":position", b"%s:key:%s" % (wire, key.encode())]
        remember = max(KEY_SECONDS, rule.age) if key else 0.0
        arguments = [wire, payload, "PUBLISH", *self._kept(rule), _ms(remember)]
        receivers, position, duplicate = self._answer(
            lambda: self._publish_kept(keys=keys, args=arguments), PublishError
        )
        return Receipt(receivers, position.decode(), bool(duplicate))

    @staticmethod
    def _kept(rule: HistoryRule) -> list[str | int]:
        """What both scripts of a history are told."""
        idle = max(IDLE_SECONDS, rule.age)
        return [rule.size, _ms(rule.age), _ms(idle), new_epoch()]

    def recover(self, requests: Sequence[tuple[str, str | None]]) -> list[Recovery]:
        asked = []
        pipeline = self._client.pipeline(transaction=False)
        for channel, since in requests:
            wire = self._wire(channel)
            rule = self.rules.of(channel)
            if rule is None:
                raise ValueError(f"channel {channel!r} has no history, see --history")
            position = None if since is None else Position.parse(since)
            asked.append((channel, position))
            epoch, offset = position or ("", 0)
            self._recover(
                keys=[wire + b":stream", wire + b":position"],
                args=[epoch, offset, *self._kept(rule)],
                client=pipeline,
            )
        replies = self._answer(pipeline.execute)
        return [
            recovery(channel, Position.parse(newest.decode()), since, payloads)
            for (channel, since), (newest, payloads) in zip(asked, replies, strict=True)
        ]

    def channels(self, pattern: str = "*") -> dict[str, int]:
        glob = re.sub(rb"([\\?\[\]])", rb"\\\1", pattern.encode())
        found = self._answer(lambda: self._client.pubsub_channels(self._channel_prefix + glob))
        counts: dict[str, int] = {}
        names = sorted(found)
        for start in range(0, len(names), PAGE):
            page = names[start : start + PAGE]
            for wire, count in self._answer(partial(self._client.pubsub_numsub, *page)):
                counts[wire[len(self._channel_prefix) :].decode()] = count
        return counts

    def open_subscriber(
        self,
        on_event: Callable[[Event], None],
        on_reconnect: Callable[[list[str] | None], None] | None = None,
    ) -> Subscriber:
        # A script that only publishes stays free of gevent.
        from gpulse.store.subscriber import RedisSubscriber

        return RedisSubscriber(self._url, self._channel_prefix, on_event, on_reconnect)

    def _wire(self, channel: str) -> bytes:
        return self._channel_prefix + check_channel(channel).encode()

    # Presence

    def join(
        self,
        key: str,
        member: str,
        owner: str,
        will: Note | None = None,
        hello: Note | None = None,
    ) -> int:
        pair = _pair(check_name("key", key), check_name("member", member))
        check_name("owner", owner)
        total: int = self._run("JOIN", pair, owner, self._note(will), self._note(hello), _ms(LEASE))
        return total

    def leave(self, key: str, member: str, owner: str, farewell: Note | None = None) -> int:
        pair = _pair(check_name("key", key), check_name("member", member))
        check_name("owner", owner)
        total: int = self._run("LEAVE", pair, owner, self._note(farewell), NOT_HELD)
        return total

    def restore(self, owner: str, holdings: Sequence[Holding]) -> None:
        check_name("owner", owner)
        for start in range(0, len(holdings), PAGE):
            arguments: list[bytes] = []
            for holding in holdings[start : start + PAGE]:
                arguments.append(
                    _pair(check_name("key", holding.key), check_name("member", holding.member))
                )
                arguments.append(self._note(holding.will))
                arguments.append(self._note(holding.hello))
            self._run("RESTORE", owner, _ms(LEASE), _ms(RECALL), *arguments)

    def members(self, key: str) -> dict[str, int]:
        name = f"{self._presence_key}:members:{check_name('key', key)}"
        found: dict[bytes, bytes] = self._answer(lambda: self._client.hgetall(name))
        return {member.decode(): int(total) for member, total in found.items()}

    def holdings(self, owner: str) -> list[tuple[str, str]]:
        name = f"{self._presence_key}:held:{check_name('owner', owner)}"
        found: list[bytes] = self._answer(lambda: self._client.hkeys(name))
        return [_unpair(pair) for pair in found]

    def renew(self, owner: str, lease: float = LEASE) -> int:
        holdings: int = self._run("RENEW", check_name("owner", owner), _ms(lease))
        return holdings

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
            left.extend(_unpair(pair) for pair in page)
            if cursor == b"0":
                return left

    def _note(self, note: Note | None) -> bytes:
        if note is None:
            return b""
        wire = self._wire(note.channel)
        return b"%d:%s%s" % (len(wire), wire, note.payload)

    # The rest

    def ping(self) -> None:
        self._answer(self._client.ping)

    def close(self) -> None:
        self._client.connection_pool.disconnect()

    def describe(self) -> str:
        return str(self._url)

    def _run(self, script: str, *arguments: str | bytes | int) -> Any:
        return self._answer(lambda: self._script[script](keys=[self._presence_key], args=arguments))

    def _answer(self, command: Callable[[], Any], error: type[StoreError] = StoreError) -> Any:
        """What ``command`` returns, or ``error`` within the deadline."""
        if not self._slots.acquire(timeout=PATIENCE):
            self._refuse(error, f"its {CONNECTIONS} connections were busy for {PATIENCE:g} s")
        try:
            if not self._circuit.allows():
                self._refuse(error, self._circuit.cause or "it was away a moment ago")
            reply = command()
        except (redis.ConnectionError, redis.TimeoutError, OSError) as failure:
            cause = str(failure) or type(failure).__name__
            self._circuit.open(cause)
            self._refuse(error, cause, failure)
        except redis.RedisError as failure:
            self._circuit.close()
            self._refuse(error, str(failure), failure)
        finally:
            self._slots.release()
        self._circuit.close()
        return reply

    def _refuse(
        self, error: type[StoreError], cause: str, failure: Exception | None = None
    ) -> NoReturn:
        what = "the message may be lost" if error is PublishError else "it may not be done"
        raise error(
            f"the data store {self._url} failed ({cause}): {what}; "
            "check that it runs and lets this site in"
        ) from failure


def _pool(url: StoreURL) -> redis.ConnectionPool:
    options: dict[str, Any] = {
        "db": url.db,
        "username": url.username,
        "password": url.password,
        "socket_timeout": ANSWER,
        "socket_connect_timeout": ANSWER,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "protocol": 2,
    }
    if url.scheme == "unix":
        options["path"] = url.path
        return redis.ConnectionPool(redis.UnixDomainSocketConnection, **options)
    options["host"] = url.host
    options["port"] = url.port
    if not url.tls:
        return redis.ConnectionPool(redis.Connection, **options)
    for key, value in url.tls_options:
        options[key] = value == "true" if key == "ssl_check_hostname" else value
    return redis.ConnectionPool(redis.SSLConnection, **options)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _pair(first: str, second: str) -> bytes:
    key = first.encode()
    return b"%d:%s%s" % (len(key), key, second.encode())


def _unpair(pair: bytes) -> tuple[str, str]:
    size, _, rest = pair.partition(b":")
    return rest[: int(size)].decode(), rest[int(size) :].decode()
