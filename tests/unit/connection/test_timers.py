"""The deadline wheel, with a clock that is a number."""

import pytest

from gpulse.connection.timers import NEVER, DeadlineWheel


class Item:
    """Remembers when its deadline passed; ``again`` is a deadline that it then sets."""

    def __init__(self, wheel, again=None):
        self.deadline = NEVER
        self.wheel_bucket = 0
        self.passed = []
        self.wheel = wheel
        self.again = again

    def deadline_passed(self, now):
        self.passed.append(now)
        if self.again is not None:
            again, self.again = self.again, None
            self.wheel.set(self, again)


@pytest.fixture
def wheel():
    return DeadlineWheel(100.0, resolution=0.25)


def turn(wheel, until, step=0.25, start=100.0):
    """Turn the wheel as the worker's timer does."""
    now = start
    while now < until:
        now += step
        wheel.turn(now)


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.25, 0.26, 1.0, 59.9])
def test_a_deadline_fires_once_never_early_and_at_most_one_resolution_late(wheel, delay):
    item = Item(wheel)
    wheel.set(item, 100.0 + delay)
    turn(wheel, 100.0 + delay + 10)
    assert len(item.passed) == 1
    assert 0 <= item.passed[0] - (100.0 + delay) <= 0.25
    assert item.deadline == NEVER
    assert len(wheel) == 0


def test_a_deadline_in_the_past_fires_at_the_next_turn(wheel):
    item = Item(wheel)
    wheel.set(item, 5.0)
    assert wheel.turn(100.25) == 1


@pytest.mark.parametrize("moves", [[110.0, 105.0], [105.0, 110.0], [101.0, 120.0, 103.0]])
def test_the_last_deadline_set_counts(wheel, moves):
    item = Item(wheel)
    for deadline in moves:
        wheel.set(item, deadline)
    turn(wheel, 130.0)
    assert [round(moment, 2) for moment in item.passed] == [pytest.approx(moves[-1], abs=0.25)]


def test_never_takes_a_deadline_away(wheel):
    item = Item(wheel)
    wheel.set(item, 101.0)
    wheel.set(item, NEVER)
    turn(wheel, 105.0)
    assert item.passed == []


def test_moving_a_deadline_later_a_thousand_times_leaves_one_entry(wheel):
    item = Item(wheel)
    for step in range(1000):
        wheel.set(item, 101.0 + step)
    assert len(wheel) == 1


def test_a_deadline_set_while_firing_fires_too(wheel):
    item = Item(wheel, again=103.0)
    wheel.set(item, 101.0)
    turn(wheel, 105.0)
    assert [round(moment) for moment in item.passed] == [101, 103]


def test_a_deadline_in_the_past_set_while_firing_does_not_keep_the_wheel_busy(wheel):
    item = Item(wheel, again=1.0)
    wheel.set(item, 101.0)
    assert wheel.turn(101.25) == 1
    assert wheel.turn(101.5) == 1


def test_a_turn_that_comes_late_fires_all_that_is_due(wheel):
    items = [Item(wheel) for _ in range(20)]
    for number, item in enumerate(items):
        wheel.set(item, 101.0 + number)
    assert wheel.turn(110.25) == 10
    assert wheel.turn(200.0) == 10
    assert all(len(item.passed) == 1 for item in items)


def test_taking_away_and_setting_again_every_request_does_not_grow_the_wheel(wheel):
    item = Item(wheel)
    for _ in range(1000):
        wheel.set(item, NEVER)
        wheel.set(item, 105.0)
    assert len(wheel) == 1
