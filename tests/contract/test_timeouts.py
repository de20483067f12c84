"""Slow and silent clients end to end: who is cut off, when, and who is left alone.

A time that must pass is short, one that must not is many times as long: these tests run beside
others.
"""

import resource
import time
from contextlib import contextmanager
from itertools import pairwise

import gevent
import pytest
from contract.wsgi_site import until

from gpulse.connection.connection import HIGH_WATER
from gpulse.worker.greenlets import GreenletPool
from gpulse.worker.threads import ThreadPool

MIB = 1024 * 1024
LATE = 3.0
"""Seconds that a busy machine may add."""


@contextmanager
def within(least, most):
    """What is in it takes so many seconds."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert least <= took <= most + LATE


def length(environ, start_response):
    size = len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % size]


def drip(client, piece, seconds, pause=0.05):
    """Send the piece again and again for a while; False if the server ended the connection."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            client.send(piece)
        except OSError:
            return False
        gevent.sleep(pause)
    return True


hub_only = pytest.mark.parametrize("serve", [GreenletPool], ids=[""], indirect=True)
"""No request of these reaches a pool."""


@hub_only
class TestHead:
    def test_one_that_does_not_end(self, serve):
        client = serve(length, head_timeout=0.3).connect()
        with within(0.2, 0.3):
            client.send(b"GET / HTTP/1.1\r\nHost")
            answer = client.read()
        assert (answer.status, answer.closes) == (408, True)
        assert client.is_ended()

    def test_one_that_drips_in_has_no_more_time(self, serve):
        client = serve(length, head_timeout=0.4).connect()
        dripping = gevent.spawn(drip, client, b"A: b\r\n", 5)
        client.send(b"GET / HTTP/1.1\r\n")
        with within(0.3, 0.4):
            assert client.read().status == 408
        dripping.kill()

    def test_no_byte_at_all_is_no_request(self, serve):
        client = serve(length, head_timeout=0.3).connect()
        with within(0.2, 0.3):
            assert client.is_ended()

    def test_empty_lines_are_no_byte(self, serve):
        client = serve(length, head_timeout=0.4).connect()
        dripping = gevent.spawn(drip, client, b"\r\n", 5)
        with within(0.3, 0.4):
            assert client.read_all() == b""
        dripping.kill()

    def test_a_later_one_has_its_own_time(self, serve):
        client = serve(length, head_timeout=0.4, keep_alive=30).connect()
        client.request("GET", "/")
        assert client.read().status == 200
        gevent.sleep(0.6)
        with within(0.3, 0.4):
            client.send(b"G")
            assert client.read().status == 408


@hub_only
class TestBody:
    HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    @pytest.mark.parametrize("begin", [HEAD, HEAD + b"a", CHUNKED, CHUNKED + b"5\r\nab"])
    def test_silence(self, serve, begin):
        site = serve(length, body_timeout=0.3)
        client = site.connect()
        client.send(begin)
        with within(0.2, 0.3):
            answer = client.read()
        assert (answer.status, answer.closes) == (408, True)
        assert client.is_ended()
        assert site.server.requests == 0

    def test_silence_of_a_client_that_was_told_to_go_on(self, serve):
        client = serve(length, body_timeout=0.3).connect()
        client.request("POST", "/", Content_Length=10, Expect="100-continue")
        assert client.read().status == 100
        assert client.read().status == 408

    @pytest.mark.parametrize(
        ("begin", "piece"), [(HEAD, b"a" * 10), (CHUNKED, b"a\r\naaaaaaaaaa\r\n")]
    )
    def test_a_drip_below_the_least_rate(self, serve, begin, piece):
        client = serve(length, body_timeout=0.5, body_min_rate=1000).connect()
        client.send(begin)
        dripping = gevent.spawn(drip, client, piece, 10)
        with within(0.4, 0.7):
            assert client.read().status == 408
        dripping.kill()

    @pytest.mark.parametrize("threshold", [1024, 524_288])
    def test_a_burst_gives_no_more_time_than_a_full_bucket(self, serve, threshold):
        """At the least rate these bytes could have taken 100 seconds."""
        site = serve(length, body_timeout=0.4, body_min_rate=1000, spool_threshold=threshold)
        client = site.connect()
        client.send(self.HEAD + b"a" * 100_000)
        with within(0.2, 0.4):
            assert client.read().status == 408

    def test_one_a_little_above_the_rate_is_left_alone(self, serve):
        client = serve(length, body_timeout=0.6, body_min_rate=1000).connect()
        client.request("POST", "/", Content_Length=1_000_000)
        assert drip(client, b"a" * 100, 1.5)
        client.send(b"a" * 1_000_000)
        assert client.read().body == b"1000000"

    def test_without_a_rate_any_drip_is_left_alone_and_silence_is_not(self, serve):
        client = serve(length, body_timeout=0.5, body_min_rate=0).connect()
        client.request("POST", "/", Content_Length=1000)
        assert drip(client, b"a", 1.2, pause=0.1)
        with within(0.3, 0.5):
            assert client.read().status == 408

    def test_the_time_of_an_upload_is_not_that_of_its_answer(self, serve):
        def application(environ, start_response):
            site.pool.waiter().wait(0.8)
            return length(environ, start_response)

        site = serve(application, body_timeout=0.3, head_timeout=0.3, keep_alive=0.3)
        client = site.connect()
        client.request("POST", "/", b"a" * 10)
        assert client.read().body == b"10"


