"""How events look to clients."""

import json

import pytest

from gpulse.store.message import GAP, PRESENCE, Event, decode, encode, encode_presence
from gpulse.websocket.frames import BINARY, TEXT
from gpulse.websocket.shapes import enveloped, plain

CHANNEL = 'a"b:é'
POSITION = "e1-7"


@pytest.mark.parametrize(
    ("message", "opcode", "data"),
    [("é", TEXT, "é".encode()), (b"\xff", BINARY, b"\xff"), ({"a": 1}, TEXT, b'{"a":1}')],
)
def test_a_plain_message_is_what_was_published(message, opcode, data):
    assert plain(decode("room", encode(message))) == (opcode, data)


def test_a_plain_client_hears_nothing_of_presence_and_gaps():
    assert plain(decode("room", encode_presence(True, "ann"))) is None
    assert plain(Event("room", GAP, b"")) is None


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ('say "é"', {"data": 'say "é"'}),
        ({"a": [1, None]}, {"data": {"a": [1, None]}}),
        (b"\xff\x00", {"base64": "/wA="}),
    ],
)
@pytest.mark.parametrize("position", [None, POSITION])
def test_an_enveloped_message_names_its_channel_and_position(message, fields, position):
    payload = encode(message)
    if position:
        payload = b"p%s:%s" % (position.encode(), payload)
    opcode, data = enveloped(decode(CHANNEL, payload))
    assert opcode == TEXT
    assert json.loads(data) == {
        "type": "event",
        "channel": CHANNEL,
        "position": position,
        **fields,
    }


def test_presence_and_gaps_are_frames_of_their_own():
    for joined, kind in ((True, "join"), (False, "leave")):
        event = decode(CHANNEL, encode_presence(joined, 'a"é'))
        assert event.kind == PRESENCE
        assert json.loads(enveloped(event)[1]) == {
            "type": kind,
            "channel": CHANNEL,
            "member": 'a"é',
        }
    gap = Event(CHANNEL, GAP, b"", position=POSITION)
    assert json.loads(enveloped(gap)[1]) == {
        "type": "gap",
        "channel": CHANNEL,
        "position": POSITION,
    }
