"""Fan-out: one subscription of the worker per channel, and any number of receivers behind it.

However many sockets of a worker listen to a channel, the store sends it each message once; here it
is handed to every receiver, which share the one :class:`~gpulse.store.message.Event` and the
encodings that the first of them makes.

Channels with a history are followed by a :class:`~gpulse.store.history.Track`, which fills holes
from the store.  On others a lost connection is a gap, and receivers are told so.

On the hub's thread only, so there is no lock: whatever looks at the registry finds it whole.
Nothing here blocks, and receivers must not.
"""

import logging
import time
from collections.abc import Callable

from gpulse.errors import SubscribeError, SubscribeTimeoutError
from gpulse.store.base import Store, Subscriber, check_channel
from gpulse.store.circuit import Circuit
from gpulse.store.historian import Historian
from gpulse.store.history import Track
from gpulse.store.message import Event
from gpulse.store.position import Position
from gpulse.store.quiet import Quiet
from gpulse.store.receivers import Counts, Done, Receiver, Receivers, Subscribed

__all__ = ["Done", "Fanout", "Receiver", "Subscribed"]

PAUSE = 2.0
"""Seconds for which new channels are refused at once after the store did not answer; then one is
tried."""

_log = logging.getLogger("gpulse.store")


class _Channel:
    """:param track: None without a history."""

    __slots__ = ("name", "receivers", "track", "waiting")

    def __init__(self, name: str, track: Track | None) -> None:
        # Until the store confirms, then they go to the track; None from then on.
        self.waiting: list[tuple[Receiver, Position | None, Done]] | None = []
        self.name = name
        """The one text for all its receivers."""
        self.track = track
        self.receivers = track.receivers if track is not None else Receivers()

    @property
    def is_wanted(self) -> bool:
        if self.waiting or self.receivers:
            return True
        return self.track is not None and bool(self.track)

    def __contains__(self, receiver: Receiver) -> bool:
        return (
            receiver in self.receivers
            or (self.track is not None and receiver in self.track)
            or any(receiver is waiting for waiting, _, _ in self.waiting or ())
        )


