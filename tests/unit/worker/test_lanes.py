"""The queue of a pool, with letters for jobs: a to h are requests, o to z handlers, digits
handshakes."""

import pytest

from gpulse.worker.lanes import PASSED, Lanes


def lanes_of(jobs, size=100):
    lanes = Lanes(size)
    lanes.requests.extend(job for job in jobs if job < "o" and job.isalpha())
    lanes.handlers.extend(job for job in jobs if job >= "o")
    lanes.handshakes.extend(job for job in jobs if job.isdigit())
    return lanes


def taken(lanes):
    found = []
    while lanes:
        found.append(lanes.take())
    return "".join(found)


@pytest.mark.parametrize(
    ("requests", "handlers", "order"),
    [
        ("abc", "", "abc"),
        ("", "xyz", "xyz"),
        ("abc", "xyz", "axbycz"),
        ("a", "xyz", "axyz"),
        ("abc", "x", "axbc"),
    ],
)
def test_the_lanes_take_turns_while_both_have_jobs(requests, handlers, order):
    lanes = lanes_of(requests + handlers)
    assert len(lanes) == len(order)
    assert taken(lanes) == order


def test_handshakes_come_behind_both():
    assert taken(lanes_of("12ab" + "xy")) == "axby12"


def test_but_one_is_taken_after_some_others():
    order = taken(lanes_of("12" + "a" * 3 * PASSED))
    assert order == f"{'a' * PASSED}1{'a' * PASSED}2{'a' * PASSED}"
    assert taken(lanes_of("1" + "x" * 2 * PASSED)).index("1") == PASSED


def test_handshakes_have_half_of_the_members():
    lanes = lanes_of("1234", size=5)
    assert len(lanes) == 2
    assert taken(lanes) == "12"
    assert (len(lanes), bool(lanes), lanes.has_waiting) == (0, False, True)
    lanes.end("1")
    lanes.end("1")
    assert len(lanes) == 1
    assert taken(lanes) == "3"


def test_a_pool_of_one_has_handshakes_too():
    assert taken(lanes_of("12", size=1)) == "1"


def test_requests_and_handlers_do_not_wait_for_handshakes_under_way():
    lanes = lanes_of("12abxy", size=1)
    lanes.take_handshake()
    assert len(lanes) == 4
    assert taken(lanes) == "axby"


@pytest.mark.parametrize("job", ["a", "1"])
def test_what_waits_can_be_taken_back(job):
    lanes = lanes_of("ab12")
    lanes.remove(job)
    assert len(lanes) == 3
    assert taken(lanes) == "ab12".replace(job, "")
    with pytest.raises(ValueError, match=r"."):
        lanes.remove(job)


def test_nothing_is_there_at_the_end():
    with pytest.raises(IndexError):
        Lanes(4).take()
