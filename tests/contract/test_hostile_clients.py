"""Clients that break off, stall, flood or say things in the wrong order, on both pools.

Each test ends, by its fixture, with no connection, no work and no descriptor left.
"""

import threading
import time

import gevent
import pytest
from contract import test_upgrade
from contract.test_upgrade import page, parked
from contract.wsgi_site import until
from geventwebsocket.exceptions import WebSocketError

from gpulse.http.limits import Limits
from gpulse.worker.greenlets import GreenletPool

quiet = test_upgrade.quiet

BIG = 6_000_000
"""More than the kernel's buffers of a loopback connection take."""

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def big(environ, start_response):
    start_response("200 OK", [])
    return [b"x" * BIG]


def body(environ, start_response):
    start_response("200 OK", [])
    return [environ["wsgi.input"].read()]


@pytest.fixture(autouse=True)
def hub():
    """Made before a site counts its descriptors."""
    gevent.sleep(0)


class TestHttp:
    def test_the_last_response_to_a_client_that_sends_but_never_reads(self, serve):
        def application(environ, start_response):
            assert gate[0].wait(10)
            return big(environ, start_response)

        site = serve(application, limits=Limits(write_stall=0.2, linger=0.2))
        gate = [site.gate()]
        client = site.connect(receive_buffer=4096)
        client.request("GET", "/", Connection="close")
        until(lambda: site.pool.busy == 1)
        client.send(b"and more that nobody asked for")
        (connection,) = site.server.connections
        until(lambda: connection.protocol._backlog)
        gate[0].set()
        until(site.is_quiet)

    def test_empty_lines_do_not_keep_an_idle_connection(self, serve):
        site = serve(page, keep_alive=0.3)
        client = site.connect()
        client.request("GET", "/")
        client.read()
        begun = time.monotonic()
        while site.server.connections:
            assert time.monotonic() < begun + 3
            client.send(b"\r\n")
            gevent.sleep(0.05)

    def test_frames_behind_a_pipelined_handshake(self, serve):
        client = serve(parked()).connect()
        client.wire.send_text(b"early")
        early = b"".join(client.wire.data_to_send())
        client.send(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n" + HANDSHAKE + early)
        assert client.read().body == b"a page"
        assert client.read().status == 101
        assert client.hear() == "echo early"

    def test_a_client_that_has_finished_sending_gets_all_its_answers(self, serve):
        def application(environ, start_response):
            assert gate[0].wait(10)
            return page(environ, start_response)

        site = serve(application)
        gate = [site.gate()]
        client = site.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
        client.finish_sending()
        until(lambda: site.server.connections)
        (connection,) = site.server.connections
        until(lambda: connection.protocol._eof)
        gate[0].set()
        answers = [client.read() for _ in range(5)]
        assert [answer.status for answer in answers] == [200] * 5
        assert [answer.closes for answer in answers] == [False] * 4 + [True]
        assert client.is_ended()

    def test_more_uploads_at_once_than_file_threads(self, serve):
        site = serve(body, limits=Limits(spool=1000))
        clients = [site.connect() for _ in range(40)]
        for client in clients:
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n")
        until(
            lambda: (
                sum(c.protocol._parser.current is not None for c in site.server.connections) == 40
            )
        )
        # All in one turn of the hub: none of the file threads has answered yet.
        for client in clients:
            client.send(b"x" * 4000)
        gevent.sleep(0)
        for client in clients:
            client.send(b"y" * 1000)
        assert {client.read().body for client in clients} == {b"x" * 4000 + b"y" * 1000}

    def test_aborted_uploads_leave_no_temporary_file(self, serve):
        site = serve(body, limits=Limits(spool=1000))
        for number in range(40):
            client = site.connect()
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + b"x" * 4000)
            (client.reset, client.finish_sending, client.close)[number % 3]()
        until(site.is_quiet)

    def test_a_body_of_tiny_chunks_does_not_cost_more_and_more(self, serve):
        site = serve(body)
        client = site.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"1\r\nx\r\n"
        client.send(chunk * 400_000)
        until(
            lambda: (
                sum(c.protocol._parser.current.body_size for c in site.server.connections)
                == 400_000
            )
        )
        begun = time.process_time()
        for _ in range(200):
            client.send(chunk)
            gevent.sleep(0.0005)
        taken = time.process_time() - begun
        client.send(b"0\r\n\r\n")
        assert len(client.read().body) == 400_200
        assert taken < 0.5

    def test_an_application_that_empties_its_environ(self, serve):
        def application(environ, start_response):
            environ.clear()
            return page(environ, start_response)

        client = serve(application).connect()
        client.request("GET", "/")
        assert client.read().body == b"a page"
        client.request("GET", "/", Connection="close")
        assert client.read().body == b"a page"
        assert client.is_ended()


