"""permessage-deflate: what is agreed on, and messages with the extension of ``websockets`` as the
other side."""

import contextlib
import os
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
)
from websockets.frames import Frame, Opcode
from websockets.headers import parse_extension

from gpulse.websocket.deflate import (
    LAST_BLOCKS,
    PIECE,
    InflateError,
    TooLargeError,
    compress,
    inflate,
    is_token,
    negotiate,
    parse_extensions,
)

NAME = "permessage-deflate"
ANSWER = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
HELLO = bytes.fromhex("f248cdc9c90700")  # RFC 7692, 7.2.3.1


class TestParsing:
    @pytest.mark.parametrize(
        ("value", "found"),
        [
            ("", []),
            (" , ,\t", []),
            ("a", [("a", [])]),
            ("a, b", [("a", []), ("b", [])]),
            (", a ,,b,", [("a", []), ("b", [])]),
            ("a;x;y=1", [("a", [("x", None), ("y", "1")])]),
            ("a ; x = 1 ; y", [("a", [("x", "1"), ("y", None)])]),
            ('a; x="1"', [("a", [("x", "1")])]),
            ('a; x="\\1\\5", b', [("a", [("x", "15")]), ("b", [])]),
            ("a; x=1; x=2", [("a", [("x", "1"), ("x", "2")])]),
        ],
    )
    def test_a_list(self, value, found):
        assert parse_extensions(value) == found

    @pytest.mark.parametrize(
        "value",
        [
            "a b",
            "a;",
            "a; ,b",
            ";x",
            "a; x=",
            "a; =1",
            "a; x=1=2",
            'a; x="',
            'a; x="1',
            'a; x=""',
            'a; x="a b"',
            'a; x="1"2',
            "a; x='1 2'",
            'a; x="1,b',
            "\xe9",
            "a/b",
            "a\n",
            "a; x\x00",
        ],
    )
    def test_what_is_none(self, value):
        with pytest.raises(ValueError, match=r"token|list"):
            parse_extensions(value)

    @given(st.text('ab;,= "\\\t\n', max_size=30))
    def test_no_text_is_read_in_two_ways(self, value):
        try:
            found = parse_extensions(value)
        except ValueError:
            return
        again = ", ".join(
            "; ".join([name, *(p if v is None else f'{p}="{v}"' for p, v in parameters)])
            for name, parameters in found
        )
        assert parse_extensions(again) == found

    def test_a_long_field_is_no_work(self):
        """It would be minutes if the expressions could go back."""
        for value in (
            "a; x" * 5000,
            'a; x="' + "\\" * 20_001,
            " \t" * 20_000 + "(",
            "a" + " " * 20_000,
        ):
            with contextlib.suppress(ValueError):
                parse_extensions(value)


@pytest.mark.parametrize("text", ["a", "x-webkit.deflate_1", "!#$%&'*+-.^_`|~"])
def test_a_token(text):
    assert is_token(text)


@pytest.mark.parametrize("text", ["", "a b", "a,", '"', "é", "a\n", "(", "a/b"])
def test_no_token(text):
    assert not is_token(text)


class TestNegotiation:
    @pytest.mark.parametrize(
        ("offer", "bits", "response"),
        [
            (NAME, 15, ANSWER),
            (f"{NAME}; client_max_window_bits", 15, ANSWER),  # Chromium, Firefox
            (f"{NAME}; client_max_window_bits=8", 15, ANSWER),
            (f"{NAME}; client_no_context_takeover; server_no_context_takeover", 15, ANSWER),
            (f"{NAME}; server_max_window_bits=9", 9, f"{ANSWER}; server_max_window_bits=9"),
            (f'{NAME}; server_max_window_bits="12"', 12, f"{ANSWER}; server_max_window_bits=12"),
            (f"{NAME}; server_max_window_bits=15", 15, f"{ANSWER}; server_max_window_bits=15"),
            (f"x-other; {NAME}=1, {NAME}", 15, ANSWER),
            (f"{NAME}; server_max_window_bits=8, {NAME}", 15, ANSWER),
            (f"{NAME}; what, {NAME}; server_max_window_bits=10, {NAME}", 10, None),
        ],
    )
    def test_the_first_offer_that_we_can_keep_to(self, offer, bits, response):
        agreed = negotiate(offer)
        assert agreed.server_bits == bits
        assert agreed.response == (response or f"{ANSWER}; server_max_window_bits={bits}")

    @pytest.mark.parametrize(
        "offer",
        [
            "",
            "x-webkit-deflate-frame",
            NAME.upper(),
            f"{NAME}; server_max_window_bits=8",
            f"{NAME}; server_max_window_bits",
            f"{NAME}; server_max_window_bits=16",
            f"{NAME}; server_max_window_bits=7",
            f"{NAME}; server_max_window_bits=09",
            f"{NAME}; server_max_window_bits=+9",
            f"{NAME}; client_max_window_bits=16",
            f"{NAME}; client_max_window_bits=015",
            f"{NAME}; client_max_window_bits=x",
            f"{NAME}; server_no_context_takeover=1",
            f"{NAME}; client_no_context_takeover=true",
            f"{NAME}; server_no_context_takeover; server_no_context_takeover",
            f"{NAME}; server_max_window_bits=9; server_max_window_bits=9",
            f"{NAME}; client_max_window_bits; client_max_window_bits=9",
            f"{NAME}; mux",
        ],
    )
    def test_what_is_declined(self, offer):
        assert negotiate(offer) is None

    @pytest.mark.parametrize("server", [None, 9, 15])
    @pytest.mark.parametrize("client", [None, True, 9, 15])
    @pytest.mark.parametrize("takeover", [False, True])
    def test_a_real_client_takes_the_answer(self, server, client, takeover):
        factory = ClientPerMessageDeflateFactory(takeover, takeover, server, client)
        offer = "; ".join(
            [NAME, *(n if v is None else f"{n}={v}" for n, v in factory.get_request_params())]
        )
        ((_, parameters),) = parse_extension(negotiate(offer).response)
        agreed = factory.process_response_params(parameters, [])
        assert agreed.local_no_context_takeover
        assert agreed.remote_no_context_takeover
        assert agreed.remote_max_window_bits == (server or 15)


