"""Frames of ours, read by the client's side of ``websockets``."""

import pytest
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

from gpulse.websocket.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    encode_close,
    encode_frame,
)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 200_000])
@pytest.mark.parametrize(("opcode", "expected"), [(TEXT, Opcode.TEXT), (BINARY, Opcode.BINARY)])
def test_a_client_reads_the_message(size, opcode, expected):
    client = Protocol(CLIENT, state=OPEN)
    client.receive_data(encode_frame(opcode, b"x" * size))
    (frame,) = client.events_received()
    assert (frame.opcode, frame.fin, bytes(frame.data)) == (expected, True, b"x" * size)


@pytest.mark.parametrize(("size", "head"), [(125, 2), (126, 4), (65535, 4), (65536, 10)])
def test_the_length_chooses_the_shortest_head(size, head):
    assert len(encode_frame(TEXT, b"x" * size)) == head + size


def test_it_is_what_websockets_would_send():
    for data in (b"", b"x" * 125, b"x" * 126, b"x" * 70_000):
        frame = Frame(Opcode.BINARY, data)
        assert encode_frame(BINARY, data) == frame.serialize(mask=False)


@pytest.mark.parametrize(("opcode", "expected"), [(PING, Opcode.PING), (PONG, Opcode.PONG)])
def test_control_frames(opcode, expected):
    for data in (b"", b"x" * 125):
        assert encode_frame(opcode, data) == Frame(expected, data).serialize(mask=False)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 125, 126, 65536])
def test_a_compressed_message_has_its_bit_set(opcode, size):
    first, *rest = encode_frame(opcode, b"x" * size)
    assert encode_frame(opcode, b"x" * size, compressed=True) == bytes((first | 0x40, *rest))


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1012, "grüß"), (4999, "x" * 123)])
def test_a_close(code, reason):
    expected = Frame(Opcode.CLOSE, Close(code, reason).serialize())
    assert encode_close(code, reason) == expected.serialize(mask=False)


def test_a_close_without_a_code_is_empty():
    assert encode_close(1005) == encode_frame(CLOSE, b"")


@pytest.mark.parametrize(("reason", "sent"), [("x" * 130, "x" * 123), ("é" * 62, "é" * 61)])
def test_a_reason_that_is_too_long_is_cut_between_characters(reason, sent):
    assert encode_close(4000, reason) == encode_close(4000, sent)
