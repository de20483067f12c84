"""The health checks: answered in front of the pool, whatever the application does."""

import socket

import gevent
import pytest
from contract.wsgi_site import until


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"application {environ['REQUEST_METHOD']}".encode()]


def gated(gates):
    def application_at_a_gate(environ, start_response):
        assert gates[0].wait(10)
        return application(environ, start_response)

    return application_at_a_gate


LIVE, READY = "/-/live", "/-/ready"
BOTH = [LIVE, READY]


@pytest.mark.parametrize("path", BOTH)
class TestAnswer:
    def test_it_is_200_and_calls_nobody(self, serve, path):
        site = serve(application)
        client = site.connect()
        for _ in range(3):
            client.request("GET", path)
            answer = client.read()
            assert (answer.status, answer.body, answer.closes) == (200, b"200 OK\n", False)
            assert answer.fields["content-type"].startswith("text/plain")
        client.request("GET", "/")
        assert client.read().body == b"application GET"
        assert site.server.requests == 1

    def test_head_has_no_body(self, serve, path):
        client = serve(application).connect()
        for _ in range(2):
            client.request("HEAD", path)
            answer = client.read("HEAD")
            assert (answer.status, answer.fields["content-length"]) == (200, "7")
        client.request("GET", path)
        assert client.read().body == b"200 OK\n"

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
    def test_another_method_is_the_application_s(self, serve, path, method):
        client = serve(application).connect()
        client.request(method, path)
        assert client.read().body == f"application {method}".encode()

    @pytest.mark.parametrize("suffix", ["/", "x", "%20", "?", "?a=b", "/../live"])
    def test_another_target_is_the_application_s(self, serve, path, suffix):
        client = serve(application).connect()
        client.request("GET", path + suffix)
        assert client.read().body == b"application GET"

    def test_a_connection_ends_when_the_request_says_so(self, serve, path):
        site = serve(application)
        for version, field in (("1.1", "Connection: close"), ("1.0", "A: b")):
            client = site.connect()
            client.send(f"GET {path} HTTP/{version}\r\nHost: x\r\n{field}\r\n\r\n".encode())
            assert client.read().closes
            assert client.is_ended()

    def test_the_whole_url_names_it_too(self, serve, path):
        client = serve(application).connect()
        client.request("GET", f"http://x{path}")
        assert client.read().body == b"200 OK\n"

    def test_a_body_is_thrown_away(self, serve, path):
        client = serve(application, spool_threshold=1024).connect()
        for body in (b"a" * 10, b"a" * 300_000):
            client.request("GET", path, body)
            assert client.read().body == b"200 OK\n"

    def test_an_idle_connection_ends_as_any(self, serve, path):
        client = serve(application, keep_alive=0.2).connect()
        client.request("GET", path)
        assert client.read().status == 200
        assert client.is_ended()

    @pytest.mark.parametrize("finished", [False, True])
    def test_many_in_one_send_are_answered_in_order(self, serve, path, finished):
        """Also if nothing comes behind them."""
        client = serve(application).connect()
        client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 50)
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        if finished:
            client.finish_sending()
        assert [client.read().body for _ in range(50)] == [b"200 OK\n"] * 50
        assert client.read().body == b"application GET"

    @pytest.mark.parametrize("finished", [False, True])
    def test_thousands_in_one_send_do_not_keep_others_waiting(self, serve, path, finished):
        site = serve(application)
        greedy, other = site.connect(), site.connect()
        count = 3000

        def send():
            greedy.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * count)
            if finished:
                greedy.finish_sending()

        sending = gevent.spawn(send)
        other.request("GET", "/")
        assert other.read().body == b"application GET"
        assert all(greedy.read().status == 200 for _ in range(count))
        sending.get(timeout=5)
        assert not greedy.buffer

    def test_turned_off_it_is_the_application_s(self, serve, path):
        client = serve(application, live_path="", ready_path="").connect()
        client.request("GET", path)
        assert client.read().body == b"application GET"

    def test_under_another_path(self, serve, path):
        names = {LIVE: "live_path", READY: "ready_path"}
        client = serve(application, **{names[path]: "/healthz"}).connect()
        client.request("GET", "/healthz")
        assert client.read().body == b"200 OK\n"
        client.request("GET", path)
        assert client.read().body == b"application GET"


class TestBusy:
    def test_a_full_worker_is_live_and_not_ready(self, serve):
        gates = []
        site = serve(gated(gates), size=1, max_queued=2)
        gates.append(site.gate())
        probe = site.connect()

        def ask(path):
            probe.request("GET", path)
            answer = probe.read()
            assert not answer.closes
            return answer.status

        crowd = [site.connect() for _ in range(3)]
        for number, client in enumerate(crowd):
            assert ask(READY) == 200  # also while members are busy and the queue is not full
            client.request("GET", "/")
            until(lambda number=number: site.server.requests == number + 1)
            until(lambda: site.pool.busy == 1)
        assert site.pool.queued == 2
        assert (ask(LIVE), ask(READY)) == (200, 503)
        probe.request("HEAD", READY)
        assert probe.read("HEAD").status == 503
        gates[0].set()
        assert [client.read().status for client in crowd] == [200] * 3
        assert (ask(LIVE), ask(READY)) == (200, 200)

    def test_a_draining_worker_is_live_and_not_ready(self, serve):
        site = serve(application)
        clients = [site.connect() for _ in BOTH]
        for client in clients:
            client.request("GET", LIVE)
            assert client.read().status == 200
        site.server.stop_accepting()
        for client, path, status in zip(clients, BOTH, (200, 503), strict=True):
            client.request("GET", path)
            answer = client.read()
            assert (answer.status, answer.closes) == (status, True)
            assert client.is_ended()

    def test_one_behind_a_request_waits_for_it(self, serve):
        gates = []
        site = serve(gated(gates))
        gates.append(site.gate())
        client = site.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /-/live HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: site.pool.busy == 1)
        gates[0].set()
        assert client.read().body == b"application GET"
        assert client.read().body == b"200 OK\n"

    def test_many_connections_that_probe_at_once(self, serve):
        site = serve(application)

        def visit():
            client = site.connect()
            for turn in range(20):
                client.request("GET", LIVE if turn % 2 else "/")
                assert client.read().body == (b"200 OK\n" if turn % 2 else b"application GET")

        gevent.joinall([gevent.spawn(visit) for _ in range(40)], raise_error=True)

    def test_a_client_that_leaves_or_reads_nothing_leaves_nothing(self, serve):
        site = serve(application, write_timeout=0.3)
        data = b"GET /-/live HTTP/1.1\r\nHost: x\r\n\r\n" * 200
        for leave in ("close", "reset"):
            client = site.connect()
            client.send(data)
            getattr(client, leave)()
        site.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        silent = site.connect(receive_buffer=4096)
        sending = gevent.spawn(silent.send, data * 1000)
        until(lambda: not site.server.connections)
        sending.kill()

    def test_both_paths_the_same_is_ready_s_business(self, serve):
        """The stricter of the two; a worker that drains must not be sent requests."""
        site = serve(application, live_path="/health", ready_path="/health")
        client = site.connect()
        client.request("GET", "/health")
        assert client.read().status == 200
        site.server.stop_accepting()
        client.request("GET", "/health")
        assert client.read().status == 503
