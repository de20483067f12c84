"""gpulse/historyrules.py: which channels keep a history."""

import pytest

from gpulse.historyrules import (
    MAX_RULES,
    REMEMBERED,
    HistoryRule,
    HistoryRules,
    parse_history,
    show_history,
)

ROOMS = (("room:*", 100, 300.0), ("*", 5, 1.5))


@pytest.mark.parametrize(
    "raw",
    [
        "room:*=100/300,*=5/1.5",
        "  room:*=100/300   *=5/1.5 ",
        ["room:*=100/300", "*=5/1.5"],
        {"room:*": {"size": 100, "age": 300}, "*": "5/1.5"},
        ROOMS,
    ],
)
def test_it_may_be_written_in_several_ways(raw: object) -> None:
    assert parse_history(raw) == ROOMS
    assert parse_history(show_history(parse_history(raw))) == ROOMS


def test_nothing_is_nothing() -> None:
    assert parse_history("") == parse_history({}) == parse_history(()) == ()
    assert show_history(()) == "none"
    assert not HistoryRules()
    assert HistoryRules().of("a") is None


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("room", "PATTERN=MESSAGES/SECONDS"),
        ("room=5", "MESSAGES/SECONDS"),
        ("room=x/5", "numbers"),
        ("room=5/nan", "1 to 604800"),
        ("room=10001/5", "0 to 10000"),
        ("room=-1/5", "0 to 10000"),
        ("room=5/0.5", "1 to 604800"),
        ("room=5/604801", "1 to 604800"),
        ("=5/5", "pattern"),
        ("x" * 201 + "=5/5", "pattern"),
        ("a=1/1 a=2/2", "names a twice"),
        ({"a b": "1/1"}, "pattern"),
        ({"a": {"size": 1}}, "a size and an age"),
        ({"a": {"size": 1, "age": 1, "ttl": 1}}, "a size and an age"),
        ([1], "list of texts"),
        (7, "PATTERN=MESSAGES/SECONDS"),
        (",".join(f"c{number}=1/1" for number in range(MAX_RULES + 1)), "at most 100"),
    ],
)
def test_what_is_wrong_is_said(raw: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_history(raw)


@pytest.mark.parametrize(
    ("channel", "rule"),
    [
        ("room:1", HistoryRule(100, 300.0)),
        ("room:", HistoryRule(100, 300.0)),
        ("room:archive", None),
        ("aXroom:1", HistoryRule(5, 1.0)),
        ("a.b", HistoryRule(7, 1.0)),
        ("a-b", None),
        ("b", None),
    ],
)
def test_the_first_pattern_that_matches_decides(channel: str, rule: HistoryRule | None) -> None:
    rules = HistoryRules(parse_history("room:archive=0/1 room:*=100/300 a.b=7/1 a*1=5/1"))
    assert rules.of(channel) == rule
    assert rules.of(channel) == rule


def test_what_is_remembered_has_a_bound() -> None:
    rules = HistoryRules(parse_history("a*=1/1"))
    for number in range(REMEMBERED + 5):
        assert rules.of(f"a{number}") == HistoryRule(1, 1.0)
    assert len(rules._known) <= REMEMBERED
