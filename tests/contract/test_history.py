"""Histories (gpulse/store/base.py): one suite over every implementation, and the whole path of a
worker over a real server that is emptied and killed."""

import itertools
import time
from collections.abc import Callable, Iterator

import gevent
import pytest
from contract.store_ground import Ear, Ground, Listener, eventually, open_fanout
from services import start_valkey

from gpulse.errors import StoreError
from gpulse.historyrules import HistoryRules, parse_history
from gpulse.store import MemoryStore, Store, encode, open_store
from gpulse.store.base import Recovery
from gpulse.store.fanout import Fanout, Subscribed
from gpulse.store.position import Position

RULES = HistoryRules(parse_history("kept:*=5/60 brief:*=50/1 long:*=1000/60"))


@pytest.fixture
def store(ground: Ground) -> Store:
    found = ground.open()
    found.rules = RULES
    return found


def publish(store: Store, channel: str, *messages: object) -> list[str]:
    """The positions of the messages."""
    positions = []
    for message in messages:
        receipt = store.publish(channel, encode(message))
        assert receipt.position is not None
        assert not receipt.duplicate
        positions.append(receipt.position)
    return positions


def recover(store: Store, channel: str, since: str | None) -> Recovery:
    (found,) = store.recover([(channel, since)])
    return found


def texts(found: Recovery) -> list[object]:
    return [event.message for event in found.events]


def test_offsets_count_from_one_within_an_epoch(ground: Ground, store: Store) -> None:
    other = ground.open()
    other.rules = RULES
    start = Position.parse(recover(store, "kept:a", None).position)
    assert start.offset == 0
    found = [*publish(store, "kept:a", 1, 2), *publish(other, "kept:a", 3)]
    assert found == [f"{start.epoch}-{number}" for number in (1, 2, 3)]
    assert recover(other, "kept:a", None) == Recovery(found[2], False, ())
    assert Position.parse(publish(store, "kept:b", 1)[0]).epoch != start.epoch


def test_an_event_has_its_position(store: Store, ear: Ear) -> None:
    ear.listen("kept:a", "plain")
    receipt = store.publish("kept:a", encode("grüße"))
    assert receipt.receivers == 1
    assert store.publish("plain", encode("x")).position is None
    ear.messages(2)
    found = {event.channel: (event.message, event.position) for event in ear.events}
    assert found == {"kept:a": ("grüße", receipt.position), "plain": ("x", None)}


@pytest.mark.parametrize("message", ["", "grüße 👋", b"\x00\xff\r\n", [1, {"a": None}]])
def test_a_message_is_kept_as_it_went_in(store: Store, message: object) -> None:
    start = recover(store, "kept:a", None).position
    publish(store, "kept:a", message)
    found = recover(store, "kept:a", start)
    assert (found.recovered, texts(found)) == (True, [message])


def test_exactly_what_came_after_is_recovered(store: Store) -> None:
    positions = publish(store, "kept:a", *range(1, 6))
    newest = positions[-1]
    for number, since in enumerate(positions, 1):
        found = recover(store, "kept:a", since)
        assert (found.position, found.recovered) == (newest, True)
        assert texts(found) == list(range(number + 1, 6))
        assert [event.position for event in found.events] == positions[number:]


def test_what_the_size_pushed_out_is_not_recovered(store: Store) -> None:
    positions = publish(store, "kept:a", *range(1, 9))
    assert texts(recover(store, "kept:a", positions[2])) == [4, 5, 6, 7, 8]
    found = recover(store, "kept:a", positions[1])
    assert (found.recovered, texts(found)) == (False, [4, 5, 6, 7, 8])


