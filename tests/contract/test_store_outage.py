"""What a worker sees of a store that is away: a real server killed, paused, restarted."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
import redis
from contract.store_ground import Ground, eventually
from services import Valkey, start_valkey

from gpulse.errors import PublishError, StoreError, SubscribeError
from gpulse.historyrules import HistoryRules
from gpulse.store import encode, open_store
from gpulse.store.base import Receipt
from gpulse.store.presence import Presence


@pytest.fixture(params=["unix", "tcp"])
def valkey(request: pytest.FixtureRequest) -> Iterator[Valkey]:
    with start_valkey(port=request.param == "tcp") as server:
        yield server


@pytest.fixture
def ground(valkey: Valkey) -> Iterator[Ground]:
    place = Ground(valkey.url)
    yield place
    place.close()


def took(call: Callable[[], object], error: type[Exception]) -> float:
    """Seconds until ``call`` raised ``error``."""
    began = time.monotonic()
    with pytest.raises(error):
        call()
    return time.monotonic() - began


def test_messages_flow_again_after_a_restart(
    valkey: Valkey, ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gpulse")
    store = ground.open()
    ear = ground.ear(store).listen("a", "b")
    store.publish("a", encode("before"))
    ear.messages(1)
    valkey.kill()
    eventually(lambda: not ear.subscriber.connected)
    gevent.sleep(0.3)
    valkey.restart()
    eventually(lambda: ear.reconnects == 1)
    assert ear.subscriber.connected
    eventually(lambda: _publishes(lambda: store.publish("b", encode("after"))))
    assert ear.messages(2) == ["before", "after"]
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if " is away (" in line]) == 1, lines
    assert len([line for line in lines if line.endswith(" is back")]) == 1, lines


def _publishes(publish: Callable[[], Receipt]) -> bool:
    """True if it went through: the circuit may be open for a moment after the restart."""
    try:
        return publish().receivers == 1
    except PublishError:
        return False


def test_a_dead_store_costs_a_caller_next_to_nothing(valkey: Valkey, ground: Ground) -> None:
    store = ground.open()
    store.publish("a", encode(1))
    valkey.kill()
    assert took(lambda: store.publish("a", encode(2)), PublishError) < 0.5
    began = time.monotonic()
    for _ in range(100):
        with pytest.raises(PublishError, match="failed"):
            store.publish("a", encode(3))
    assert time.monotonic() - began < 0.5
    assert took(lambda: store.members("k"), StoreError) < 0.5


def test_a_hung_store_costs_one_caller_a_quarter_of_a_second(
    valkey: Valkey, ground: Ground
) -> None:
    store = ground.open()
    store.publish("a", encode(1))
    valkey.pause()
    assert took(lambda: store.publish("a", encode(2)), PublishError) < 0.6
    assert took(lambda: store.publish("a", encode(3)), PublishError) < 0.1
    valkey.resume()
    eventually(lambda: _answers(store.ping))


def _answers(ping: Callable[[], None]) -> bool:
    try:
        ping()
    except StoreError:
        return False
    return True


def test_a_subscribe_fails_in_time_when_there_is_no_store(valkey: Valkey, ground: Ground) -> None:
    valkey.kill()
    ear = ground.ear(ground.open())
    began = time.monotonic()
    ear.subscriber.subscribe("a", ear.answers.append)
    eventually(lambda: ear.answers)
    assert time.monotonic() - began < 3.0
    assert isinstance(ear.answers[0], SubscribeError)


def test_a_subscribe_waits_for_a_store_that_comes_soon(valkey: Valkey, ground: Ground) -> None:
    store = ground.open()
    ear = ground.ear(store).listen("a")
    valkey.kill()
    eventually(lambda: not ear.subscriber.connected)
    ear.subscriber.subscribe("b", ear.answers.append)
    valkey.restart()
    eventually(lambda: len(ear.answers) == 2)
    assert ear.answers[1] is None
    eventually(lambda: _publishes(lambda: store.publish("b", encode("heard"))))
    assert ear.messages(1) == ["heard"]


def test_an_unsubscribe_while_away_is_not_undone(valkey: Valkey, ground: Ground) -> None:
    store = ground.open()
    ear = ground.ear(store).listen("a", "b")
    valkey.kill()
    eventually(lambda: not ear.subscriber.connected)
    ear.subscriber.unsubscribe("a")
    valkey.restart()
    eventually(lambda: ear.reconnects == 1)
    eventually(lambda: _publishes(lambda: store.publish("b", encode("heard"))))
    assert store.publish("a", encode("nobody")).receivers == 0


def test_a_store_that_hangs_is_given_up_and_found_again(
    valkey: Valkey, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpulse.store.feed.PROBE", 0.2)
    store = ground.open()
    ear = ground.ear(store).listen("a")
    gevent.sleep(1.0)
    assert ear.reconnects == 0, "an idle connection was given up though it answers PING"
    valkey.pause()
    eventually(lambda: not ear.subscriber.connected, 3.0)
    valkey.resume()
    eventually(lambda: ear.reconnects == 1)
    eventually(lambda: _publishes(lambda: store.publish("a", encode("heard"))))


def test_a_wrong_password_is_said_in_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpulse.store.subscriber.CONFIRM", 0.3)
    with start_valkey(password="right") as valkey:
        wrong = Ground(valkey.url.replace("right", "hunter2"))
        store = wrong.open()
        with pytest.raises(PublishError) as caught:
            store.publish("a", encode(1))
        assert "\n" not in str(caught.value)
        ear = wrong.ear(store)
        ear.subscriber.subscribe("a", ear.answers.append)
        eventually(lambda: ear.answers)
        wrong.close()
    assert "WRONGPASS" in caplog.text
    assert "hunter2" not in caplog.text + str(caught.value)


def test_an_acl_user_reaches_only_its_channels(caplog: pytest.LogCaptureFixture) -> None:
    with start_valkey() as valkey:
        rules = ("on", ">secret", "~*", "+@all", "resetchannels", "&{allowed:*")
        with redis.Redis(unix_socket_path=str(valkey.directory / "s")) as admin:
            admin.execute_command("ACL", "SETUSER", "site", *rules)
        ground = Ground(valkey.url.replace("unix://", "unix://site:secret@"))
        store = ground.open(app_name="allowed")
        ear = ground.ear(store).listen("a")
        store.publish("a", encode("heard"))
        assert ear.messages(1) == ["heard"]
        stranger = ground.ear(ground.open(app_name="forbidden"))
        stranger.subscriber.subscribe("a", stranger.answers.append)
        eventually(lambda: stranger.answers)
        assert "permissions" in str(stranger.answers[0])
        assert stranger.subscriber.connected
        ground.close()
    assert "refused a channel" in caplog.text


def test_the_rights_that_the_docs_name_are_enough() -> None:
    page = (Path(__file__).parents[2] / "docs" / "topics" / "store.rst").read_text()
    found = re.search(r"ACL SETUSER site (on >\S+ [^\n]+)", page)
    assert found is not None
    rules = [rule.replace("PASSWORD", "secret") for rule in found[1].split()]
    with start_valkey() as valkey:
        valkey.command("ACL", "SETUSER", "site", *rules)
        url = valkey.url.replace("unix://", "unix://site:secret@")
        ground = Ground(url)
        store = open_store(url, "pulse", history=HistoryRules([("kept", 10, 60.0)]))
        ear = ground.ear(store).listen("a", "kept")
        store.publish("a", encode(1))
        first = store.publish("kept", encode(2), key="k")
        assert store.publish("kept", encode(2), key="k").duplicate
        store.publish("kept", encode(3))
        assert ear.messages(3) == [1, 2, 3]
        assert [e.message for e in store.recover([("kept", first.position)])[0].events] == [3]
        assert store.channels() == {"a": 1, "kept": 1}
        assert store.join("a", "ann", "owner") == 1
        assert store.members("a") == {"ann": 1}
        store.ping()
        ground.close()
        store.close()
    # The rest of the page's sentence, which needs sentinels, a cluster and replicas.
    assert {"+role", "+cluster|slots", "+wait", "+info"} <= set(rules)


def test_presence_is_restored_after_a_restart(valkey: Valkey, ground: Ground) -> None:
    store = ground.open()
    ear = ground.ear(store).listen("room")
    presence = _presence(ground)
    other = _presence(ground)
    assert presence.join("room", "ann", hello="ann joined", will="ann gone")
    assert not other.join("room", "ann", hello="ann joined", will="ann gone")
    assert other.join("room", "bob", hello="bob joined", will="bob gone")
    assert not other.join("room", "bob", hello="bob joined", will="bob gone")
    other.flush()
    ear.messages(2)
    valkey.restart()
    eventually(lambda: ear.reconnects == 1)
    eventually(lambda: _answers(presence.beat) and _answers(other.beat))
    assert presence.roster("room") == {"ann": 2, "bob": 2}
    assert not presence.leave("room", "ann")
    assert other.leave("room", "ann")
    other.release()
    assert ear.messages(4) == ["ann joined", "bob joined", "ann gone", "bob gone"]
    presence.release()


def test_who_leaves_before_the_beat_mends_is_announced(valkey: Valkey, ground: Ground) -> None:
    ear = ground.ear(ground.open()).listen("room")
    presence = _presence(ground)
    presence.join("room", "ann", will="ann gone")
    valkey.restart()
    eventually(lambda: ear.reconnects == 1)
    assert presence.leave("room", "ann")
    assert ear.messages(1) == ["ann gone"]


def test_a_leave_during_an_outage_is_made_good(valkey: Valkey, ground: Ground) -> None:
    ear = ground.ear(ground.open()).listen("room")
    presence = _presence(ground)
    presence.join("room", "ann", will="ann gone")
    presence.join("room", "bob", will="bob gone")
    valkey.pause()
    with pytest.raises(StoreError):
        presence.leave("room", "ann")
    valkey.resume()
    eventually(lambda: _answers(presence.beat))
    eventually(lambda: _answers(presence.beat))
    assert presence.members("room") == ["bob"]
    assert ear.messages(1) == ["ann gone"]
    presence.release()


def test_a_number_that_is_told_during_an_outage_is_made_good(
    valkey: Valkey, ground: Ground
) -> None:
    presence = _presence(ground)
    presence.join("room", "ann")
    presence.join("room", "ann")
    valkey.pause()
    with pytest.raises(StoreError):
        presence.flush()
    presence.join("room", "ann")
    valkey.resume()
    eventually(lambda: _answers(presence.beat))
    assert presence.roster("room") == {"ann": 3}
    presence.release()


def test_a_member_of_a_stalled_worker_is_greeted_again(valkey: Valkey, ground: Ground) -> None:
    store = ground.open()
    ear = ground.ear(store).listen("room")
    presence = _presence(ground, lease=0.1)
    presence.join("room", "ann", hello="ann joined", will="ann gone")
    assert ground.outlast(store, 0.1) == 1
    presence.beat()
    assert ear.messages(3) == ["ann joined", "ann gone", "ann joined"]
    presence.release()


def test_the_beat_keeps_presence_alive_by_itself(valkey: Valkey, ground: Ground) -> None:
    threads: list[threading.Thread] = []

    def spawn(fn: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=fn, daemon=True))
        threads[0].start()

    presence = Presence(ground.open(), spawn, lease=0.6)
    presence.join("room", "ann")
    reader = open_store(ground.url, ground.app_name)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert reader.sweep() == 0
        assert reader.members("room") == {"ann": 1}
        gevent.sleep(0.1)
    valkey.restart()
    presence.nudge()
    eventually(lambda: _answers(reader.ping) and reader.members("room") == {"ann": 1})
    presence.release()
    threads[0].join(5.0)
    assert not threads[0].is_alive()
    assert reader.members("room") == {}
    reader.close()


def _presence(ground: Ground, lease: float = 60.0) -> Presence:
    """A worker's presence whose beat the test makes itself."""
    return Presence(ground.open(), lambda fn: None, lease=lease)
