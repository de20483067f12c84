"""One line per request, whatever the client sends."""

import re
import time

import pytest

from gpulse.http.accesslog import AccessLog, escape
from gpulse.http.limits import Limits
from gpulse.http.parser import Request, RequestParser
from gpulse.http.response import Response


class Exchange:
    """What the log reads of an exchange."""

    def __init__(self, target=b"/a?b=c", status="200 OK", sent=5, **environ):
        self.request = Request()
        self.request.method = "GET"
        self.request.target = target
        self.environ = {"SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "192.0.2.7"} | environ
        self.response = Response(self.request, lambda data: None, "", True)
        self.response.status = status
        self.response.sent = sent
        self.switched = False
        self.started = time.monotonic()


@pytest.fixture
def lines():
    return []


@pytest.fixture
def log(lines):
    return AccessLog(lines.append, clock=lambda: 1_700_000_000.9)


COMBINED = re.compile(
    r"(\S+) - - \[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "
    r'"((?:[^"\\]|\\.)*)" (\S+) (\d+) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)" (\d+)'
)


def test_a_line_is_apaches_combined_format_and_the_microseconds(log, lines):
    log.write_exchange(Exchange(HTTP_REFERER="http://x/", HTTP_USER_AGENT="curl/8"))
    found = COMBINED.fullmatch(lines[0])
    assert found is not None
    address, stamp, request, status, size, referer, agent, taken = found.groups()
    expected = time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(1_700_000_000))
    assert (address, stamp) == ("192.0.2.7", expected)
    assert (request, status, size) == ("GET /a?b=c HTTP/1.1", "200", "5")
    assert (referer, agent) == ("http://x/", "curl/8")
    assert int(taken) < 60_000_000


def test_what_is_not_known_is_a_dash(log, lines):
    exchange = Exchange(REMOTE_ADDR="")
    exchange.response = None
    log.write_exchange(exchange)
    assert lines[0].startswith("- - - [")
    assert ' - 0 "-" "-" ' in lines[0]


def test_an_open_websocket_is_a_101(log, lines):
    exchange = Exchange()
    exchange.switched = True
    log.write_exchange(exchange)
    assert '" 101 0 ' in lines[0]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain é", "plain é"),
        ('a"b', 'a\\"b'),
        ("a\\b", "a\\\\b"),
        ("a\nb\rc\x00", "a\\x0ab\\x0dc\\x00"),
        ("\x1b[2J\x7f\x9b", "\\x1b[2J\\x7f\\x9b"),
        ("\x85\u2028"[:1], "\\x85"),
    ],
)
def test_escape(text, escaped):
    assert escape(text) == escaped


HOSTILE = 'x" 200 0 "-" "-" 0\r\n192.0.2.9 \\'


@pytest.mark.parametrize("key", ["HTTP_REFERER", "HTTP_USER_AGENT"])
def test_no_field_of_the_client_ends_a_field_or_a_line(log, lines, key):
    log.write_exchange(Exchange(target=HOSTILE.encode(), **{key: HOSTILE}))
    assert COMBINED.fullmatch(lines[0])
    assert "\n" not in lines[0]


def test_a_refusal_names_its_reason(log, lines):
    log.write_refusal(400, "192.0.2.7:5", 'two "Host" fields\n')
    assert lines == [lines[0]]
    assert lines[0].startswith("192.0.2.7:5 - - [")
    assert lines[0].endswith('] "-" 400 0 "-" "-" 0 two \\"Host\\" fields\\x0a')


def test_the_line_of_a_parsed_request(log, lines):
    parser = RequestParser(Limits())
    parser.feed(b"HEAD /%22 HTTP/1.1\r\nHost: x\r\n\r\n")
    exchange = Exchange()
    exchange.request = parser.requests[0]
    log.write_exchange(exchange)
    assert '"HEAD /%22 HTTP/1.1"' in lines[0]
