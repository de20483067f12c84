"""The queue of a pool, with strings for jobs."""

import pytest

from gpulse.worker.lanes import Lanes


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
    lanes = Lanes()
    lanes.requests.extend(requests)
    lanes.handlers.extend(handlers)
    assert len(lanes) == len(order)
    assert taken(lanes) == order


def test_a_request_can_be_taken_back():
    lanes = Lanes()
    lanes.requests.extend("ab")
    lanes.remove("a")
    assert taken(lanes) == "b"
    with pytest.raises(ValueError, match=r"."):
        lanes.remove("a")


def test_nothing_is_there_at_the_end():
    with pytest.raises(IndexError):
        Lanes().take()
