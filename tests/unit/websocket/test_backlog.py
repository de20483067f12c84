"""How old what waits for a slow reader is."""

from gpulse.websocket.backlog import Backlog


def test_the_oldest_byte_counts_until_it_is_sent():
    backlog = Backlog()
    backlog.grew(100, now=10.0)
    backlog.grew(200, now=12.0)
    assert backlog.age(0, now=15.0) == 5.0
    assert backlog.age(99, now=15.0) == 5.0
    assert backlog.age(100, now=15.0) == 3.0
    assert backlog.age(200, now=15.0) == 0.0


def test_what_comes_within_a_second_is_one_note():
    backlog = Backlog()
    for number in range(1000):
        backlog.grew(number, now=10.0 + number / 2000)
    assert len(backlog._notes) == 1
    assert backlog.age(0, now=12.0) == 2.0


def test_what_was_dropped_moves_the_rest_up():
    backlog = Backlog()
    backlog.grew(100, now=10.0)
    backlog.grew(300, now=20.0)
    backlog.shrank(100)
    assert backlog.age(0, now=21.0) == 1.0
    assert backlog.age(200, now=21.0) == 0.0