def test_what_the_age_took_is_not_recovered(ground: Ground, store: Store) -> None:
    old, newest = publish(store, "brief:a", 1, 2)
    ground.now += 0.5
    assert texts(recover(store, "brief:a", old)) == [2]
    ground.now += 0.6
    if not ground.is_memory:
        time.sleep(1.1)
    found = recover(store, "brief:a", old)
    assert found == Recovery(newest, False, ())
    assert recover(store, "brief:a", newest) == Recovery(newest, True, ())
    (following,) = publish(store, "brief:a", 3)
    assert Position.parse(following).offset == 3
    assert texts(recover(store, "brief:a", newest)) == [3]
    assert not recover(store, "brief:a", old).recovered


@pytest.mark.parametrize("since", ["other-1", "other-0"])
def test_another_epoch_is_not_recovered(store: Store, since: str) -> None:
    publish(store, "kept:a", 1, 2)
    found = recover(store, "kept:a", since)
    assert (found.recovered, found.events) == (False, ())


def test_a_position_ahead_of_the_store_is_not_recovered(store: Store) -> None:
    (newest,) = publish(store, "kept:a", 1)
    at = Position.parse(newest)
    for offset in (2, 10**18):
        found = recover(store, "kept:a", str(at._replace(offset=offset)))
        assert found == Recovery(newest, False, ())


def test_many_channels_are_asked_about_at_once(store: Store) -> None:
    since = {}
    for number in range(150):
        since[f"kept:{number}"] = publish(store, f"kept:{number}", "seen", number)[0]
    found = store.recover([*since.items(), ("kept:new", None)])
    assert [texts(each) for each in found] == [*([number] for number in range(150)), []]
    assert [each.recovered for each in found] == [True] * 150 + [False]
    assert store.recover([]) == []


def test_a_key_publishes_once(store: Store, ear: Ear) -> None:
    ear.listen("kept:a")
    first = store.publish("kept:a", encode("one"), key="k 1")
    again = store.publish("kept:a", encode("one, again"), key="k 1")
    assert (first.duplicate, again.duplicate) == (False, True)
    assert (again.position, again.receivers) == (first.position, 0)
    other = store.publish("kept:a", encode("two"), key="k 2")
    assert not other.duplicate
    assert not store.publish("kept:b", encode("elsewhere"), key="k 1").duplicate
    store.publish("kept:a", encode("end"))
    assert ear.messages(3) == ["one", "two", "end"]


@pytest.mark.parametrize("key", ["x" * 101, "ü", "a\nb"])
def test_a_bad_key_is_refused(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        store.publish("kept:a", encode(1), key=key)


def test_what_has_no_history_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="history"):
        store.publish("plain", encode(1), key="k")
    with pytest.raises(ValueError, match="history"):
        store.recover([("plain", None)])
    with pytest.raises(ValueError, match="position"):
        store.recover([("kept:a", "17")])


def test_app_names_have_histories_of_their_own(ground: Ground, store: Store) -> None:
    foreign = ground.open(app_name="another")
    foreign.rules = RULES
    publish(store, "kept:a", 1)
    assert Position.parse(recover(foreign, "kept:a", None).position).offset == 0


def test_publishers_at_once_leave_no_hole(ground: Ground, store: Store, ear: Ear) -> None:
    ear.listen("long:a")
    start = recover(store, "long:a", None).position

    def work(number: int) -> None:
        other = ground.open()
        other.rules = RULES
        publish(other, "long:a", *(f"{number}:{each}" for each in range(40)))

    gevent.joinall([gevent.spawn(work, number) for number in range(5)], raise_error=True)
    heard = ear.messages(200)
    found = recover(store, "long:a", start)
    assert found.recovered
    assert texts(found) == heard
    assert [event.position for event in found.events] == [event.position for event in ear.events]


# What only a server can do


