"""gpulse/store/fanout.py: one subscription per channel, any number of receivers."""

from collections.abc import Callable

import pytest

from gpulse.errors import SubscribeError
from gpulse.store import MemoryStore, MissingStore, encode
from gpulse.store.base import Subscriber
from gpulse.store.fanout import Fanout
from gpulse.store.message import Event


class Socket:
    """A receiver that remembers."""

    def __init__(self, on_event: Callable[[Event], None] | None = None) -> None:
        self.events: list[Event] = []
        self.answers: list[SubscribeError | None] = []
        self._on_event = on_event

    def deliver(self, event: Event) -> None:
        self.events.append(event)
        if self._on_event is not None:
            self._on_event(event)


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
    def __init__(self) -> None:
        super().__init__()
        self.subscriber = SlowSubscriber()
        self.opened = 0
        self.emit: Callable[[Event], None] = lambda event: None

    def open_subscriber(
        self,
        on_event: Callable[[Event], None],
        on_reconnect: Callable[[], None] | None = None,
    ) -> Subscriber:
        self.opened += 1
        self.emit = on_event
        return self.subscriber


def add(fanout: Fanout, channel: str, *sockets: Socket) -> None:
    for socket in sockets:
        fanout.add(channel, socket, socket.answers.append)


def test_every_receiver_gets_the_one_event() -> None:
    store = MemoryStore()
    fanout = Fanout(store)
    one, two, other = Socket(), Socket(), Socket()
    add(fanout, "a", one, two)
    add(fanout, "b", other)
    assert store.publish("a", encode({"n": 1})) == 1
    assert one.answers == two.answers == [None]
    assert one.events[0] is two.events[0]
    assert other.events == []
    assert fanout.deliveries == 2


def test_nothing_is_opened_before_the_first_receiver() -> None:
    store = SlowStore()
    fanout = Fanout(store)
    fanout.close()
    assert store.opened == 0
    add(fanout, "a", Socket(), Socket())
    add(fanout, "b", Socket())
    assert store.opened == 1
    assert [channel for channel, _ in store.subscriber.asked] == ["a", "b"]


def test_the_last_to_leave_unsubscribes() -> None:
    store = MemoryStore()
    fanout = Fanout(store)
    one, two = Socket(), Socket()
    add(fanout, "a", one, two)
    fanout.remove("a", one)
    assert store.publish("a", encode(1)) == 1
    assert one.events == []
    fanout.remove("a", two)
    fanout.remove("a", two)
    assert store.publish("a", encode(2)) == 0
    assert len(fanout) == 0


def test_remove_all_leaves_every_channel() -> None:
    store = MemoryStore()
    fanout = Fanout(store)
    one, two = Socket(), Socket()
    for channel in "abc":
        add(fanout, channel, one)
    add(fanout, "b", two)
    assert fanout.channels_of(one) == ("a", "b", "c")
    fanout.remove_all(one)
    fanout.remove_all(one)
    assert fanout.channels_of(one) == ()
    assert (len(fanout), store.publish("b", encode(1))) == (1, 1)
    assert one.events == []


def test_a_receiver_added_twice_gets_an_event_once() -> None:
    store = MemoryStore()
    fanout = Fanout(store)
    one = Socket()
    add(fanout, "a", one, one)
    store.publish("a", encode(1))
    assert (len(one.events), one.answers) == (1, [None, None])


def test_all_wait_for_the_one_confirmation() -> None:
    store = SlowStore()
    fanout = Fanout(store)
    one, two = Socket(), Socket()
    add(fanout, "a", one, two)
    assert one.answers == two.answers == []
    ((_, done),) = store.subscriber.asked
    done(None)
    assert one.answers == two.answers == [None]


def test_a_refusal_reaches_all_and_leaves_nothing() -> None:
    store = SlowStore()
    fanout = Fanout(store)
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
    fanout = Fanout(store)
    one, two = Socket(), Socket()
    add(fanout, "a", one, two)
    fanout.remove("a", one)
    assert isinstance(one.answers[0], SubscribeError)
    store.subscriber.asked[0][1](None)
    assert two.answers == [None]
    assert len(one.answers) == 1


def test_an_old_answer_is_not_taken_for_a_new_subscription() -> None:
    store = SlowStore()
    fanout = Fanout(store)
    one, two = Socket(), Socket()
    add(fanout, "a", one)
    fanout.remove("a", one)
    assert store.subscriber.unsubscribed == ["a"]
    add(fanout, "a", two)
    (_, old), (_, new) = store.subscriber.asked
    old(SubscribeError("it was unsubscribed"))
    assert two.answers == []
    new(None)
    assert two.answers == [None]


def test_a_receiver_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Event) -> None:
        raise RuntimeError("of the test")

    store = MemoryStore()
    fanout = Fanout(store)
    bad, good = Socket(fail), Socket()
    add(fanout, "a", bad, good)
    for _ in range(3):
        store.publish("a", encode(1))
    assert len(good.events) == 3
    assert (fanout.deliveries, fanout.failures) == (3, 3)
    assert caplog.text.count("a receiver of channel a failed") == 1


def test_a_receiver_removed_during_the_fan_out_gets_nothing() -> None:
    store = MemoryStore()
    fanout = Fanout(store)
    victim = Socket()
    first = Socket(lambda event: fanout.remove("a", victim))
    add(fanout, "a", first, victim)
    store.publish("a", encode(1))
    assert victim.events == []
    assert len(first.events) == 1


def test_an_event_that_was_on_its_way_is_dropped() -> None:
    store = SlowStore()
    fanout = Fanout(store)
    one = Socket()
    add(fanout, "a", one)
    fanout.remove("a", one)
    store.emit(Event("a", "t", b"late"))
    assert one.events == []


def test_a_bad_channel_is_refused() -> None:
    fanout = Fanout(MemoryStore())
    with pytest.raises(ValueError, match="channel"):
        fanout.add("a b", Socket(), lambda error: None)
    assert len(fanout) == 0


def test_without_a_store_the_first_use_says_what_to_install() -> None:
    one = Socket()
    add(Fanout(MissingStore()), "a", one)
    assert "gpulse[standard]" in str(one.answers[0])
