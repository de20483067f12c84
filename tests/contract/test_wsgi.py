"""WSGI and HTTP/1.1 end to end, on greenlets and on threads."""

import io
import logging
import sys
import tempfile
import time
from functools import partial
from wsgiref.validate import validator

import gevent
import pytest
from contract.wsgi_site import until

from gpulse.http import spool
from gpulse.http.limits import Limits

MIB = 1024 * 1024


def text(environ, start_response):
    """Answers with method, path and body."""
    body = environ["wsgi.input"].read()
    answer = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} ".encode() + body
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


class Body:
    """An iterable that remembers whether it was closed."""

    def __init__(self, pieces):
        self.pieces = pieces
        self.closed = 0

    def __iter__(self):
        return iter(self.pieces)

    def close(self):
        self.closed += 1


def streaming(pieces, headers=()):
    """An application and the body that it returns."""
    body = Body(pieces)

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), *headers])
        return body

    return application, body


class TestConnections:
    def test_one_serves_many_requests(self, serve):
        client = serve(text).connect()
        for number in range(5):
            client.request("GET", f"/{number}")
            answer = client.read()
            assert (answer.status, answer.body) == (200, f"GET /{number} ".encode())
            assert "connection" not in answer.fields

    def test_pipelined_requests_are_answered_in_order(self, serve):
        client = serve(text).connect()
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(50)))
        assert [client.read().body for _ in range(50)] == [b"GET /%d " % n for n in range(50)]

    def test_more_pipelined_than_is_kept_is_read_later(self, serve):
        site = serve(text, limits=Limits(pipelined=1000))
        client = site.connect()
        sender = gevent.spawn(
            client.send, b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(2000))
        )
        assert [client.read().body for _ in range(2000)] == [b"GET /%d " % n for n in range(2000)]
        sender.get(timeout=5)

    def test_a_connection_that_pipelines_does_not_keep_others_waiting(self, serve):
        site = serve(text, size=1)
        greedy, other = site.connect(), site.connect()
        greedy.send(b"GET /g HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        other.request("GET", "/o")
        assert other.read().body == b"GET /o "
        assert site.server.requests < 1000

    @pytest.mark.parametrize(
        ("head", "closes"),
        [
            (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", True),
            (b"GET / HTTP/1.0\r\n\r\n", True),
            (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", False),
        ],
    )
    def test_they_end_when_the_request_says_so(self, serve, head, closes):
        client = serve(text).connect()
        client.send(head)
        assert client.read().closes is closes
        if closes:
            assert client.is_ended()
        else:
            client.request("GET", "/b")
            assert client.read().body == b"GET /b "

    def test_a_client_that_has_finished_sending_gets_its_answer(self, serve):
        client = serve(text).connect()
        client.request("GET", "/a")
        client.finish_sending()
        assert client.read().body == b"GET /a "
        assert client.is_ended()

    def test_an_idle_one_is_closed_without_a_word(self, serve):
        client = serve(text, keep_alive=0.1).connect()
        client.request("GET", "/")
        client.read()
        assert client.is_ended()

    def test_a_request_that_begins_at_the_end_of_an_idle_time_has_its_own_time(self, serve):
        client = serve(text, keep_alive=0.3).connect()
        client.request("GET", "/a")
        client.read()
        gevent.sleep(0.2)
        client.send(b"GET /b HTTP/1.1\r\n")
        gevent.sleep(0.3)
        client.send(b"Host: x\r\n\r\n")
        assert client.read().body == b"GET /b "

    def test_while_draining_each_response_ends_its_connection(self, serve):
        site = serve(text)
        client = site.connect()
        client.request("GET", "/a")
        client.read()
        site.server.stop_accepting()
        site.server.hurry_idle(time.monotonic() + 5)
        client.request("GET", "/b")
        assert client.read().closes
        assert client.is_ended()

    def test_a_response_that_was_in_the_making_when_the_drain_began_ends_its_connection(
        self, serve
    ):
        def application(environ, start_response):
            assert gate[0].wait(5)
            return text(environ, start_response)

        site = serve(application)
        gate = [site.gate()]
        client = site.connect()
        client.request("GET", "/a")
        until(lambda: site.pool.busy == 1)
        site.server.stop_accepting()
        gate[0].set()
        assert client.read().closes
        assert client.is_ended()

    def test_while_draining_idle_ones_end_soon(self, serve):
        site = serve(text)
        client = site.connect()
        client.request("GET", "/a")
        client.read()
        site.server.stop_accepting()
        site.server.hurry_idle(time.monotonic() + 0.1)
        assert client.is_ended()

    def test_clients_that_come_and_go_leave_nothing(self, serve):
        site = serve(text)
        for number in range(30):
            client = site.connect()
            if number % 3:
                client.send(b"GET / HT" if number % 2 else b"POST / HTTP/1.1\r\nHost: x\r\n")
            client.reset() if number % 2 else client.close()
        until(lambda: not site.server.connections)


class TestBodies:
    @pytest.mark.parametrize("size", [0, 1, 1000, 1001, 70_000, 2 * MIB])
    @pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
    def test_a_body_is_seen_whole_in_memory_or_on_disk(self, serve, size, chunked):
        seen = []

        def application(environ, start_response):
            seen.append((environ["CONTENT_LENGTH"], environ["wsgi.input"].read()))
            start_response("204 No Content", [])
            return []

        client = serve(application, limits=Limits(spool=1000)).connect()
        body = bytes(range(256)) * (size // 256 + 1)
        body = body[:size]
        for _ in range(2):
            if chunked:
                client.request("POST", "/", Transfer_Encoding="chunked")
                for at in range(0, size, 10_000):
                    piece = body[at : at + 10_000]
                    client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                client.send(b"0\r\n\r\n")
            else:
                client.request("POST", "/", body)
            assert client.read().status == 204
        assert seen == [(str(size), body)] * 2

    def test_a_spooled_body_whose_last_chunk_comes_alone_is_read_from_its_beginning(self, serve):
        site = serve(text, limits=Limits(spool=1000))
        client = site.connect()
        client.request("POST", "/", Transfer_Encoding="chunked")
        client.send(b"7d0\r\n" + b"a" * 2000 + b"\r\n")
        gevent.sleep(0.1)  # by now it is on disk
        client.send(b"0\r\n\r\n")
        assert client.read().body == b"POST / " + b"a" * 2000

    def test_an_application_need_not_read_it(self, serve):
        application, _ = streaming([b"x"])
        client = serve(application, limits=Limits(spool=1000)).connect()
        for size in (10, 100_000):
            client.request("POST", "/", b"a" * size)
            assert client.read().body == b"x"

    def test_a_middleware_may_put_its_own_input_in_place_of_a_spooled_one(self, serve):
        def application(environ, start_response):
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read())
            answer = text(environ, start_response)
            del environ["wsgi.input"]
            return answer

        client = serve(application, limits=Limits(spool=1000)).connect()
        for _ in range(2):
            client.request("POST", "/", b"a" * 200_000)
            assert client.read().body == b"POST / " + b"a" * 200_000

    def test_a_slow_upload_holds_no_member(self, serve):
        site = serve(text, size=1)
        slow = site.connect()
        slow.request("POST", "/", Content_Length=10)
        slow.send(b"01234")
        assert site.get("/a").body == b"GET /a "
        slow.send(b"56789")
        assert slow.read().body == b"POST / 0123456789"

    def test_the_client_is_told_to_go_on(self, serve):
        client = serve(text).connect()
        client.request("POST", "/", Expect="100-continue", Content_Length=3)
        assert client.read().status == 100
        client.send(b"abc")
        assert client.read().body == b"POST / abc"

    def test_a_client_that_did_not_wait_is_told_nothing(self, serve):
        client = serve(text).connect()
        client.request("POST", "/", b"abc", Expect="100-continue")
        assert client.read().status == 200

    def test_a_client_whose_body_is_refused_is_not_told_to_go_on(self, serve):
        client = serve(text, limits=Limits(body=100)).connect()
        client.request("POST", "/", Expect="100-continue", Content_Length=101)
        assert client.read().status == 413

    def test_a_client_that_leaves_within_its_body_calls_nobody(self, serve):
        site = serve(text, limits=Limits(spool=100))
        client = site.connect()
        client.request("POST", "/", Content_Length=5000)
        client.send(b"a" * 2000)
        gevent.sleep(0.05)
        client.reset()
        until(lambda: not site.server.connections)
        assert site.server.requests == 0


class TestResponses:
    @pytest.mark.parametrize(
        ("pieces", "headers", "body", "framing"),
        [
            ([b"hello"], [], b"hello", ("content-length", "5")),
            ([b"hel", b"lo"], [], b"hello", ("transfer-encoding", "chunked")),
            ((b"x", b"x", b"x"), [], b"xxx", ("transfer-encoding", "chunked")),
            ((b"hello",), [], b"hello", ("transfer-encoding", "chunked")),
            ([b"hel", b"lo"], [("Content-Length", "5")], b"hello", ("content-length", "5")),
            ([], [], b"", ("content-length", "0")),
        ],
    )
    def test_a_body_is_framed_and_closed_once(self, serve, pieces, headers, body, framing):
        class Sized(Body):
            def __len__(self):
                return len(self.pieces)

        returned = (Sized if isinstance(pieces, list) else Body)(pieces)

        def application(environ, start_response):
            start_response("200 OK", list(headers))
            return returned

        client = serve(application).connect()
        client.request("GET", "/")
        answer = client.read()
        assert answer.body == body
        assert answer.fields[framing[0]] == framing[1]
        until(lambda: returned.closed == 1)

    def test_head_has_no_body_and_the_connection_goes_on(self, serve):
        client = serve(text).connect()
        client.request("HEAD", "/a")
        answer = client.read("HEAD")
        assert answer.fields["content-length"] == str(len(b"HEAD /a "))
        client.request("GET", "/b")
        assert client.read().body == b"GET /b "

    @pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
    def test_a_status_without_a_body_has_none(self, serve, status):
        def application(environ, start_response):
            start_response(status, [])
            return [b"not for you"]

        client = serve(application).connect()
        for _ in range(2):
            client.request("GET", "/")
            assert client.read().status == int(status[:3])

    def test_pieces_of_a_stream_arrive_when_they_are_made(self, serve):
        def application(environ, start_response):
            start_response("200 OK", [])
            yield b"first"
            assert gates[0].wait(5)
            yield b"second"

        site = serve(application)
        gates = [site.gate()]
        client = site.connect()
        client.request("GET", "/")
        assert client.read_to(b"first") is not None
        gates[0].set()
        assert client.read_to(b"second") is not None
        assert client.read_to(b"0\r\n\r\n") is not None

    def test_the_write_callable(self, serve):
        def application(environ, start_response):
            write = start_response("200 OK", [])
            write(b"a")
            write(b"b")
            return [b"c"]

        assert serve(application).get().body == b"abc"

    @pytest.mark.parametrize("size", [0, 5, 3 * MIB])
    def test_a_file_of_the_wrapper(self, serve, size):
        files = []

        def application(environ, start_response):
            file = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
            file.write(b"skipped" + b"x" * size)
            file.seek(7)
            files.append(file)
            start_response("200 OK", [])
            return environ["wsgi.file_wrapper"](file, 1000)

        client = serve(application).connect()
        for _ in range(2):
            client.request("GET", "/")
            answer = client.read()
            assert answer.fields["content-length"] == str(size)
            assert answer.body == b"x" * size
        until(lambda: all(file.closed for file in files))

    def test_a_wrapped_object_that_is_no_file_is_streamed(self, serve):
        def application(environ, start_response):
            start_response("200 OK", [])
            return environ["wsgi.file_wrapper"](io.BytesIO(b"hello" * 1000), 100)

        assert serve(application).get().body == b"hello" * 1000

    def test_a_small_response_is_one_segment(self, serve):
        client = serve(text).connect()
        client.request("GET", "/")
        assert b"GET / " in client.sock.recv(65536)

    def test_each_is_in_the_access_log(self, serve):
        site = serve(text)
        site.get("/a?b")
        until(lambda: site.lines)
        assert '"GET /a?b HTTP/1.1" 200 7 ' in site.lines[0]


class TestSlowReaders:
    def test_one_that_does_not_take_a_complete_response_holds_no_member(self, serve):
        def application(environ, start_response):
            if environ["PATH_INFO"] == "/big":
                start_response("200 OK", [])
                return [b"x" * (16 * MIB)]
            return text(environ, start_response)

        site = serve(application, size=1)
        slow = site.connect(receive_buffer=4096)
        slow.request("GET", "/big")
        assert site.get("/a").body == b"GET /a "
        assert len(slow.read().body) == 16 * MIB
        slow.request("GET", "/b")
        assert slow.read().body == b"GET /b "

    def test_a_stream_is_made_no_faster_than_it_is_read(self, serve):
        made = []

        def pieces():
            for number in range(400):
                made.append(number)
                yield b"x" * 65536

        application, body = streaming(pieces())
        site = serve(application)
        slow = site.connect(receive_buffer=4096)
        slow.request("GET", "/")
        until(lambda: made)
        gevent.sleep(0.2)
        assert len(made) < 300
        assert len(slow.read().body) == 400 * 65536
        until(lambda: body.closed == 1)

    def test_one_that_takes_nothing_is_cut_off(self, serve):
        application, body = streaming(b"x" * 65536 for _ in range(1000))
        site = serve(application, limits=Limits(write_stall=0.2))
        site.connect(receive_buffer=4096).request("GET", "/")
        until(lambda: site.server.requests)
        until(site.is_quiet)
        assert body.closed == 1

    def test_one_that_takes_a_little_now_and_then_is_not(self, serve):
        application, _ = streaming([b"x" * (16 * MIB)])
        site = serve(application, limits=Limits(write_stall=0.5))
        slow = site.connect(receive_buffer=65536)
        slow.request("GET", "/")
        began = time.monotonic()
        while time.monotonic() - began < 1.0:
            gevent.sleep(0.1)
            enough = len(slow.buffer) + 500_000
            while len(slow.buffer) < enough:
                slow.more()
        assert slow.read().is_whole


class TestFaults:
    @pytest.fixture(autouse=True)
    def quiet(self, caplog):
        caplog.set_level(logging.CRITICAL, "gpulse")

    @pytest.mark.parametrize("where", ["call", "first step", "close", "start_response", "nothing"])
    def test_an_application_that_raises_is_a_500_that_tells_nothing(self, serve, where):
        def steps():
            raise ValueError("secret")
            yield b""

        class Closing(Body):
            def close(self):
                super().close()
                raise ValueError("secret")

        def application(environ, start_response):
            if where == "call":
                raise ValueError("secret")
            if where == "nothing":
                return [b"secret"]
            headers = [("X", "secret\r\nX: y")] if where == "start_response" else []
            start_response("200 OK", headers)
            if where == "close":
                return Closing(steps())
            return steps() if where == "first step" else [b"secret"]

        site = serve(application)
        client = site.connect()
        client.request("GET", "/")
        answer = client.read()
        assert answer.status == 500
        assert answer.closes
        assert b"secret" not in answer.body
        assert "x" not in answer.fields
        assert client.is_ended()

    @pytest.mark.parametrize("headers", [[], [("Content-Length", "10")]])
    def test_one_that_raises_after_the_first_piece_ends_the_connection(self, serve, headers):
        def pieces():
            yield b"begun"
            raise ValueError

        application, body = streaming(pieces(), headers)
        client = serve(application).connect()
        client.request("GET", "/")
        answer = client.read()
        assert (answer.status, answer.body, answer.is_whole) == (200, b"begun", False)
        assert body.closed == 1

    def test_one_that_sends_less_than_it_promised_ends_the_connection(self, serve):
        application, _ = streaming([b"short"], [("Content-Length", "10")])
        client = serve(application).connect()
        client.request("GET", "/")
        assert not client.read().is_whole

    def test_one_that_sends_more_is_cut(self, serve):
        application, _ = streaming([b"long", b"er"], [("Content-Length", "5")])
        client = serve(application).connect()
        for _ in range(2):
            client.request("GET", "/")
            assert client.read().body == b"longe"

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
    def test_one_that_wants_to_end_the_process_ends_its_request(self, serve, error):
        def application(environ, start_response):
            if environ["PATH_INFO"] == "/end":
                raise error
            return text(environ, start_response)

        site = serve(application, size=1)
        for _ in range(3):
            client = site.connect()
            client.request("GET", "/end")
            client.read_all()
        assert site.get("/a").body == b"GET /a "

    def test_a_client_that_leaves_closes_the_body(self, serve):
        bodies = []

        def pieces():
            while True:
                yield b"x" * 1000
                site.pool.waiter().wait(0.001)

        def application(environ, start_response):
            start_response("200 OK", [])
            bodies.append(Body(pieces()))
            return bodies[-1]

        site = serve(application)
        for number in range(6):
            client = site.connect()
            client.request("GET", "/")
            client.read_to(b"xxx")
            client.reset() if number % 2 else client.close()
        until(lambda: [body.closed for body in bodies] == [1] * 6)
        until(site.is_quiet)

    def test_a_client_that_left_before_its_turn_is_no_fault(self, serve):
        def application(environ, start_response):
            assert gate[0].wait(5)
            return text(environ, start_response)

        site = serve(application, size=1)
        gate = [site.gate()]
        clients = [site.connect() for _ in range(3)]
        for client in clients:
            client.request("GET", "/")
        until(lambda: site.server.requests == 3)
        for client in clients:
            client.reset()
        gate[0].set()
        until(site.is_quiet)

    def test_101_without_an_upgrade_is_a_500(self, serve):
        def application(environ, start_response):
            start_response("101 Switching Protocols", [])
            return []

        assert serve(application).get().status == 500


class TestRefusals:
    def test_a_full_queue_is_a_503_with_a_time_to_come_back(self, serve):
        def application(environ, start_response):
            assert gate[0].wait(5)
            return text(environ, start_response)

        site = serve(application, size=1, limits=Limits(queue=1, spool=100))
        gate = [site.gate()]
        first, second, third = (site.connect() for _ in range(3))
        first.request("GET", "/1")
        until(lambda: site.pool.busy == 1)
        second.request("GET", "/2")
        until(lambda: site.pool.queued == 1)
        third.request("POST", "/3", b"a" * 200_000)
        answer = third.read()
        assert (answer.status, answer.fields["retry-after"]) == (503, "1")
        assert answer.closes
        assert third.is_ended()
        gate[0].set()
        assert (first.read().body, second.read().body) == (b"GET /1 ", b"GET /2 ")

    def test_a_request_that_waited_too_long_is_a_503_and_never_runs(self, serve):
        def application(environ, start_response):
            assert gate[0].wait(5)
            return text(environ, start_response)

        site = serve(application, size=1, limits=Limits(queue_timeout=0.1, spool=100))
        gate = [site.gate()]
        first, second = site.connect(), site.connect()
        first.request("GET", "/1")
        until(lambda: site.pool.busy == 1)
        second.request("POST", "/2", b"a" * 200_000)
        answer = second.read()
        assert (answer.status, answer.fields["retry-after"]) == (503, "1")
        assert second.is_ended()
        gate[0].set()
        assert first.read().status == 200
        until(lambda: len(site.lines) == 2)  # a thread writes its line behind its response

    def test_a_request_that_runs_long_is_left_alone(self, serve):
        def application(environ, start_response):
            assert gate[0].wait(5)
            return text(environ, start_response)

        site = serve(application, size=1, limits=Limits(queue_timeout=0.1))
        gate = [site.gate()]
        first, second = site.connect(), site.connect()
        first.request("GET", "/1")
        until(lambda: site.pool.busy == 1)
        second.request("GET", "/2")
        assert second.read().status == 503
        gevent.sleep(0.2)
        gate[0].set()
        assert first.read().status == 200

    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            (b"GET / HTTP/1.1\r\nHost", 408),
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", 408),
            (b"", None),
        ],
    )
    def test_what_does_not_arrive_in_time(self, serve, sent, status):
        site = serve(text, limits=Limits(head_timeout=0.1, body_stall=0.1))
        client = site.connect()
        client.send(sent)
        if status is None:
            assert client.is_ended()
        else:
            assert client.read().status == status

    def test_a_head_that_drips_in_is_not_waited_for(self, serve):
        client = serve(text, limits=Limits(head_timeout=0.2)).connect()
        client.send(b"GET / HTTP/1.1\r\n")
        began = time.monotonic()
        while time.monotonic() - began < 0.15:
            client.send(b"A: b\r\n")
            gevent.sleep(0.03)
        assert client.read().status == 408
        assert time.monotonic() - began < 1

    @pytest.mark.parametrize("failing", [1, 2])
    def test_a_body_for_which_there_is_no_space_is_a_507(self, serve, monkeypatch, caplog, failing):
        calls = []

        def append(*args):
            calls.append(args)
            if len(calls) == failing:
                raise OSError(28, "No space left on device")
            return write(*args)

        write = spool.append
        monkeypatch.setattr(spool, "append", append)
        client = serve(text, limits=Limits(spool=1000, linger=0.1)).connect()
        client.request("POST", "/", Content_Length=10_000)
        client.send(b"a" * 2000)
        gevent.sleep(0.1)
        client.send(b"a" * 2000)
        assert client.read().status == 507
        assert "No space left" in caplog.text

    def test_the_answers_before_an_error_are_given(self, serve):
        client = serve(text).connect()
        client.send(
            b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nBAD\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        assert client.read().body == b"GET /a "
        assert client.read().status == 400
        assert client.is_ended()

    def test_a_client_that_is_still_sending_sees_why_it_was_refused(self, serve):
        site = serve(text, limits=Limits(body=100, linger=0.5))
        client = site.connect()
        client.request("POST", "/", Content_Length=50_000)
        client.send(b"a" * 25_000)
        assert client.read().status == 413
        client.send(b"a" * 25_000)
        assert client.is_ended()

    def test_an_upload_without_end_is_cut_off(self, serve):
        site = serve(text, limits=Limits(body=100, linger=5.0, linger_bytes=10_000))
        client = site.connect()
        client.request("POST", "/", Content_Length=10**9)
        began = time.monotonic()
        with pytest.raises(OSError, match=r"reset|pipe"):
            client.send(b"a" * 64 * MIB)
        assert time.monotonic() - began < 4

    def test_refusals_are_counted_and_logged_and_call_nobody(self, serve):
        site = serve(text)
        client = site.connect()
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert client.read().status == 400
        assert (site.server.requests, site.server.refusals) == (0, 1)
        assert site.lines[0].endswith("no Host field")


class TestValidator:
    """wsgiref's validator around the application: it raises on what PEP 3333 forbids."""

    @pytest.fixture(autouse=True)
    def stderr(self, monkeypatch):
        # The validator's iterators complain there if they were not closed.
        self.errors = io.StringIO()
        monkeypatch.setattr(sys, "stderr", self.errors)
        yield
        assert self.errors.getvalue() == ""

    @staticmethod
    def application(environ, start_response):
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size)
        start_response("200 OK", [("Content-Type", "text/plain")])
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        if environ["PATH_INFO"] == "/stream":
            return (b"%d" % number for number in range(10))
        return [b"%d bytes" % len(body)]

    @pytest.mark.parametrize(
        ("method", "path", "body", "expected"),
        [
            ("GET", "/", None, b"0 bytes"),
            ("GET", "/a%20b?c=d", None, b"0 bytes"),
            ("POST", "/", b"abc", b"3 bytes"),
            ("POST", "/", b"a" * 200_000, b"200000 bytes"),
            ("PUT", "/", b"", b"0 bytes"),
            ("HEAD", "/", None, b""),
            ("GET", "/stream", None, b"0123456789"),
            ("HEAD", "/stream", None, b""),
        ],
    )
    def test_it_has_nothing_to_say(self, serve, method, path, body, expected):
        site = serve(validator(self.application), limits=Limits(spool=1000))
        client = site.connect()
        for _ in range(2):
            client.request(method, path, body)
            answer = client.read(method)
            assert (answer.status, answer.body) == (200, expected)

    def test_nor_about_a_chunked_upload(self, serve):
        client = serve(validator(self.application)).connect()
        client.request("POST", "/", Transfer_Encoding="chunked")
        client.send(b"3\r\nabc\r\n0\r\n\r\n")
        assert client.read().body == b"3 bytes"

    def test_nor_about_a_body_of_the_file_wrapper(self, serve):
        def application(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return environ["wsgi.file_wrapper"](io.BytesIO(b"hello"))

        assert serve(validator(application)).get().body == b"hello"


def test_many_clients_at_once_are_all_answered(serve):
    site = serve(text, size=4)

    def visit(number):
        client = site.connect()
        for turn in range(5):
            client.request("POST", f"/{number}", b"%d" % turn)
            assert client.read().body == f"POST /{number} {turn}".encode()

    gevent.joinall([gevent.spawn(partial(visit, number)) for number in range(40)], raise_error=True)
    assert site.server.requests == 200
    assert site.pool.alive <= 4


class ClosesBadly(list):
    def close(self):
        raise RuntimeError("in close")


class TestClose:
    def test_what_it_raises_does_not_touch_the_response(self, serve):
        def application(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return ClosesBadly([b"x" * 3_000_000])

        client = serve(application).connect()
        for _ in range(2):
            client.request("GET", "/")
            answer = client.read()
            assert (answer.status, len(answer.body), answer.is_whole) == (200, 3_000_000, True)

    def test_a_content_length_shorter_than_the_file_sends_that_much_of_it(self, serve, caplog):
        def application(environ, start_response):
            start_response("200 OK", [("Content-Length", "5")])
            return environ["wsgi.file_wrapper"](io.BytesIO(b"0123456789"))

        client = serve(application).connect()
        for _ in range(2):
            client.request("GET", "/")
            assert client.read().body == b"01234"
        assert "wrote more" not in caplog.text
