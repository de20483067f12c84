"""Published holes of other servers that bytes of a client alone do not show, on both pools.

Those that they do show are cases of ``tests/wire/http``; ``tests/wire/test_table.py`` has all.
"""

import time

import gevent
import pytest
from contract.test_upgrade import loop
from contract.wsgi_site import until

GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


def page(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"a page"]


class TestResponses:
    @pytest.mark.parametrize(
        ("status", "field"),
        [
            ("200 OK", ("X", "a\r\nSet-Cookie: b=c")),
            ("200 OK", ("X", "a\r\n\r\nHTTP/1.1 200 OK")),
            ("200 OK", ("X", "a\rSet-Cookie: b=c")),
            ("200 OK", ("X", "a\nSet-Cookie: b=c")),
            ("200 OK", ("X", "a\x00Set-Cookie: b=c")),
            ("200 OK", ("X", "Set-Cookie: \u20ac")),
            ("200 OK", ("X\r\nSet-Cookie", "b=c")),
            ("200 OK", ("X: a\r\nSet-Cookie", "b=c")),
            ("200 OK", ("Link", "</a.css>; rel=preload\r\nSet-Cookie: b=c")),
            ("200 OK", ("Transfer-Encoding", "Set-Cookie")),
            ("200 OK", ("Content-Length", "6\r\nSet-Cookie: b=c")),
            ("200 OK", ("Content-Length", "6, 6")),
            ("200 OK\r\nSet-Cookie: b=c", ("X", "a")),
            ("200 OK\nSet-Cookie: b=c", ("X", "a")),
            ("200 OK\rSet-Cookie: b=c", ("X", "a")),
            ("200 OK\x00Set-Cookie: b=c", ("X", "a")),
        ],
    )
    @pytest.mark.parametrize("as_stream", [False, True])
    def test_a_head_that_would_be_two_is_a_500(self, serve, status, field, as_stream):
        """CVE-2018-1000164, CVE-2020-5247, CVE-2026-42545: only that request suffers."""

        def application(environ, start_response):
            if environ["PATH_INFO"] == "/page":
                return page(environ, start_response)
            start_response(status, [("Content-Type", "text/plain"), field])
            return iter([b"a", b"page"]) if as_stream else [b"a page"]

        site = serve(application, size=1)
        client = site.connect()
        client.send(GET % b"/" + GET % b"/page")
        told = client.read_all()
        assert told.startswith(b"HTTP/1.1 500 ")
        assert told.count(b"HTTP/1.1") == 1
        assert b"Set-Cookie" not in told
        for _ in range(3):
            assert site.get("/page").body == b"a page"

    @pytest.mark.parametrize(
        "field",
        [
            ("Link", "</a.css>; rel=preload\r\nSet-Cookie: b=c"),
            ("Link", "</a.css>\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: b=c"),
            ("Link", "</a.css>\nSet-Cookie: b=c"),
            ("Link", "</a.css>\rSet-Cookie: b=c"),
            ("Link", "</a.css>\x00Set-Cookie: b=c"),
            ("Link: a\r\nSet-Cookie", "b=c"),
        ],
    )
    def test_early_hints_that_would_be_two_heads_are_a_500(self, serve, field):
        """CVE-2020-5249."""

        def application(environ, start_response):
            environ["wsgi.early_hints"]([("Link", "</good.css>; rel=preload")])
            environ["wsgi.early_hints"]([field])
            return page(environ, start_response)

        site = serve(application)
        client = site.connect()
        client.send(GET % b"/" + GET % b"/page")
        told = client.read_all()
        assert told.startswith(
            b"HTTP/1.1 103 Early Hints\r\nLink: </good.css>; rel=preload\r\n\r\n"
        )
        assert told.count(b"HTTP/1.1") == 2
        assert b"HTTP/1.1 500 " in told
        assert b"Set-Cookie" not in told

    @pytest.mark.parametrize("status", ["100 Continue", "102 Processing", "103 Early Hints"])
    def test_an_interim_response_is_not_the_last(self, serve, status):
        """The client would take the next response, another request's, for the last of this one."""

        def application(environ, start_response):
            start_response(status, [("Link", "</a.css>; rel=preload")])
            return []

        client = serve(application).connect()
        client.request("GET", "/")
        answer = client.read()
        assert (answer.status, answer.closes) == (500, True)


class TestHandshakes:
    @pytest.mark.parametrize("offered", ["caf\xe9", "chat, caf\xe9", "\xff\xfe"])
    def test_a_subprotocol_that_is_not_ascii_is_refused(self, serve, offered):
        """CVE-2026-42544: a client's bytes did not end a worker."""
        site = serve(loop)
        client = site.connect()
        fields = (
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Protocol: {offered}\r\n\r\n"
        )
        client.send(fields.encode("latin-1"))
        assert client.read().status == 400
        other = site.connect()
        assert other.upgrade().status == 101


class TestConnections:
    def test_clients_that_are_gone_at_once_leave_no_loop_behind(self, serve):
        """CVE-2024-49769: a socket that was closed before it was looked at kept a server busy."""
        site = serve(page)
        for number in range(60):
            client = site.connect()
            if number % 3 == 1:
                client.send(b"GET")
            if number % 3 == 2:
                client.finish_sending()
            client.reset()
        until(site.is_quiet)
        assert site.get("/").body == b"a page"
        before = time.process_time()
        gevent.sleep(0.3)
        assert time.process_time() - before < 0.1
        assert not site.server.connections

    def test_open_connections_and_pipelines_hold_no_member(self, serve):
        """CVE-2019-16770: those that stay open, and those that ask on and on, starved the rest."""
        site = serve(page, size=1)
        idle = [site.connect() for _ in range(20)]
        for client in idle:
            client.request("GET", "/")
            assert client.read().body == b"a page"
        greedy = [site.connect() for _ in range(3)]
        for client in greedy:
            client.send(GET % b"/" * 1000)
        began = time.monotonic()
        for client in idle:
            client.request("GET", "/")
            assert client.read().body == b"a page"
        assert time.monotonic() - began < 5
        for client in greedy:
            for _ in range(1000):
                assert client.read().status == 200
