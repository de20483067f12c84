"""gpulse/store/position.py: epochs and offsets."""

import pytest

from gpulse.store.position import Head, Position


@pytest.mark.parametrize("text", ["abc-0", "a1b2-17", "z-9999999999999999999"])
def test_a_position_is_written_as_it_is_read(text: str) -> None:
    assert str(Position.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "-1", "a", "a-", "a--1", "a-01", "A-1", "a-1 ", "a-1\n", "x" * 17 + "-1", "a-٣"]
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="position"):
        Position.parse(text)


def test_distances() -> None:
    head = Head(Position("c", 9), (Position("b", 5), Position("a", 2)))
    for since, distance in (
        (Position("c", 9), 0),
        (Position("c", 6), 3),
        (Position("c", 10), None),
        (Position("b", 5), 4),
        (Position("b", 6), None),
        (Position("a", 2), 7),
        (Position("a", 0), 9),
        (Position("a", 3), None),
        (Position("d", 1), None),
        (None, None),
    ):
        assert head.distance_from(since) == distance
    assert [str(head.at(offset)) for offset in (1, 2, 3, 5, 6)] == [
        "a-1",
        "a-2",
        "b-3",
        "b-5",
        "c-6",
    ]
