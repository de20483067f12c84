"""States of a connection that meet: a probe and a pipeline, a client that is gone and a deadline, a
last response and bytes behind it.  On greenlets and on threads."""

import gc
import os
import socket
import time

import gevent
import pytest
from contract.wsgi_site import until

from gpulse.connection.connection import READ_SIZE


def page(environ, start_response):
    body = environ["PATH_INFO"].encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def get(path, *fields):
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


class TestProbes:
    def test_what_follows_a_probe_in_the_same_turn_is_answered_in_order(self, serve):
        """A read that is full is followed by another at once, before the probe's own callback."""

        def application(environ, start_response):
            if environ["PATH_INFO"] == "/slow":
                assert gates[0].wait(5)
            return page(environ, start_response)

        site = serve(application)
        gates = [site.gate()]
        client = site.connect()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        head = get("/-/live", f"Content-Length: {READ_SIZE}")
        size = READ_SIZE - len(head) + len(str(READ_SIZE)) - 5
        head = get("/-/live", f"Content-Length: {size}")
        data = head + b"a" * size
        assert len(data) == READ_SIZE
        client.send(data + get("/slow") + get("/fast"))
        assert client.read().body == b"200 OK\n"
        until(lambda: site.pool.busy == 1)
        gevent.sleep(0.05)
        gates[0].set()
        assert [client.read().body for _ in range(2)] == [b"/slow", b"/fast"]


class TestClientsThatAreGone:
    def test_a_request_is_over_its_time_although_its_client_has_reset_the_connection(self, serve):
        begun, ended = [], []

        def application(environ, start_response):
            begun.append(1)
            try:
                site.gate().wait(8)
            finally:
                ended.append(time.monotonic())
            return page(environ, start_response)

        site = serve(application, request_timeout="0.3")
        client = site.connect()
        client.send(get("/"))
        until(lambda: begun)
        start = time.monotonic()
        client.reset()
        if site.pool.is_on_hub:
            until(lambda: ended)
            assert ended[0] - start < 4
        until(lambda: not site.server.connections)  # threads: given up, and ends with its gate
        assert time.monotonic() - start < 5

    def test_a_queued_request_of_a_client_that_is_gone_is_never_run(self, serve):
        ran = []

        def application(environ, start_response):
            ran.append(environ["PATH_INFO"])
            if environ["PATH_INFO"] == "/first":
                assert gates[0].wait(5)
            return page(environ, start_response)

        site = serve(application, size=1)
        gates = [site.gate()]
        first, gone, last = site.connect(), site.connect(), site.connect()
        first.send(get("/first"))
        until(lambda: site.pool.busy == 1)
        gone.send(get("/gone"))
        until(lambda: site.pool.queued == 1)
        last.send(get("/last"))
        until(lambda: site.pool.queued == 2)
        gone.reset()
        until(lambda: site.pool.queued == 1)
        gates[0].set()
        assert (first.read().body, last.read().body) == (b"/first", b"/last")
        assert ran == ["/first", "/last"]

    def test_its_line_in_the_access_log_says_so(self, serve):
        def application(environ, start_response):
            assert gates[0].wait(5)
            return page(environ, start_response)

        site = serve(application, size=1)
        gates = [site.gate()]
        first, gone = site.connect(), site.connect()
        first.send(get("/first"))
        until(lambda: site.pool.busy == 1)
        gone.send(get("/gone"))
        until(lambda: site.pool.queued == 1)
        gone.reset()
        until(lambda: any(" 499 " in line for line in site.lines))
        gates[0].set()
        assert first.read().body == b"/first"


class TestAHubThatWasHeldUp:
    def test_requests_that_came_in_time_are_answered(self, serve):
        """Their bytes are in the kernel when the deadlines of their idle connections pass."""

        def application(environ, start_response):
            if environ["PATH_INFO"] == "/compute":
                for plain in plains:
                    plain.sendall(get("/late"))
                time.sleep(0.8)  # in a greenlet this holds up the hub
            return page(environ, start_response)

        site = serve(application, keep_alive=0.4)
        clients = [site.connect() for _ in range(12)]
        for client in clients:
            client.send(get("/"))
            assert client.read().status == 200
        plains = [socket.socket(fileno=os.dup(client.sock.fileno())) for client in clients[1:]]
        try:
            clients[0].send(get("/compute"))
            assert clients[0].read().body == b"/compute"
            assert [client.read().body for client in clients[1:]] == [b"/late"] * 11
        finally:
            for plain in plains:
                plain.close()

    def test_the_keep_alive_time_counts_from_the_response(self, serve):
        def application(environ, start_response):
            if environ["PATH_INFO"] == "/compute":
                time.sleep(0.8)
            return page(environ, start_response)

        client = serve(application, keep_alive=0.5).connect()
        client.send(get("/compute"))
        assert client.read().body == b"/compute"
        gevent.sleep(0.15)
        client.send(get("/next"))
        assert client.read().body == b"/next"


