"""Pages over a real master and worker, in both modes."""

import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pulse import Pulse, until


@pytest.fixture
def pulse(start, mode) -> Pulse:
    return start(*mode).ready()


def test_bodies_go_in_and_out(pulse):
    connection = http.client.HTTPConnection("127.0.0.1", pulse.port, timeout=20)
    for size in (0, 1, 70_000, 3_000_000):
        body = bytes(range(256)) * (size // 256 + 1)
        body = body[:size]
        connection.request("POST", "/body", body)
        assert connection.getresponse().read() == body
        # http.client sends an iterator as a chunked request.
        pieces = iter([body[:100], body[100:]] if size > 100 else [b"x"])
        connection.request("POST", "/body", pieces, encode_chunked=True)
        assert connection.getresponse().read() == (body if size > 100 else b"x")
    connection.close()
    assert pulse.stop() == 0


def test_streams_and_files_arrive_whole(pulse):
    assert pulse.text("/stream?count=3") == "0\n1\n2\n"
    assert len(pulse.text("/stream?count=10&repeat=100000")) == 2_000_000
    assert "One view for each thing" in pulse.text("/file")
    assert pulse.stop() == 0


def test_an_error_in_a_view_is_that_requests_alone(pulse):
    assert pulse.get("/fail")[0] == 500
    assert pulse.text("/pid")
    assert "on purpose" in pulse.log
    assert pulse.stop() == 0


def test_pipelined_requests_are_answered_in_order(pulse):
    with socket.create_connection(("127.0.0.1", pulse.port), timeout=20) as client:
        client.sendall(
            b"".join(
                b"GET /stream?count=%d HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
                % (count, b"Connection: close\r\n" if count == 20 else b"")
                for count in range(1, 21)
            )
        )
        data = b""
        while piece := client.recv(65536):
            data += piece
    assert data.count(b"HTTP/1.1 200 OK") == 20
    assert data.index(b"\r\n19\n") > data.index(b"\r\n18\n")
    assert pulse.stop() == 0


def test_a_stop_lets_a_request_finish(start, mode):
    pulse = start(*mode).ready()
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(pulse.get, "/sleep?seconds=1.5")
        until(lambda: json.loads(pulse.text("/facts"))["most_at_once"])
        assert pulse.stop("TERM") == 0
        assert answer.result() == (200, "slept")


def test_a_quick_stop_does_not_wait(start, mode):
    pulse = start(*mode).ready()
    with socket.create_connection(("127.0.0.1", pulse.port), timeout=20) as client:
        client.sendall(b"GET /sleep?seconds=15 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: json.loads(pulse.text("/facts"))["most_at_once"])
        begun = time.monotonic()
        assert pulse.stop("INT") == 0
        assert time.monotonic() - begun < 10


def test_the_pool_size_is_the_number_of_requests_at_once(start):
    """--thread-workers 5 runs five sleeps at a time, --greenlet 7 seven; the rest wait their
    turn."""
    for options, size in ((["--thread-workers", "5"], 5), (["--greenlet", "7"], 7)):
        pulse = start(*options).ready()
        with ThreadPoolExecutor(12) as threads:
            begun = time.monotonic()
            answers = list(threads.map(pulse.get, ["/sleep?seconds=0.4"] * 12))
            taken = time.monotonic() - begun
        assert {status for status, _ in answers} == {200}
        rounds = -(-12 // size)
        assert rounds * 0.4 <= taken < 12 * 0.4, taken
        assert json.loads(pulse.text("/facts"))["most_at_once"] == size
        assert pulse.stop() == 0


def test_a_dotted_factory_and_the_binary_serve_too(start, mode):
    pulse = start(*mode, environ={"TEST_APPLICATION": "mysite.wsgi.make_application"}).ready()
    assert pulse.text("/version") == "one"
    assert pulse.stop() == 0
    pulse = start("mysite.wsgi:application", *mode, program="gpulse").ready()
    assert pulse.text("/version") == "one"
    assert pulse.stop() == 0
    pulse = start("--settings", "mysite.settings", *mode, program="gpulse").ready()
    assert pulse.text("/version") == "one"
    assert pulse.stop() == 0


def test_max_requests_replaces_a_worker_without_a_failed_request(start, mode):
    pulse = start(*mode, "--max-requests", "50", "--max-requests-jitter", "0").ready()
    pids = set()
    failed = []

    def ask():
        deadline = time.monotonic() + 30
        while len(pids) < 3 and time.monotonic() < deadline:
            status, body = pulse.get("/pid")
            if status == 200:
                pids.add(body)
            else:
                failed.append(status)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) >= 3
    assert not failed
    pulse.children()
    assert pulse.stop() == 0


def test_nothing_leaks(start, mode):
    """After 1,000 requests, 200 sockets and 50 aborted requests all is as it was."""
    pulse = start(*mode).ready()

    def load(requests: int, sockets: int, aborted: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", pulse.port, timeout=20)
        for _ in range(requests):
            connection.request("GET", "/version")
            connection.getresponse().read()
        connection.close()
        for number in range(sockets):
            with pulse.socket(("/echo", "/room/leak", "/legacy")[number % 3]) as client:
                client.send("x")
                client.recv(timeout=20)
        for number in range(aborted):
            with socket.create_connection(("127.0.0.1", pulse.port), timeout=20) as client:
                client.sendall(
                    (
                        b"GET /stream?count=100&repeat=100000 HTTP/1.1\r\nHost: localhost\r\n\r\n",
                        b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n"
                        + b"x" * 1_000_000,
                        b"GET /sleep HTTP/1.1\r\nHost: localhost\r\n\r\n",
                    )[number % 3]
                )

    def settled() -> dict[str, int]:
        facts = json.loads(pulse.text("/facts"))
        return {name: facts[name] for name in ("pid", "fds", "greenlets", "threads")}

    # What is made once: the subscriber, file threads, as many pool members as the load needs.
    load(100, 20, 50)
    time_to_settle = time.monotonic() + 10
    before = settled()
    while time.monotonic() < time_to_settle:
        now = settled()
        if now == before:
            break
        before = now
    load(1000, 200, 50)

    seen = []

    def is_back() -> bool:
        now = settled()
        seen.append(now)
        return (
            now["pid"] == before["pid"]
            and now["fds"] <= before["fds"]
            and now["greenlets"] <= before["greenlets"] + 3
            and now["threads"] <= max(before["threads"], 8)
        )

    try:
        until(is_back)
    except AssertionError:
        raise AssertionError(f"before {before}, now {seen[-1]}") from None
    assert pulse.stop() == 0
