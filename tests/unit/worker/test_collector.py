"""When open sockets are taken out of the collector's sight, and back."""

import gc

import pytest

from gpulse.worker.collector import STEP, Collector


@pytest.fixture
def calls(monkeypatch):
    found = []
    monkeypatch.setattr(gc, "collect", lambda generation: found.append(f"collect {generation}"))
    monkeypatch.setattr(gc, "freeze", lambda: found.append("freeze"))
    monkeypatch.setattr(gc, "unfreeze", lambda: found.append("unfreeze"))
    return found


def test_each_thousand_that_opened_is_frozen_after_the_young_are_collected(calls):
    collector = Collector()
    collector.tick(STEP - 1, 0)
    assert calls == []
    collector.tick(STEP, 0)
    collector.tick(STEP + 1, 0)
    assert calls == ["collect 1", "freeze"]
    collector.tick(2 * STEP, 0)
    assert len(calls) == 4


def test_each_thousand_that_closed_thaws_all(calls):
    collector = Collector()
    collector.tick(STEP, 0)
    calls.clear()
    collector.tick(STEP, STEP - 1)
    assert calls == []
    collector.tick(STEP, STEP)
    assert calls == ["unfreeze"]


def test_sockets_that_come_and_go_are_thawed_and_frozen_in_turn(calls):
    collector = Collector()
    for number in range(1, 5):
        collector.tick(number * STEP, number * STEP)
        collector.tick(number * STEP + 1, number * STEP + 1)
    assert calls == ["unfreeze", "collect 1", "freeze"] * 4
