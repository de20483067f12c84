"""The chunked coding, decoded by hand and side by side with llhttp."""

import re
import time

import httptools
import pytest
from fuzz.checks import split
from hypothesis import given, settings
from hypothesis import strategies as st

from gpulse.http.chunked import FORBIDDEN_TRAILERS, ChunkDecoder
from gpulse.http.limits import Limits
from gpulse.http.request import RequestError

SMALL = Limits(body=100, chunk_overhead=60, trailers=60)
AMPLE = Limits()
HEAD = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
ABC = b"3\r\nabc\r\n"


def decode(data, cuts=(), limits=AMPLE):
    """The body and what is behind it; None for that while the body is not whole."""
    decoder = ChunkDecoder(limits)
    body, rest = b"", None
    for piece in split(data, cuts):
        if rest is None:
            body += decoder.feed(piece)
            rest = decoder.rest
        else:
            rest += piece
    return body, rest


def status(data, cuts=(), limits=AMPLE):
    try:
        decode(data, cuts, limits)
    except RequestError as error:
        return error.status
    return None


class TestBodies:
    @pytest.mark.parametrize(
        ("sent", "body"),
        [
            (END, b""),
            (b"00000\r\n\r\n", b""),
            (ABC + END, b"abc"),
            (b"003\r\nabc\r\n" + END, b"abc"),
            (b"A\r\n0123456789\r\na\r\n0123456789\r\n" + END, b"01234567890123456789"),
            (b"7\r\na\r\nb\r\n\r\r\n" + END, b"a\r\nb\r\n\r"),
            (b"5\r\n" + END + b"\r\n" + END, END),
            (b"3;a\r\nabc\r\n0;b=c\r\n\r\n", b"abc"),
            (b"3;a;b=c;d\r\nabc\r\n" + END, b"abc"),
            (b'3;a="b;c"\r\nabc\r\n' + END, b"abc"),
            (b'3;a="\\"";b\r\nabc\r\n' + END, b"abc"),
            (b'3;a=""\r\nabc\r\n' + END, b"abc"),
            (b'3;a="\t\xe9"\r\nabc\r\n' + END, b"abc"),
            (b"3 ;\ta\t= b ; c\r\nabc\r\n" + END, b"abc"),
            (b"3\r\nabc\r\n0\r\nX: a\r\nY:\r\nZ:\t\xe9 \r\n\r\n", b"abc"),
        ],
    )
    def test_good(self, sent, body):
        assert decode(sent + b"NEXT") == (body, b"NEXT")
        assert decode(sent, range(len(sent))) == (body, b"")
        for cut in range(len(sent)):
            assert decode(sent[:cut])[1] is None

    @pytest.mark.parametrize(
        "line",
        [
            b"",
            b" ",
            b" 3",
            b"3 ",
            b"3\t",
            b"+3",
            b"-3",
            b"0x3",
            b"3_",
            b"3h",
            b"g",
            b"\xb3",
            b"3\x00",
            b"3\x0b",
            b"3,3",
            b"f" * 16,
            b"0" * 15 + b"3",
            b"3;",
            b"3;;a",
            b"3;a=",
            b"3;=b",
            b"3;a b",
            b"3;a=b c",
            b'3;a="b',
            b'3;a="b"c',
            b'3;a="\\',
            b'3;"a"',
            b"3;a\x00",
            b"3;a=\x7f",
            b"3;a\xe9",
            b"3;a\rb",
            b"3;a\nb",
            b"3\r",
            b"3\n",
        ],
    )
    def test_what_is_no_size_line(self, line):
        sent = line + b"\r\nabc\r\n" + END
        assert status(sent) == 400
        assert status(sent, range(len(sent))) == 400

    @pytest.mark.parametrize(
        "sent",
        [
            b"3\nabc\r\n0\r\n\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"3\r\nabc\r\n0\n\r\n",
            b"3\r\nabc\r\n0\r\n\n",
            b"3\r\nabc\r\n0\r\n\rX",
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"3\r\nabc\rX0\r\n\r\n",
            b"3\r\nab\r\n0\r\n\r\n",
            b"3\r\nabc0\r\n\r\n",
        ],
    )
    def test_lines_end_with_crlf_and_data_where_its_size_says(self, sent):
        assert status(sent) == 400
        assert status(sent, range(len(sent))) == 400

    @pytest.mark.parametrize(
        "trailer",
        [
            b"X",
            b": a",
            b"X : a",
            b"X\t: a",
            b" X: a",
            b"X: a\r\n b",
            b"X Y: a",
            b"X\x00: a",
            b"X: a\x00",
            b"X: a\x7f",
            b"X: a\rb",
            b"X: a\nY: b",
            b"X\xe9: a",
            b"GET /b HTTP/1.1",
            *(name + b": a" for name in FORBIDDEN_TRAILERS),
            *(name.title() + b":" for name in FORBIDDEN_TRAILERS),
        ],
    )
    def test_what_is_no_trailer(self, trailer):
        sent = ABC + b"0\r\n" + trailer + b"\r\n\r\n"
        assert status(sent) == 400
        assert status(sent, range(len(sent))) == 400

    def test_the_fields_that_frame_or_route_are_no_trailers(self):
        assert {b"content-length", b"transfer-encoding", b"host"} <= FORBIDDEN_TRAILERS

    @pytest.mark.parametrize("begun", [b"\x00", b"3;\x01", b"3;a\rb", b"0\r\nX: \x00", b"0\r\n\rX"])
    def test_a_line_that_can_never_be_one_need_not_end_to_be_refused(self, begun):
        assert status(begun) == 400


