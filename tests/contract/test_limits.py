"""Bounds of the HTTP front end to end: what just fits is served, one more is refused."""

import os
import resource
import socket

import gevent
import pytest
from contract.wsgi_site import until

from gpulse.http.limits import Limits

KIB, MIB = 1024, 1024 * 1024


def echo(environ, start_response):
    """Answers with the path and the length of the body."""
    size = 0
    while piece := environ["wsgi.input"].read(65536):
        size += len(piece)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['PATH_INFO'][:20]} {size}".encode()]


def gated(gates):
    """An application that waits at the gate of its path, if there is one."""

    def application(environ, start_response):
        gate = gates.get(environ["PATH_INFO"])
        assert gate is None or gate.wait(10)
        return echo(environ, start_response)

    return application


def head(path="/", *fields):
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


def filled(size):
    """A head of exactly so many bytes."""
    return head("/", "A: " + "a" * (size - len(head("/", "A: "))))


IN_ONE = [None, 7]


class TestHead:
    """Whole and in pieces: these are parsed in different ways."""

    @pytest.fixture(params=IN_ONE, ids=["whole", "pieces"])
    def ask(self, request, serve):
        def ask(site, data):
            client = site.connect()
            step = request.param or len(data)
            for at in range(0, len(data), step):
                client.send(data[at : at + step])
                if at < 100:
                    gevent.sleep(0)
            answer = client.read()
            if answer.status != 200:
                assert answer.closes
                assert client.is_ended()
            return answer

        return ask

    @pytest.mark.parametrize(("size", "status"), [(100, 200), (101, 414)])
    def test_a_target(self, serve, ask, size, status):
        site = serve(echo, limit_request_line=100)
        assert ask(site, head("/" + "a" * (size - 1))).status == status

    @pytest.mark.parametrize(("count", "status"), [(5, 200), (6, 431)])
    @pytest.mark.parametrize("name", ["A{}", "A", "a_b"], ids=["new", "repeated", "dropped"])
    def test_the_number_of_fields(self, serve, ask, name, count, status):
        site = serve(echo, limit_request_fields=5)
        fields = [f"{name.format(number)}: x" for number in range(count - 1)]  # and Host
        assert ask(site, head("/", *fields)).status == status

    @pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 431)])
    def test_the_length_of_all(self, serve, ask, size, status):
        site = serve(echo, limit_request_head=1000)
        assert ask(site, filled(size)).status == status

    def test_a_long_one_is_refused_before_it_ends(self, serve):
        site = serve(echo, limit_request_head=1000)
        client = site.connect()
        client.send(head("/", "A: " + "a" * 2000)[:-2])
        assert client.read().status == 431

    def test_a_request_behind_one_that_is_refused_is_not_run(self, serve):
        site = serve(echo, limit_request_line=100)
        client = site.connect()
        client.send(head("/a") + head("/" + "b" * 200) + head("/c"))
        assert [client.read().status for _ in range(2)] == [200, 414]
        assert client.is_ended()
        assert site.server.requests == 1


class TestBody:
    @pytest.mark.parametrize("limit", [0, 1000])
    def test_one_that_fits(self, serve, limit):
        client = serve(echo, limit_request_body=limit).connect()
        for _ in range(2):
            client.request("POST", "/", b"a" * limit)
            assert client.read().body == f"/ {limit}".encode()

    @pytest.mark.parametrize("limit", [0, 1000])
    @pytest.mark.parametrize("fields", [{}, {"Expect": "100-continue"}], ids=["", "expect"])
    def test_one_that_does_not_is_refused_before_a_byte_of_it_came(self, serve, limit, fields):
        site = serve(echo, limit_request_body=limit, body_timeout=60)
        client = site.connect()
        client.request("POST", "/", Content_Length=limit + 1, **fields)
        answer = client.read()
        assert (answer.status, answer.closes) == (413, True)
        assert client.is_ended()
        assert site.server.requests == 0

    def test_one_in_chunks_is_refused_when_it_grows_too_long(self, serve):
        site = serve(echo, limit_request_body=1000)
        client = site.connect()
        client.request("POST", "/", Transfer_Encoding="chunked")
        client.send(b"3e8\r\n" + b"a" * 1000 + b"\r\n")
        gevent.sleep(0.02)
        assert site.server.refusals == 0
        client.send(b"1\r\n")  # not even its byte is waited for
        assert client.read().status == 413
        assert site.server.requests == 0

    def test_one_in_chunks_that_fits(self, serve):
        client = serve(echo, limit_request_body=1000).connect()
        client.request("POST", "/", Transfer_Encoding="chunked")
        client.send(b"3e8\r\n" + b"a" * 1000 + b"\r\n0\r\n\r\n")
        assert client.read().body == b"/ 1000"

    @pytest.mark.parametrize("expects", [False, True])
    def test_one_in_chunks_of_a_byte_each_is_no_attack(self, serve, expects):
        client = serve(echo, limit_chunk_overhead=64).connect()
        fields = {"Expect": "100-continue"} if expects else {}
        client.request("POST", "/", Transfer_Encoding="chunked", **fields)
        if expects:
            assert client.read().status == 100
        client.send(b"1\r\na\r\n" * 1000 + b"0\r\n\r\n")
        assert client.read().body == b"/ 1000"

    def test_extensions_beyond_their_bound(self, serve):
        client = serve(echo, limit_chunk_overhead=64).connect()
        client.request("POST", "/", Transfer_Encoding="chunked")
        client.send(b"1;" + b"e" * 100 + b"\r\na\r\n0\r\n\r\n")
        assert client.read().status == 400
        assert client.is_ended()

    @pytest.mark.parametrize(("size", "status"), [(20, 200), (21, 400)])
    def test_trailers(self, serve, size, status):
        site = serve(echo, limit_trailers=20)
        client = site.connect()
        client.request("POST", "/", Transfer_Encoding="chunked")
        client.send(b"1\r\na\r\n0\r\nX: " + b"t" * (size - 5) + b"\r\n\r\n")
        assert client.read().status == status


