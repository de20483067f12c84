"""The store contract (gpulse/store/base.py): one suite over every implementation."""

import pytest
from contract.store_ground import Ear, Ground, eventually

from gpulse.errors import StoreError, SubscribeError
from gpulse.store import Store, client, encode
from gpulse.store.base import LEASE, NOT_HELD, Held, Holding, Note

# Channels


def test_messages_arrive_in_the_order_of_their_publisher(
    ground: Ground, store: Store, ear: Ear
) -> None:
    ear.listen("a", "b")
    for number in range(500):
        store.publish("ab"[number % 2], encode({"n": number}))
    heard = ear.messages(500)
    for first, channel in enumerate("ab"):
        of_channel = [event.message for event in ear.events if event.channel == channel]
        assert of_channel == [{"n": number} for number in range(first, 500, 2)]
    # Two channels of a cluster may be those of two servers.
    assert ground.is_cluster or heard == [{"n": number} for number in range(500)]


@pytest.mark.parametrize("message", ["", "grüße 👋", b"\x00\xff\r\n", [1, {"a": None}], 0.5])
def test_a_message_comes_out_as_it_went_in(store: Store, ear: Ear, message: object) -> None:
    ear.listen("räum:1")
    store.publish("räum:1", encode(message))
    assert ear.messages(1) == [message]
    assert ear.events[0].channel == "räum:1"


def test_a_long_message_arrives_whole(store: Store, ear: Ear) -> None:
    ear.listen("a")
    store.publish("a", encode("x" * 3_000_000))
    store.publish("a", encode("after"))
    assert ear.messages(2) == ["x" * 3_000_000, "after"]


def test_publish_counts_the_subscribers(ground: Ground, store: Store, ear: Ear) -> None:
    assert store.publish("a", encode(1)).receivers == 0
    ear.listen("a")
    assert store.publish("a", encode(2)).receivers == 1
    ground.ear(ground.open()).listen("a")
    assert store.publish("a", encode(3)).receivers == 2


def test_a_confirmed_subscription_misses_nothing(ground: Ground, store: Store) -> None:
    other = ground.open()
    for number in range(50):
        ear = ground.ear(store).listen(f"c{number}")
        assert other.publish(f"c{number}", encode(number)).receivers == 1
        assert ear.messages(1) == [number]


def test_two_workers_hear_each_other(ground: Ground) -> None:
    here, there = ground.open(), ground.open()
    ear_here, ear_there = ground.ear(here).listen("a"), ground.ear(there).listen("a")
    here.publish("a", encode("from here"))
    there.publish("a", encode("from there"))
    assert ear_here.messages(2) == ear_there.messages(2) == ["from here", "from there"]


def test_nothing_comes_after_unsubscribe(store: Store, ear: Ear) -> None:
    ear.listen("a", "b")
    store.publish("a", encode("in flight"))
    ear.events.clear()
    ear.subscriber.unsubscribe("a")
    heard = len(ear.events)
    store.publish("a", encode("late"))
    store.publish("b", encode("last"))
    eventually(lambda: ear.events[heard:])
    assert [event.channel for event in ear.events[heard:]] == ["b"]
    eventually(lambda: store.publish("a", encode("nobody")).receivers == 0)


def test_a_channel_can_be_subscribed_again(store: Store, ear: Ear) -> None:
    ear.listen("a")
    ear.subscriber.unsubscribe("a")
    ear.listen("a")
    store.publish("a", encode("again"))
    assert ear.messages(1) == ["again"]


def test_unsubscribe_ignores_what_it_does_not_know(ear: Ear) -> None:
    ear.subscriber.unsubscribe("never")


def test_thousands_of_channels_are_confirmed(store: Store, ear: Ear) -> None:
    ear.listen(*(f"room:{number}" for number in range(3000)))
    store.publish("room:2999", encode("here"))
    assert ear.messages(1) == ["here"]


def test_app_names_do_not_hear_each_other(ground: Ground, store: Store, ear: Ear) -> None:
    ear.listen("a")
    foreign = ground.open(app_name="another")
    foreign.publish("a", encode("foreign"))
    foreign.join("k", "ann", "owner")
    store.publish("a", encode("own"))
    assert ear.messages(1) == ["own"]
    assert store.members("k") == {}
    foreign.release("owner")


