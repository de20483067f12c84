"""Heads, parsed by hand: fields, framing, and what one head leaves behind for the next."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire.test_wire import CASES, read_case

from gpulse.http import head as module
from gpulse.http.head import HeadParser, check_connection
from gpulse.http.limits import Limits
from gpulse.http.request import Request, RequestError

SHARED = HeadParser(Limits())


def head(*lines, line="GET /a HTTP/1.1", host="x"):
    lines = [line, *([f"Host: {host}"] if host is not None else []), *lines, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def parse(*lines, limits=None, **first):
    parser = SHARED if limits is None else HeadParser(limits)
    return parser.parse(head(*lines, **first))


def status(*lines, limits=None, **first):
    try:
        parse(*lines, limits=limits, **first)
    except RequestError as error:
        return error.status
    return None


class TestFields:
    @pytest.mark.parametrize(
        ("line", "key", "value"),
        [
            ("X-Forwarded-For: 9.9.9.9", "HTTP_X_FORWARDED_FOR", "9.9.9.9"),
            ("x-a: b", "HTTP_X_A", "b"),
            ("Content-Type: text/plain", "CONTENT_TYPE", "text/plain"),
            ("CONTENT-LENGTH: 3", "CONTENT_LENGTH", "3"),
            ("X:", "HTTP_X", ""),
            ("X: \t ", "HTTP_X", ""),
            ("X: \t a b \t", "HTTP_X", "a b"),
            ("X: a:b", "HTTP_X", "a:b"),
            ("X: \xe9\xff", "HTTP_X", "\xe9\xff"),
            ("X!#$%&'*+.^`|~9: a", "HTTP_X!#$%&'*+.^`|~9", "a"),
        ],
    )
    def test_one(self, line, key, value):
        assert parse(line).fields == {"HTTP_HOST": "x", key: value}

    @pytest.mark.parametrize(
        "name", ["X_Forwarded_For", "x_forwarded-for", "_", "Content_Length", "Transfer_Encoding"]
    )
    def test_a_name_with_an_underscore_is_dropped(self, name):
        """CVE-2024-45614: it would be the same key as the field that a proxy sets."""
        real = "X-Forwarded-For: 1.2.3.4"
        fields = {"HTTP_HOST": "x", "HTTP_X_FORWARDED_FOR": "1.2.3.4"}
        for lines in ((f"{name}: 9", real), (real, f"{name}: 9")):
            request = parse(*lines)
            assert request.fields == fields
            assert not request.has_body

    @pytest.mark.parametrize("name", ["Proxy", "proxy", "PROXY"])
    def test_proxy_would_be_a_variable_of_the_environment(self, name):
        assert parse(f"{name}: http://evil/").fields == {"HTTP_HOST": "x"}

    def test_a_repeated_one_is_a_list(self):
        fields = parse("Accept: a", "X: y", "accept: b ", "ACCEPT: c", "X: ").fields
        assert fields == {"HTTP_HOST": "x", "HTTP_ACCEPT": "a,b,c", "HTTP_X": "y,"}

    def test_cookies_are_joined_as_browsers_join_them(self):
        assert parse("Cookie: a=1", "Cookie: b=2").fields["HTTP_COOKIE"] == "a=1; b=2"

    @pytest.mark.parametrize(
        "name", ["Host", "Content-Length", "Content-Type", "Transfer-Encoding", "content-type"]
    )
    @pytest.mark.parametrize("second", ["1", "2"])
    def test_those_that_two_readers_could_disagree_about_stand_once(self, name, second):
        assert status(f"{name}: 1", f"{name.upper()}: {second}", host=None) == 400

    @pytest.mark.parametrize(
        "line",
        [
            "X : a",
            "X\t: a",
            " X: a",
            "X",
            ": a",
            "X\x00: a",
            "X\xe9: a",
            "X(: a",
            "X: a\x00",
            "X: a\x7f",
            "X: a\x1f",
            "X: a\rb",
            "X: a\nY: b",
            "X: a\r\n b",
            "X: a\r\n\tb",
            "X: a\r",
        ],
    )
    def test_what_is_none(self, line):
        assert status(line) == 400
        assert status("A: b", line, "Content-Length: 3") == 400

    def test_names_and_hosts_made_up_by_clients_do_not_fill_the_memory(self, monkeypatch):
        monkeypatch.setattr(module, "_names", {})
        monkeypatch.setattr(module, "_hosts", set())
        for number in range(1500):
            request = parse(f"X-{number}: a", host=f"h{number}")
            assert request.fields == {"HTTP_HOST": f"h{number}", f"HTTP_X_{number}": "a"}
        assert len(module._names) <= module._NAMES_KEPT
        assert len(module._hosts) <= module._HOSTS_KEPT

    def test_long_names_and_hosts_are_not_kept(self, monkeypatch):
        monkeypatch.setattr(module, "_names", {})
        monkeypatch.setattr(module, "_hosts", set())
        for _ in range(2):
            fields = parse("X" * 30_000 + ": a", host="h" * 30_000).fields
            assert fields == {"HTTP_HOST": "h" * 30_000, "HTTP_" + "X" * 30_000: "a"}
        assert max(map(len, module._names)) < 1000
        assert max(map(len, module._hosts), default=0) < 1000

    def test_a_bad_host_is_not_remembered(self):
        for _ in range(2):
            assert status(host="a b") == 400

    SPECIAL = frozenset(
        ("connection", "content-length", "content-type", "expect", "host", "transfer-encoding")
    )
    NAMES = st.text("abcXYZ019-_!~.", min_size=1, max_size=6) | st.sampled_from(
        ["Cookie", "cookie", "Proxy", "Accept", "X-A", "x-a", "X_A", "Keep-Alive", "Trailer"]
    )
    VALUES = st.text([chr(c) for c in (9, *range(0x20, 0x7F), *range(0x80, 0x100))], max_size=12)

    @settings(max_examples=300)
    @given(
        st.lists(
            st.tuples(NAMES.filter(lambda name: name.lower() not in TestFields.SPECIAL), VALUES),
            max_size=12,
        )
    )
    def test_they_are_what_a_plain_model_says(self, pairs):
        model = {"HTTP_HOST": "x"}
        for name, value in pairs:
            if "_" in name or name.lower() == "proxy":
                continue
            key = "HTTP_" + name.upper().replace("-", "_")
            value = value.strip(" \t")
            if key in model:
                value = model[key] + ("; " if key == "HTTP_COOKIE" else ",") + value
            model[key] = value
        fields = parse(*(f"{name}: {value}" for name, value in pairs)).fields
        for found in (fields, model):
            if "HTTP_COOKIE" in found:  # empty ones may lose the space between them
                found["HTTP_COOKIE"] = found["HTTP_COOKIE"].replace("; ", ";")
        assert fields == model


class TestFraming:
    @pytest.mark.parametrize(
        ("lines", "length", "chunked"),
        [
            ((), 0, False),
            (("Content-Length: 0",), 0, False),
            (("Content-Length: 12",), 12, False),
            (("Content-Length: 0012",), 12, False),
            (("Content-Length:\t12 ",), 12, False),
            (("Transfer-Encoding: chunked",), 0, True),
            (("Transfer-Encoding: \tChunKED ",), 0, True),
        ],
    )
    def test_good(self, lines, length, chunked):
        request = parse(*lines, line="POST /a HTTP/1.1")
        assert (request.content_length, request.chunked) == (length, chunked)
        assert request.has_body is bool(length or chunked)
        assert "HTTP_TRANSFER_ENCODING" not in request.fields

    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            (("Content-Length: 12", "Transfer-Encoding: chunked"), 400),
            (("Transfer-Encoding: chunked", "Content-Length: 0"), 400),
            (("Transfer-Encoding: gzip", "Content-Length: 0"), 400),
            (("Transfer-Encoding:",), 400),
            (("Transfer-Encoding: gzip",), 501),
            (("Transfer-Encoding: identity",), 400),
            (("Content-Length:",), 400),
            (("Content-Length: 1 2",), 400),
            (("Content-Length: 1,2",), 400),
            (("Content-Length: 9999999999999999999",), 413),
            (("Content-Length: 1e3",), 400),
            (("Content-Length: 00000000000000000003",), 400),
            (("Content-Length: \xb2",), 400),
            (("Content-Length: 1073741824",), None),
            (("Content-Length: 1073741825",), 413),
        ],
    )
    def test_refused(self, lines, expected):
        assert status(*lines, line="POST /a HTTP/1.1") == expected

    def test_two_framings_are_refused_though_llhttp_would_let_them_pass(self):
        request = Request()
        request.fields = {
            "HTTP_HOST": "x",
            "HTTP_TRANSFER_ENCODING": "chunked",
            "CONTENT_LENGTH": "3",
        }
        request.method, request.target = "POST", b"/a"
        with pytest.raises(RequestError) as caught:
            check_connection(request, Limits())
        assert caught.value.status == 400

    def test_no_coding_in_http_1_0(self):
        assert status("Transfer-Encoding: chunked", line="POST /a HTTP/1.0") == 400

    def test_an_expectation(self):
        request = parse("Expect: 100-Continue ", "Content-Length: 1", line="POST /a HTTP/1.1")
        assert request.expects_continue
        assert status("Expect: 200-ok") == 417
        assert status("Expect: 100-continue, 200-ok") == 417


class TestRequestLine:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("GET /a HTTP/1.1", None),
            ("GET /a HTTP/1.0", None),
            ("OPTIONS * HTTP/1.1", None),
            ("GET /a HTTP/2.0", 505),
            ("GET /a HTTP/1.2", 505),
            ("GET /a HTTP/3.0", 505),
            ("PRI * HTTP/2.0", 505),
            ("GET /a HTTP/1.1.1", 400),
            ("GET /a HTTP/1", 400),
            ("GET /a HTTP/11", 400),
            ("GET /a HTTP/1.10", 400),
            ("GET /a http/1.1", 400),
            ("GET /a HTTPS/1.1", 400),
            ("GET /a RTSP/1.0", 400),
            ("SOURCE /a ICE/1.0", 400),
            ("GET /a", 400),
            ("GET", 400),
            ("", 400),
            ("GET /a HTTP/1.1 ", 400),
            (" GET /a HTTP/1.1", 400),
            ("GET  /a HTTP/1.1", 400),
            ("GET /a  HTTP/1.1", 400),
            ("GET\t/a\tHTTP/1.1", 400),
            ("GET /a b HTTP/1.1", 400),
            ("GET /a\x0bHTTP/1.1", 400),
            ("get /a HTTP/1.1", 400),
            ("FOO /a HTTP/1.1", 400),
            ("G\x00T /a HTTP/1.1", 400),
            ("CONNECT x:80 HTTP/1.1", 405),
            ("HTTP/1.1 200 OK", 400),
            ("GET /a#b HTTP/1.1", 400),
            ("GET /\xe9 HTTP/1.1", 400),
            ("GET /\x7f HTTP/1.1", 400),
        ],
    )
    def test_its_status(self, line, expected):
        assert status(line=line) == expected


class TestKeepAlive:
    @pytest.mark.parametrize(
        ("version", "lines", "expected"),
        [
            ("1.1", (), True),
            ("1.1", ("Connection: keep-alive",), True),
            ("1.1", ("Connection: close",), False),
            ("1.1", ("Connection: CLOSE",), False),
            ("1.1", ("Connection: foo, close",), False),
            ("1.1", ("Connection: foo ,\tclose ,bar",), False),
            ("1.1", ("Connection: keep-alive, close",), False),
            ("1.1", ("Connection: close", "Connection: keep-alive"), False),
            ("1.1", ("Connection: closed",), True),
            ("1.1", ("Connection: foo;close",), True),
            ("1.1", ("Proxy-Connection: close",), True),
            ("1.1", ("Connection: Upgrade, close", "Upgrade: websocket"), False),
            ("1.0", (), False),
            ("1.0", ("Connection: keep-alive",), True),
            ("1.0", ("Connection: foo, Keep-Alive",), True),
            ("1.0", ("Connection: keep-alive, close",), False),
            ("1.0", ("Connection: close", "Connection: keep-alive"), False),
            ("1.0", ("Proxy-Connection: keep-alive",), False),
        ],
    )
    def test_close_wins(self, version, lines, expected):
        assert parse(*lines, line=f"GET /a HTTP/{version}").keep_alive is expected


class TestOneParserForAll:
    """A worker has one parser: what a stranger sent must not be seen by the next."""

    @pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
    def test_no_head_changes_the_next(self, path):
        data = read_case(path)[0].lstrip(b"\r\n")
        begun, mark, _ = data.partition(b"\r\n\r\n")
        parser = HeadParser(Limits())
        for sent in (
            begun + mark,
            begun,
            begun[: len(begun) // 2],
            begun[: len(begun) // 2] + mark,
        ):
            if sent:
                with contextlib.suppress(RequestError):
                    parser.parse(sent)
            request = parser.parse(head("X: y", line="GET /next HTTP/1.1"))
            assert (request.method, request.target) == ("GET", b"/next")
            assert request.fields == {"HTTP_HOST": "x", "HTTP_X": "y"}
            assert request.keep_alive
            assert [request.has_body, request.upgrade, request.expects_continue] == [False] * 3

    def test_a_head_that_is_not_whole_is_refused(self):
        with pytest.raises(RequestError) as caught:
            HeadParser(Limits()).parse(b"PRI * HTTP/2.0\r\n\r\n")
        assert caught.value.status == 505
        with pytest.raises(RequestError) as caught:
            HeadParser(Limits()).parse(b"GET /a HTTP/1.1\r\nHost: x\r\n")
        assert caught.value.status == 400

    def test_requests_do_not_share_their_fields(self):
        first, second = parse("X: 1"), parse("X: 2")
        assert (first.fields["HTTP_X"], second.fields["HTTP_X"]) == ("1", "2")
