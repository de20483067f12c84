"""Frames of ours, read by the client's side of ``websockets``."""

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

from gpulse.websocket.frames import BINARY, TEXT, encode_frame


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
