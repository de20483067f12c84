"""gpulse/store/names.py: no two names are the same, and what belongs together shares a slot."""

import itertools

import pytest

from gpulse.store.names import Names, idempotency, pair, position, stream, unpair
from gpulse.store.slots import key_slot

CHANNELS = [
    "a",
    "room:1",
    "}",
    "}x",
    "a}",
    "a}:stream",
    "a}:key:x",
    "{a}",
    "1:a",
    "größe",
    "stream",
]
KEYS = ["", "x", "x}:stream", "stream", "a:key:b", "%", "%7D"]


def test_no_two_names_are_the_same() -> None:
    seen: dict[bytes, object] = {}
    for app in ("a", "a:1", "a%3A1", "a:0:x"):
        seen[Names(app, 0).presence] = app
        seen[Names(app, 0).notes] = app
    assert len(seen) == 8
    for app, db, channel in itertools.product(["a", "a:1", "a%3A1", "%"], [0, 1, 11], CHANNELS):
        names = Names(app, db)
        wire = names.wire(channel)
        keys = [wire, stream(wire), position(wire), *(idempotency(wire, key) for key in KEYS)]
        for number, key in enumerate(keys):
            assert seen.setdefault(key, (app, db, channel, number)) == (app, db, channel, number)


def test_a_channel_and_its_keys_share_a_slot() -> None:
    for channel in CHANNELS:
        wire = Names("site", 0).wire(channel)
        slot = key_slot(wire)
        assert {key_slot(stream(wire)), key_slot(position(wire))} == {slot}
        assert {key_slot(idempotency(wire, key)) for key in KEYS} == {slot}
    names = Names("site", 0)
    assert key_slot(names.presence) == key_slot(names.notes)
    assert key_slot(names.wire("a")) != key_slot(names.wire("b"))


def test_a_name_comes_back() -> None:
    names = Names("a:b", 3)
    for channel in CHANNELS:
        assert names.channel(names.wire(channel)) == channel
    for foreign in (b"{a:b:3:x}", names.wire("x") + b":stream", b"x", Names("a:b", 4).wire("x")):
        with pytest.raises(ValueError, match="no channel of this site"):
            names.channel(foreign)


def test_a_glob_matches_itself_only() -> None:
    assert Names("a*", 0).glob("room:*") == b"{a\\*:0:room:*}"
    assert Names("a", 0).glob("[x]?\\") == b"{a:0:\\[x\\]\\?\\\\}"


def test_a_pair_comes_apart() -> None:
    for first, second in [(b"", b""), (b"1:a", b":"), (b"{x}", b"m+ann")]:
        assert unpair(pair(first, second)) == (first, second)
    for bad in (b"", b"x:", b"5:abc", b"-1:abc", b"3"):
        with pytest.raises(ValueError, match=r"pair|int"):
            unpair(bad)
