"""``--request-timeout`` end to end: the client is answered, and what ran for it is stopped where
that can be done."""

import io
import logging
import random
import time
from contextlib import contextmanager

import gevent
import pytest
from contract.wsgi_site import until

from gpulse.http import protocol
from gpulse.worker.greenlets import GreenletPool
from gpulse.worker.threads import ThreadPool

MIB = 1024 * 1024
LATE = 3.0
"""Seconds that a busy machine may add."""

greenlets = pytest.mark.parametrize("serve", [GreenletPool], ids=["greenlets"], indirect=True)
threads = pytest.mark.parametrize("serve", [ThreadPool], ids=["threads"], indirect=True)


@contextmanager
def within(least, most):
    """What is in it takes so many seconds."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert least <= took <= most + LATE


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Each stop is an error in the log; a test that wants to read them asks for it."""
    caplog.set_level(logging.CRITICAL, "gpulse")


class Application:
    """Paths that hang do so until ``gate`` is set; it remembers what came out of that."""

    def __init__(self, catches=0):
        self.gate = None
        self.catches = catches
        self.caught = []
        self.closed = 0
        self.ended = 0

    def hang(self):
        while True:
            try:
                assert self.gate.wait(30)
                return
            except AssertionError:
                raise
            except BaseException as error:
                self.caught.append(type(error).__name__)
                if len(self.caught) > self.catches:
                    raise

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path.endswith("hang"):
            try:
                self.hang()
            finally:
                self.ended += 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        if path.endswith("begin"):
            return Begun(self)
        if path.endswith("lazy"):
            return Lazy(self)
        return [path.encode()]


class Lazy:
    """A body whose first piece does not come."""

    pieces = ()

    def __init__(self, application):
        self.application = application

    def __iter__(self):
        yield from self.pieces
        self.application.hang()
        yield b"late"

    def close(self):
        self.application.closed += 1


class Begun(Lazy):
    """Whose first comes, and no second."""

    pieces = (b"begun",)


@pytest.fixture
def start(serve):
    """``start(timeout, **site)`` gives a site; it has ``application``."""

    def start(timeout, application=None, **kwargs):
        application = application or Application()
        site = serve(application, request_timeout=timeout, **kwargs)
        application.gate = site.gate()
        site.application = application
        return site

    return start


