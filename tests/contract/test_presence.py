"""gpulse/store/presence.py: two workers on one store, with their own flushes and beats."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from contract.store_ground import Ear, Ground, eventually

from gpulse.store import Store
from gpulse.store.presence import Presence

SOCKETS = 40
LEASE = 60.0


class CountedStore:
    """A store that counts the calls of a name."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> object:
        self.calls.append(name)
        return getattr(self._store, name)


@pytest.fixture
def open_worker(ground: Ground) -> Iterator[Callable[..., Presence]]:
    """``open_worker(lease)``: the presence of a worker, whose services run in threads."""
    workers: list[Presence] = []
    threads: list[threading.Thread] = []

    def spawn(service: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=service, daemon=True))
        threads[-1].start()

    def start(lease: float = LEASE) -> Presence:
        workers.append(Presence(CountedStore(ground.open()), spawn, lease=lease))  # type: ignore[arg-type]
        return workers[-1]

    yield start
    for presence in workers:
        presence.release()
    for thread in threads:
        thread.join(5.0)
    assert not any(thread.is_alive() for thread in threads)


def enter(presence: Presence, member: str) -> bool:
    return presence.join("room", member, hello=f"{member} joined", will=f"{member} gone")


def in_threads(*jobs: Callable[[], object]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)


def test_each_socket_counts_a_moment_later(
    open_worker: Callable[..., Presence], store: Store, ear: Ear
) -> None:
    ear.listen("room")
    one, two = open_worker(), open_worker()
    assert enter(one, "ann")
    assert not enter(two, "ann")
    assert store.members("room") == {"ann": 2}, "first sockets count at once"
    enter(one, "ann")
    enter(one, "ann")
    enter(two, "ann")
    began = time.monotonic()
    eventually(lambda: store.members("room") == {"ann": 5})
    assert time.monotonic() - began < 2.0, "the beat told, not a flush"
    one.leave("room", "ann")
    eventually(lambda: store.members("room") == {"ann": 4})
    for _ in range(2):
        assert not one.leave("room", "ann")
    assert store.members("room") == {"ann": 2}, "last sockets leave at once"
    assert not two.leave("room", "ann")
    assert two.leave("room", "ann")
    assert store.members("room") == {}
    assert ear.messages(2) == ["ann joined", "ann gone"]


def test_sockets_that_come_and_go_together_are_counted(
    open_worker: Callable[..., Presence], store: Store
) -> None:
    workers = [open_worker(), open_worker()]

    def come_and_go(presence: Presence, member: str) -> None:
        for number in range(SOCKETS):
            enter(presence, member)
            enter(presence, member)
            if number % 2:
                presence.leave("room", member)

    members = ("ann", "bob")
    in_threads(
        *(
            lambda presence=presence, member=member: come_and_go(presence, member)  # type: ignore[misc]
            for presence in workers
            for member in members
            for _ in range(3)
        )
    )
    expected = dict.fromkeys(members, 2 * 3 * (2 * SOCKETS - SOCKETS // 2))
    eventually(lambda: store.members("room") == expected)
    for presence in workers:
        calls: list[str] = presence._store.calls  # type: ignore[attr-defined]
        assert calls.count("join") == len(members)
        assert calls.count("restore") < SOCKETS, "every socket costs a call"
        assert "holdings" not in calls, "something had to be mended"


def test_a_killed_worker_takes_all_its_sockets_with_it(
    ground: Ground, store: Store, ear: Ear
) -> None:
    ear.listen("room")
    killed, living = (
        Presence(ground.open(), lambda service: None, lease=lease) for lease in (0.2, LEASE)
    )
    for member in ("ann", "ann", "ann", "bob", "bob"):
        enter(killed, member)
    for member in ("bob", "bob", "bob"):
        enter(living, member)
    killed.flush()
    living.flush()
    assert store.members("room") == {"ann": 3, "bob": 5}
    assert ground.outlast(store, 0.2) == 1
    assert store.members("room") == {"bob": 3}
    assert ear.messages(3) == ["ann joined", "bob joined", "ann gone"]
    # It was stalled only: its next socket and its beat say again what it has.
    enter(killed, "bob")
    killed.flush()
    assert store.members("room") == {"bob": 6}
    killed.beat()
    assert store.members("room") == {"ann": 3, "bob": 6}
    assert ear.messages(4)[3:] == ["ann joined"]
    killed.release()
    assert store.members("room") == {"bob": 3}
    living.release()


def test_thousands_of_numbers_are_told_in_pages(ground: Ground, store: Store) -> None:
    presence = Presence(ground.open(), lambda service: None, lease=LEASE)
    members = [f"m{number}" for number in range(1200)]
    for member in members * 2:
        presence.join("room", member)
    presence.flush()
    assert store.members("room") == dict.fromkeys(members, 2)
    assert store.renew(presence.owner) == (1200, 2400)
    presence.release()
    assert store.members("room") == {}