class TestBounds:
    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            (b"64\r\n" + b"a" * 100 + b"\r\n" + END, None),
            (b"65\r\n", 413),
            (b"32\r\n" + b"a" * 50 + b"\r\n33\r\n", 413),
            (b"fffffffffffffff\r\n", 413),
            (b"1;" + b"a" * 54 + b"\r\n", None),
            (b"1;" + b"a" * 57 + b"\r\n", 400),
            (b"1;" + b"a" * 70, 400),
            (b"0" * 70, 400),
            (b"0\r\nX: " + b"a" * 55 + b"\r\n\r\n", None),
            (b"0\r\nX: " + b"a" * 56 + b"\r\n\r\n", 400),
            (b"0\r\n" + b"X: a\r\n" * 10 + b"\r\n", None),
            (b"0\r\n" + b"X: a\r\n" * 11 + b"\r\n", 400),
            (b"0\r\nX: " + b"a" * 70, 400),
        ],
    )
    def test_each_part_has_one(self, sent, expected):
        assert status(sent, limits=SMALL) == expected
        assert status(sent, range(len(sent)), limits=SMALL) == expected

    def test_small_chunks_are_no_attack(self):
        sent = b"1\r\na\r\n" * 100 + END
        assert decode(sent, limits=SMALL) == (b"a" * 100, b"")
        assert decode(sent, range(len(sent)), limits=SMALL) == (b"a" * 100, b"")

    def test_extensions_of_small_chunks_are_one(self):
        assert status(b"1;aaaaaa\r\na\r\n" * 100 + END, limits=SMALL) == 400

    def test_one_line_is_bounded_however_large_the_body(self):
        decoder = ChunkDecoder(AMPLE)
        decoder.feed(b"7a1200\r\n")
        for _ in range(8):
            decoder.feed(b"x" * 1_000_000)
        decoder.feed(b"\r\n1;")
        for _ in range(AMPLE.chunk_overhead // 1000):
            decoder.feed(b"a" * 1000)
        with pytest.raises(RequestError):
            decoder.feed(b"a" * 1000)

    @pytest.mark.parametrize(
        "line",
        [
            b"1" + b" " * 16_000,
            b"1;a" + b" " * 16_000,
            b"1" + b" ;a" * 5_000 + b"=",
            b"1" + b";a=b" * 4_000 + b"\t\t",
            b'1;a="' + b"\\a" * 8_000,
            b'1;a="' + b"\\\t" * 8_000,
            b"1;" + b"a" * 16_000 + b"=",
        ],
    )
    def test_a_line_takes_no_more_time_than_its_length(self, line):
        began = time.process_time()
        assert status(line + b"\r\n") == 400
        assert time.process_time() - began < 0.2


class Taken:
    """llhttp, and what it took for the body."""

    def __init__(self, data):
        self.body = b""
        self.is_whole = False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(HEAD)
        try:
            for at in range(len(data)):
                if self.is_whole:
                    break
                parser.feed_data(data[at : at + 1])
                self.size = at + 1
        except httptools.HttpParserError:
            self.is_whole = False

    def on_body(self, piece):
        self.body += piece

    def on_message_complete(self):
        self.is_whole = True


ONLY_WE_REFUSE = {
    "more digits than a size has": (b"0000000000000003\r\nabc\r\n" + END, rb"[0-9A-Fa-f]{16}"),
    "an extension without a value": (b"3;a=\r\nabc\r\n" + END, rb"=(\r|;)"),
    "an extension without a name": (b"3;;a\r\nabc\r\n" + END, rb";[;=]"),
    "a value that is half quoted": (b'3;a=b"c"\r\nabc\r\n' + END, rb'=[^;"\r]+"|""'),
    "a trailer that may not be one": (
        b"0\r\nHost: y\r\n\r\n",
        rb"(?i)\r\n(connection|content-type|expect|host)[^\r\n]*:",
    ),
}
"""Where llhttp is content and we are not: an example, and what to know others by."""

ONLY_LLHTTP_REFUSES = {
    "white space before the semicolon": b"3 ;a\r\nabc\r\n" + END,
    "white space behind it": b"3; a\r\nabc\r\n" + END,
    "white space around the sign": b"3;a = b\r\nabc\r\n" + END,
    "white space behind a quoted value": b'3;a="b" ;c\r\nabc\r\n' + END,
}
"""RFC 9112, 7.1.1 has it in the grammar (BWS); it changes neither sizes nor data."""


def pieces_of_bodies():
    """Bytes that go far into a decoder."""
    fragments = [
        ABC,
        END,
        b"0\r\n",
        b"3\r\n",
        b"abc",
        b"\r\n",
        b"A;x=y\r\n0123456789\r\n",
        b'3;a="b\\"c"\r\n',
        b";a",
        b"=b",
        b'"',
        b"0" * 15,
        b"X: a\r\n",
        b"Host: y\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b" ",
        b"\t",
        b"\r",
        b"\n",
        b"\x00",
    ]
    piece = st.sampled_from(fragments) | st.binary(max_size=2)
    return st.lists(piece, max_size=12).map(b"".join)


class TestBesideLlhttp:
    @settings(max_examples=500)
    @given(pieces_of_bodies() | pieces_of_bodies().map(lambda data: ABC + data + END))
    def test_where_both_accept_it_is_the_same_body(self, data):
        theirs = Taken(data)
        try:
            body, rest = decode(data)
        except RequestError:
            if theirs.is_whole:
                taken = data[: theirs.size]
                assert any(re.search(known, taken) for _, known in ONLY_WE_REFUSE.values()), taken
            return
        if rest is None:
            assert not theirs.is_whole
            return
        if not theirs.is_whole:
            # Without white space in lines with a semicolon or a sign it is the same body to both.
            plain = re.sub(rb"[ \t]*([;=])[ \t]*", rb"\1", data[: len(data) - len(rest)])
            plain = re.sub(rb'"[ \t]+(?=[;\r])', b'"', plain)
            assert plain != data
            theirs = Taken(plain)
            assert theirs.is_whole
            return
        assert theirs.body == body
        assert theirs.size == len(data) - len(rest)

    @pytest.mark.parametrize("name", ONLY_WE_REFUSE)
    def test_only_we_refuse(self, name):
        data, known = ONLY_WE_REFUSE[name]
        assert Taken(data).is_whole
        assert status(data) == 400
        assert re.search(known, data)

    @pytest.mark.parametrize("name", ONLY_LLHTTP_REFUSES)
    def test_only_llhttp_refuses(self, name):
        data = ONLY_LLHTTP_REFUSES[name]
        assert not Taken(data).is_whole
        assert decode(data) == (b"abc", b"")

    @settings(max_examples=200)
    @given(pieces_of_bodies(), st.lists(st.integers(0, 200), max_size=8))
    def test_the_cuts_make_no_difference(self, data, cuts):
        try:
            whole = decode(data)
        except RequestError:
            assert status(data, cuts) is not None
        else:
            assert decode(data, cuts) == whole