def test_databases_do_not_hear_each_other(ground: Ground, store: Store, ear: Ear) -> None:
    ear.listen("a")
    if ground.is_cluster:
        with pytest.raises(StoreError, match="database 0 only"):
            ground.open(url=f"{ground.url}/4")
        return
    url = ground.url.replace("?db=3", "?db=4").replace("/3", "/4").replace("/0", "/4")
    assert ground.is_memory or url != ground.url
    foreign = ground.open(url=url)
    foreign.publish("a", encode("foreign"))
    foreign.join("k", "ann", "owner")
    store.publish("a", encode("own"))
    assert ear.messages(1) == ["own"]
    assert store.members("k") == {}
    foreign.release("owner")


def test_what_gpulse_did_not_publish_is_dropped_and_counted(store: Store, ear: Ear) -> None:
    ear.listen("a")
    store.publish("a", b"?foreign")
    store.publish("a", b"t\xff")
    store.publish("a", encode("good"))
    assert ear.messages(1) == ["good"]
    assert ear.subscriber.malformed == 2


def test_a_callback_that_raises_harms_nobody(
    ground: Ground, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    heard = []

    def on_event(event: object) -> None:
        heard.append(event)
        raise RuntimeError("of the test")

    ear = ground.ear(store)
    ear.subscriber.close()
    ear.subscriber = store.open_subscriber(on_event)
    ear.listen("a")
    store.publish("a", encode(1))
    store.publish("a", encode(2))
    eventually(lambda: len(heard) == 2)
    assert "of the test" in caplog.text


def test_a_closed_subscriber_refuses(ear: Ear) -> None:
    ear.listen("a")
    ear.subscriber.close()
    assert not ear.subscriber.connected
    ear.subscriber.subscribe("b", ear.answers.append)
    assert isinstance(ear.answers[-1], SubscribeError)


@pytest.mark.parametrize("channel", ["", "a b", "a\n", "a\u2028b", "é" * 101, "\ud800", 7])
def test_a_bad_channel_is_refused_everywhere(store: Store, ear: Ear, channel: str) -> None:
    with pytest.raises(ValueError, match=r"channel|surrogates"):
        store.publish(channel, encode(1))
    with pytest.raises(ValueError, match=r"channel|surrogates"):
        ear.subscriber.subscribe(channel, ear.answers.append)
    assert ear.answers == []


# Presence


def note(text: str) -> Note:
    return Note("news", encode(text))


def say(store: Store, text: str) -> None:
    """Publish as presence does: on a cluster only such messages are in one order with it."""
    store.join("sayings", text, "speaker", hello=note(text))
    store.leave("sayings", text, "speaker")


def test_join_and_leave_count_over_all_owners(store: Store) -> None:
    assert store.join("k", "ann", "one") == 1
    assert store.join("k", "ann", "two") == 2
    assert store.join("k", "bob", "two") == 1
    store.restore("one", [Holding("k", "ann", count=3)])
    store.restore("two", [Holding("k", "ann", count=2), Holding("k", "bob", count=4)])
    assert store.members("k") == {"ann": 5, "bob": 4}
    assert store.members("other") == {}
    store.restore("two", [Holding("k", "ann", count=1)])
    assert store.members("k") == {"ann": 4, "bob": 4}
    assert store.leave("k", "ann", "one") == 1
    assert store.leave("k", "ann", "one") == NOT_HELD
    assert store.leave("k", "ann", "two") == 0
    assert store.members("k") == {"bob": 4}


def test_what_is_said_twice_counts_once(store: Store, ear: Ear) -> None:
    ear.listen("news")
    assert store.join("k", "ann", "one", note("gone"), note("joined")) == 1
    assert store.join("k", "ann", "one", note("gone"), note("joined")) == 1
    for _ in range(2):
        store.restore("one", [Holding("k", "ann", note("another"), note("joined"), 3)])
        assert store.members("k") == {"ann": 3}
    assert store.join("k", "ann", "one") == 1
    assert store.leave("k", "ann", "one") == 0
    say(store, "end")
    assert ear.messages(3) == ["joined", "gone", "end"]


def test_an_owner_learns_what_it_holds(store: Store) -> None:
    assert store.renew("one") == Held(0, 0)
    assert store.holdings("one") == {}
    store.join("k", "ann", "one")
    store.join("l", "ann", "one")
    store.join("k", "bob", "two")
    store.restore("one", [Holding("k", "ann", count=12), Holding("k", "bob", count=2)])
    assert store.renew("one") == Held(members=3, connections=15)
    assert store.holdings("one") == {("k", "ann"): 12, ("l", "ann"): 1, ("k", "bob"): 2}
    assert store.renew("two") == Held(1, 1)
    store.release("one")
    assert store.members("k") == {"bob": 1}


def test_leaving_what_is_not_held_changes_nothing(store: Store, ear: Ear) -> None:
    ear.listen("news")
    assert store.leave("k", "ann", "one", note("gone")) == NOT_HELD
    store.join("k", "ann", "two")
    assert store.leave("k", "ann", "one", note("gone")) == NOT_HELD
    assert store.members("k") == {"ann": 1}
    say(store, "end")
    assert ear.messages(1) == ["end"]


def test_hello_is_said_at_the_first_and_will_at_the_last(store: Store, ear: Ear) -> None:
    ear.listen("news")
    store.join("k", "ann", "one", note("gone"), note("joined"))
    store.join("k", "ann", "two", note("gone for good"), note("joined again"))
    store.leave("k", "ann", "one")
    say(store, "between")
    store.leave("k", "ann", "two")
    assert ear.messages(3) == ["joined", "between", "gone for good"]


def test_farewell_takes_the_place_of_will(store: Store, ear: Ear) -> None:
    ear.listen("news")
    store.join("k", "ann", "one", note("crashed"))
    store.leave("k", "ann", "one", note("said goodbye"))
    store.join("k", "ann", "one")
    store.leave("k", "ann", "one")
    say(store, "end")
    assert ear.messages(2) == ["said goodbye", "end"], "an old will is said of a new member"


def test_names_of_any_kind_are_kept_apart(store: Store) -> None:
    names = ["a", "a:b", "b", ":", "1:a", "größe", "x y\n", "{a}"]
    for key in names:
        for member in names:
            assert store.join(key, member, "owner:1") == 1
    assert store.members("größe") == dict.fromkeys(names, 1)
    pairs = {(key, member) for key in names for member in names}
    assert set(store.holdings("owner:1")) == pairs
    assert set(store.release("owner:1")) == pairs


def test_release_leaves_everything_of_one_owner(store: Store, ear: Ear) -> None:
    ear.listen("news")
    store.join("k", "ann", "one", note("ann gone"))
    store.join("k", "bob", "one", note("bob gone"))
    store.join("k", "bob", "two", note("bob gone"))
    store.restore("one", [Holding("k", "ann", count=2), Holding("k", "bob", count=2)])
    assert sorted(store.release("one")) == [("k", "ann"), ("k", "bob")]
    assert store.members("k") == {"bob": 1}
    assert store.release("one") == []
    say(store, "end")
    assert ear.messages(2) == ["ann gone", "end"]


def test_release_takes_more_than_one_page(store: Store) -> None:
    for number in range(1200):
        store.join("k", f"m{number}", "one")
    assert len(store.release("one")) == 1200
    assert store.members("k") == {}
    assert store.renew("one") == Held(0, 0)


def test_a_killed_owner_is_swept_and_its_wills_are_said(
    ground: Ground, store: Store, ear: Ear
) -> None:
    ear.listen("news")
    store.renew("living", 1000.0)
    store.renew("killed", 0.2)
    store.join("k", "ann", "killed", note("ann gone"))
    store.join("k", "bob", "killed", note("bob gone"))
    store.join("k", "bob", "living", note("bob gone"))
    store.restore("killed", [Holding("k", name, count=3) for name in ("ann", "bob")])
    assert store.sweep() == 0
    assert ground.outlast(ground.open(), 0.2) == 1
    assert store.members("k") == {"bob": 1}
    assert ear.messages(1) == ["ann gone"]
    assert store.sweep() == 0
    store.release("living")


def test_renewing_keeps_an_owner(ground: Ground, store: Store) -> None:
    store.renew("short", 0.2)
    store.renew("kept", 0.2)
    store.join("k", "ann", "kept")
    assert store.renew("kept", 1000.0) == Held(1, 1)
    assert ground.outlast(store, 0.2) == 1
    assert store.members("k") == {"ann": 1}
    store.release("kept")


@pytest.mark.parametrize("how", ["join", "restore"])
def test_an_owner_without_a_lease_gets_one(
    ground: Ground, store: Store, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(client, "LEASE", 0.05)
    if how == "join":
        store.join("k", "ann", "careless")
    else:
        store.restore("careless", [Holding("k", "ann")])
    assert ground.outlast(store, LEASE if ground.is_memory else 0.05) == 1
    assert store.members("k") == {}


def test_restore_says_nothing_to_an_empty_store(store: Store, ear: Ear) -> None:
    ear.listen("news")
    holdings = [Holding("k", name, note(f"{name} gone"), note(f"{name} joined")) for name in "ab"]
    store.restore("one", holdings)
    store.restore("one", holdings)
    assert store.members("k") == {"a": 1, "b": 1}
    assert sorted(store.holdings("one")) == [("k", "a"), ("k", "b")]
    store.release("one")
    assert sorted(str(message) for message in ear.messages(2)) == ["a gone", "b gone"]


def test_restore_greets_who_was_announced_gone(ground: Ground, store: Store, ear: Ear) -> None:
    ear.listen("news")
    ann = Holding("k", "ann", note("ann gone"), note("ann joined"))
    bob = Holding("k", "bob", note("bob gone"), note("bob joined"))
    store.renew("other", 1000.0)
    store.join("k", "bob", "other", bob.will, bob.hello)
    store.renew("stalled", 0.1)
    store.join("k", "ann", "stalled", ann.will, ann.hello)
    store.join("k", "bob", "stalled", bob.will, bob.hello)
    assert ground.outlast(store, 0.1) == 1
    assert store.renew("stalled", 1000.0) == Held(0, 0)
    ann.count = 2
    store.restore("stalled", [ann, bob])
    assert store.members("k") == {"ann": 2, "bob": 2}
    say(store, "end")
    said = ear.messages(5)
    assert said == ["bob joined", "ann joined", "ann gone", "ann joined", "end"]
    store.release("stalled")
    store.release("other")


@pytest.mark.parametrize("how", ["join", "restore"])
def test_who_is_back_is_greeted_once(store: Store, ear: Ear, how: str) -> None:
    ear.listen("news")
    ann = Holding("k", "ann", note("gone"), note("joined"))
    store.join("k", "ann", "one", ann.will, ann.hello)
    store.leave("k", "ann", "one")
    if how == "join":
        store.join("k", "ann", "one", ann.will, ann.hello)
    else:
        store.restore("one", [ann])
    store.restore("two", [ann])
    say(store, "end")
    assert ear.messages(4) == ["joined", "gone", "joined", "end"]
    store.release("one")
    store.release("two")


def test_the_channels_in_use_are_listed(ground: Ground, store: Store, ear: Ear) -> None:
    assert store.channels() == {}
    names = ["room:1", "room:2", "room:[x]", "news", "a?b", "größe", "}"]
    ear.listen(*names)
    ground.ear(ground.open()).listen("room:2")
    assert store.channels() == {**dict.fromkeys(sorted(names), 1), "room:2": 2}
    assert store.channels("room:*") == {"room:1": 1, "room:2": 2, "room:[x]": 1}
    assert store.channels("*[x]") == {"room:[x]": 1}
    assert store.channels("a?b") == {"a?b": 1}
    assert store.channels("?ews") == {}
    ear.subscriber.unsubscribe("news")
    eventually(lambda: "news" not in store.channels())


def test_the_rest(ground: Ground, store: Store) -> None:
    store.ping()
    assert "p@ss" not in store.describe()
    assert "word" not in store.describe()
    assert store.describe().startswith(ground.url[:6])
