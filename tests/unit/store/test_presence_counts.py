"""gpulse/store/presence.py: how many sockets a member has, told to the store a moment later."""

import sys
from collections.abc import Callable

import pytest
from unit.store.frail_store import FrailStore, enter, worker

from gpulse.errors import StoreError
from gpulse.store import presence as presence_module
from gpulse.store.base import Holding
from gpulse.store.presence import Presence


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FrailStore:
    monkeypatch.setattr(presence_module, "FLUSH", 0.0)
    return FrailStore()


@pytest.fixture
def news(store: FrailStore) -> list[object]:
    """What is said on the channel ``room``."""
    return store.listen("room")


class Spawned:
    """A presence whose services the test runs itself; the first one is the beat."""

    def __init__(self, store: FrailStore) -> None:
        self.services: list[Callable[[], None]] = []
        self.presence = Presence(store, self.services.append)

    @property
    def flushes(self) -> list[Callable[[], None]]:
        return self.services[1:]


def test_sockets_are_counted_over_all_workers(store: FrailStore, news: list[object]) -> None:
    one, two = worker(store), worker(store)
    for presence in (one, one, one, two, two):
        enter(presence, "ann")
    enter(two, "bob")
    assert one.roster("room") == {"ann": 2, "bob": 1}, "first sockets are told at once"
    one.flush()
    two.flush()
    assert one.roster("room") == two.roster("room") == {"ann": 5, "bob": 1}
    one.leave("room", "ann")
    two.leave("room", "ann")
    one.flush()
    assert one.roster("room") == {"ann": 4, "bob": 1}
    assert not two.leave("room", "ann")
    assert one.roster("room") == {"ann": 2, "bob": 1}, "the last socket takes what was not told"
    assert not one.leave("room", "ann")
    assert one.leave("room", "ann")
    assert one.roster("room") == {"bob": 1}
    assert news == ["ann joined", "bob joined", "ann gone"]


def test_a_storm_of_sockets_costs_a_call_for_each_page(store: FrailStore) -> None:
    rig = Spawned(store)
    for number in range(1200):
        enter(rig.presence, f"m{number}")
    store.calls.clear()
    for _ in range(3):
        for number in range(1200):
            enter(rig.presence, f"m{number}")
    assert store.calls == []
    assert len(rig.flushes) == 1
    rig.presence.flush()
    assert store.calls == ["restore"] * 3
    assert sys.getsizeof(rig.presence._untold) == sys.getsizeof({}), "a storm leaves its memory"
    assert rig.presence.roster("room") == {f"m{number}": 4 for number in range(1200)}


def test_one_flush_is_under_way_at_a_time(store: FrailStore) -> None:
    rig = Spawned(store)
    for expected in (1, 2):
        for _ in range(5):
            enter(rig.presence, "ann")
        assert len(rig.flushes) == expected
        rig.flushes[-1]()
    assert rig.presence.roster("room") == {"ann": 10}