def whole(environ, start_response):
    start_response("200 OK", [])
    return [b"x" * (16 * MIB)]


class Stream:
    """Makes pieces without end."""

    def __init__(self):
        self.closed = 0

    def __call__(self, environ, start_response):
        start_response("200 OK", [])
        return self

    def __iter__(self):
        while True:
            yield b"x" * 65_536

    def close(self):
        self.closed += 1


def take(client, size, pause, seconds, note=lambda: None):
    """Read so many bytes, pause, and so on; False if the server ended the connection."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        left = size
        while left:
            try:
                piece = client.sock.recv(left)
            except ConnectionResetError:
                piece = b""
            if not piece:
                return False
            left -= len(piece)
        note()
        gevent.sleep(pause)
    return True


class TestReaders:
    def test_one_that_takes_nothing_is_cut_off(self, serve):
        site = serve(whole, write_timeout=0.3)
        client = site.connect(receive_buffer=4096)
        client.request("GET", "/")
        until(lambda: site.server.requests)
        with within(0.1, 0.3):
            until(site.is_quiet)
        assert not client.read().is_whole

    def test_one_that_takes_nothing_of_a_stream_ends_it(self, serve):
        stream = Stream()
        site = serve(stream, write_timeout=0.4)
        site.connect(receive_buffer=4096).request("GET", "/")
        until(lambda: site.server.requests)
        with within(0.2, 0.4):
            until(site.is_quiet)
        assert stream.closed == 1

    @pytest.mark.parametrize("application", [whole, Stream()])
    def test_one_that_drips_below_the_least_rate_is_cut_off(self, serve, application):
        site = serve(application, write_timeout=0.5, write_min_rate=10_000_000)
        client = site.connect(receive_buffer=16_384)
        client.request("GET", "/")
        reading = gevent.spawn(take, client, 5000, 0.05, 10)
        until(lambda: site.server.requests)
        with within(0.3, 0.7):
            until(site.is_quiet)
        reading.kill()

    @pytest.mark.parametrize(
        ("serve", "application"),
        [(GreenletPool, whole), (GreenletPool, Stream()), (ThreadPool, Stream())],
        ids=["whole", "greenlets", "threads"],
        indirect=["serve"],
    )
    def test_a_slow_one_is_left_alone_though_the_kernel_wants_nothing_more(
        self, serve, application
    ):
        """The kernel holds megabytes: it takes none of ours for longer than the timeout."""
        site = serve(application, write_timeout=0.6, write_min_rate=20_000)
        client = site.connect(receive_buffer=16_384)
        client.request("GET", "/")
        moments = []

        def note():
            (connection,) = site.server.connections
            if not moments or moments[-1][1] != connection.flushed:
                moments.append((time.monotonic(), connection.flushed))

        began = time.monotonic()
        assert take(client, 5000, 0.05, 1.5, note)
        times = [each[0] for each in moments] + [time.monotonic()]
        longest = max(after - before for before, after in pairwise(times))
        assert longest > 0.6 + 0.2, "the kernel asked for more all the time"
        assert time.monotonic() - began > 1.4
        # And when it stops reading, that is noticed, too.
        with within(0.3, 0.6):
            until(site.is_quiet)

    def test_a_large_stream_is_made_no_faster_than_it_is_taken(self, serve):
        """300 MB pass through a bounded buffer."""
        most = []
        before = []

        def application(environ, start_response):
            start_response("200 OK", [("Content-Length", str(300 * MIB))])
            piece = b"x" * 65_536
            before.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            for _ in range(300 * MIB // len(piece)):
                yield piece
                note()

        def note():
            most.append(max((each.buffered for each in [*site.server.connections]), default=0))

        site = serve(application)
        client = site.connect()
        client.request("GET", "/")
        client.read_to(b"\r\n\r\n")
        room = memoryview(bytearray(MIB))
        left, step = 300 * MIB - len(client.buffer), 0
        while left:
            note()
            taken = client.sock.recv_into(room, min(MIB, left))
            assert taken
            left -= taken
            step += taken
            if step >= 2 * MIB:
                step = 0
                gevent.sleep(0.005)
        assert 0 < max(most) < 2 * HIGH_WATER
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before[0]
        assert grown * 1024 < 50 * MIB

    @hub_only
    def test_an_idle_connection_s_time_is_counted_from_its_last_response(self, serve):
        client = serve(length, keep_alive=0.6).connect()
        for _ in range(4):
            client.request("GET", "/")
            assert client.read().status == 200
            gevent.sleep(0.3)
        with within(0.1, 0.3):
            assert client.is_ended()

    @hub_only
    def test_a_request_that_runs_longer_than_idle_connections_live(self, serve):
        def application(environ, start_response):
            site.pool.waiter().wait(0.5)
            return length(environ, start_response)

        site = serve(application, keep_alive=0.3)
        client = site.connect()
        for _ in range(2):
            client.request("GET", "/")
            assert client.read().status == 200
        with within(0.2, 0.3):
            assert client.is_ended()

    @hub_only
    def test_an_idle_reader_has_the_time_of_keep_alive_not_of_writing(self, serve):
        site = serve(length, write_timeout=0.2, keep_alive=30)
        client = site.connect()
        client.request("GET", "/")
        client.read()
        gevent.sleep(0.5)
        client.request("GET", "/")
        assert client.read().status == 200