class TestConnections:
    @staticmethod
    def warnings(caplog):
        return [each for each in caplog.messages if "--max-connections" in each]

    def test_those_beyond_the_bound_wait_until_one_leaves(self, serve, caplog):
        site = serve(echo, max_connections=2)
        first, second = site.connect(), site.connect()
        for client in (first, second):
            client.request("GET", "/a")
            assert client.read().status == 200
        third, fourth = site.connect(), site.connect()
        third.request("GET", "/3")
        fourth.request("GET", "/4")
        first.request("GET", "/b")
        assert first.read().status == 200  # the hub had its turns
        gevent.sleep(0.05)
        assert len(site.server.connections) == 2
        assert site.server.requests == 3
        first.close()
        assert third.read().body == b"/3 0"
        second.reset()
        assert fourth.read().body == b"/4 0"
        assert len(self.warnings(caplog)) >= 1

    def test_a_burst_does_not_go_beyond_it(self, serve):
        site = serve(echo, max_connections=2)
        crowd = [socket.create_connection(site.address) for _ in range(8)]
        try:
            until(lambda: len(site.server.connections) >= 2)
            gevent.sleep(0.05)
            assert len(site.server.connections) == 2
        finally:
            for each in crowd:
                each.close()

    def test_a_crowd_beyond_it_is_served_and_the_log_is_not_filled(self, serve, caplog):
        site = serve(echo, max_connections=1)

        def visit(number):
            assert site.get(f"/{number}").body == f"/{number} 0".encode()

        visits = [gevent.spawn(visit, number) for number in range(20)]
        gevent.joinall(visits, timeout=10, raise_error=True)
        assert all(visit.successful() for visit in visits)
        assert 1 <= len(self.warnings(caplog)) <= 3

    def test_a_connection_ends_after_so_many_requests(self, serve):
        site = serve(echo, max_connection_requests=3)
        client = site.connect()
        client.send(head("/a") * 2)
        assert [client.read().closes for _ in range(2)] == [False, False]
        client.send(head("/c") + head("/d"))
        assert client.read().closes
        assert client.is_ended()
        assert site.server.requests == 3

    def test_none_ends_where_there_is_no_such_bound(self, serve):
        client = serve(echo, max_connection_requests=0).connect()
        for _ in range(20):
            client.request("GET", "/")
            assert not client.read().closes


class TestQueue:
    def test_one_more_than_may_wait_is_told_to_come_back(self, serve):
        gates = {}
        site = serve(gated(gates), size=1, max_queued=2)
        gates["/0"] = site.gate()
        clients = [site.connect() for _ in range(5)]
        for number, client in enumerate(clients):
            client.request("GET", f"/{number}")
            until(lambda number=number: site.server.requests + site.server.refusals > number)
        for client in clients[3:]:
            answer = client.read()
            assert (answer.status, answer.fields["retry-after"], answer.closes) == (503, "1", True)
            assert client.is_ended()
        gates["/0"].set()
        assert [client.read().body for client in clients[:3]] == [b"/0 0", b"/1 0", b"/2 0"]
        assert site.get("/a").status == 200


