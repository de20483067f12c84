"""The request parser, fed by hand.  What it refuses, byte by byte, is in tests/wire."""

import gc
import itertools
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpulse.http.head import origin_form
from gpulse.http.limits import Limits
from gpulse.http.parser import PIECES, RequestParser
from gpulse.http.request import RequestError

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: x\r\n"
UPGRADE = (
    b"GET /s HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
)
SMALL = Limits(
    request_line=40, header_count=4, head=200, body=50, spool=20, chunk_overhead=60, trailers=60
)


class Fed:
    """A parser that was fed, and the requests that came out of it, as from a connection."""

    def __init__(self, *pieces, limits=SMALL):
        self.parser = RequestParser(limits)
        self.requests = []
        for piece in pieces:
            self.feed(piece)

    def feed(self, data):
        while data:
            request = self.parser.feed(data)
            data = b""
            if request is not None:
                self.requests.append(request)
                data = self.parser.rest


def parse(*pieces, limits=SMALL):
    return Fed(*pieces, limits=limits)


def status(parser):
    error = parser.parser.error
    return None if error is None else error.status


def chunked(*pieces, end=b"0\r\n\r\n"):
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


class TestRequests:
    def test_a_request_is_told_apart_into_its_parts(self):
        (request,) = parse(POST + b"X-A: 1\r\nContent-Length: 3\r\n\r\nabc").requests
        assert (request.method, request.target) == ("POST", b"/b")
        assert request.fields == {"HTTP_HOST": "x", "HTTP_X_A": "1", "CONTENT_LENGTH": "3"}
        assert (request.content_length, request.body_size, request.body) == (3, 3, [b"abc"])
        assert request.keep_alive
        assert [request.is_http_1_0, request.chunked, request.upgrade] == [False] * 3

    def test_a_request_is_there_when_its_last_byte_is(self):
        parser = parse(POST + b"Content-Length: 3\r\n\r\nab")
        assert not parser.requests
        assert parser.parser.current.body_size == 2
        parser.feed(b"c")
        assert parser.parser.current is None
        assert len(parser.requests) == 1

    def test_one_request_is_given_out_and_what_is_behind_it_is_not_read(self):
        parser = RequestParser(SMALL)
        assert parser.feed(GET + b"BAD\r\n\r\n").target == b"/a"
        assert (parser.rest, parser.error) == (b"BAD\r\n\r\n", None)

    @pytest.mark.parametrize(
        "sent", [b"G", b"\r\nG", GET[:-1], POST + b"Content-Length: 3\r\n\r\n"]
    )
    def test_a_request_has_begun_with_its_first_byte(self, sent):
        assert parse(sent).parser.has_begun
        assert parse(*(sent[at : at + 1] for at in range(len(sent)))).parser.has_begun

    @pytest.mark.parametrize("sent", [b"", b"\r", b"\r\n\r\n", GET, GET + b"\r\n"])
    def test_empty_lines_begin_none(self, sent):
        assert not parse(sent).parser.has_begun

    def test_requests_come_out_in_order(self):
        parser = parse(GET, POST + b"Content-Length: 1\r\n\r\nx" + GET, limits=Limits())
        assert [request.target for request in parser.requests] == [b"/a", b"/b", b"/a"]

    def test_requests_before_an_error_are_served(self):
        parser = parse(GET + b"BAD\r\n\r\n" + GET)
        assert [request.target for request in parser.requests] == [b"/a"]
        assert status(parser) == 400

    def test_nothing_is_parsed_behind_an_error(self):
        parser = parse(b"BAD\r\n\r\n", GET)
        assert not parser.requests
        assert status(parser) == 400

    def test_what_is_unfinished_is_let_go_of_when_it_stops(self):
        parser = parse(POST + b"Content-Length: 3\r\n\r\nab")
        body = parser.parser.current
        parser.parser.stop()
        assert (parser.parser.current, body.body, parser.parser.has_begun) == (None, [], False)

    @pytest.mark.parametrize(
        ("line", "field", "keep_alive"),
        [
            (b"HTTP/1.1", b"", True),
            (b"HTTP/1.1", b"Connection: close\r\n", False),
            (b"HTTP/1.1", b"Connection: TE, Close\r\n", False),
            (b"HTTP/1.0", b"", False),
            (b"HTTP/1.0", b"Connection: keep-alive\r\n", True),
        ],
    )
    def test_whether_the_connection_goes_on_is_the_requests_to_say(self, line, field, keep_alive):
        (request,) = parse(b"GET / " + line + b"\r\nHost: x\r\n" + field + b"\r\n").requests
        assert request.keep_alive is keep_alive

    def test_an_expectation_of_http_1_0_is_ignored(self):
        (request,) = parse(b"GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").requests
        assert not request.expects_continue

    @given(st.lists(st.integers(1, 400), max_size=8))
    def test_the_cuts_between_feeds_make_no_difference(self, cuts):
        data = GET + POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"abc", b"de") + UPGRADE
        parser = parse(limits=Limits())
        edges = [0, *sorted(cut for cut in set(cuts) if cut < len(data)), len(data)]
        for begin, end in itertools.pairwise(edges):
            parser.feed(data[begin:end])
        assert [request.target for request in parser.requests] == [b"/a", b"/b", b"/s"]
        assert b"".join(parser.requests[1].body) == b"abcde"
        assert parser.requests[2].upgrade


