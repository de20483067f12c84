"""gpulse/store/fanout.py: one subscription per channel, any number of receivers, holes filled."""

from collections.abc import Callable
from typing import NoReturn

import pytest

from gpulse.errors import StoreError, SubscribeError
from gpulse.historyrules import HistoryRules, parse_history
from gpulse.store import MemoryStore, MissingStore, Store, encode
from gpulse.store.base import Subscriber
from gpulse.store.fanout import Fanout, Subscribed
from gpulse.store.historian import Historian
from gpulse.store.message import Event

PLAIN = Subscribed(None, None, 0)
RULES = HistoryRules(parse_history("kept:*=10/60"))


class Socket:
    """A receiver that remembers."""

    def __init__(self, on_event: Callable[[Event], None] | None = None) -> None:
        self.events: list[Event] = []
        self.answers: list[Subscribed | SubscribeError] = []
        self.gaps: list[tuple[str, str | None]] = []
        self._on_event = on_event

    def deliver(self, event: Event) -> None:
        self.events.append(event)
        if self._on_event is not None:
            self._on_event(event)

    def gap(self, channel: str, position: str | None) -> None:
        self.gaps.append((channel, position))

    @property
    def messages(self) -> list[object]:
        return [event.message for event in self.events]


class SlowSubscriber(Subscriber):
    """A subscriber whose store answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Callable[[SubscribeError | None], None]]] = []
        self.unsubscribed: list[str] = []
        self.closed = False

    def subscribe(self, channel: str, done: Callable[[SubscribeError | None], None]) -> None:
        self.asked.append((channel, done))

    def unsubscribe(self, channel: str) -> None:
        self.unsubscribed.append(channel)

    def close(self) -> None:
        self.closed = True


class SlowStore(MemoryStore):
    def __init__(self, rules: HistoryRules | None = None) -> None:
        super().__init__(rules=rules)
        self.subscriber = SlowSubscriber()
        self.opened = 0
        self.emit: Callable[[Event], None] = lambda event: None
        self.reconnect: Callable[[list[str] | None], None] = lambda channels: None

    def open_subscriber(
        self,
        on_event: Callable[[Event], None],
        on_reconnect: Callable[[list[str] | None], None] | None = None,
    ) -> Subscriber:
        self.opened += 1
        self.emit = on_event
        if on_reconnect is not None:
            self.reconnect = on_reconnect
        return self.subscriber


def fan_out(store: Store, on_reconnect: Callable[[], None] | None = None) -> Fanout:
    """A fan-out whose histories come at once."""
    historian = Historian(store, lambda run: run(), lambda call, *args: call(*args))
    return Fanout(store, historian, on_reconnect)


def add(fanout: Fanout, channel: str, *sockets: Socket) -> None:
    for socket in sockets:
        fanout.add(channel, socket, socket.answers.append)


def test_every_receiver_gets_the_one_event() -> None:
    store = MemoryStore()
    fanout = fan_out(store)
    one, two, other = Socket(), Socket(), Socket()
    add(fanout, "a", one, two)
    add(fanout, "b", other)
    assert store.publish("a", encode({"n": 1})).receivers == 1
    assert one.answers == two.answers == [PLAIN]
    assert one.events[0] is two.events[0]
    assert other.events == []
    assert fanout.deliveries == 2


def test_nothing_is_opened_before_the_first_receiver() -> None:
    store = SlowStore()
    fanout = fan_out(store)
    fanout.close()
    assert store.opened == 0
    add(fanout, "a", Socket(), Socket())
    add(fanout, "b", Socket())
    assert store.opened == 1
    assert [channel for channel, _ in store.subscriber.asked] == ["a", "b"]


def test_the_last_to_leave_unsubscribes() -> None:
    store = MemoryStore()
    fanout = fan_out(store)
    one, two = Socket(), Socket()
    add(fanout, "a", one, two)
    fanout.remove("a", one)
    assert store.publish("a", encode(1)).receivers == 1
    assert one.events == []
    fanout.remove("a", two)
    fanout.remove("a", two)
    assert store.publish("a", encode(2)).receivers == 0
    assert len(fanout) == 0


def test_remove_all_leaves_every_channel() -> None:
    store = MemoryStore()
    fanout = fan_out(store)
    one, two = Socket(), Socket()
    for channel in "abc":
        add(fanout, channel, one)
    add(fanout, "b", two)
    assert fanout.channels_of(one) == ("a", "b", "c")
    fanout.remove_all(one)
    fanout.remove_all(one)
    assert fanout.channels_of(one) == ()
    assert (len(fanout), store.publish("b", encode(1)).receivers) == (1, 1)
    assert one.events == []


def test_what_a_receiver_has_is_known_as_it_comes_and_goes() -> None:
    fanout = fan_out(MemoryStore())
    one = Socket()
    assert (fanout.count_of(one), fanout.has("a", one)) == (0, False)
    for count, channel in enumerate("abc", 1):
        add(fanout, channel, one)
        add(fanout, channel, one)
        assert (fanout.count_of(one), fanout.has(channel, one)) == (count, True)
    for left, channel in zip((2, 1, 0), "bca", strict=True):
        fanout.remove(channel, one)
        fanout.remove(channel, one)
        assert (fanout.count_of(one), fanout.has(channel, one)) == (left, False)
    assert fanout._channels_of == {}


def test_the_one_channel_of_a_receiver_takes_no_memory() -> None:
    fanout = fan_out(MemoryStore())
    one, two = Socket(), Socket()
    names = [b"room:1".decode() for _ in range(2)]
    for name, receiver in zip(names, (one, two), strict=True):
        add(fanout, name, receiver)
    assert fanout._channels_of[one] is fanout._channels_of[two] is names[0]


def test_a_receiver_added_twice_gets_an_event_once() -> None:
    store = MemoryStore()
    fanout = fan_out(store)
    one = Socket()
    add(fanout, "a", one, one)
    store.publish("a", encode(1))
    assert (len(one.events), one.answers) == (1, [PLAIN, PLAIN])


def test_all_wait_for_the_one_confirmation() -> None:
    store = SlowStore()
    fanout = fan_out(store)
    one, two = Socket(), Socket()
    add(fanout, "a", one, two)
    assert one.answers == two.answers == []
    ((_, done),) = store.subscriber.asked
    done(None)
    assert one.answers == two.answers == [PLAIN]


def test_a_refusal_reaches_all_and_leaves_nothing() -> None:
    store = SlowStore()
    fanout = fan_out(store)
    one, two = Socket(), Socket()
    add(fanout, "a", one, two)
    error = SubscribeError("no")
    store.subscriber.asked[0][1](error)
    assert one.answers == two.answers == [error]
    assert len(fanout) == 0
    assert fanout.channels_of(one) == ()
    add(fanout, "a", one)
    assert len(store.subscriber.asked) == 2


def test_who_leaves_before_the_confirmation_is_told() -> None:
    store = SlowStore()
    fanout = fan_out(store)
    one, two = Socket(), Socket()
    add(fanout, "a", one, two)
    fanout.remove("a", one)
    assert isinstance(one.answers[0], SubscribeError)
    store.subscriber.asked[0][1](None)
    assert two.answers == [PLAIN]
    assert len(one.answers) == 1


def test_an_old_answer_is_not_taken_for_a_new_subscription() -> None:
    store = SlowStore()
    fanout = fan_out(store)
    one, two = Socket(), Socket()
    add(fanout, "a", one)
    fanout.remove("a", one)
    assert store.subscriber.unsubscribed == ["a"]
    add(fanout, "a", two)
    (_, old), (_, new) = store.subscriber.asked
    old(SubscribeError("it was unsubscribed"))
    assert two.answers == []
    new(None)
    assert two.answers == [PLAIN]


def test_a_receiver_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Event) -> None:
        raise RuntimeError("of the test")

    store = MemoryStore()
    fanout = fan_out(store)
    bad, good = Socket(fail), Socket()
    add(fanout, "a", bad, good)
    for _ in range(3):
        store.publish("a", encode(1))
    assert len(good.events) == 3
    assert (fanout.deliveries, fanout.failures) == (3, 3)
    assert caplog.text.count("a receiver failed") == 1


def test_a_receiver_removed_during_the_fan_out_gets_nothing() -> None:
    store = MemoryStore()
    fanout = fan_out(store)
    victim = Socket()
    first = Socket(lambda event: fanout.remove("a", victim))
    add(fanout, "a", first, victim)
    store.publish("a", encode(1))
    assert victim.events == []
    assert len(first.events) == 1


def test_an_event_that_was_on_its_way_is_dropped() -> None:
    store = SlowStore()
    fanout = fan_out(store)
    one = Socket()
    add(fanout, "a", one)
    fanout.remove("a", one)
    store.emit(Event("a", "t", b"late"))
    assert one.events == []


def test_a_bad_channel_is_refused() -> None:
    fanout = fan_out(MemoryStore())
    with pytest.raises(ValueError, match="channel"):
        fanout.add("a b", Socket(), lambda error: None)
    assert len(fanout) == 0


def test_without_a_store_the_first_use_says_what_to_install() -> None:
    one = Socket()
    add(fan_out(MissingStore()), "a", one)
    assert "gpulse[standard]" in str(one.answers[0])


def test_a_lost_connection_is_a_gap_where_there_is_no_history() -> None:
    nudged: list[int] = []
    store = SlowStore()
    fanout = fan_out(store, lambda: nudged.append(1))
    one, other, unconfirmed = Socket(), Socket(), Socket()
    add(fanout, "a", one)
    add(fanout, "b", other)
    for _, done in store.subscriber.asked:
        done(None)
    add(fanout, "c", unconfirmed)
    store.reconnect(["a", "gone"])
    assert (one.gaps, other.gaps) == ([("a", None)], [])
    store.reconnect(None)
    assert (one.gaps, other.gaps) == ([("a", None)] * 2, [("b", None)])
    store.reconnect([])
    assert unconfirmed.gaps == []
    assert (fanout.counts.gaps, len(nudged)) == (3, 3)


def test_a_history_is_handed_out_before_what_follows() -> None:
    store = MemoryStore(rules=RULES)
    fanout = fan_out(store)
    receipts = [store.publish("kept:a", encode(number)) for number in range(4)]
    one, new = Socket(), Socket()
    fanout.add("kept:a", one, one.answers.append, receipts[1].position)
    add(fanout, "kept:a", new)
    store.publish("kept:a", encode(4))
    assert one.answers == [Subscribed(receipts[3].position, True, 2)]
    assert new.answers == [Subscribed(receipts[3].position, None, 0)]
    assert (one.messages, new.messages) == ([2, 3, 4], [4])
    assert (fanout.counts.missed, fanout.deliveries) == (2, 2)


def test_a_lost_connection_is_no_gap_where_there_is_a_history() -> None:
    store = SlowStore(RULES)
    fanout = fan_out(store)
    one = Socket()
    add(fanout, "kept:a", one)
    store.subscriber.asked[0][1](None)
    for number in range(3):
        store.publish("kept:a", encode(number))
    store.reconnect(["kept:a"])
    assert (one.messages, one.gaps) == ([0, 1, 2], [])
    assert fanout.counts.recovered == 1


def test_who_waits_for_a_history_is_told_when_it_leaves_or_the_worker_ends() -> None:
    store = MemoryStore(rules=RULES)
    fanout = Fanout(store, Historian(store, lambda run: None, lambda call, *args: None))
    one, two = Socket(), Socket()
    add(fanout, "kept:a", one, two)
    fanout.remove("kept:a", one)
    assert isinstance(one.answers[0], SubscribeError)
    assert (len(fanout), fanout.channels_of(two)) == (1, ("kept:a",))
    fanout.close()
    assert isinstance(two.answers[0], SubscribeError)
    assert len(fanout) == 0


def test_without_its_history_a_channel_is_not_subscribed() -> None:
    class Away(MemoryStore):
        def recover(self, requests: object) -> NoReturn:
            raise StoreError("away")

    store = Away(rules=RULES)
    now = [0.0]
    historian = Historian(
        store,
        lambda run: run(),
        lambda call, *args: call(*args),
        lambda: now[0],
        lambda seconds: now.append(now.pop() + seconds),
    )
    fanout = Fanout(store, historian)
    one = Socket()
    add(fanout, "kept:a", one)
    assert "away" in str(one.answers[0])
    assert (len(fanout), fanout.channels_of(one)) == (0, ())
    assert store.channels() == {}


def test_a_bad_position_is_refused() -> None:
    fanout = fan_out(MemoryStore(rules=RULES))
    with pytest.raises(ValueError, match="position"):
        fanout.add("kept:a", Socket(), lambda answer: None, "17")
    assert len(fanout) == 0


def test_a_second_subscribe_of_one_receiver_changes_nothing() -> None:
    store = MemoryStore(rules=RULES)
    fanout = fan_out(store)
    one = Socket()
    add(fanout, "kept:a", one, one)
    receipt = store.publish("kept:a", encode(1))
    fanout.add("kept:a", one, one.answers.append, receipt.position)
    assert one.messages == [1]
    assert one.answers[2] == Subscribed(receipt.position, None, 0)
