"""gpulse/store/slots.py: whose a key is, and what a cluster's answers say of that."""

import random

import pytest
from redis.crc import key_slot as slot_of_redis_py

from gpulse.store.endpoint import Endpoint
from gpulse.store.slots import SLOTS, Redirect, SlotMap, key_slot

A, B, C = Endpoint("a", 1), Endpoint("b", 2), Endpoint("::1", 3)


@pytest.mark.parametrize(
    "key", [b"", b"x", b"{x}y", b"y{x}", b"{}x", b"{x", b"x}", b"{{x}}", b"{a}{b}", b"a{}{b}"]
)
def test_the_slot_of_a_key_is_that_of_its_tag(key: bytes) -> None:
    assert key_slot(key) == slot_of_redis_py(key)


def test_any_key_has_the_slot_that_redis_py_gives_it() -> None:
    chance = random.Random(4)
    for _ in range(300):
        key = bytes(chance.choices(b"{}ab\xff", k=chance.randrange(12)))
        assert key_slot(key) == slot_of_redis_py(key)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("MOVED 7 b:2", Redirect(False, 7, B)),
        ("ASK 7 ::1:3", Redirect(True, 7, C)),
        ("MOVED 7 :2", Redirect(False, 7, Endpoint("a", 2))),
        ("MOVED 7", None),
        ("MOVED x b:2", None),
        ("MOVED 7 b", None),
        ("TRYAGAIN try again later", None),
        ("ERR MOVED b:2", None),
    ],
)
def test_a_redirection_is_read(error: str, expected: Redirect | None) -> None:
    assert Redirect.of(error, A) == expected


def test_a_map_is_read_from_the_answer_of_a_node() -> None:
    reply = [
        [8192, SLOTS - 1, [b"b", 2, b"id", []]],
        [0, 8000, [None, 1, b"id"], [b"", 9, b"id"], [b"?", 8, b"id"]],
    ]
    slots = SlotMap.of(reply, A)
    assert [slots.owner(slot) for slot in (0, 8000, 8001, 8191, 8192, SLOTS - 1)] == [
        *(A, A, None, None, B, B)
    ]
    assert slots.primaries == (A, B)
    assert set(slots.nodes) == {A, B, Endpoint("a", 9), Endpoint("a", 8)}


@pytest.mark.parametrize(
    "reply", [[], None, b"x", [[1]], [[0, 1]], [[0, 1, []]], [[0, 1, [b"a", b"x"]]]]
)
def test_an_answer_that_is_no_map_is_refused(reply: object) -> None:
    with pytest.raises(ValueError, match=r"cannot be read|serves no slot"):
        SlotMap.of(reply, A)


def test_one_slot_moves_and_the_others_stay() -> None:
    slots = SlotMap([(0, 99, A), (100, 199, B)])
    for moved in (0, 50, 99, 100, 199, 150):
        after = slots.with_slot(moved, C)
        for slot in range(200):
            assert after.owner(slot) == (C if slot == moved else slots.owner(slot))
        assert after != slots
        slots = after
    assert slots.with_slot(300, A).owner(300) == A
    assert SlotMap().owner(5) is None
    assert SlotMap([(0, 9, A)], [B]) == SlotMap([(0, 9, A)])
