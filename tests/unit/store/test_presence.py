"""gpulse/store/presence.py on a store in memory that can lose its data, stall or be away."""

from collections.abc import Callable, Iterator

import pytest
from unit.store.frail_store import FrailStore, enter, worker

from gpulse.errors import StoreError
from gpulse.store.base import Holding, Note, check_name
from gpulse.store.presence import Presence


@pytest.fixture
def store() -> FrailStore:
    return FrailStore()


@pytest.fixture
def news(store: FrailStore) -> list[object]:
    """What is said on the channel ``room``."""
    return store.listen("room")


def test_first_and_last_are_over_all_workers(store: FrailStore, news: list[object]) -> None:
    one, two = worker(store), worker(store)
    assert enter(one, "ann")
    assert not enter(one, "ann")
    assert not enter(two, "ann")
    assert one.members("room") == two.members("room") == ["ann"]
    assert not one.leave("room", "ann")
    assert not one.leave("room", "ann")
    assert two.leave("room", "ann")
    assert news == ["ann joined", "ann gone"]


def test_the_store_is_asked_for_the_first_and_the_last_socket_only(store: FrailStore) -> None:
    presence = worker(store)
    for _ in range(10):
        enter(presence, "ann")
    for _ in range(10):
        presence.leave("room", "ann")
    assert store.calls == ["renew", "join", "leave"]


def test_leaving_what_was_not_joined_does_nothing(store: FrailStore) -> None:
    presence = worker(store)
    assert not presence.leave("room", "ann")
    assert store.calls == []


def test_the_beat_starts_with_the_first_join(store: FrailStore) -> None:
    spawned: list[Callable[[], None]] = []
    presence = Presence(store, spawned.append)
    assert presence.members("room") == []
    assert spawned == []
    enter(presence, "ann")
    enter(presence, "bob")
    assert len(spawned) == 1


def test_the_beat_ends_with_release(store: FrailStore, news: list[object]) -> None:
    spawned: list[Callable[[], None]] = []
    presence = Presence(store, spawned.append)
    enter(presence, "ann")
    presence.release()
    spawned[0]()
    assert news == ["ann joined", "ann gone"]
    assert store.members("room") == {}


def test_the_beat_keeps_the_lease(store: FrailStore) -> None:
    one, two = worker(store), worker(store)
    enter(one, "ann")
    enter(two, "bob")
    for _ in range(4):
        store.now += 10.0
        one.beat()
    assert one.members("room") == ["ann"], "the worker that does not beat is swept by the other"


def test_a_restarted_store_is_restored_without_a_word(
    store: FrailStore, news: list[object]
) -> None:
    one, two = worker(store), worker(store)
    enter(one, "ann")
    enter(two, "ann")
    enter(two, "bob")
    news.clear()
    store.restart()
    one.beat()
    two.beat()
    assert store.members("room") == {"ann": 2, "bob": 1}
    assert news == []


def test_a_swept_worker_greets_again_when_it_wakes(store: FrailStore, news: list[object]) -> None:
    one, two = worker(store), worker(store)
    enter(one, "ann")
    enter(one, "bob")
    enter(two, "bob")
    news.clear()
    store.now += 10.0
    two.beat()
    store.now += 10.0
    two.beat()
    assert news == ["ann gone"]
    one.beat()
    assert news == ["ann gone", "ann joined"]
    assert store.members("room") == {"ann": 1, "bob": 2}


def test_a_partial_loss_is_seen_by_the_number(store: FrailStore) -> None:
    presence = worker(store)
    enter(presence, "ann")
    store.restart()
    enter(presence, "bob")
    assert store.members("room") == {"bob": 1}
    presence.beat()
    assert store.members("room") == {"ann": 1, "bob": 1}


def test_a_leave_in_a_restarted_store_is_still_announced(
    store: FrailStore, news: list[object]
) -> None:
    presence = worker(store)
    enter(presence, "ann")
    store.restart()
    assert presence.leave("room", "ann")
    assert news == ["ann joined", "ann gone"]


def test_a_join_that_fails_has_not_joined(store: FrailStore, news: list[object]) -> None:
    presence = worker(store)
    enter(presence, "ann")
    store.loses_answers = True
    with pytest.raises(StoreError):
        enter(presence, "bob")
    store.loses_answers = False
    presence.beat()
    assert presence.members("room") == ["ann"]
    assert news == ["ann joined", "bob joined", "bob gone"]


def test_a_leave_that_fails_is_made_good_by_the_beat(store: FrailStore, news: list[object]) -> None:
    presence = worker(store)
    enter(presence, "ann")
    store.away = True
    with pytest.raises(StoreError):
        presence.leave("room", "ann")
    with pytest.raises(StoreError):
        presence.beat()
    store.away = False
    presence.beat()
    assert news == ["ann joined", "ann gone"]
    assert store.members("room") == {}


def test_equal_numbers_do_not_hide_a_difference(store: FrailStore) -> None:
    presence = worker(store)
    enter(presence, "ann")
    store.away = True
    with pytest.raises(StoreError):
        presence.leave("room", "ann")
    store.away = False
    enter(presence, "bob")
    store.leave("room", "bob", presence.owner)
    presence.beat()
    assert store.members("room") == {"bob": 1}


def test_thousands_are_restored(store: FrailStore) -> None:
    presence = worker(store)
    for number in range(1200):
        enter(presence, f"m{number}")
    store.restart()
    store.calls.clear()
    presence.beat()
    assert len(store.members("room")) == 1200
    assert store.calls == ["renew", "holdings", "restore", "restore", "restore"]


def test_release_of_a_dead_store_is_only_logged(
    store: FrailStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(owner: str) -> list[tuple[str, str]]:
        raise StoreError("away")

    presence = worker(store)
    enter(presence, "ann")
    monkeypatch.setattr(store, "release", away)
    presence.release()
    assert "will run out" in caplog.text


@pytest.fixture
def bad_values() -> Iterator[tuple[str, str, object]]:
    return iter([("a b", "ann", 1), ("room", "", 1), ("room", "x" * 1001, 1)])


def test_bad_names_and_messages_are_refused_before_anything_is_counted(
    store: FrailStore, bad_values: Iterator[tuple[str, str, object]]
) -> None:
    presence = worker(store)
    for channel, member, hello in bad_values:
        with pytest.raises(ValueError, match=r"channel|member"):
            presence.join(channel, member, hello=hello)
    with pytest.raises(TypeError):
        presence.join("room", "ann", will=object())
    assert store.calls == []


def test_a_holding_says_what_it_is() -> None:
    holding = Holding("k", "ann", Note("k", b"tgone"))
    assert (holding.will, holding.hello) == (Note("k", b"tgone"), None)


def test_the_longest_username_of_django_is_a_member():
    name = "user:" + "\U0001f600" * 150
    assert check_name("member", name) == name
    with pytest.raises(ValueError, match="not 1 to 1000"):
        check_name("member", "x" * 1001)
    with pytest.raises(ValueError, match="not 1 to 200"):
        check_name("owner", "x" * 201)