class TestStop:
    @pytest.mark.parametrize("path", ["/hang", "/lazy"])
    def test_the_client_is_told_once_and_the_connection_ends(self, start, path):
        site = start("0.3")
        client = site.connect()
        client.request("GET", path)
        with within(0.2, 0.3):
            answer = client.read()
        assert (answer.status, answer.closes) == (503, True)
        assert client.is_ended()

    def test_a_request_that_is_in_time_is_left_alone(self, start):
        site = start("5")
        client = site.connect()
        for _ in range(3):
            client.request("GET", "/a")
            answer = client.read()
            assert (answer.body, answer.closes) == (b"/a", False)

    def test_others_are_left_alone(self, start):
        site = start("0.3,/other/=0")
        other, stopped = site.connect(), site.connect()
        other.request("GET", "/other/hang")
        stopped.request("GET", "/hang")
        assert stopped.read().status == 503
        assert site.get("/a").body == b"/a"
        site.application.gate.set()
        assert other.read().body == b"/other/hang"

    def test_what_is_pipelined_behind_it_is_not_run(self, start):
        site = start("0.3")
        client = site.connect()
        client.send(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.read().status == 503
        assert client.is_ended()
        assert site.server.requests == 1

    def test_a_response_that_has_begun_does_not_end_as_if_it_were_whole(self, start):
        site = start("0.3")
        client = site.connect()
        client.request("GET", "/begin")
        with within(0.2, 0.3):
            answer = client.read()
        assert (answer.status, answer.body, answer.is_whole) == (200, b"begun", False)
        assert client.is_ended()
        site.application.gate.set()
        until(site.is_quiet)
        assert site.application.closed == 1

    def test_the_log_says_where_it_was(self, start, caplog):
        caplog.set_level(logging.INFO, "gpulse")
        site = start("0.3")
        assert site.get("/hang?secret=1").status == 503
        (line,) = [each for each in caplog.messages if "--request-timeout" in each]
        assert line.startswith("GET /hang: ")
        assert "assert self.gate.wait(30)" in line
        assert "Application.hang" in line
        assert "secret" not in line

    def test_many_at_once(self, start):
        site = start("0.4", size=20)

        def visit():
            answer = site.get("/hang")
            assert (answer.status, answer.closes) == (503, True)

        with within(0.3, 0.4):
            visits = [gevent.spawn(visit) for _ in range(20)]
            gevent.joinall(visits, raise_error=True)
        site.application.gate.set()
        until(site.is_quiet)
        assert site.application.ended == 20
        assert site.get("/a").body == b"/a"

    def test_a_client_that_has_left_is_no_fault(self, start):
        site = start("0.3")
        for leave in ("close", "reset"):
            client = site.connect()
            client.request("GET", "/hang")
            until(lambda: site.pool.busy)
            getattr(client, leave)()
        gevent.sleep(0.5)
        site.application.gate.set()
        until(site.is_quiet)

    def test_a_spooled_body_is_given_up_with_it(self, start):
        site = start("0.3", spool_threshold=1024)
        client = site.connect()
        client.request("POST", "/hang", b"a" * 300_000)
        assert client.read().status == 503

    def test_a_draining_worker_stops_it_too(self, start):
        site = start("0.4")
        client = site.connect()
        client.request("GET", "/hang")
        until(lambda: site.pool.busy)
        site.server.stop_accepting()
        assert client.read().status == 503
        assert client.is_ended()


class TestWhich:
    """Which time a request has, and from when."""

    @greenlets
    def test_none_by_default(self, serve):
        application = Application()
        site = serve(application)
        application.gate = site.gate()
        client = site.connect()
        client.request("GET", "/hang")
        gevent.sleep(0.5)
        application.gate.set()
        assert client.read().body == b"/hang"

    def test_each_path_has_its_own(self, start):
        site = start("0.3,/never/=0,/long/=1.0")
        never, long, short = (site.connect() for _ in range(3))
        with within(0.9, 1.0):
            never.request("GET", "/never/hang")
            long.request("GET", "/long/hang?a=b")
            with within(0.2, 0.3):
                short.request("GET", "/longer/hang")
                assert short.read().status == 503
            assert long.read().status == 503
        site.application.gate.set()
        assert never.read().body == b"/never/hang"

    @greenlets
    def test_a_path_is_what_the_application_sees(self, start):
        site = start("/a/=0.3")
        assert site.get("/%61/hang").status == 503

    @greenlets
    def test_the_time_of_the_upload_does_not_count(self, start):
        site = start("0.3")
        client = site.connect()
        client.request("POST", "/a", Content_Length=10)
        for _ in range(10):
            client.send(b"a")
            gevent.sleep(0.06)
        assert client.read().body == b"/a"

    def test_nor_does_the_time_in_the_queue(self, start):
        site = start("0.4,/never/=0", size=1)
        first, second, third = (site.connect() for _ in range(3))
        first.request("GET", "/never/hang")
        until(lambda: site.pool.busy == 1)
        second.request("GET", "/a")
        third.request("GET", "/lazy")
        until(lambda: site.pool.queued == 2)
        gevent.sleep(0.8)
        assert site.pool.queued == 2
        site.application.gate.set()
        assert first.read().status == 200
        assert second.read().status == 200
        assert third.read().status == 200

    def test_a_request_that_waited_for_long_is_stopped_in_its_time(self, start):
        """And not when its time in the queue would be over."""
        site = start("0.4,/never/=0", size=1, queue_timeout=60)
        gate = site.application.gate
        first, second = site.connect(), site.connect()
        first.request("GET", "/never/hang")
        until(lambda: site.pool.busy == 1)
        second.request("GET", "/hang")
        until(lambda: site.pool.queued == 1)
        gevent.sleep(0.6)
        site.application.gate = site.gate()
        gate.set()
        assert first.read().status == 200
        with within(0.2, 0.4):
            assert second.read().status == 503

    @greenlets
    def test_nor_does_the_time_of_a_slow_reader(self, serve):
        def application(environ, start_response):
            start_response("200 OK", [])
            return [b"x" * (16 * MIB)]

        client = serve(application, request_timeout="0.3").connect(receive_buffer=65_536)
        client.request("GET", "/")
        client.more()
        gevent.sleep(0.7)
        answer = client.read()
        assert (len(answer.body), answer.is_whole) == (16 * MIB, True)

    @greenlets
    def test_nor_that_of_a_file(self, serve):
        def application(environ, start_response):
            start_response("200 OK", [])
            return environ["wsgi.file_wrapper"](io.BytesIO(b"x" * 100))

        client = serve(application, request_timeout="0.3").connect()
        for _ in range(2):
            client.request("GET", "/")
            assert client.read().body == b"x" * 100
            gevent.sleep(0.4)

    def test_a_websocket_is_no_request_any_more(self, serve):
        def application(environ, start_response):
            socket = environ["wsgi.websocket"]
            while (message := socket.receive()) is not None:
                socket.send(message)
            return []

        client = serve(application, request_timeout="0.3").connect()
        assert client.upgrade().status == 101
        gevent.sleep(0.7)
        client.say("text", b"still here")
        assert client.hear() == "still here"
        client.say("close", 1000)
        assert client.hear() == 1000


@greenlets
class TestGreenlets:
    def test_the_application_is_stopped_where_it_waits(self, start):
        site = start("0.3", size=1)
        for number in range(1, 3):
            assert site.get("/hang").status == 503
            until(lambda: site.pool.busy == 0)
            assert site.application.ended == number
        assert site.get("/a").body == b"/a"

    def test_close_of_the_body_is_called(self, start):
        site = start("0.3")
        assert site.get("/lazy").status == 503
        until(site.is_quiet)
        assert site.application.closed == 1

    def test_gevent_s_own_waits(self, serve):
        ended = []

        def application(environ, start_response):
            try:
                gevent.sleep(30)
            finally:
                ended.append(True)

        site = serve(application, request_timeout="0.3")
        assert site.get().status == 503
        assert ended == [True]

    def test_one_that_catches_it_and_answers_has_answered(self, start):
        class Catching(Application):
            def hang(self):
                try:
                    super().hang()
                except BaseException:
                    return

        site = start("0.3", Catching())
        client = site.connect()
        client.request("GET", "/hang")
        answer = client.read()
        assert (answer.status, answer.body) == (200, b"/hang")
        until(lambda: site.pool.busy == 0)

    def test_one_that_is_an_error_of_the_framework_s_is_a_503(self, serve):
        """Django meets the closed connection at the end of a transaction and answers 500."""

        def application(environ, start_response):
            try:
                gevent.sleep(30)
            except BaseException:
                start_response("500 Oops", [])
                return [b"oops"]

        answer = serve(application, request_timeout="0.3").get()
        assert (answer.status, answer.closes) == (503, True)

    def test_one_that_catches_it_again_and_again_is_given_up(self, start, caplog):
        caplog.set_level(logging.INFO, "gpulse")
        site = start("0.3", Application(catches=99))
        client = site.connect()
        client.request("GET", "/hang")
        with within(3.0, 3.5):
            answer = client.read()
        assert (answer.status, answer.closes) == (503, True)
        assert client.is_ended()
        assert site.application.caught == ["RequestTimeout"] * 3
        assert sum("--request-timeout" in line for line in caplog.messages) == 1
        assert site.pool.busy == 1  # it still hangs
        assert site.get("/a").body == b"/a"
        client.close()
        site.application.gate.set()
        until(site.is_quiet)
        assert "job of the pool raised" not in caplog.text
        assert site.application.ended == 1

    def test_one_that_does_so_behind_its_head_is_cut_off(self, start, monkeypatch):
        monkeypatch.setattr(protocol, "STOPS", 1)
        site = start("0.3", Application(catches=99))
        client = site.connect()
        client.request("GET", "/begin")
        answer = client.read()
        assert (answer.body, answer.is_whole) == (b"begun", False)
        site.application.gate.set()
        until(site.is_quiet)
        assert site.application.closed == 1

    def test_a_stop_behind_a_hint_is_told(self, serve):
        def application(environ, start_response):
            environ["wsgi.early_hints"]([("Link", "a")])
            gevent.sleep(30)

        client = serve(application, request_timeout="0.3").connect()
        client.request("GET", "/")
        assert client.read().status == 103
        assert client.read().status == 503

    def test_it_is_one_line_of_the_access_log(self, start):
        site = start("0.3", log_format="%m %U %s")
        assert site.get("/hang").status == 503
        until(site.is_quiet)
        assert site.lines == ["GET /hang 503"]


@threads
class TestThreads:
    def test_the_thread_goes_on_to_its_end_and_what_it_says_goes_nowhere(self, start, caplog):
        caplog.set_level(logging.INFO, "gpulse")
        site = start("0.3", size=1)
        client = site.connect()
        client.request("GET", "/hang")
        assert client.read().status == 503
        assert client.is_ended()
        assert (site.pool.busy, site.pool.alive) == (1, 1)
        assert site.application.ended == 0
        site.application.gate.set()
        until(lambda: site.pool.busy == 0)
        assert (site.application.ended, site.application.caught) == (1, [])
        assert (site.pool.queued, site.pool.detached, site.pool.alive) == (0, 0, 1)
        assert site.get("/a").body == b"/a"
        assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) == 1

    def test_a_stream_of_it_is_closed_in_the_end(self, start):
        site = start("0.3")
        assert site.get("/lazy").status == 503
        assert site.application.closed == 0
        site.application.gate.set()
        until(site.is_quiet)
        assert site.application.closed == 1

    def test_a_request_that_waits_for_the_thread_gets_it(self, start):
        site = start("0.3,/a=0", size=1)
        stopped, waits = site.connect(), site.connect()
        stopped.request("GET", "/hang")
        until(lambda: site.pool.busy == 1)
        waits.request("GET", "/a")
        assert stopped.read().status == 503
        site.application.gate.set()
        assert waits.read().body == b"/a"

    def test_the_answer_of_a_thread_that_is_given_up_is_in_no_log(self, start):
        site = start("0.3", log_format="%m %U %s")
        assert site.get("/hang").status == 503
        site.application.gate.set()
        until(site.is_quiet)
        assert len(site.lines) == 1
        assert " 503" in site.lines[0]

    def test_a_connection_of_another_client_does_not_get_its_bytes(self, start):
        """The descriptor of the closed connection has a new owner by now."""
        site = start("0.3")
        assert site.get("/hang").status == 503
        others = [site.connect() for _ in range(5)]
        for client in others:
            client.request("GET", "/a")
            assert client.read().body == b"/a"
        site.application.gate.set()
        until(lambda: site.pool.busy == 0)
        for client in others:
            client.request("GET", "/b")
            assert client.read().body == b"/b"


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_request_that_ends_as_its_time_ends_has_one_response(serve, pieces):
    """Of 200 that take about as long as they may, each is answered or stopped, and never both."""
    chance = random.Random(1)
    durations = [0.1 + chance.uniform(-0.03, 0.05) for _ in range(200)]

    def application(environ, start_response):
        site.pool.waiter().wait(durations.pop())
        start_response("200 OK", [("Content-Length", "8")])
        return [b"complete"] if pieces == 1 else iter([b"comp", b"lete"])

    site = serve(application, size=20, request_timeout="0.1", queue_timeout=60)
    statuses = []

    def visit():
        for _ in range(10):
            client = site.connect()
            client.request("GET", "/", Connection="close")
            answer = client.read()
            assert answer.is_whole or pieces == 2
            assert client.is_ended()
            assert answer.status == 503 or b"complete".startswith(answer.body)
            statuses.append(answer.status)
            client.close()

    gevent.joinall([gevent.spawn(visit) for _ in range(20)], raise_error=True)
    assert set(statuses) == {200, 503}
    assert len(statuses) == 200
    until(site.is_quiet)
