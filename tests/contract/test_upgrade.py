"""From HTTP to WebSocket on one connection, and ``wsgi.websocket``, on greenlets and on threads."""

import logging

import pytest
from contract.wsgi_site import until
from geventwebsocket.exceptions import WebSocketError

from gpulse.http.upgrade import Upgrade
from gpulse.websocket import compat
from gpulse.websocket.frames import TEXT
from gpulse.websocket.handshake import accept
from gpulse.websocket.session import WebSocketSession
from gpulse.websocket.shapes import plain


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, "gpulse")


class Echo:
    """What a consumer is to its session."""

    handled = frozenset()
    shape = staticmethod(plain)
    session = None

    def __init__(self, site):
        self.site = site
        self.seen = []

    def handle(self, handler, *args):
        self.seen.append((handler, *args))
        if handler == "on_message":
            self.site.pool.call_hub(self.session.send, TEXT, f"echo {args[0]}".encode())


def page(environ, start_response):
    start_response("200 OK", [])
    return [b"a page"]


def parked(headers=(), seen=None):
    """An application whose sockets are parked after the view, as a consumer's are."""

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/page":
            return page(environ, start_response)
        site = environ["test.site"]

        def open_protocol(connection, data):
            echo = Echo(site)
            if seen is not None:
                seen.append(echo)
            session = echo.session = WebSocketSession(connection, site.sockets, echo)
            connection.protocol = session
            session.start(data)
            return session

        environ["gpulse.exchange"].upgrade = Upgrade(accept(environ).headers, open_protocol)
        start_response("101 Switching Protocols", list(headers))
        return []

    return application


def loop(environ, start_response):
    """A view in gevent-websocket's way."""
    socket = environ.get("wsgi.websocket")
    if socket is None:
        return page(environ, start_response)
    while (message := socket.receive()) is not None:
        socket.send(f"echo {message}" if isinstance(message, str) else bytes(message)[::-1])
    return []


