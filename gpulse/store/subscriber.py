"""The receiving end of a store in one worker: one subscription per channel, on the hub.

:class:`RedisSubscriber` listens to one server over one :class:`~gpulse.store.feed.Feed`; behind
sentinels it also follows the primary.  That of a cluster is in :mod:`gpulse.store.shards`; both
stand on :class:`WireSubscriber`, which turns what arrives into events.
"""

import logging
import time
from collections.abc import Callable

import gevent
import hiredis

from gpulse.errors import SubscribeError
from gpulse.store.base import Subscriber
from gpulse.store.endpoint import Endpoint
from gpulse.store.feed import CONNECT, HUB, PROBE, Feed
from gpulse.store.ledger import Answer, Ledger
from gpulse.store.link import AwayError, Dialer, Link
from gpulse.store.message import Event, decode
from gpulse.store.names import Names
from gpulse.store.quiet import Quiet
from gpulse.store.route import FixedRoute
from gpulse.store.sentinel import SentinelRoute
from gpulse.storeurl import StoreURL

MAX_CHANNELS = 50_000
"""Channels of one worker, some 20 MB of its memory and of the server's."""
CONFIRM = 2.0
"""Seconds for the server to confirm a subscribe, connecting included."""

_log = logging.getLogger("gpulse.store")


class WireSubscriber(Subscriber):
    """What subscribers of one server and of a cluster share.

    :param on_event: gets every event.
    :param on_reconnect: see :meth:`gpulse.store.base.Store.open_subscriber`.
    """

    def __init__(
        self,
        url: StoreURL,
        names: Names,
        on_event: Callable[[Event], None],
        on_reconnect: Callable[[list[str] | None], None] | None,
    ) -> None:
        self._closed = False
        self._quiet = Quiet(10.0)
        self._url = url
        self._names = names
        self._on_event = on_event
        self._on_reconnect = on_reconnect
        self.malformed = 0

    def hand_out(self, name: str, payload: bytes) -> None:
        """Make an event of what arrived on a channel."""
        try:
            event = decode(name, payload)
        except ValueError as error:
            self.drop_malformed(name, error)
            return
        try:
            self._on_event(event)
        except Exception:
            _log.exception("an event of channel %s was not handed out", name)

    def drop_malformed(self, name: str, error: ValueError) -> None:
        self.malformed += 1
        if self._quiet.allows():
            _log.warning("a payload on channel %s was dropped: %s", name, error)

    def say_reconnected(self, names: list[str] | None) -> None:
        if self._on_reconnect is None:
            return
        try:
            self._on_reconnect(names)
        except Exception:
            _log.exception("what was to happen after a reconnect failed")

    def say_refused(self, error: str) -> None:
        _log.warning("the data store %s refused a channel: %s", self._url, error)

    def on_answers(self, answers: list[Answer]) -> None:
        for done, error in answers:
            try:
                done(error)
            except Exception:
                _log.exception("the answer to a subscribe was not taken")


def closing(channel: str) -> SubscribeError:
    """Why nothing is subscribed any more."""
    return SubscribeError(f"channel {channel!r} is not subscribed: the worker is closing")


class RedisSubscriber(WireSubscriber):
    """Over one connection to one server.

    :param on_switch: called when sentinels made another server the primary.
    """

    def __init__(
        self,
        url: StoreURL,
        names: Names,
        on_event: Callable[[Event], None],
        on_reconnect: Callable[[list[str] | None], None] | None = None,
        on_switch: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(url, names, on_event, on_reconnect)
        self._ledger = Ledger(MAX_CHANNELS)
        self._watcher: gevent.Greenlet[..., None] | None = None
        self._primary: Endpoint | None = None  # that the watcher saw last
        self._dialer = Dialer(url, HUB)
        sentinel = url.kind == "sentinel"
        route = SentinelRoute(url, self._dialer) if sentinel else FixedRoute(url, self._dialer)
        self._feed = Feed(route.open, self._ledger, self, str(url))
        self._on_switch = on_switch

    @property
    def connected(self) -> bool:  # type: ignore[override]
        return self._feed.connected

    def subscribe(self, channel: str, done: Callable[[SubscribeError | None], None]) -> None:
        wire = self._names.wire(channel)
        if self._closed:
            done(closing(channel))
            return
        if self._watcher is None and self._url.kind == "sentinel":
            self._watcher = gevent.spawn(self._watch_forever)
        self.on_answers(self._ledger.subscribe(wire, channel, done, time.monotonic() + CONFIRM))
        self._feed.wake()

    def unsubscribe(self, channel: str) -> None:
        self.on_answers(self._ledger.unsubscribe(self._names.wire(channel)))
        self._feed.wake()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._feed.close()
        if self._watcher is not None:
            self._watcher.kill(block=False)
        self.on_answers(self._ledger.clear("the worker is closing"))

    # What the feed tells

    def on_message(self, feed: Feed, wire: bytes, payload: bytes) -> None:
        channel = self._ledger.wanted(wire)
        if channel is not None:
            self.hand_out(channel.name, payload)

    def on_back(self, feed: Feed, names: list[str]) -> None:
        self.say_reconnected(names)

    def on_lost(self, feed: Feed) -> None:
        """It connects again by itself."""

    def on_error(self, feed: Feed, error: str) -> None:
        self.on_answers(self._ledger.refuse(error))
        self.say_refused(error)

    def on_ended(self, feed: Feed, wire: bytes) -> None:
        raise AwayError("it ended a subscription by itself")

    # Behind sentinels

    def _watch_forever(self) -> None:
        """Look whether the primary is still the one that we hear, and at once when a sentinel says
        that it changed."""
        route = SentinelRoute(self._url, self._dialer)
        while True:
            try:
                self._compare(route)
                route.watch(time.monotonic() + CONNECT, lambda link: self._listen(route, link))
            except (OSError, hiredis.HiredisError, AwayError) as failure:
                _log.debug("the sentinels of %s are not heard: %s", self._url, failure)
            gevent.sleep(1.0)

    def _listen(self, route: SentinelRoute, link: Link) -> None:
        while True:
            link.sock.settimeout(PROBE)
            try:
                data = link.sock.recv(4096)
            except TimeoutError:
                self._compare(route)
                continue
            if not data:
                return
            link.reader.feed(data)
            while (reply := link.reader.gets()) is not False:
                if route.is_switch(reply):
                    self._compare(route)

    def _compare(self, route: SentinelRoute) -> None:
        """Leave a server that is not the primary any more."""
        primary = route.open(time.monotonic() + CONNECT)
        primary.close()
        before, self._primary = self._primary, primary.endpoint
        heard = self._feed.link
        if heard is not None and heard.endpoint != primary.endpoint:
            self._feed.drop()
        if before not in (None, primary.endpoint):
            _log.warning("the primary of %s is %s now", self._url, primary.endpoint)
            if self._on_switch is not None:
                self._on_switch()
