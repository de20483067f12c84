"""What a request id looks like."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpulse.requestid import MAX_LENGTH, accept, make


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "7f3c8a52-6f0e-4a4b-9d53-0e5c2b1c9d11",
        "urn:uuid:7f3c8a52-6f0e-4a4b-9d53-0e5c2b1c9d11",
        "Root=1-67891233-abcdef012345678912345678",
        "dGVzdA+/==",
        "user@host~1._",
        "x" * MAX_LENGTH,
    ],
)
def test_an_id_is_taken_as_it_is(text):
    assert accept(text) == text


NO_IDS = ["", " ", "a b", "a\n", "\na", "a\r\nSet-Cookie: x", 'a"b', "a\\b", "<b>", "a;b", "a,b"]
NO_IDS += ["é", "\u0661", "a\0", "%41", "$(id)", "`id`", "x" * (MAX_LENGTH + 1)]


@pytest.mark.parametrize("text", NO_IDS)
def test_anything_else_is_none(text):
    assert accept(text) == ""


@given(st.text())
def test_what_is_taken_needs_no_escaping_anywhere(text):
    taken = accept(text)
    assert taken in ("", text)
    assert not re.search(r"[^A-Za-z0-9._~:+/=@-]", taken)


def test_a_new_id_is_128_bits_and_is_one():
    made = make()
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert accept(made) == made


def test_new_ids_differ():
    made = {make() for _ in range(10_000)}
    assert len(made) == 10_000
    # Every digit varies: no part of it is a clock, a process or a counter.
    assert all(len({one[place] for one in made}) == 16 for place in range(32))