TEXTS = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(str.encode),
    st.tuples(st.binary(min_size=1, max_size=30), st.integers(1, 5000)).map(lambda t: t[0] * t[1]),
)


class TestMessages:
    @given(TEXTS, st.integers(9, 15))
    def test_a_client_reads_what_we_compress(self, data, bits):
        client = PerMessageDeflate(True, True, bits, 15)
        sent = Frame(Opcode.BINARY, compress(data, bits), rsv1=True)
        assert bytes(client.decode(sent, max_size=10**6).data) == data

    @given(TEXTS, st.integers(9, 15))
    def test_we_read_what_a_client_compresses(self, data, bits):
        client = PerMessageDeflate(True, True, 15, bits)
        sent = bytes(client.encode(Frame(Opcode.BINARY, data)).data)
        assert inflate(sent, len(data)) == data

    @pytest.mark.parametrize("bits", [9, 15])
    def test_a_window_is_kept_to(self, bits):
        """zlib refuses a distance beyond the window that it is given."""
        data = os.urandom(3000) * 20
        reader = zlib.decompressobj(-bits)
        assert reader.decompress(compress(data, bits) + b"\x00\x00\xff\xff") == data

    def test_the_same_for_all_is_the_same(self):
        data = b'{"type":"event"}' * 100
        assert compress(data, 15) == compress(data, 15)
        assert len(compress(data, 15)) < len(data) / 10

    @pytest.mark.parametrize(
        "data",
        [
            HELLO,
            HELLO[:-1] + b"\x00",
            bytes.fromhex("000500faff48656c6c6f00"),  # 7.2.3.3: not compressed
            bytes.fromhex("f348cdc9c9070000"),  # 7.2.3.4: a last block
            bytes.fromhex("f248050000 00ffffcac9c90700".replace(" ", "")),  # 7.2.3.5: two blocks
        ],
    )
    def test_the_examples_of_the_rfc(self, data):
        assert inflate(data, 5) == b"Hello"

    def test_an_empty_message(self):
        assert inflate(compress(b"", 15), 0) == b""
        assert inflate(b"", 0) == b""

    @pytest.mark.parametrize(
        "data",
        [
            b"\xff",
            b"\x07",
            HELLO[:-1],
            HELLO[:-2],
            HELLO + b"junk",
            bytes.fromhex("f348cdc9c9070000") + b"junk",
            bytes.fromhex("f348cdc9c90700"),  # a last block, and not the byte that has to follow
            HELLO + b"\x00\x00\xff",
            os.urandom(64) + b"\xff\xff",
        ],
    )
    def test_what_is_no_message(self, data):
        with pytest.raises(InflateError):
            inflate(data, 1000)

    def test_last_blocks_are_counted(self):
        empty = b"\x03\x00"
        assert inflate(empty * LAST_BLOCKS + b"\x00", 10) == b""
        with pytest.raises(InflateError, match="last blocks"):
            inflate(empty * (LAST_BLOCKS + 1) + b"\x00", 10)

    @given(st.binary(max_size=100))
    def test_any_bytes_are_a_message_or_refused(self, data):
        with contextlib.suppress(InflateError, TooLargeError):
            assert len(inflate(data, 1000)) <= 1000


class TestBound:
    @pytest.mark.parametrize("size", [1, 1000, PIECE, PIECE + 1, 10 * PIECE])
    def test_it_is_exact(self, size):
        for data in (b"\x00" * size, os.urandom(size)):
            sent = compress(data, 15)
            assert inflate(sent, size) == data
            with pytest.raises(TooLargeError):
                inflate(sent, size - 1)

    @pytest.mark.parametrize("limit", [0, 1000, 1 << 20, 8 << 20])
    def test_a_bomb_does_not_go_off(self, limit):
        bomb = compress(b"\x00" * (64 << 20), 15)
        tracemalloc.start()
        try:
            with pytest.raises(TooLargeError):
                inflate(bomb, limit)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < limit * 9 // 8 + len(bomb) + 12 * PIECE

    def test_a_bomb_in_last_blocks_neither(self):
        deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
        block = deflater.compress(b"\x00" * 100_000) + deflater.flush()
        with pytest.raises(TooLargeError):
            inflate(block * 10 + b"\x00", 999_999)
        assert len(inflate(block * 10 + b"\x00", 1_000_000)) == 1_000_000
