"""The receiving end of a cluster in one worker: sharded channels, each at the node that owns it.

A sharded channel has a slot, as a key has, and its messages stay within the nodes of its shard.  So
there is a :class:`~gpulse.store.feed.Feed` for each primary that owns a channel of ours, each with
a ledger of its own, and a ledger without a feed (*homeless*) for channels whose slot nobody has.
Channels are moved between the ledgers whenever the map of the slots says so:

- a node answers SSUBSCRIBE with ``MOVED``: the channel goes where it says;
- a node ends a subscription by itself (``sunsubscribe``): it gave the slot away, the map is old;
- a connection is lost: perhaps the primary is dead and a replica takes its place;
- every ``LOOK`` seconds, for a primary that hangs or was cut off says nothing.

A channel that was confirmed and is moved has missed messages; its name is handed to
``on_reconnect`` once its new node has confirmed it.

A script can publish to the slot of its own keys only.  So presence, whose keys share one slot,
sends its notes on one channel of that slot, ``{APP}:notes``, which every worker listens to before
its first channel is confirmed; here they are handed out as if they had come on their own channels.
Between such a note and a message of the same channel there is no order.

Source: https://valkey.io/topics/pubsub/ (sharded), https://valkey.io/commands/ssubscribe/
"""

import logging
import random
import time
from collections.abc import Callable

import gevent
import gevent.event
import hiredis

from gpulse.errors import SubscribeError
from gpulse.store.cluster import CLUSTER_SLOTS
from gpulse.store.endpoint import Endpoint
from gpulse.store.feed import CONNECT, HUB, Feed
from gpulse.store.ledger import SSUBSCRIBE, Done, Ledger
from gpulse.store.link import AwayError, Dialer
from gpulse.store.message import Event
from gpulse.store.names import Names, unpair
from gpulse.store.route import FixedRoute
from gpulse.store.slots import Redirect, SlotMap, key_slot
from gpulse.store.subscriber import CONFIRM, MAX_CHANNELS, WireSubscriber, closing
from gpulse.storeurl import StoreURL

LOOK = 5.0
"""Seconds between two looks at the map while all is well."""
HURRY = 0.1
"""Seconds between two looks while a channel is homeless or a node is away."""
HURRY_MOST = 1.0
"""Seconds that the pause between such looks grows to."""
SENT_ON = 3
"""Redirections of one slot that are followed between two looks."""
PORTION = 500
"""Channels looked at before the loop may do something else."""
NOTES = "(presence)"
"""What the notes' channel is called in errors and in the ledgers."""

_log = logging.getLogger("gpulse.store")