class Place:
    """A server of the test's own, and workers on it."""

    def __init__(self) -> None:
        self.valkey = start_valkey()
        self._closed: list[Callable[[], None]] = [self.valkey.stop]
        self.store = self.open()

    def open(self) -> Store:
        store = open_store(self.valkey.url, "test", history=RULES)
        self._closed.append(store.close)
        return store

    def command(self, *words: object) -> None:
        import redis

        client = redis.Redis(unix_socket_path=str(self.valkey.directory / "s"))
        client.execute_command(*words)
        client.close()

    def worker(self) -> Fanout:
        fanout = open_fanout(self.open())
        self._closed.append(fanout.close)
        return fanout

    def listen(self, fanout: Fanout, channel: str, since: str | None = None) -> Listener:
        return Listener().listen(fanout, channel, since)

    def close(self) -> None:
        for close in reversed(self._closed):
            close()


@pytest.fixture
def place() -> Iterator[Place]:
    found = Place()
    yield found
    found.close()


def test_a_store_that_was_emptied_begins_a_new_epoch_and_says_so(place: Place) -> None:
    fanout = place.worker()
    socket = place.listen(fanout, "kept:a")
    publish(place.store, "kept:a", 1, 2)
    eventually(lambda: socket.heard == [1, 2])
    position = socket.events[-1].position
    place.command("FLUSHALL")
    (first,) = publish(place.store, "kept:a", 3)
    eventually(lambda: 3 in socket.heard)
    epoch = Position.parse(first).epoch
    assert socket.heard == [1, 2, ("gap", f"{epoch}-0"), 3]
    late = place.listen(fanout, "kept:a", position)
    assert late.answers == [Subscribed(first, False, 0)]


@pytest.mark.parametrize("lost", ["position", "stream"])
def test_half_of_a_history_is_never_taken_for_the_whole(place: Place, lost: str) -> None:
    first, newest = publish(place.store, "kept:a", 1, 2)
    place.command("EVAL", "return redis.call('DEL', unpack(redis.call('KEYS', ARGV[1])))", 0,
                  f"*:{lost}")  # fmt: skip
    found = recover(place.store, "kept:a", first)
    assert (found.recovered, found.events) == (False, ())
    (following,) = publish(place.store, "kept:a", 3)
    if lost == "position":
        assert Position.parse(following).epoch != Position.parse(first).epoch
        assert not recover(place.store, "kept:a", newest).recovered
    else:
        assert Position.parse(following).offset == 3
        assert texts(recover(place.store, "kept:a", newest)) == [3]
        assert not recover(place.store, "kept:a", first).recovered


def test_a_clock_that_went_back_stops_nothing(place: Place) -> None:
    (first,) = publish(place.store, "kept:a", 1)
    # The newest message came, by its clock, an hour from now.
    place.command(
        "EVAL",
        "local key = redis.call('KEYS', '*:position')[1] "
        "return redis.call('HINCRBY', key, 'ms', 3600000)",
        0,
    )
    publish(place.store, "kept:a", 2, 3)
    found = recover(place.store, "kept:a", first)
    assert (found.recovered, texts(found)) == (True, [2, 3])


def test_everything_of_a_history_expires(place: Place) -> None:
    place.store.publish("brief:a", encode(1), key="k")
    found: list[object] = []
    import redis

    client = redis.Redis(unix_socket_path=str(place.valkey.directory / "s"))
    for name in client.keys("*"):
        found.append(name)
        assert client.pttl(name) > 0
    client.close()
    assert len(found) == 3


def test_a_lost_connection_loses_no_message(place: Place) -> None:
    fanout = place.worker()
    socket = place.listen(fanout, "long:a")
    plain = place.listen(fanout, "plain")
    for number in itertools.count(1):
        publish(place.store, "long:a", number)
        if number % 50 == 25:
            place.command("CLIENT", "KILL", "TYPE", "pubsub")
        gevent.sleep(0.001)
        if number == 200:
            break
    eventually(lambda: len(socket.heard) >= 200)
    assert socket.heard == list(range(1, 201))
    assert fanout.counts.gaps == plain.heard.count(("gap", None)) > 0
    assert fanout.counts.recovered > 0


