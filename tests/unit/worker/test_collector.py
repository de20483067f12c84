"""When open sockets are taken out of the collector's sight, and back."""

import gc

import pytest

from gpulse.worker.collector import STEP, STORM, Collector


class Sockets:
    """A worker's, as far as the collector looks at them."""

    def __init__(self):
        self.opened = 0
        self.sessions = range(0)

    def count(self, opened, closed):
        self.opened = opened
        self.sessions = range(opened - closed)


@pytest.fixture
def calls(monkeypatch):
    found = []
    monkeypatch.setattr(gc, "collect", lambda generation: found.append(f"collect {generation}"))
    monkeypatch.setattr(gc, "freeze", lambda: found.append("freeze"))
    monkeypatch.setattr(gc, "unfreeze", lambda: found.append("unfreeze"))
    return found


@pytest.fixture
def sockets():
    return Sockets()


@pytest.fixture
def tick(calls, sockets):
    collector = Collector(sockets)

    def tick(opened, closed):
        sockets.count(opened, closed)
        collector.tick()

    return tick


def test_each_thousand_that_opened_is_frozen_after_the_young_are_collected(calls, tick):
    tick(STEP - 1, 0)
    assert calls == []
    tick(STEP, 0)
    tick(STEP + 1, 0)
    assert calls == ["collect 1", "freeze"]
    tick(2 * STEP, 0)
    assert len(calls) == 4


def test_each_thousand_that_closed_thaws_all(calls, tick):
    tick(STEP, 0)
    calls.clear()
    tick(STEP, STEP - 1)
    assert calls == []
    tick(STEP, STEP)
    assert calls == ["unfreeze"]


def test_sockets_that_come_and_go_are_thawed_and_frozen_in_turn(calls, tick):
    for number in range(1, 5):
        tick(number * STEP, number * STEP)
        tick(number * STEP + 1, number * STEP + 1)
    assert calls == ["unfreeze", "collect 1", "freeze"] * 4


@pytest.fixture
def collect(sockets):
    """A collection of the interpreter's own, after so many sockets were opened."""
    before = list(gc.callbacks)
    collector = Collector(sockets)
    collector.start()
    (looks,) = (each for each in gc.callbacks if each not in before)

    def collect(generation, opened):
        sockets.count(opened, 0)
        for phase in ("start", "stop"):
            looks(phase, {"generation": generation, "collected": 0, "uncollectable": 0})

    yield collect
    collector.stop()
    assert gc.callbacks == before


def test_in_a_storm_what_a_young_collection_leaves_is_frozen_at_once(calls, collect):
    collect(0, STORM - 1)
    assert calls == []
    collect(0, STORM)
    assert calls == ["freeze"]
    collect(0, STORM + 1)
    collect(0, 2 * STORM)
    assert calls == ["freeze"] * 2


def test_sockets_that_come_slowly_are_no_storm(calls, collect):
    for number in range(1, 10):
        collect(1, number * STORM)
        collect(0, number * STORM + STORM - 1)
    collect(2, 10 * STORM)
    assert calls == []