def test_what_comes_in_while_a_flush_runs_is_told_by_it(
    store: FrailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Spawned(store)
    flush = Presence.flush

    def busy_flush(presence: Presence) -> None:
        flush(presence)
        if store.calls.count("restore") < 3:
            enter(presence, "ann")

    monkeypatch.setattr(Presence, "flush", busy_flush)
    enter(rig.presence, "ann")
    enter(rig.presence, "ann")
    (run,) = rig.flushes
    run()
    assert len(rig.flushes) == 1
    assert rig.presence.roster("room") == {"ann": 4}


def test_a_member_that_left_is_not_told_of(store: FrailStore, news: list[object]) -> None:
    presence = worker(store)
    enter(presence, "ann")
    enter(presence, "ann")
    presence.leave("room", "ann")
    presence.leave("room", "ann")
    store.calls.clear()
    presence.flush()
    assert store.calls == []
    assert news == ["ann joined", "ann gone"]


def test_the_last_socket_takes_all_that_was_told(store: FrailStore, news: list[object]) -> None:
    presence = worker(store)
    for _ in range(3):
        enter(presence, "ann")
    presence.flush()
    assert [presence.leave("room", "ann") for _ in range(3)] == [False, False, True]
    assert store.members("room") == {}
    assert news == ["ann joined", "ann gone"]


@pytest.mark.parametrize("fault", ["away", "loses_answers"])
def test_a_flush_that_fails_is_made_good_by_the_beat(store: FrailStore, fault: str) -> None:
    rig = Spawned(store)
    enter(rig.presence, "ann")
    setattr(store, fault, True)
    enter(rig.presence, "ann")
    rig.flushes[-1]()
    enter(rig.presence, "ann")
    assert len(rig.flushes) == 1, "in doubt, it is the beat's turn"
    setattr(store, fault, False)
    rig.presence.beat()
    assert rig.presence.roster("room") == {"ann": 3}
    enter(rig.presence, "ann")
    assert len(rig.flushes) == 2
    rig.flushes[-1]()
    assert rig.presence.roster("room") == {"ann": 4}


def test_a_flush_whose_answer_was_lost_is_mended_once(store: FrailStore) -> None:
    rig = Spawned(store)
    enter(rig.presence, "ann")
    enter(rig.presence, "ann")
    store.loses_answers = True
    rig.flushes[-1]()
    store.loses_answers = False
    store.calls.clear()
    rig.presence.beat()
    rig.presence.beat()
    assert store.calls == ["renew", "holdings", "renew"]


def test_a_flush_that_fails_half_way_is_made_good_by_the_beat(
    store: FrailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Spawned(store)
    members = [f"m{number}" for number in range(1200)]
    for member in members * 2:
        enter(rig.presence, member)
    restore = store.restore

    def fails_at_the_second(owner: str, holdings: list[Holding]) -> None:
        restore(owner, holdings)
        store.away = True

    monkeypatch.setattr(store, "restore", fails_at_the_second)
    rig.flushes[-1]()
    assert sorted(store.members("room").values()) == [1] * 700 + [2] * 500
    monkeypatch.setattr(store, "restore", restore)
    store.away = False
    store.calls.clear()
    rig.presence.beat()
    assert rig.presence.roster("room") == dict.fromkeys(members, 2)
    assert store.calls == ["renew", "holdings", "restore", "restore"], "only those that differ"


def test_a_flush_that_gets_no_turn_is_made_good_by_the_beat(
    store: FrailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence_module, "PATIENCE", 0.01)
    rig = Spawned(store)
    enter(rig.presence, "ann")
    enter(rig.presence, "ann")
    with rig.presence._in_turn():
        rig.flushes[-1]()
    rig.presence.beat()
    assert rig.presence.roster("room") == {"ann": 2}


def test_a_worker_that_stops_while_its_presence_is_busy_is_told_and_goes_on(
    store: FrailStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(presence_module, "PATIENCE", 0.01)
    presence = worker(store)
    enter(presence, "ann")
    with presence._in_turn():
        presence.release()
    assert "presence is not released, its lease will run out" in caplog.text


def test_where_no_thread_is_to_be_had_the_beat_tells(store: FrailStore) -> None:
    services: list[Callable[[], None]] = []

    def spawn(service: Callable[[], None]) -> None:
        if services:
            raise RuntimeError("can't start new thread")
        services.append(service)

    presence = Presence(store, spawn)
    for _ in range(3):
        enter(presence, "ann")
    presence.leave("room", "ann")
    presence.beat()
    assert presence.roster("room") == {"ann": 2}


def test_a_flush_that_breaks_is_logged(
    store: FrailStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(owner: str, holdings: list[Holding]) -> None:
        raise RuntimeError("of the test")

    rig = Spawned(store)
    enter(rig.presence, "ann")
    enter(rig.presence, "ann")
    with monkeypatch.context() as patch:
        patch.setattr(store, "restore", broken)
        rig.flushes[-1]()
    assert "of the test" in caplog.text
    rig.presence.beat()
    assert rig.presence.roster("room") == {"ann": 2}


def test_a_failure_brings_the_beat_forward(
    store: FrailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Spawned(store)
    enter(rig.presence, "ann")
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            store.away = True
            with pytest.raises(StoreError):
                enter(rig.presence, "bob")
            store.away = False
            store.calls.clear()
        else:
            rig.presence.release()

    monkeypatch.setattr(presence_module.time, "sleep", sleep)
    rig.services[0]()
    assert sum(waits) <= 1.0
    assert store.calls == ["renew", "holdings"]


def test_the_beat_finds_nothing_wrong_in_what_is_not_told_yet(store: FrailStore) -> None:
    presence = worker(store)
    for member in ("ann", "ann", "bob", "bob", "bob"):
        enter(presence, member)
    presence.flush()
    enter(presence, "ann")
    presence.leave("room", "bob")
    store.calls.clear()
    presence.beat()
    assert store.calls == ["renew"]


def test_a_count_that_differs_is_noticed(store: FrailStore) -> None:
    presence = worker(store)
    for member in ("ann", "ann", "ann", "bob"):
        enter(presence, member)
    presence.flush()
    store.restore(presence.owner, [Holding("room", "ann", count=2)])
    presence.beat()
    assert store.members("room") == {"ann": 3, "bob": 1}


def test_a_restarted_store_gets_the_counts_again(store: FrailStore, news: list[object]) -> None:
    one, two = worker(store), worker(store)
    for presence in (one, one, two, two, two):
        enter(presence, "ann")
    enter(two, "bob")
    one.flush()
    two.flush()
    news.clear()
    store.restart()
    one.beat()
    enter(two, "ann")
    two.flush()
    assert store.members("room") == {"ann": 6}, "a flush comes before the beat"
    two.beat()
    assert store.members("room") == {"ann": 6, "bob": 1}
    assert news == []


def test_a_flush_after_a_sweep_greets_again(store: FrailStore, news: list[object]) -> None:
    one, two = worker(store), worker(store)
    for member in ("ann", "ann", "bob"):
        enter(one, member)
    enter(two, "eve")
    one.flush()
    store.now += 20.0
    two.beat()
    assert store.members("room") == {"eve": 1}
    del news[:3]
    enter(one, "ann")
    one.flush()
    assert news == ["ann gone", "bob gone", "ann joined"]
    one.beat()
    assert news[3:] == ["bob joined"]
    assert store.members("room") == {"ann": 3, "bob": 1, "eve": 1}


def test_who_comes_back_after_a_leave_that_failed_has_one_socket(
    store: FrailStore, news: list[object]
) -> None:
    presence = worker(store)
    enter(presence, "ann")
    enter(presence, "ann")
    presence.flush()
    store.away = True
    presence.leave("room", "ann")
    with pytest.raises(StoreError):
        presence.leave("room", "ann")
    store.away = False
    assert enter(presence, "ann")
    assert store.members("room") == {"ann": 1}
    presence.beat()
    assert store.members("room") == {"ann": 1}
    assert news == ["ann joined"], "nobody heard of a going"


def test_release_takes_what_was_told_and_what_was_not(
    store: FrailStore, news: list[object]
) -> None:
    rig = Spawned(store)
    for member in ("ann", "ann", "bob"):
        enter(rig.presence, member)
    rig.presence.flush()
    enter(rig.presence, "bob")
    rig.presence.release()
    store.calls.clear()
    rig.flushes[-1]()
    assert store.calls == []
    assert store.members("room") == {}
    assert news == ["ann joined", "bob joined", "ann gone", "bob gone"]


def test_what_another_server_lacks_in_equal_measure_is_found(store: FrailStore) -> None:
    presence = worker(store)
    enter(presence, "bob")
    presence.beat()
    presence.leave("room", "bob")
    enter(presence, "ann")
    # A replica takes over that has neither: as many members and connections as before.
    store.leave("room", "ann", presence.owner)
    store.join("room", "bob", presence.owner)
    presence.nudge()
    presence.beat()
    assert presence.roster("room") == {"ann": 1}


def test_without_a_thread_for_the_beat_nobody_joins(store: FrailStore) -> None:
    services: list[Callable[[], None]] = []

    def spawn(service: Callable[[], None]) -> None:
        services.append(service)
        if len(services) == 1:
            raise RuntimeError("can't start new thread")

    presence = Presence(store, spawn)
    with pytest.raises(RuntimeError):
        enter(presence, "ann")
    enter(presence, "ann")
    assert len(services) == 2, "a member was joined that nobody keeps alive"
