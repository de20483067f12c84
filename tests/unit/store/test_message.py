"""gpulse/store/message.py: the payload."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpulse.store.message import MAX_PAYLOAD, decode, encode, encode_presence

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.text() | st.binary() | _json)
def test_what_is_encoded_is_decoded(message: object) -> None:
    assert decode("a", encode(message)).message == message


def test_the_wire_form() -> None:
    assert encode("ü") == "tü".encode()
    assert encode(b"\x00") == b"b\x00"
    assert encode(bytearray(b"x")) == encode(memoryview(b"x")) == b"bx"
    assert encode({"a": ["ü", 1, None]}) == 'j{"a":["ü",1,null]}'.encode()


def test_the_body_is_at_hand_without_decoding() -> None:
    event = decode("a", b'j{"a":1}')
    assert (event.channel, event.kind, event.data, event.text) == ("a", "j", b'{"a":1}', '{"a":1}')
    assert event.message is event.message
    assert decode("a", "bü".encode()).text == "ü"
    assert (event.forms, event.position) == ({}, None)


def test_default_is_asked_for_what_json_does_not_know() -> None:
    assert encode(datetime.date(2026, 1, 2), default=str) == b'j"2026-01-02"'


@pytest.mark.parametrize("message", ["\ud800", {"a": "\ud800"}, float("nan"), "x" * MAX_PAYLOAD])
def test_what_cannot_travel_is_refused_before_it_is_sent(message: object) -> None:
    with pytest.raises(ValueError, match=r"surrogates|JSON|longer"):
        encode(message)


def test_what_json_does_not_know_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        encode({"a": object()})


def test_a_position_is_taken_off() -> None:
    event = decode("a", b"pabc-7:j[1]")
    assert (event.kind, event.message, event.position) == ("j", [1], "abc-7")
    assert decode("a", b"pabc-7:b\x00:").data == b"\x00:"


def test_presence_is_a_kind_of_its_own() -> None:
    event = decode("a", encode_presence(True, "ann:ü"))
    assert (event.kind, event.text, event.position) == ("m", "+ann:ü", None)
    assert decode("a", encode_presence(False, "bob")).text == "-bob"


@pytest.mark.parametrize(
    "payload", [b"p", b"pabc-7", b"pabc-7:", b"pabc:tx", b"pA-1:tx", b"pa-1:pa-2:tx", b"m", b"mx"]
)
def test_a_bad_position_or_presence_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"payload|position"):
        decode("a", payload)


@pytest.mark.parametrize("payload", [b"", b"x", b"\xff", b"t\xff", b"j\xc3", b"b" * 5_000_000])
def test_a_foreign_payload_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"payload|decode"):
        decode("a", payload)


def test_foreign_json_fails_only_where_it_is_read() -> None:
    event = decode("a", b"j{")
    assert event.text == "{"
    with pytest.raises(ValueError, match="Expecting"):
        _ = event.message