def test_a_server_that_was_restarted_is_a_gap_and_then_goes_on(place: Place) -> None:
    fanout = place.worker()
    socket = place.listen(fanout, "kept:a")
    publish(place.store, "kept:a", 1)
    eventually(lambda: socket.heard == [1])
    place.valkey.kill()
    with pytest.raises(StoreError):
        place.store.publish("kept:a", encode("lost"))
    place.valkey.restart()
    eventually(lambda: len(socket.heard) == 2)
    gap = socket.heard[1]
    assert isinstance(gap, tuple)
    assert str(gap[1]).endswith("-0")
    eventually(lambda: _published(place.store, "kept:a", 2))
    eventually(lambda: 2 in socket.heard)
    assert socket.heard == [1, gap, 2]


def test_what_an_earlier_version_wrote_goes_on_in_its_epoch(place: Place) -> None:
    """It did not note the server; workers of both versions may run side by side."""
    (first,) = publish(place.store, "kept:a", 1)
    place.command("EVAL", "return redis.call('HDEL', redis.call('KEYS', '*:position')[1], "
                  "'server', 'earlier')", 0)  # fmt: skip
    (second,) = publish(place.store, "kept:a", 2)
    assert Position.parse(second) == (Position.parse(first).epoch, 2)


def test_a_server_that_wants_replicas_says_so_of_what_was_asked(place: Place) -> None:
    place.command("CONFIG", "SET", "min-replicas-to-write", "1")
    with pytest.raises(StoreError, match=r"NOREPLICAS.*: it is not done; see whether its replicas"):
        place.store.join("room", "ann", "owner")
    with pytest.raises(StoreError, match=r"NOREPLICAS.*: the message may be lost"):
        place.store.publish("kept:a", encode(1))


def test_a_server_that_lost_its_last_writes_is_told_from_the_one_that_made_them(
    place: Place,
) -> None:
    """A snapshot stands in for a replica: either is a copy that somebody counts on from."""
    fanout = place.worker()
    socket = place.listen(fanout, "kept:a")
    known, newest = publish(place.store, "kept:a", 1, 2)
    place.command("SAVE")
    lost, _ = publish(place.store, "kept:a", "lost", "lost too")
    eventually(lambda: len(socket.heard) == 4)
    place.valkey.kill()
    place.valkey.restart()
    eventually(lambda: len(socket.heard) == 5)
    assert socket.heard[4] == ("gap", newest)
    assert not recover(place.store, "kept:a", lost).recovered, "before the new one counted"
    eventually(lambda: _published(place.store, "kept:a", 3))
    publish(place.store, "kept:a", 4)
    eventually(lambda: socket.heard[5:] == [3, 4])
    assert [Position.parse(event.position or "").offset for event in socket.events[4:]] == [3, 4]
    assert Position.parse(socket.events[5].position or "").epoch != Position.parse(newest).epoch
    assert texts(recover(place.store, "kept:a", newest)) == [3, 4]
    assert texts(recover(place.store, "kept:a", known)) == [2, 3, 4]
    assert recover(place.store, "kept:a", known).recovered
    assert not recover(place.store, "kept:a", lost).recovered
    assert fanout.counts.gaps == 1


def _published(store: Store, channel: str, message: object) -> bool:
    try:
        return store.publish(channel, encode(message)).receivers == 1
    except StoreError:
        return False


def test_memory_forgets_the_oldest_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpulse.store.memory.MAX_KEPT", 3)
    monkeypatch.setattr("gpulse.store.memory.MAX_KEYS", 2)
    store = MemoryStore(rules=RULES)
    positions = [publish(store, f"kept:{number}", 1)[0] for number in range(4)]
    assert not recover(store, "kept:0", positions[0]).recovered
    assert recover(store, "kept:3", positions[3]).recovered
    for key in ("a", "b", "c"):
        store.publish("kept:3", encode(1), key=key)
    assert store.publish("kept:3", encode(1), key="c").duplicate
    assert not store.publish("kept:3", encode(1), key="a").duplicate