class TestRefusals:
    def test_a_request_that_finds_the_queue_full_is_in_the_log_with_its_address(self, serve):
        def application(environ, start_response):
            assert gates[0].wait(5)
            return page(environ, start_response)

        site = serve(application, size=1, max_queued=1)
        gates = [site.gate()]
        clients = [site.connect() for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(get(f"/{number}", "User-Agent: me"))
            until(lambda number=number: site.pool.busy + site.pool.queued >= min(number + 1, 2))
        assert clients[2].read().status == 503
        until(lambda: any('"GET /2 HTTP/1.1" 503' in line for line in site.lines))
        assert any('"me"' in line for line in site.lines)
        gates[0].set()
        assert [client.read().status for client in clients[:2]] == [200, 200]


class TestLastResponses:
    @pytest.mark.parametrize("ahead", [0, 1, 3])
    def test_one_arrives_whole_although_the_client_goes_on_sending(self, serve, ahead):
        body = b"z" * 60_000

        def application(environ, start_response):
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]

        site = serve(application)
        client = site.connect(receive_buffer=4096)
        client.send(
            get("/") * ahead + get("/", "Connection: close") + b"POST / HTTP/1.1\r\nHost: x\r\nCont"
        )
        gevent.sleep(0.2)
        answers = [client.read() for _ in range(ahead + 1)]
        assert [(answer.body == body, answer.is_whole) for answer in answers] == [(True, True)] * (
            ahead + 1
        )
        assert answers[-1].closes

    def test_a_long_one_arrives_whole_although_the_client_begins_to_send_while_it_reads(
        self, serve
    ):
        body = b"z" * 5_000_000

        def application(environ, start_response):
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]

        site = serve(application)
        client = site.connect(receive_buffer=16_384)
        client.send(get("/", "Connection: close"))
        until(lambda: any(connection.buffered for connection in site.server.connections))
        gevent.sleep(0.05)
        client.send(get("/more"))
        answer = client.read()
        assert (answer.status, len(answer.body), answer.is_whole) == (200, len(body), True)
        client.close()
        until(lambda: not site.server.connections)

    def test_a_response_does_not_wait_for_the_work_of_a_member_that_goes_on(self, serve):
        """Two members: what one does when it is resumed may take long."""
        seen = []

        def application(environ, start_response):
            if environ["PATH_INFO"] == "/long":
                assert gates[0].wait(5)
                deadline = time.monotonic() + 0.05
                while time.monotonic() < deadline:
                    pass  # computes
                try:
                    flags = socket.MSG_PEEK | socket.MSG_DONTWAIT
                    seen.append(bool(socket.socket.recv(peek, 1, flags)))
                except BlockingIOError:
                    seen.append(False)
            else:
                gates[0].set()
            return page(environ, start_response)

        site = serve(application)
        gates = [site.gate()]
        long, quick = site.connect(), site.connect()
        peek = socket.socket(fileno=os.dup(quick.sock.fileno()))
        try:
            long.send(get("/long"))
            until(lambda: site.pool.busy == 1)
            quick.send(get("/quick"))
            assert quick.read().body == b"/quick" if not site.pool.is_on_hub else True
            assert long.read().body == b"/long"
            if site.pool.is_on_hub:
                assert seen == [True]
                assert quick.read().body == b"/quick"
        finally:
            peek.close()

    def test_a_write_that_was_kept_does_not_get_into_the_next_response(self, serve):
        kept = []

        def application(environ, start_response):
            if environ["PATH_INFO"] == "/kept":
                write = start_response("200 OK", [])
                write(b"begun")
                kept.append(write)
                return []
            with pytest.raises(OSError, match="over"):
                kept[0](b"INJECTED")
            return page(environ, start_response)

        client = serve(application).connect()
        client.send(get("/kept"))
        assert client.read().body == b"begun"
        client.send(get("/next"))
        assert client.read().body == b"/next"


class TestBodyMemory:
    def test_bodies_that_wait_for_a_member_are_counted(self, serve):
        def application(environ, start_response):
            assert gates[0].wait(5)
            return page(environ, start_response)

        site = serve(application, size=1)
        gates = [site.gate()]
        clients = [site.connect() for _ in range(5)]
        for client in clients:
            client.request("POST", "/", b"x" * 50_000)
        until(lambda: site.pool.queued == 4)
        assert site.server.body_memory == 250_000
        gates[0].set()
        for client in clients:
            assert client.read().status == 200
        until(lambda: site.server.body_memory == 0)


class TestServersOwnAnswers:
    @pytest.mark.parametrize("fault", ["raises", "interim", "late interim"])
    def test_an_error_is_answered_to_head_without_a_body(self, serve, fault):
        def application(environ, start_response):
            if environ["PATH_INFO"] == "/ok":
                return page(environ, start_response)
            if fault == "raises":
                raise RuntimeError("on purpose")
            if fault == "interim":
                start_response("103 Early Hints", [])
                return [b""]
            return late(start_response)

        def late(start_response):
            start_response("103 Early Hints", [])
            yield b""

        site = serve(application)
        client = site.connect()
        client.request("HEAD", "/")
        assert client.read("HEAD").status == 500
        assert client.read_all() == b""
        client = site.connect()
        client.request("GET", "/")
        answer = client.read()
        assert (answer.status, answer.body) == (500, b"500 Internal Server Error\n")


class TestMemory:
    def test_connections_that_end_wait_for_no_collector(self, serve):
        site = serve(page, head_timeout=0.3, keep_alive=0.2)
        site.get("/")  # what is made once
        gc.collect()
        gc.disable()
        try:
            for number in range(60):
                client = site.connect()
                client.send(get("/") if number % 2 else b"GET / HT")
                if number % 2:
                    client.read()
                client.close()
            # The wheel looks at each once more, and lets go of it; the server's clock stays.
            until(lambda: len(site.wheel) <= 1)
            assert gc.collect() < 60
        finally:
            gc.enable()