class Fanout:
    """The channels of one worker and their receivers.

    :param historian: fetches histories.
    :param on_reconnect: called when a lost connection is back; see ``Store.open_subscriber``.
    """

    def __init__(
        self,
        store: Store,
        historian: Historian,
        on_reconnect: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channels: dict[str, _Channel] = {}
        # A receiver's one channel stands alone; a set of one would cost 216 bytes.
        self._channels_of: dict[Receiver, str | set[str]] = {}
        self._subscriber: Subscriber | None = None
        self._quiet = Quiet(10.0)
        self._circuit = Circuit(PAUSE, clock)
        self._store = store
        self._historian = historian
        self._on_reconnect = on_reconnect
        self.counts = Counts()
        self.deliveries = 0
        """Live events that receivers took, each receiver counted."""
        self.failures = 0
        """Events that a receiver raised on."""

    def __len__(self) -> int:
        """Channels with at least one receiver."""
        return len(self._channels)

    def add(self, channel: str, receiver: Receiver, done: Done, since: str | None = None) -> None:
        """Hand the events of ``channel`` to ``receiver`` until it is removed.

        ``done`` is called once, perhaps before this returns: with a :class:`Subscribed` when the
        store has confirmed the subscription, or with the reason why the receiver was not added.
        Directly after it the receiver gets what it missed, then what comes.

        :param since: the position of the last message that the receiver knows of.
        :raises ValueError: not a channel name, not a position.
        """
        check_channel(channel)
        position = None if since is None else Position.parse(since)
        entry = self._channels.get(channel)
        is_new = entry is None
        if entry is None:
            if not self._circuit.allows():
                # A store that hangs would hold up one pool member after the other.
                done(SubscribeError(f"channel {channel!r}: {self._circuit.cause}"))
                return
            entry = self._channels[channel] = _Channel(channel, self._track(channel))
        elif receiver in entry:
            self._again(entry, receiver, done)
            return
        self._note(entry.name, receiver)
        if entry.waiting is None:
            self._admit(entry, receiver, position, self._guarded(channel, entry, receiver, done))
            return
        entry.waiting.append((receiver, position, done))
        if is_new:
            self._subscribe(channel, entry)

    def _again(self, entry: _Channel, receiver: Receiver, done: Done) -> None:
        """The receiver has the channel, or is about to."""
        if receiver in entry.receivers or (entry.track and entry.track.is_settled(receiver)):
            position = entry.track.position if entry.track is not None else None
            done(Subscribed(None if position is None else str(position), None, 0))
        else:
            done(SubscribeError("the channel is being subscribed already"))

    def _track(self, channel: str) -> Track | None:
        rule = self._store.rules.of(channel)
        if rule is None:
            return None

        def ask(since: str | None, question: int) -> None:
            self._historian.ask(channel, since, lambda answer: track.answered(question, answer))

        track = Track(channel, rule.size, ask, self._failed, self.counts)
        return track

    def _admit(
        self, entry: _Channel, receiver: Receiver, since: Position | None, done: Done
    ) -> None:
        if entry.track is not None:
            entry.track.add(receiver, since, done)
        else:
            entry.receivers.add(receiver)
            done(Subscribed(None, None, 0))

    def _guarded(self, channel: str, entry: _Channel, receiver: Receiver, done: Done) -> Done:
        """A receiver whose history cannot be had is not added."""
        if entry.track is None:
            return done

        def answered(answer: Subscribed | SubscribeError) -> None:
            if isinstance(answer, SubscribeError):
                self._forget(channel, receiver)
                self._drop_if_idle(channel, entry)
            done(answer)

        return answered

    def remove(self, channel: str, receiver: Receiver) -> None:
        """Hand ``receiver`` no more events of ``channel``; nothing if it gets none."""
        entry = self._channels.get(channel)
        if entry is None or not self.has(channel, receiver):
            return
        self._forget(channel, receiver)
        revoked = [done for waiter, _, done in entry.waiting or () if waiter is receiver]
        if revoked and entry.waiting:
            entry.waiting = [each for each in entry.waiting if each[0] is not receiver]
        if entry.track is not None:
            done = entry.track.remove(receiver)
            if done is not None:
                revoked.append(done)
        else:
            entry.receivers.discard(receiver)
        self._drop_if_idle(channel, entry)
        for done in revoked:
            done(SubscribeError(f"channel {channel!r} was left before the store confirmed it"))

    def _note(self, channel: str, receiver: Receiver) -> None:
        known = self._channels_of.setdefault(receiver, channel)
        if isinstance(known, set):
            known.add(channel)
        elif known != channel:
            self._channels_of[receiver] = {known, channel}

    def _forget(self, channel: str, receiver: Receiver) -> None:
        known = self._channels_of.get(receiver)
        if isinstance(known, set):
            known.discard(channel)
        if not known or known == channel:
            self._channels_of.pop(receiver, None)

    def _drop_if_idle(self, channel: str, entry: _Channel) -> None:
        if not entry.is_wanted and self._channels.get(channel) is entry:
            del self._channels[channel]
            if self._subscriber is not None:
                self._subscriber.unsubscribe(channel)

    def remove_all(self, receiver: Receiver) -> None:
        """Hand ``receiver`` no more events of any channel."""
        for channel in self.channels_of(receiver):
            self.remove(channel, receiver)

    def has(self, channel: str, receiver: Receiver) -> bool:
        """``receiver`` gets the events of ``channel``, or is about to."""
        known = self._channels_of.get(receiver, ())
        return known == channel if isinstance(known, str) else channel in known

    def count_of(self, receiver: Receiver) -> int:
        """How many channels those are."""
        known = self._channels_of.get(receiver, ())
        return 1 if isinstance(known, str) else len(known)

    def channels_of(self, receiver: Receiver) -> tuple[str, ...]:
        """The channels whose events ``receiver`` gets, sorted."""
        known = self._channels_of.get(receiver, ())
        return (known,) if isinstance(known, str) else tuple(sorted(known))

    def close(self) -> None:
        """Close the subscriber; no event is handed out any more."""
        if self._subscriber is not None:
            self._subscriber.close()
        dones = [
            done
            for entry in self._channels.values()
            if entry.track is not None
            for done in entry.track.close()
        ]
        self._channels.clear()
        self._channels_of.clear()
        for done in dones:
            done(SubscribeError("the worker is closing"))

    def _subscribe(self, channel: str, entry: _Channel) -> None:
        if self._subscriber is None:
            self._subscriber = self._store.open_subscriber(self._hand_out, self._reconnected)
        self._subscriber.subscribe(channel, lambda error: self._answered(channel, entry, error))

    def _answered(self, channel: str, entry: _Channel, error: SubscribeError | None) -> None:
        if isinstance(error, SubscribeTimeoutError):
            self._circuit.open("the data store did not answer a moment ago")
        else:
            self._circuit.close()
        if self._channels.get(channel) is not entry:
            # Everyone left while the store was asked, and perhaps somebody else came: the newer
            # entry has asked for itself.
            return
        waiting, entry.waiting = entry.waiting or (), None
        if error is None:
            for receiver, since, done in waiting:
                guarded = self._guarded(channel, entry, receiver, done)
                self._admit(entry, receiver, since, guarded)
            return
        del self._channels[channel]
        for receiver, _, _ in waiting:
            self._forget(channel, receiver)
        for _, _, done in waiting:
            done(error)

    def _hand_out(self, event: Event) -> None:
        entry = self._channels.get(event.channel)
        if entry is None:
            return
        if event.position is not None and entry.track is not None:
            self.deliveries += entry.track.live(event)
        else:
            self.deliveries += entry.receivers.hand_out(event, self._failed)

    def _reconnected(self, channels: list[str] | None) -> None:
        """The connection is back; what was published meanwhile did not arrive."""
        for channel in list(self._channels) if channels is None else channels:
            entry = self._channels.get(channel)
            if entry is None or entry.waiting is not None:
                continue
            if entry.track is not None:
                entry.track.reconnected()
                continue
            for receiver in entry.receivers:
                self.counts.gaps += 1
                try:
                    receiver.gap(channel, None)
                except Exception:
                    self._failed(receiver)
        if self._on_reconnect is not None:
            self._on_reconnect()

    def _failed(self, receiver: Receiver) -> None:
        self.failures += 1
        if self._quiet.allows():
            _log.exception("a receiver failed on an event")