class TestLoops:
    @pytest.fixture
    def gated(self, serve):
        """A site whose loops begin when the test says so, and what they met."""
        met = []

        def application(environ, start_response):
            assert gates[0].wait(10)
            socket = environ["wsgi.websocket"]
            try:
                met.append(socket.receive())
                socket.send("x")
            except WebSocketError as error:
                met.append(error)
            return page(environ, start_response)

        site = serve(application)
        gates = [site.gate()]
        return site, gates[0], met

    def test_a_client_that_leaves_before_the_first_use(self, gated):
        site, gate, met = gated
        client = site.connect()
        client.send(HANDSHAKE)
        until(lambda: site.pool.busy == 1)
        client.reset()
        until(lambda: all(connection.lost for connection in site.server.connections))
        gate.set()
        until(site.is_quiet)
        # As gevent-websocket has it: nothing more to receive, and an error of its own to send.
        assert met[0] is None
        assert isinstance(met[1], WebSocketError)

    def test_a_socket_opened_by_a_helper_of_the_view(self, serve):
        def start(call):
            if site.pool.__class__ is GreenletPool:
                return gevent.spawn(call)
            thread = threading.Thread(target=call, daemon=True)
            thread.start()
            return thread

        def application(environ, start_response):
            if environ["PATH_INFO"] == "/page":
                return page(environ, start_response)
            socket = environ["wsgi.websocket"]

            def pump():
                while (message := socket.receive()) is not None:
                    socket.send(message)

            start(pump).join()
            return []

        site = serve(application, size=1)
        clients = [site.connect() for _ in range(3)]
        for client in clients:
            assert client.upgrade().status == 101
            client.say("text", b"x")
            assert client.hear() == "x"
        assert site.get("/page").body == b"a page"
        until(lambda: (site.pool.busy, site.pool.detached) == (0, 3))
        for client in clients:
            client.close()
        until(site.is_quiet)
        until(lambda: (site.pool.busy, site.pool.detached) == (0, 0))

    def test_a_socket_first_used_when_the_request_is_over(self, serve):
        kept = []

        def application(environ, start_response):
            kept.append(environ.get("wsgi.websocket"))
            return page(environ, start_response)

        client = serve(application).connect()
        assert client.upgrade().status == 200
        until(lambda: kept[0].closed)  # the client may have its response before the exchange ends
        for call in (kept[0].receive, lambda: kept[0].send("late")):
            with pytest.raises(WebSocketError):
                call()
        client.request("GET", "/")
        assert client.read().body == b"a page"

    def test_a_view_that_writes_http_into_its_socket(self, serve):
        def application(environ, start_response):
            environ["wsgi.websocket"].send("hello")
            start_response("200 OK", [])(b"and a page")
            return []

        client = serve(application).connect()
        client.upgrade()
        assert (client.hear(), client.hear()) == ("hello", 1000)

    def test_a_loop_that_sends_faster_than_its_client_reads(self, serve):
        def application(environ, start_response):
            for number in range(200):
                environ["wsgi.websocket"].send(b"%d" % number + b"x" * 100_000)
            return []

        client = serve(application).connect(receive_buffer=4096)
        client.wire.max_message_size = None
        client.upgrade()
        assert [client.hear()[:3] for _ in range(200)] == [
            (b"%d" % number + b"xx")[:3] for number in range(200)
        ]
        assert client.hear() == 1000


class TestSockets:
    def test_a_flood_of_pings_from_a_client_that_never_reads(self, serve):
        site = serve(parked())
        client = site.connect(receive_buffer=4096)
        client.upgrade()
        (session,) = site.sockets.sessions
        client.wire.send_ping(b"x" * 125)
        pings = b"".join(client.wire.data_to_send()) * 500
        most = 0

        def flood():
            try:
                while True:
                    client.send(pings)
            except OSError:
                return

        flooding = gevent.spawn(flood)
        deadline = time.monotonic() + 8
        while not session.is_closing and time.monotonic() < deadline:
            most = max(most, session.connection.buffered)
            gevent.sleep(0.001)
        flooding.kill()
        assert session.is_closing
        assert site.sockets.rate_refused == 1
        assert most < 100_000  # the pongs of a burst that is allowed, and the close frame

    def test_a_handshake_that_ends_while_the_worker_drains(self, serve):
        def application(environ, start_response):
            assert gate[0].wait(10)
            return parked()(environ, start_response)

        site = serve(application)
        gate = [site.gate()]
        client = site.connect()
        client.send(HANDSHAKE)
        until(lambda: site.pool.busy == 1)
        site.sockets.drain()
        gate[0].set()
        assert client.read().status == 101
        assert client.hear() == 1012
