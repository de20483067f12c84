"""What the store tests stand on: stores that share a server, subscribers that remember, patience.

The hub's side runs on gevent in the test process, unpatched, as in a worker in thread mode: let it
run with ``eventually``.
"""

import uuid
from collections.abc import Callable
from typing import Self

import gevent

from gpulse.errors import SubscribeError
from gpulse.store import MemoryStore, Store, open_store
from gpulse.store.base import Subscriber
from gpulse.store.fanout import Fanout
from gpulse.store.historian import Historian
from gpulse.store.message import Event
from gpulse.store.receivers import Subscribed

DEADLINE = 10.0


def eventually(condition: Callable[[], object], deadline: float = DEADLINE) -> None:
    """Let the hub run until ``condition`` is true; fail after ``deadline`` seconds."""
    with gevent.Timeout(deadline, AssertionError(f"not within {deadline} s")):
        while not condition():
            gevent.sleep(0.005)


class Ear:
    """A subscriber and what it heard."""

    def __init__(self, store: Store) -> None:
        self.events: list[Event] = []
        self.answers: list[SubscribeError | None] = []
        self.reconnects = 0
        self.missed: list[str] = []
        self.subscriber: Subscriber = store.open_subscriber(self.events.append, self._count)

    def _count(self, channels: list[str] | None) -> None:
        self.reconnects += 1
        self.missed += ["*"] if channels is None else channels

    def listen(self, *channels: str) -> "Ear":
        """Subscribe and wait until the store has confirmed it."""
        before = len(self.answers)
        for channel in channels:
            self.subscriber.subscribe(channel, self.answers.append)
        eventually(lambda: len(self.answers) == before + len(channels))
        assert self.answers[before:] == [None] * len(channels)
        return self

    def messages(self, count: int) -> list[object]:
        """The first ``count`` messages, when they have come."""
        eventually(lambda: len(self.events) >= count)
        return [event.message for event in self.events]


class Listener:
    """A receiver of a worker's fan-out that remembers."""

    def __init__(self) -> None:
        self.answers: list[object] = []
        self.heard: list[object] = []
        """Messages, and ("gap", position)."""
        self.events: list[Event] = []

    def deliver(self, event: Event) -> None:
        self.events.append(event)
        self.heard.append(event.message)

    def gap(self, channel: str, position: str | None) -> None:
        self.heard.append(("gap", position))

    def listen(self, fanout: Fanout, channel: str, since: str | None = None) -> Self:
        """Subscribe and wait for the answer."""
        fanout.add(channel, self, self.answers.append, since)
        eventually(lambda: self.answers)
        assert isinstance(self.answers[0], Subscribed)
        return self


def open_fanout(store: Store) -> Fanout:
    """What a worker has between a store and its receivers."""
    historian = Historian(store, gevent.spawn, lambda call, *args: call(*args), sleep=gevent.sleep)
    return Fanout(store, historian)


class Ground:
    """Where one test's stores live; each ``open`` is as another worker would have it."""

    def __init__(self, url: str) -> None:
        self.now = 1000.0
        self.url = url
        self.app_name = uuid.uuid4().hex
        self._memory = MemoryStore(clock=lambda: self.now)
        self._open: list[Store] = []
        self._ears: list[Ear] = []

    @property
    def is_memory(self) -> bool:
        return self.url == "memory://"

    @property
    def is_cluster(self) -> bool:
        return "cluster" in self.url

    def open(self, app_name: str = "", url: str = "") -> Store:
        """A store of this test, or of another app name or URL."""
        if self.is_memory:
            return MemoryStore() if app_name or url else self._memory
        store = open_store(url or self.url, app_name or self.app_name)
        self._open.append(store)
        return store

    def ear(self, store: Store) -> Ear:
        ear = Ear(store)
        self._ears.append(ear)
        return ear

    def outlast(self, store: Store, lease: float) -> int:
        """Wait until a lease of ``lease`` seconds is over; what ``sweep`` then says."""
        if self.is_memory:
            self.now += lease + 0.001
            return store.sweep()
        swept: list[int] = []
        eventually(lambda: swept.append(store.sweep()) or swept[-1])
        return swept[-1]

    def close(self) -> None:
        for ear in self._ears:
            ear.subscriber.close()
        for store in self._open:
            store.close()
        gevent.sleep(0)