class TestParked:
    def test_a_view_may_upgrade_its_connection(self, serve):
        client = serve(parked([("Set-Cookie", "a=1")])).connect()
        answer = client.upgrade()
        assert answer.status == 101
        assert answer.fields["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert answer.fields["set-cookie"] == "a=1"
        for word in ("a", "b"):
            client.say("text", word.encode())
            assert client.hear() == f"echo {word}"

    def test_frames_may_follow_the_handshake_at_once(self, serve):
        client = serve(parked()).connect()
        client.wire.send_text(b"early")
        early = b"".join(client.wire.data_to_send())
        send, client.send = client.send, lambda data: send(data + early)
        assert client.upgrade().status == 101
        client.send = send
        assert client.hear() == "echo early"

    def test_open_sockets_hold_no_member(self, serve):
        site = serve(parked(), size=1)
        clients = [site.connect() for _ in range(20)]
        for client in clients:
            assert client.upgrade().status == 101
        assert site.get("/page").body == b"a page"
        for number, client in enumerate(clients):
            client.say("text", b"%d" % number)
        assert [client.hear() for client in clients] == [f"echo {n}" for n in range(20)]

    def test_a_view_that_declines_goes_on_in_http(self, serve):
        client = serve(page).connect()
        assert client.upgrade().status == 200
        client.request("GET", "/page")
        assert client.read().body == b"a page"

    @pytest.mark.parametrize("value", ["a\r\nX: b", "€"])
    def test_a_field_that_breaks_the_head_is_a_500(self, serve, value):
        client = serve(parked([("X", value)])).connect()
        answer = client.upgrade()
        assert (answer.status, answer.closes) == (500, True)
        assert client.is_ended()

    @pytest.mark.parametrize("leave", ["close", "reset", "finish_sending"])
    def test_a_client_that_leaves_is_seen(self, serve, leave):
        seen = []
        site = serve(parked(seen=seen))
        client = site.connect()
        assert client.upgrade().status == 101
        getattr(client, leave)()
        until(lambda: not site.sockets.sessions)
        until(lambda: seen[0].seen and seen[0].seen[-1][:2] == ("on_close", 1006))

    def test_the_closing_handshake_ends_the_connection(self, serve):
        site = serve(parked())
        client = site.connect()
        client.upgrade()
        client.say("close", 1000)
        assert client.hear() == 1000
        assert client.is_ended()
        until(lambda: not site.server.connections)

    def test_a_client_that_leaves_before_the_upgrade_is_forgotten(self, serve):
        def application(environ, start_response):
            assert gate[0].wait(5)
            return parked(seen=seen)(environ, start_response)

        seen = []
        site = serve(application)
        gate = [site.gate()]
        client = site.connect()
        client.send(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        until(lambda: site.pool.busy == 1)
        client.reset()
        gate[0].set()
        until(site.is_quiet)
        assert not site.sockets.sessions


class TestLoops:
    def test_a_loop_talks(self, serve):
        client = serve(loop).connect()
        client.upgrade()
        client.say("text", "grüß".encode())
        assert client.hear() == "echo grüß"
        client.say("binary", b"ab")
        assert client.hear() == b"ba"

    def test_loops_leave_the_pool(self, serve):
        site = serve(loop, size=1)
        clients = [site.connect() for _ in range(5)]
        for client in clients:
            assert client.upgrade().status == 101
            client.say("text", b"x")
            assert client.hear() == "echo x"
        assert site.get("/page").body == b"a page"
        assert site.pool.detached == 5

    def test_the_clients_close_ends_the_loop(self, serve):
        site = serve(loop)
        client = site.connect()
        client.upgrade()
        client.say("close", 1000)
        assert client.hear() == 1000
        until(site.is_quiet)

    @pytest.mark.parametrize("leave", ["close", "reset"])
    def test_a_client_that_leaves_ends_the_loop(self, serve, leave):
        site = serve(loop)
        client = site.connect()
        client.upgrade()
        client.say("text", b"x")
        client.hear()
        getattr(client, leave)()
        until(site.is_quiet)

    def test_a_view_that_returns_closes_what_it_left_open(self, serve):
        def application(environ, start_response):
            environ["wsgi.websocket"].send("bye")
            return []

        client = serve(application).connect()
        client.upgrade()
        assert (client.hear(), client.hear()) == ("bye", 1000)
        assert client.is_ended()

    def test_a_view_that_raises_closes_it_too(self, serve):
        def application(environ, start_response):
            environ["wsgi.websocket"].send("bye")
            raise ValueError

        site = serve(application)
        client = site.connect()
        client.upgrade()
        assert client.hear() == "bye"
        client.hear()
        until(site.is_quiet)

    def test_a_view_may_close_with_a_code(self, serve):
        errors = []

        def application(environ, start_response):
            socket = environ["wsgi.websocket"]
            socket.close(4001, "why")
            for call in (socket.receive, lambda: socket.send("late")):
                try:
                    call()
                except WebSocketError as error:
                    errors.append(error)
            return []

        client = serve(application).connect()
        client.upgrade()
        assert client.hear() == 4001
        until(lambda: len(errors) == 2)

    def test_a_view_that_touches_nothing_answers_in_http(self, serve):
        def application(environ, start_response):
            assert environ["wsgi.websocket"] is not None
            return page(environ, start_response)

        client = serve(application).connect()
        for _ in range(2):
            answer = client.upgrade()
            assert (answer.status, answer.body) == (200, b"a page")

    def test_an_ordinary_request_has_none(self, serve):
        assert serve(loop).get("/page").body == b"a page"

    def test_a_bad_handshake_is_refused_at_the_first_use(self, serve):
        client = serve(loop).connect()
        client.request("GET", "/", Connection="Upgrade", Upgrade="websocket")
        assert client.read().status == 426

    def test_more_than_the_bound_are_refused(self, serve, monkeypatch):
        monkeypatch.setattr(compat, "THREADS", 1)
        site = serve(loop)
        site.sockets.limit = 1
        first, second = site.connect(), site.connect()
        assert first.upgrade().status == 101
        assert second.upgrade().status == 503


class TestFaults:
    def test_a_protocol_that_cannot_be_opened_cuts_the_connection(self, serve, caplog):
        def broken(environ, start_response):
            if environ["PATH_INFO"] == "/page":
                return page(environ, start_response)
            upgrade = Upgrade(accept(environ).headers, lambda connection, data: 1 // 0)
            environ["gpulse.exchange"].upgrade = upgrade
            start_response("101 Switching Protocols", [])
            return []

        caplog.set_level(logging.CRITICAL, "gpulse.http")
        client = serve(broken).connect()
        client.upgrade()
        assert client.sock.recv(100) == b""