class TestSpool:
    """Long bodies go to files; ``serve`` sees to it that none is left open."""

    @staticmethod
    def open_in(directory):
        links = []
        for fd in os.listdir("/proc/self/fd"):
            try:
                links.append(os.readlink(f"/proc/self/fd/{fd}"))
            except OSError:
                continue  # that of the listing itself
        return [link for link in links if link.startswith(f"{directory}/")]

    @pytest.mark.parametrize(("size", "files"), [(4096, 0), (200_000, 1), (3 * MIB, 1)])
    def test_a_body_beyond_the_threshold_lies_in_the_directory(self, serve, tmp_path, size, files):
        gates = {}
        site = serve(gated(gates), spool_threshold=4096, spool_directory=str(tmp_path))
        gates["/a"] = site.gate()
        client = site.connect()
        client.request("POST", "/a", b"a" * size)
        until(lambda: site.pool.busy == 1)
        assert len(self.open_in(tmp_path)) == files
        assert list(tmp_path.iterdir()) == []  # nameless, so that nothing is left by a crash
        gates["/a"].set()
        assert client.read().body == f"/a {size}".encode()
        until(lambda: not self.open_in(tmp_path))

    def test_a_slow_upload_is_on_the_disk_before_it_is_whole(self, serve, tmp_path):
        site = serve(echo, spool_threshold=4096, spool_directory=str(tmp_path))
        client = site.connect()
        client.request("POST", "/a", Content_Length=10_000)
        client.send(b"a" * 9000)
        until(lambda: self.open_in(tmp_path))
        assert site.pool.busy == 0
        client.reset()
        until(lambda: not self.open_in(tmp_path))

    def test_when_all_together_are_too_long_for_memory_they_go_to_the_disk(self, serve, tmp_path):
        site = serve(echo, spool_memory=300_000, spool_directory=str(tmp_path))
        clients = [site.connect() for _ in range(4)]
        for number, client in enumerate(clients):
            client.request("POST", f"/{number}", Content_Length=200_000)
            client.send(b"a" * 150_000)
            gevent.sleep(0.02)
        until(lambda: len(self.open_in(tmp_path)) == 2)  # of those that came when it was full
        assert site.server.body_memory < 300_000 + 2 * 65_536
        small = site.connect()
        small.request("POST", "/s", b"a" * 10_000)
        assert small.read().body == b"/s 10000"
        for number, client in enumerate(clients):
            client.send(b"a" * 50_000)
            assert client.read().body == f"/{number} 200000".encode()
        until(lambda: site.server.body_memory == 0)

    @pytest.mark.parametrize("leave", ["close", "reset"])
    def test_a_body_whose_client_leaves_is_counted_no_more(self, serve, leave):
        site = serve(echo)
        client = site.connect()
        client.request("POST", "/", Content_Length=200_000)
        client.send(b"a" * 150_000)
        until(lambda: site.server.body_memory)
        getattr(client, leave)()
        until(lambda: site.server.body_memory == 0)

    @pytest.mark.parametrize("path", ["/", "/-/live"])
    def test_a_body_that_is_answered_is_counted_no_more(self, serve, path):
        """Also one that came with a health check and was thrown away."""
        site = serve(echo)
        client = site.connect()
        for _ in range(2):
            client.request("GET", path, Content_Length=200_000)
            client.send(b"a" * 150_000)
            until(lambda: site.server.body_memory)
            client.send(b"a" * 50_000)
            assert client.read().status == 200
            until(lambda: site.server.body_memory == 0)

    def test_a_directory_that_is_not_there_concerns_long_bodies_alone(self, serve, tmp_path):
        site = serve(echo, spool_threshold=4096, spool_directory=str(tmp_path / "none"))
        client = site.connect()
        client.request("POST", "/a", b"a" * 100_000)
        answer = client.read()
        assert (answer.status, answer.closes) == (507, True)
        assert client.is_ended()
        assert site.server.requests == 0
        other = site.connect()
        other.request("POST", "/b", b"a" * 4096)
        assert other.read().body == b"/b 4096"

    @pytest.mark.parametrize("chunked", [False, True])
    def test_a_disk_that_is_full_concerns_that_request_alone(
        self, serve, tmp_path, chunked, caplog
    ):
        """Files may not grow beyond 4 MiB here, which is refused as a write to a full disk is."""
        site = serve(
            echo, limits=Limits(spool=65_536, spool_directory=str(tmp_path), linger_bytes=64 * MIB)
        )
        waiting = site.connect()
        waiting.request("POST", "/w", Content_Length=2 * MIB)
        waiting.send(b"a" * MIB)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, hard))
        try:
            client = site.connect()
            if chunked:
                client.request("POST", "/a", Transfer_Encoding="chunked")
                client.send((b"10000\r\n" + b"a" * 65536 + b"\r\n") * 100 + b"0\r\n\r\n")
            else:
                client.request("POST", "/a", b"a" * (6 * MIB))
            assert client.read().status == 507
            assert client.is_ended()
            waiting.send(b"a" * MIB)
            assert waiting.read().body == f"/w {2 * MIB}".encode()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert sum("spooled" in line for line in caplog.messages) == 1
        until(lambda: not self.open_in(tmp_path))
