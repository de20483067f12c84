"""Fan-out: one subscription of the worker per channel, and any number of receivers behind it.

However many sockets of a worker listen to a channel, the store sends it each message once; here it
is handed to every receiver, which share the one :class:`~gpulse.store.message.Event` and the frame
that the first of them encodes.

On the hub's thread only, so there is no lock: whatever looks at the registry finds it whole.
Nothing here blocks, and receivers must not.
"""

import logging
from collections.abc import Callable
from typing import Protocol

from gpulse.errors import SubscribeError
from gpulse.store.base import Store, Subscriber, check_channel
from gpulse.store.message import Event
from gpulse.store.quiet import Quiet

_log = logging.getLogger("gpulse.store")

Done = Callable[[SubscribeError | None], None]


class Receiver(Protocol):
    """What listens to channels: a WebSocket session, an event stream.  Hashable by identity."""

    def deliver(self, event: Event) -> None:
        """Take one event; on the hub's thread, without blocking."""


class _Channel:
    __slots__ = ("confirmed", "receivers", "waiting")

    def __init__(self) -> None:
        self.receivers: dict[Receiver, None] = {}
        self.waiting: list[tuple[Receiver, Done]] = []
        self.confirmed = False


class Fanout:
    """The channels of one worker and their receivers.

    :param on_reconnect: called when a lost connection is back; see ``Store.open_subscriber``.
    """

    def __init__(self, store: Store, on_reconnect: Callable[[], None] | None = None) -> None:
        self._channels: dict[str, _Channel] = {}
        self._channels_of: dict[Receiver, set[str]] = {}
        self._subscriber: Subscriber | None = None
        self._quiet = Quiet(10.0)
        self._store = store
        self._on_reconnect = on_reconnect
        self.deliveries = 0
        """Events handed to receivers, each receiver counted."""
        self.failures = 0
        """Events that a receiver raised on."""

    def __len__(self) -> int:
        """Channels with at least one receiver."""
        return len(self._channels)

    def add(self, channel: str, receiver: Receiver, done: Done) -> None:
        """Hand the events of ``channel`` to ``receiver`` until it is removed.

        ``done`` is called once, perhaps before this returns: with None when the store has confirmed
        the subscription, or with the reason why the receiver was not added.

        :raises ValueError: not a channel name.
        """
        check_channel(channel)
        entry = self._channels.get(channel)
        is_new = entry is None
        if entry is None:
            entry = self._channels[channel] = _Channel()
        entry.receivers[receiver] = None
        self._channels_of.setdefault(receiver, set()).add(channel)
        if entry.confirmed:
            done(None)
            return
        entry.waiting.append((receiver, done))
        if is_new:
            self._subscribe(channel, entry)

    def remove(self, channel: str, receiver: Receiver) -> None:
        """Hand ``receiver`` no more events of ``channel``; nothing if it gets none."""
        entry = self._channels.get(channel)
        if entry is None or receiver not in entry.receivers:
            return
        del entry.receivers[receiver]
        channels = self._channels_of[receiver]
        channels.discard(channel)
        if not channels:
            del self._channels_of[receiver]
        revoked = [done for waiter, done in entry.waiting if waiter is receiver]
        if revoked:
            entry.waiting = [pair for pair in entry.waiting if pair[0] is not receiver]
        if not entry.receivers:
            del self._channels[channel]
            if self._subscriber is not None:
                self._subscriber.unsubscribe(channel)
        for done in revoked:
            done(SubscribeError(f"channel {channel!r} was left before the store confirmed it"))

    def remove_all(self, receiver: Receiver) -> None:
        """Hand ``receiver`` no more events of any channel."""
        for channel in tuple(self._channels_of.get(receiver, ())):
            self.remove(channel, receiver)

    def channels_of(self, receiver: Receiver) -> tuple[str, ...]:
        """The channels whose events ``receiver`` gets, sorted."""
        return tuple(sorted(self._channels_of.get(receiver, ())))

    def close(self) -> None:
        """Close the subscriber; no event is handed out any more."""
        if self._subscriber is not None:
            self._subscriber.close()
        self._channels.clear()
        self._channels_of.clear()

    def _subscribe(self, channel: str, entry: _Channel) -> None:
        if self._subscriber is None:
            self._subscriber = self._store.open_subscriber(self._hand_out, self._on_reconnect)
        self._subscriber.subscribe(channel, lambda error: self._answered(channel, entry, error))

    def _answered(self, channel: str, entry: _Channel, error: SubscribeError | None) -> None:
        if self._channels.get(channel) is not entry:
            # Everyone left while the store was asked, and perhaps somebody else came: the newer
            # entry has asked for itself.
            return
        waiting, entry.waiting = entry.waiting, []
        if error is None:
            entry.confirmed = True
        else:
            del self._channels[channel]
            for receiver in entry.receivers:
                channels = self._channels_of[receiver]
                channels.discard(channel)
                if not channels:
                    del self._channels_of[receiver]
        for _, done in waiting:
            done(error)

    def _hand_out(self, event: Event) -> None:
        entry = self._channels.get(event.channel)
        if entry is None:
            return
        receivers = entry.receivers
        for receiver in tuple(receivers):
            if receiver not in receivers:
                # An earlier receiver's close took it away.
                continue
            try:
                receiver.deliver(event)
                self.deliveries += 1
            except Exception:
                self.failures += 1
                if self._quiet.allows():
                    _log.exception("a receiver of channel %s failed", event.channel)