class ClusterSubscriber(WireSubscriber):
    """See the head of this file."""

    def __init__(
        self,
        url: StoreURL,
        names: Names,
        on_event: Callable[[Event], None],
        on_reconnect: Callable[[list[str] | None], None] | None = None,
    ) -> None:
        super().__init__(url, names, on_event, on_reconnect)
        self._feeds: dict[Endpoint, Feed] = {}
        self._homeless = Ledger(MAX_CHANNELS + 1, SSUBSCRIBE)
        self._map = SlotMap()
        self._arranged = self._map  # the one that channels were last moved by
        self._sent_on: dict[int, int] = {}  # slot -> redirections since the last look
        self._first: list[Endpoint] = []  # nodes that should know best
        self._seeds = [Endpoint(host, port) for host, port in url.nodes]
        self._look = gevent.event.Event()
        self._looker: gevent.Greenlet[..., None] | None = None
        self._dialer = Dialer(url, HUB)

    @property
    def connected(self) -> bool:  # type: ignore[override]
        """Every node that has channels of ours is connected."""
        feeds = self._feeds.values()
        return bool(feeds) and not self._homeless and all(feed.connected for feed in feeds)

    def subscribe(self, channel: str, done: Callable[[SubscribeError | None], None]) -> None:
        wire = self._names.wire(channel)
        if self._closed:
            done(closing(channel))
            return
        if self._looker is None:
            self._looker = gevent.spawn(self._look_forever)
        if sum(map(len, self._ledgers())) > MAX_CHANNELS:
            reason = f"this worker has {MAX_CHANNELS} channels, the most"
            done(SubscribeError(f"channel {channel!r} is not subscribed: {reason}"))
            return
        deadline = time.monotonic() + CONFIRM
        both = _Both(done, lambda: self.unsubscribe(channel))
        self._want(self._names.notes, NOTES, both.notes, deadline)
        self._want(wire, channel, both.channel, deadline)

    def unsubscribe(self, channel: str) -> None:
        wire = self._names.wire(channel)
        feed = self._home_of(wire)
        ledger = self._homeless if feed is None else feed.ledger
        self.on_answers(ledger.unsubscribe(wire))
        if feed is not None:
            feed.wake()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._looker is not None:
            self._looker.kill(block=False)
        for feed in self._feeds.values():
            feed.close()
        for ledger in self._ledgers():
            self.on_answers(ledger.clear("the worker is closing"))
        self._feeds.clear()

    def _ledgers(self) -> list[Ledger]:
        return [self._homeless, *(feed.ledger for feed in self._feeds.values())]

    def _want(self, wire: bytes, name: str, done: Done, deadline: float) -> None:
        feed = self._home_of(wire)
        if feed is None and wire not in self._homeless:
            feed = self._feed_of(wire)
        if feed is None:
            self.on_answers(self._homeless.subscribe(wire, name, done, deadline))
            self._look.set()
            return
        self.on_answers(feed.ledger.subscribe(wire, name, done, deadline))
        feed.wake()

    def _home_of(self, wire: bytes) -> Feed | None:
        """The feed whose ledger has the channel; None: homeless or unknown."""
        node = self._map.owner(key_slot(wire))
        likely = None if node is None else self._feeds.get(node)
        if likely is not None and wire in likely.ledger:
            return likely
        return next((feed for feed in self._feeds.values() if wire in feed.ledger), None)

    def _feed_of(self, wire: bytes) -> Feed | None:
        """The feed of the slot's node, a new one if need be; None if nobody has the slot."""
        node = self._map.owner(key_slot(wire))
        if node is None:
            return None
        feed = self._feeds.get(node)
        if feed is None:
            route = FixedRoute(self._url, self._dialer, node)
            ledger = Ledger(MAX_CHANNELS + 1, SSUBSCRIBE)
            feed = self._feeds[node] = Feed(route.open, ledger, self, f"{self._url} ({node})")
        return feed

    # What the feeds tell

    def on_message(self, feed: Feed, wire: bytes, payload: bytes) -> None:
        home: Feed | None = feed
        if wire == self._names.notes:
            try:
                wire, payload = unpair(payload)
            except ValueError as error:
                self.drop_malformed(NOTES, error)
                return
            home = self._home_of(wire)
        channel = (self._homeless if home is None else home.ledger).wanted(wire)
        if channel is not None:
            self.hand_out(channel.name, payload)

    def on_back(self, feed: Feed, names: list[str]) -> None:
        # Of presence any channel may have missed something.
        self.say_reconnected(None if NOTES in names else names)

    def on_lost(self, feed: Feed) -> None:
        self._look.set()

    def on_error(self, feed: Feed, error: str) -> None:
        redirect = Redirect.of(error, self._node_of(feed))
        if redirect is None and not error.startswith(("CLUSTERDOWN", "TRYAGAIN", "LOADING")):
            self.on_answers(feed.ledger.refuse(error))
            self.say_refused(error)
            return
        wires = feed.ledger.bounce()
        self._look.set()
        new = None
        if redirect is not None:
            self._map = self._map.with_slot(redirect.slot, redirect.endpoint)
            self._first = [redirect.endpoint]
            # While a slot moves, two nodes may each say that the other one has it.
            times = self._sent_on[redirect.slot] = self._sent_on.get(redirect.slot, 0) + 1
            if times <= SENT_ON:
                new = self._feed_of(wires[0]) if wires else None
        for wire in wires:
            self._move(wire, feed, new)

    def on_ended(self, feed: Feed, wire: bytes) -> None:
        if feed.ledger.ended(wire):
            # Where it went, the map will tell; the old one is wrong.
            self._move(wire, feed, None)
            self._look.set()

    def _node_of(self, feed: Feed) -> Endpoint:
        return next(node for node, each in self._feeds.items() if each is feed)

    def _move(self, wire: bytes, old: Feed | None, new: Feed | None) -> None:
        """Take a channel from one ledger to another; None is that of the homeless."""
        if old is not None and old is new:
            old.ledger.again(wire)
            old.wake()
            return
        source = self._homeless if old is None else old.ledger
        move = source.release(wire)
        if old is not None:
            old.wake()
        if move is None:
            return
        if new is None:
            self.on_answers(self._homeless.adopt(move))
        else:
            self.on_answers(new.ledger.adopt(move))
            new.wake()

    # The map

    def _look_forever(self) -> None:
        """Fetch the map when it is doubtful, and now and then; move what it says."""
        attempt = 0
        while True:
            doubtful = bool(self._homeless) or not self.connected
            attempt = attempt + 1 if doubtful else 0
            if not doubtful:
                self._look.wait(LOOK)
            self._look.clear()
            self._sent_on.clear()
            self.on_answers(self._homeless.expire(time.monotonic()))
            try:
                self._map = self._fetch()
                self._rearrange()
            except AwayError as failure:
                _log.debug("the slots of %s are not known: %s", self._url, failure)
            except Exception:
                _log.exception("the channels of a cluster were not rearranged")
            pause = min(HURRY * 2.0 ** min(attempt, 8), HURRY_MOST)
            gevent.sleep(HURRY / 2 + random.random() * pause)

    def _fetch(self) -> SlotMap:
        """The map, from the first node that tells it.

        :raises AwayError: none does.
        """
        reasons = []
        feeds = self._feeds
        # First who should know, then those we hear.
        nodes = dict.fromkeys((*self._first, *self._map.nodes, *self._seeds))
        self._first = []
        for node in sorted(nodes, key=lambda node: node in feeds and not feeds[node].connected):
            try:
                link, (reply,) = self._dialer.open(
                    node, time.monotonic() + CONNECT / 2, CLUSTER_SLOTS
                )
                link.close()
                return SlotMap.of(reply, node)
            except (OSError, hiredis.HiredisError, AwayError, ValueError) as failure:
                reasons.append(f"{node}: {failure}")
        raise AwayError("; ".join(reasons))

    def _rearrange(self) -> None:
        """Move the channels that are not where the map says; close feeds without any."""
        for wire in list(self._homeless):
            new = self._feed_of(wire)
            if new is not None:
                self._move(wire, None, new)
        if self._map != self._arranged:
            self._arranged = self._map
            for feed in list(self._feeds.values()):
                for count, wire in enumerate(feed.ledger):
                    if count % PORTION == PORTION - 1:
                        gevent.sleep(0)
                    new = self._feed_of(wire)
                    if new is not feed and new is not None:
                        self._move(wire, feed, new)
        for node, feed in list(self._feeds.items()):
            if not len(feed.ledger):
                feed.close()
                del self._feeds[node]


class _Both:
    """Answers a subscribe when both the channel and the presence notes are confirmed.

    :param undo: unsubscribes the channel.
    """

    __slots__ = ("_done", "_open", "_undo")

    def __init__(
        self, done: Callable[[SubscribeError | None], None], undo: Callable[[], None]
    ) -> None:
        self._open = 2
        self._done = done
        self._undo = undo

    def channel(self, error: SubscribeError | None) -> None:
        if self._open <= 0:
            return
        self._open = 0 if error is not None else self._open - 1
        if self._open == 0:
            self._done(error)

    def notes(self, error: SubscribeError | None) -> None:
        was_open = self._open > 0
        self.channel(error)
        if was_open and error is not None:
            self._undo()
