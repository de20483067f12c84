"""From a request to PEP 3333's environ."""

import io
import socket

import pytest

from gpulse.http import head as module
from gpulse.http.environ import listener_environ, request_environ
from gpulse.http.head import environ_key
from gpulse.http.limits import Limits
from gpulse.http.parser import RequestParser

PEER = ("192.0.2.7", 50000)


class Listener:
    def __init__(self, name=("127.0.0.1", 8060)):
        self.name = name

    def getsockname(self):
        return self.name


def request(target="/a?b=c", fields="", body=b"", version="1.1", method="GET"):
    head = f"{method} {target} HTTP/{version}\r\nHost: x\r\n{fields}\r\n".encode("latin-1")
    parser = RequestParser(Limits())
    made = parser.feed(head + body)
    assert parser.error is None
    return made


def environ(*args, peer=PEER, mode="greenlet", workers=2, name=("127.0.0.1", 8060), **kwargs):
    base = listener_environ(Listener(name), mode, workers)
    return request_environ(request(*args, **kwargs), base, peer)


def test_the_request_line():
    made = environ("/a%2Fb/%C3%A9?q=%C3%A9")
    assert made["REQUEST_METHOD"] == "GET"
    assert made["SCRIPT_NAME"] == ""
    assert made["PATH_INFO"] == "/a/b/Ã©"  # UTF-8 seen as latin-1, as PEP 3333 says
    assert made["QUERY_STRING"] == "q=%C3%A9"
    assert made["RAW_URI"] == "/a%2Fb/%C3%A9?q=%C3%A9"
    assert made["SERVER_PROTOCOL"] == "HTTP/1.1"


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/?", "/", ""),
        ("/a?b?c", "/a", "b?c"),
        ("/%", "/%", ""),
        ("/%zz", "/%zz", ""),
    ],
)
def test_path_and_query(target, path, query):
    made = environ(target)
    assert (made["PATH_INFO"], made["QUERY_STRING"]) == (path, query)


@pytest.mark.parametrize(
    ("fields", "key", "value"),
    [
        ("Accept: a/b\r\n", "HTTP_ACCEPT", "a/b"),
        ("accept: a\r\nACCEPT: b\r\n", "HTTP_ACCEPT", "a,b"),
        ("Cookie: a=1\r\nCookie: b=2\r\n", "HTTP_COOKIE", "a=1; b=2"),
        ("Content-Type: a/b\r\n", "CONTENT_TYPE", "a/b"),
        ("Content-Type: a/b\r\n", "HTTP_CONTENT_TYPE", None),
        ("X-Forwarded-For: 1.2.3.4\r\n", "HTTP_X_FORWARDED_FOR", "1.2.3.4"),
        ("X_Forwarded_For: 9.9.9.9\r\n", "HTTP_X_FORWARDED_FOR", None),
        ("X-Forwarded_For: 9.9.9.9\r\n", "HTTP_X_FORWARDED_FOR", None),
        ("Proxy: http://evil\r\n", "HTTP_PROXY", None),
        ("Proxy-Connection: x\r\n", "HTTP_PROXY_CONNECTION", "x"),
        ("X: \xe9\r\n", "HTTP_X", "\xe9"),
        ("X:\r\n", "HTTP_X", ""),
    ],
)
def test_fields(fields, key, value):
    assert environ(fields=fields).get(key) == value


def test_a_body_with_its_length():
    made = environ(method="POST", fields="Content-Length: 3\r\n", body=b"abc")
    assert made["CONTENT_LENGTH"] == "3"
    assert made["wsgi.input"].read() == b"abc"


def test_a_chunked_body_has_a_length_for_the_application_and_no_coding():
    made = environ(
        method="POST",
        fields="Transfer-Encoding: chunked\r\n",
        body=b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
    )
    assert made["CONTENT_LENGTH"] == "3"
    assert "HTTP_TRANSFER_ENCODING" not in made
    assert made["wsgi.input"].read() == b"abc"
    assert made["wsgi.input_terminated"] is True


def test_no_body_is_an_empty_file():
    made = environ()
    assert "CONTENT_LENGTH" not in made
    assert made["wsgi.input"].read() == b""


def test_a_spooled_body_is_the_file_itself():
    spooled = request(method="POST", fields="Content-Length: 3\r\n", body=b"abc")
    spooled.body, spooled.spool = [], io.BytesIO(b"abc")
    made = request_environ(spooled, listener_environ(Listener(), "thread", 1), PEER)
    assert made["wsgi.input"] is spooled.spool


@pytest.mark.parametrize(
    ("peer", "address", "port"),
    [
        (("192.0.2.7", 50000), "192.0.2.7", "50000"),
        (("::1", 50000, 0, 0), "::1", "50000"),
        ("", "", None),
        (b"\x00abstract", "", None),
    ],
)
def test_the_peer(peer, address, port):
    made = environ(peer=peer)
    assert (made["REMOTE_ADDR"], made.get("REMOTE_PORT")) == (address, port)


@pytest.mark.parametrize(
    ("name", "host", "port"),
    [
        (("10.0.0.1", 8060), "10.0.0.1", "8060"),
        (("::1", 8060, 0, 0), "::1", "8060"),
        ("/run/site.sock", "localhost", "80"),
    ],
)
def test_the_listener(name, host, port):
    made = environ(name=name)
    assert (made["SERVER_NAME"], made["SERVER_PORT"]) == (host, port)


@pytest.mark.parametrize("mode", ["greenlet", "thread"])
@pytest.mark.parametrize("workers", [1, 2])
def test_both_modes_may_call_the_application_again_before_it_returned(mode, workers):
    made = environ(mode=mode, workers=workers)
    assert made["wsgi.multithread"] is True
    assert made["wsgi.multiprocess"] is (workers > 1)
    assert made["wsgi.run_once"] is False
    assert made["gpulse.mode"] == mode


def test_http_1_0():
    assert environ(version="1.0")["SERVER_PROTOCOL"] == "HTTP/1.0"


def test_the_shared_part_is_not_changed_by_a_request():
    base = listener_environ(Listener(), "thread", 1)
    before = dict(base)
    request_environ(request(fields="X: 1\r\n"), base, PEER)
    assert base == before


def test_names_made_up_by_clients_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(module, "_names", {})
    for number in range(3000):
        environ_key(b"X-%d" % number)
    assert len(module._names) == 1000
    assert environ(fields="X-2999: y\r\n")["HTTP_X_2999"] == "y"


def test_a_real_socket_names_its_listener():
    with socket.socket() as listener:
        made = listener_environ(listener, "thread", 1)
    assert made["SERVER_NAME"] == "0.0.0.0"