class TestBounds:
    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            (b"GET /" + b"a" * 39 + b" HTTP/1.1\r\nHost: x\r\n\r\n", None),
            (b"GET /" + b"a" * 40 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
            (b"GET /" + b"a" * 41, 414),
            (GET[:-2] + b"A: 1\r\n" * 3 + b"\r\n", None),
            (GET[:-2] + b"A: 1\r\n" * 4 + b"\r\n", 431),
            (GET[:-2] + b"A: " + b"a" * 150 + b"\r\n\r\n", None),
            (GET[:-2] + b"A: " + b"a" * 200 + b"\r\n\r\n", 431),
            (GET[:-2] + b"A: " + b"a" * 200, 431),
            (GET[:-2] + b"a" * 200, 431),
            (b"\r\n" * 101, 400),
            (POST + b"Content-Length: 50\r\n\r\n" + b"a" * 50, None),
            (POST + b"Content-Length: 51\r\n\r\n", 413),
            (POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"a" * 25, b"a" * 25), None),
            (POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"a" * 25, b"a" * 26), 413),
            (POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 100, 400),
            (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * 100, 400),
        ],
    )
    def test_each_part_has_one(self, sent, expected):
        assert status(parse(sent)) == expected
        assert status(parse(*(sent[at : at + 1] for at in range(len(sent))))) == expected

    def test_small_chunks_are_no_attack(self):
        sent = POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*[b"a"] * 50)
        assert status(parse(*(sent[at : at + 1] for at in range(len(sent))))) is None

    def test_a_long_chunked_upload_in_full_reads_is_not_taken_for_chunk_overhead(self):
        sent = POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*[b"a" * 8192] * 2048)
        parser = parse(limits=Limits())
        for at in range(0, len(sent), 65536):
            parser.feed(sent[at : at + 65536])
            assert status(parser) is None
            if parser.parser.current is not None:
                parser.parser.current.body.clear()  # as a server that spools
        assert parser.requests[0].body_size == 8192 * 2048

    def test_many_small_pieces_of_a_body_do_not_stay_many(self):
        parser = parse(POST + b"Content-Length: 1000\r\n\r\n", limits=Limits())
        for number in range(999):
            parser.feed(b"%d" % (number % 10))
        current = parser.parser.current
        assert current.body_size == 999
        assert len(current.body) < PIECES
        assert b"".join(current.body)[:12] == b"012345678901"


class TestUpgrades:
    def test_frames_behind_a_handshake_are_kept(self):
        parser = RequestParser(SMALL)
        assert parser.feed(UPGRADE + b"\x81\x80abcd").upgrade
        assert parser.rest == b"\x81\x80abcd"

    def test_a_declined_handshake_goes_on_as_http(self):
        parser = parse(UPGRADE + GET)
        assert [request.target for request in parser.requests] == [b"/s", b"/a"]

    @pytest.mark.parametrize(
        "change",
        [
            (b"GET /s", b"POST /s"),
            (b"HTTP/1.1", b"HTTP/1.0"),
            (b"WebSocket", b"h2c"),
            (b", Upgrade", b""),
            (b"Host: x", b"Host: x\r\nContent-Length: 1"),
            (b"Host: x", b"Host: x\r\nTransfer-Encoding: chunked"),
        ],
    )
    def test_only_a_get_for_websocket_without_a_body_is_one(self, change):
        parser = parse(UPGRADE.replace(*change))
        request = parser.requests[0] if parser.requests else parser.parser.current
        assert not request.upgrade

    def test_a_body_of_a_request_with_upgrade_is_bounded(self):
        sent = POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert status(parse(sent, chunked(b"a" * 51))) == 413


class TestTargets:
    @pytest.mark.parametrize(
        ("method", "target", "host", "expected"),
        [
            ("GET", b"/", "x", b"/"),
            ("GET", b"//x/y", "x", b"//x/y"),
            ("GET", b"/a%20b?c=%00", "x", b"/a%20b?c=%00"),
            ("OPTIONS", b"*", "x", b"*"),
            ("GET", b"http://x/a?b", "x", b"/a?b"),
            ("GET", b"HTTP://X:80/a", "x:80", b"/a"),
            ("GET", b"https://x", "x", b"/"),
            ("GET", b"http://x?q", "x", b"/?q"),
            ("GET", b"http://x/a", None, b"/a"),
            ("GET", b"http://y/a", "x", 400),
            ("GET", b"http://u@x/a", "x", 400),
            ("GET", b"ftp://x/a", "x", 400),
            ("GET", b"*", "x", 400),
            ("GET", b"a", "x", 400),
            ("GET", b"", "x", 400),
            ("GET", b"/a b", "x", 400),
            ("GET", b"/\x7f", "x", 400),
            ("GET", b"/\xc3\xa9", "x", 400),
        ],
    )
    def test_origin_form(self, method, target, host, expected):
        if isinstance(expected, bytes):
            assert origin_form(method, target, host) == expected
        else:
            with pytest.raises(RequestError) as caught:
                origin_form(method, target, host)
            assert caught.value.status == expected


@pytest.mark.parametrize(
    "sent", [GET, GET[:-4], POST + b"Content-Length: 9\r\n\r\n", b"BAD\r\n\r\n"]
)
def test_a_stopped_parser_is_freed_without_the_collector(sent):
    class Watched(RequestParser):
        __slots__ = ("__weakref__",)

    parser = Watched(SMALL)
    parser.feed(sent)
    parser.stop()
    reference = weakref.ref(parser)
    gc.disable()
    try:
        del parser
        assert reference() is None
    finally:
        gc.enable()
