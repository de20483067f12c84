"""What a worker makes of a channel's history: no message lost, none twice.  Pure.

:class:`Track` follows one channel in one worker.  Three things have to fit together: the events
that arrive live, in order but with holes where the connection was lost; what the store says of the
past, which may be older or newer than the last live event; and receivers that know the channel up
to some position.  The rules:

* The worker has a position of its own, that of the last event handed out.  The next event is handed
  out, an older one is dropped, and any other tells of a hole: events are *held* from then on, and
  the store is asked for what came after the position.
* A new receiver is *waiting*: it gets the events that the store has after its own position, then
  the live ones that came meanwhile (*recent*), then all that follow.  If the store knew more than
  has arrived here it is *trailing*: live events up to there are not for it.
* One question to the store at a time, from the oldest position that anybody needs.
* Where the store's history does not reach back, a receiver is told of the gap, never nothing.
* An event of another epoch is a hole as well: only the store knows whether that epoch continues
  ours.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from gpulse.errors import StoreError, SubscribeError
from gpulse.store.position import Head, Position
from gpulse.store.receivers import Counts, Done, Receiver, Receivers, Subscribed

if TYPE_CHECKING:
    from gpulse.store.base import Recovery
    from gpulse.store.message import Event

SLACK = 1000
"""Live events held beyond the size of the history while the store is asked."""


class _Waiting:
    __slots__ = ("done", "since")

    def __init__(self, since: Position | None, done: Done) -> None:
        self.since = since
        self.done = done


class Track:
    """One channel with a history, in one worker; see the head of this file.

    :param channel: its name.
    :param size: messages that the store keeps of it.
    :param ask: asks the store what came after a position (None: for the newest position only); the
        answer goes to :meth:`answered`.  It is not called again before that.
    :param failed: told of a receiver that raised.
    """

    __slots__ = (
        "_ask",
        "_asked",
        "_asked_held",
        "_asked_since",
        "_channel",
        "_counts",
        "_failed",
        "_held",
        "_position",
        "_question",
        "_recent",
        "_size",
        "_trailing",
        "_waiting",
        "receivers",
    )

    def __init__(
        self,
        channel: str,
        size: int,
        ask: Callable[[str | None, int], None],
        failed: Callable[[Receiver], None],
        counts: Counts,
    ) -> None:
        self.receivers = Receivers()
        self._waiting: dict[Receiver, _Waiting] = {}
        self._trailing: dict[Receiver, Position] = {}
        self._recent: list[tuple[Position, Event]] = []  # while somebody waits
        self._held: list[tuple[Position, Event]] | None = None  # since there is a hole
        self._position: Position | None = None
        self._asked: tuple[Receiver, ...] | None = None  # for whom the open question is
        self._asked_since: Position | None = None
        self._asked_held = 0  # events that were held when it was asked
        self._question = 0  # its number
        self._channel = channel
        self._size = size
        self._ask = ask
        self._failed = failed
        self._counts = counts

    def __bool__(self) -> bool:
        """Somebody listens or wants to."""
        return bool(self.receivers or self._waiting or self._trailing)

    def __contains__(self, receiver: Receiver) -> bool:
        return receiver in self.receivers or receiver in self._waiting or receiver in self._trailing

    @property
    def position(self) -> Position | None:
        """Of the last event handed out; None if none was and nobody asked."""
        return self._position

    def is_settled(self, receiver: Receiver) -> bool:
        """The receiver has got its answer."""
        return receiver in self.receivers or receiver in self._trailing

    # -- receivers

    def add(self, receiver: Receiver, since: Position | None, done: Done) -> None:
        """Hand a receiver what it missed and all that follows; the channel is subscribed."""
        position = self._position
        if position is not None and self._held is None and since in (None, position):
            # What it knows is where we are.
            self.receivers.add(receiver)
            done(Subscribed(str(position), None if since is None else True, 0))
            return
        self._waiting[receiver] = _Waiting(since, done)
        self._inquire()

    def remove(self, receiver: Receiver) -> Done | None:
        """Forget a receiver; its ``done`` if that was not called."""
        if self.receivers.discard(receiver) or self._trailing.pop(receiver, None) is not None:
            return None
        waiting = self._waiting.pop(receiver, None)
        if not self._waiting:
            self._recent.clear()
        return waiting.done if waiting is not None else None

    def close(self) -> list[Done]:
        """Forget all receivers; every ``done`` that was not called."""
        dones = [waiting.done for waiting in self._waiting.values()]
        self._waiting.clear()
        self._trailing.clear()
        for receiver in self.receivers:
            self.receivers.discard(receiver)
        return dones

    # -- what arrives

    def live(self, event: "Event") -> int:
        """An event arrived; how many receivers got it now."""
        assert event.position is not None
        position = Position.parse(event.position)
        if self._held is None and self._position is None:
            self._held = []  # nobody has had anything: the store is being asked where we are
        if self._held is not None:
            if self._hold(self._held, position, event):
                self._asked_held = max(self._asked_held - 1, 0)
            return 0
        assert self._position is not None
        if position.epoch == self._position.epoch:
            ahead = position.offset - self._position.offset
            if ahead == 1:
                return self._pass_on(position, event)
            if ahead < 1:
                self._counts.duplicates += 1
                return 0
        self._held = [(position, event)]
        self._inquire()
        return 0

    def reconnected(self) -> None:
        """The connection was lost, and the channel is subscribed again."""
        self._asked = None  # what was asked before says nothing of what came since
        # Nor are events of the old connection to be trusted: a replica may have taken over without
        # them.  The answer tells of all that count.
        self._held = None if self._position is None else []
        self._inquire()

    def answered(self, question: int, answer: "Recovery | StoreError") -> None:
        """The store's answer to a question."""
        if self._asked is None or question != self._question:
            return  # it was asked anew meanwhile
        asked, self._asked = self._asked, None
        if isinstance(answer, StoreError):
            self._unanswered(asked, answer)
            return
        head, events = Head(Position.parse(answer.position), answer.earlier), answer.events
        held: list[tuple[Position, Event]] = []
        position = self._position
        if position is None:
            self._position = head.newest
            held = self._take_held(head)
        elif self._held is not None or head.newest.epoch != position.epoch:
            if self._is_told_of(position, head, events):
                held = self._mend(head, events)
            elif self._held is None:
                self._held = []
        for receiver in asked:
            waiting = self._waiting.get(receiver)
            if waiting is not None and self._is_told_of(waiting.since, head, events):
                self._serve(receiver, waiting, head, events)
        if held and self._asked_held and held[0][0].epoch != head.newest.epoch:
            # The answer knows nothing of an event that was here before it: it is older, from a
            # server that another one has replaced, or the store was emptied.
            first = held[0][0]
            self._jump(Position(first.epoch, first.offset - 1))
        self._release(held)
        if not self._waiting:
            self._recent.clear()
        self._inquire()

    # -- how

    def _hold(
        self, queue: "list[tuple[Position, Event]]", position: Position, event: "Event"
    ) -> bool:
        """True if the first of the queue had to go."""
        queue.append((position, event))
        if len(queue) <= self._size + SLACK:
            return False
        # The hole that this leaves is found as any other.
        del queue[0]
        return True

    def _take_held(self, head: Head) -> "list[tuple[Position, Event]]":
        """What was held, without what was here when the store was asked and is of an epoch that
        the answer continues: it tells of all of that which counts."""
        held, self._held = self._held or [], None
        over = {last.epoch for last in head.earlier}
        before = [each for each in held[: self._asked_held] if each[0].epoch not in over]
        held[: self._asked_held] = before
        self._asked_held = len(before)
        return held

    def _inquire(self) -> None:
        """Ask the store, if there is anything to ask and no question is open."""
        if self._asked is not None or not (self._waiting or self._held is not None):
            return
        known = [each.since for each in self._waiting.values() if each.since is not None]
        if self._held is not None and self._position is not None:
            known.append(self._position)
        since = None
        if known:
            # The offsets of two epochs cannot be compared before the store has said more.  Who
            # waits longest comes first, or holes without end would keep him waiting.
            epoch = known[0].epoch
            since = Position(epoch, min(each.offset for each in known if each.epoch == epoch))
        self._asked = tuple(self._waiting)
        self._asked_since = since
        self._asked_held = len(self._held or ())
        self._question += 1
        self._ask(None if since is None else str(since), self._question)

    def _pass_on(self, position: Position, event: "Event") -> int:
        """The next event: hand it out."""
        self._position = position
        if self._waiting:
            self._hold(self._recent, position, event)
        count = self.receivers.hand_out(event, self._failed)
        if self._trailing:
            count += self._pass_to_trailing(position, event)
        return count

    def _pass_to_trailing(self, position: Position, event: "Event") -> int:
        count = 0
        for receiver, known in list(self._trailing.items()):
            if position.offset < known.offset:
                continue
            self._trailing.pop(receiver, None)
            self.receivers.add(receiver)
            if position.offset > known.offset:
                self._deliver(receiver, event)
                count += 1
        return count

    def _deliver(self, receiver: Receiver, event: "Event") -> None:
        try:
            receiver.deliver(event)
        except Exception:
            self._failed(receiver)

    def _gap(self, receiver: Receiver, position: Position) -> None:
        self._counts.gaps += 1
        try:
            receiver.gap(self._channel, str(position))
        except Exception:
            self._failed(receiver)

    def _answer(
        self, receiver: Receiver, waiting: _Waiting, answer: Subscribed | SubscribeError
    ) -> None:
        try:
            waiting.done(answer)
        except Exception:
            self._failed(receiver)

    def _mend(self, head: Head, events: "tuple[Event, ...]") -> "list[tuple[Position, Event]]":
        """Fill the hole of this worker, or tell everybody that it cannot be filled.

        :returns: the live events that were held meanwhile.
        """
        newest = head.newest
        held = self._take_held(head)
        distance = head.distance_from(self._position)
        if distance is not None and distance <= len(events):
            self._doubt_trailing(head)
            self._counts.recovered += 1 if distance else 0
            for event in events[len(events) - distance :]:
                assert event.position is not None
                self._pass_on(Position.parse(event.position), event)
            return held
        # What arrived in the meantime need not be lost as well.
        first = held[0][0] if held else newest
        before = first.offset - 1 if held and first.epoch == newest.epoch else newest.offset
        self._jump(Position(newest.epoch, min(before, newest.offset)))
        return held

    def _doubt_trailing(self, head: Head) -> None:
        """Those that were served by a server which another one has replaced may have messages that
        nobody has any more: they go on from where the worker is."""
        assert self._position is not None
        for receiver, known in list(self._trailing.items()):
            if head.distance_from(known) is None:
                del self._trailing[receiver]
                self.receivers.add(receiver)
                self._gap(receiver, self._position)

    def _jump(self, position: Position) -> None:
        """Go on behind ``position``, after a gap."""
        self._position = position
        self._recent.clear()
        for receiver in list(self._trailing):
            self.receivers.add(receiver)
        self._trailing.clear()
        for receiver in self.receivers:
            self._gap(receiver, position)

    def _release(self, held: "list[tuple[Position, Event]]") -> None:
        for index, (_, event) in enumerate(held):
            self.live(event)
            if self._held is not None:
                # Another hole: what follows waits as well.
                self._held.extend(held[index + 1 :])
                self._asked_held = len(self._held)  # all of it was here before the question
                return

    def _is_told_of(self, since: Position | None, head: Head, events: "tuple[Event, ...]") -> bool:
        """False if the store may know more than it was asked: the next question is about that."""
        distance = head.distance_from(since)
        if distance is None or distance <= len(events):
            return True
        asked = head.distance_from(self._asked_since)
        return asked is not None and asked >= distance

    def _serve(
        self, receiver: Receiver, waiting: _Waiting, head: Head, events: "tuple[Event, ...]"
    ) -> None:
        """Give a receiver what the store says it missed, and what came since."""
        since, newest = waiting.since, head.newest
        distance = head.distance_from(since)
        recovered = None if since is None else distance is not None and distance <= len(events)
        missed = events[len(events) - distance :] if recovered and distance else ()
        del self._waiting[receiver]
        position = self._position
        assert position is not None
        if position.offset >= newest.offset:
            self.receivers.add(receiver)
        else:
            self._trailing[receiver] = newest
        self._answer(receiver, waiting, Subscribed(str(newest), recovered, len(missed)))
        self._counts.missed += len(missed)
        for event in missed:
            self._deliver(receiver, event)
        self._catch_up(receiver, newest)

    def _catch_up(self, receiver: Receiver, last: Position) -> None:
        """Hand one receiver the live events behind ``last`` that the others have had.

        The last of them is where the worker is; if not, then the store's answer was older than the
        worker's connection: it is another server, which took over without them.
        """
        for position, event in self._recent:
            if position.offset <= last.offset:
                continue
            if position.offset != last.offset + 1:
                self._gap(receiver, Position(position.epoch, position.offset - 1))
            last = position
            self._deliver(receiver, event)
        assert self._position is not None
        if last.offset < self._position.offset:
            self._gap(receiver, self._position)

    def _unanswered(self, asked: tuple[Receiver, ...], error: StoreError) -> None:
        """The store could not say: those that wait fail, the others are told of a gap."""
        for receiver in asked:
            waiting = self._waiting.pop(receiver, None)
            if waiting is not None:
                self._answer(receiver, waiting, SubscribeError(str(error)))
        held, self._held = self._held, None
        position = self._position
        if held is not None and position is not None:
            # Without an event that came since, whatever was lost shows as a hole at the next one.
            first = held[0][0] if held else None
            if first is None:
                self._jump(position)
            elif first.epoch != position.epoch or first.offset > position.offset + 1:
                self._jump(Position(first.epoch, first.offset - 1))
            self._release(held)
        elif held and self._waiting:
            self._held = held  # for the next question
        if not self._waiting:
            self._recent.clear()
        self._inquire()
