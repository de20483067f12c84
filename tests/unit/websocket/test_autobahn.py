"""Every case of the Autobahn table against the decoder and the encoder alone, echoing in memory.

``tests/contract/test_autobahn.py`` plays the same over sockets.
"""

from collections import Counter

import pytest
from wire.websocket.autobahn import (
    BINARY,
    CASES,
    CLOSE,
    LARGEST,
    PING,
    SILENCE,
    TEXT,
    Reader,
    check,
)

from gpulse.websocket.codec import Decoder
from gpulse.websocket.deflate import compress, negotiate
from gpulse.websocket.frames import PONG, encode_close, encode_frame


class Echo:
    """A server that answers each message with itself; what it sends goes to the client's ear."""

    def __init__(self, offer):
        self.deflate = negotiate(offer)
        self.bits = self.deflate.server_bits if self.deflate else 0
        self.decoder = Decoder(LARGEST, self.deflate is not None)
        self.client = Reader(self.bits)
        self.ended = False

    def feed(self, data):
        for opcode, content in self.decoder.feed(data):
            if opcode == CLOSE:
                self.end(*content)
            elif opcode == PING:
                self.client.feed(encode_frame(PONG, content))
            elif opcode in (TEXT, BINARY):
                payload = content.encode() if opcode == TEXT else content
                if self.bits:
                    payload = compress(payload, self.bits)
                self.client.feed(encode_frame(opcode, payload, compressed=self.bits > 0))
        if self.decoder.error is not None:
            self.end(*self.decoder.error)

    def end(self, code, reason):
        if not self.ended:
            self.ended = True
            self.client.feed(encode_close(code, reason))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_case(case):
    echo = Echo(case.offer)
    assert (echo.deflate is not None) is bool(case.offer)
    for step in case.steps():
        if isinstance(step, bytes):
            echo.feed(step)
        else:
            check(echo.client.next(), step)
    check(echo.client.next(), SILENCE)
    assert echo.ended


def test_the_table_is_the_suites():
    """Its report counts 517 cases in these sections."""
    sections = Counter(case.id.split(".")[0] for case in CASES)
    assert sections == Counter(
        {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37}
        | {"9": 54, "10": 1, "12": 90, "13": 126}
    )
    assert len({case.id for case in CASES}) == len(CASES) == 517
