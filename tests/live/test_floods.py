"""Floods against a real server, in both modes: thousands of slow, broken and greedy clients.

While they last others are answered, and when they are over nothing of them is left: connection,
greenlet, thread, temporary file, memory, traceback.  The clients of a flood are one other process
(this file, run as a program) with one loop over epoll, so that they do not slow the test down.

``GPULSE_FLOOD`` is how many hostile connections the longest test makes, 100,000 if it is not set:
a quarter of a minute in each mode.
"""

import collections
import errno
import heapq
import itertools
import json
import os
import re
import select
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pulse import ROOT, Pulse, until

FLOOD = int(os.environ.get("GPULSE_FLOOD", "100000"))
MIB = 1024 * 1024
BIND_ADDRESS_NO_PORT = 24
"""Of ip(7): the port is chosen by connect, which is faster when many are in use."""

SLOW_HEAD = b"GET /version HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 1000
SLOW_BODY = b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)


# -- the clients, in a process of their own


@dataclass(slots=True)
class Caller:
    """One connection of a flood.

    :param now: sent at once.
    :param drip: sent a byte a second behind it.
    :param leave: how it ends: "wait" for the server to close, "close", "reset", or "finish", which
        is to send no more and to wait.
    :param status: what it should be answered.
    """

    now: bytes = b""
    drip: bytes = b""
    leave: str = "wait"
    status: int | None = None
    sock: Any = None
    began: float = 0.0
    heard: bytes = b""
    dripped: int = 0


@dataclass
class Tally:
    """What the clients of a flood have seen."""

    statuses: collections.Counter = field(default_factory=collections.Counter)
    longest: float = 0.0
    """Seconds from a connect to the server's answer or end."""
    unlike: list[str] = field(default_factory=list)
    """Answers that were not the expected ones."""
    most: int = 0
    """Connections that were open at once."""


class Crowd:
    """Callers against one port, so many at once at most and so many begun per second."""

    def __init__(self, port: int, at_once: int, per_second: float) -> None:
        self.epoll = select.epoll()
        self.open: dict[int, Caller] = {}
        self.due: list[tuple[float, int, Caller]] = []
        self.tally = Tally()
        self.port = port
        self.at_once = at_once
        self.pause = 1 / per_second
        self._order = itertools.count()

    def run(self, callers: Any) -> Tally:
        next_at = time.monotonic()
        caller = next(callers, None)
        while caller is not None or self.open:
            now = time.monotonic()
            while caller is not None and len(self.open) < self.at_once and next_at <= now:
                self._begin(caller, now)
                next_at = max(next_at + self.pause, now - 0.1)
                caller = next(callers, None)
            while self.due and self.due[0][0] <= now:
                self._drip(heapq.heappop(self.due)[2], now)
            wait = 0.5
            if caller is not None and len(self.open) < self.at_once:
                wait = next_at - now
            if self.due:
                wait = min(wait, self.due[0][0] - now)
            for fd, events in self.epoll.poll(max(0.0, wait)):
                found = self.open.get(fd)
                if found is not None:
                    self._ready(found, events)
        return self.tally

    def _begin(self, caller: Caller, now: float) -> None:
        sock = caller.sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Addresses of one's own in turn: one has ports for some 28,000 connections a minute.
        sock.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        sock.bind((f"127.0.0.{next(self._order) % 64 + 1}", 0))
        if sock.connect_ex(("127.0.0.1", self.port)) not in (0, errno.EINPROGRESS):
            raise OSError("no connect")
        caller.began = now
        self.open[sock.fileno()] = caller
        self.tally.most = max(self.tally.most, len(self.open))
        self.epoll.register(sock.fileno(), select.EPOLLOUT)

    def _ready(self, caller: Caller, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                caller.now = caller.now[caller.sock.send(caller.now) :] if caller.now else b""
                if not caller.now:
                    self._sent(caller)
                return
            data = caller.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(caller, errno.errorcode.get(error.errno or 0, "error"))
            return
        caller.heard += data
        if not data or caller.drip:
            self._end(caller, self._answered(caller))

    def _sent(self, caller: Caller) -> None:
        if caller.leave in ("close", "reset"):
            if caller.leave == "reset":
                caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._end(caller, caller.leave)
            return
        if caller.leave == "finish":
            caller.sock.shutdown(socket.SHUT_WR)
        self.epoll.modify(caller.sock.fileno(), select.EPOLLIN)
        if caller.drip:
            heapq.heappush(self.due, (caller.began + 1, next(self._order), caller))

    def _drip(self, caller: Caller, now: float) -> None:
        if caller.sock.fileno() < 0:
            return
        try:
            caller.sock.send(caller.drip[caller.dripped : caller.dripped + 1])
        except OSError:
            return  # the end is to be read
        caller.dripped += 1
        heapq.heappush(self.due, (now + 1, next(self._order), caller))

    def _answered(self, caller: Caller) -> str:
        """The last status that it heard, or that the end came without one."""
        found = re.findall(rb"HTTP/1\.1 (\d{3}) ", caller.heard)
        return found[-1].decode() if found else "closed"

    def _end(self, caller: Caller, how: str) -> None:
        self.tally.statuses[how] += 1
        if caller.leave not in ("close", "reset"):
            self.tally.longest = max(self.tally.longest, time.monotonic() - caller.began)
        if caller.status is not None and how != str(caller.status) and len(self.tally.unlike) < 20:
            self.tally.unlike.append(f"{how} for {caller.status}")
        del self.open[caller.sock.fileno()]
        caller.sock.close()


def refused_cases() -> list[Caller]:
    """The wire cases that are one refusal, and are not longer than what is read to the end."""
    sys.path.insert(0, str(ROOT / "tests"))
    from wire.test_wire import CASES, read_case

    found = []
    for path in CASES:
        data, outcome = read_case(path)
        if len(outcome) == 1 and outcome[0].isdigit() and len(data) <= 65_536:
            found.append(Caller(data, status=int(outcome[0])))
    return found


def hostile(count: int) -> Any:
    """Callers of all kinds, the same in each run."""
    cases = refused_cases()
    others = [
        Caller(leave="close"),
        Caller(leave="reset"),
        Caller(SLOW_HEAD[:20], leave="reset"),
        Caller(SLOW_HEAD[:60], leave="close"),
        Caller(SLOW_HEAD[:60], leave="finish"),
        Caller(SLOW_BODY + b"half", leave="close"),
        Caller(SLOW_BODY + b"half", leave="finish"),
        Caller(SLOW_BODY.replace(b"1000", b"9000000"), leave="reset"),
        Caller(TLS_HELLO, status=400),
        Caller(b"\r\n\r\n", leave="close"),
    ]
    kinds = [kind for pair in zip(cases, itertools.cycle(others)) for kind in pair]
    for number in range(count):
        kind = kinds[number % len(kinds)]
        yield Caller(kind.now, kind.drip, kind.leave, kind.status)


def main(what: str, port: int, count: int, at_once: int, per_second: float) -> None:
    """The process of the clients; its tally is a line of JSON on standard output."""
    if what == "hostile":
        callers = hostile(count)
    elif what == "heads":
        callers = (Caller(SLOW_HEAD[:1], SLOW_HEAD[1:], status=408) for _ in range(count))
    else:
        callers = (Caller(SLOW_BODY, b"a" * 1000, status=408) for _ in range(count))
    tally = Crowd(port, at_once, per_second).run(iter(callers))
    sys.stdout.write(json.dumps(vars(tally)) + "\n")


# -- the tests


class Flood:
    """The process of the clients, seen from the test."""

    def __init__(
        self, pulse: Pulse, what: str, count: int, at_once: int, per_second: float = 1e6
    ) -> None:
        numbers = (pulse.port, count, at_once, per_second)
        self.process = subprocess.Popen(
            [sys.executable, __file__, what, *map(str, numbers)],
            stdout=subprocess.PIPE,
            text=True,
        )

    def tally(self, seconds: float) -> dict[str, Any]:
        """Wait for its end."""
        try:
            told, _ = self.process.communicate(timeout=seconds)
        finally:
            self.process.kill()
            self.process.wait()
        assert self.process.returncode == 0
        found: dict[str, Any] = json.loads(told)
        return found


@dataclass
class Held:
    """What a worker holds."""

    fds: int
    greenlets: int
    threads: int
    private: int
    """Bytes of memory that are its own."""


def held(pulse: Pulse) -> Held:
    facts = json.loads(pulse.text("/facts"))
    sizes = Path(f"/proc/{facts['pid']}/smaps_rollup").read_text()
    private = sum(int(size) for size in re.findall(r"Private_\w+: +(\d+) kB", sizes)) * 1024
    return Held(facts["fds"], facts["greenlets"], facts["threads"], private)


def assert_is_back(pulse: Pulse, before: Held) -> Held:
    """Nothing of a flood is left; a few threads and greenlets of pools may have come into use."""
    last = before

    def is_back() -> bool:
        nonlocal last
        last = held(pulse)
        return (
            last.fds <= before.fds + 5
            and last.greenlets <= before.greenlets + 55
            and last.threads <= before.threads + 12
        )

    try:
        until(is_back, seconds=15)
    except AssertionError:
        raise AssertionError((before, last)) from None
    assert not list(pulse.temporary.rglob("gpulse-body*"))
    assert "Traceback" not in pulse.log
    return last


def latencies(pulse: Pulse, count: int, pause: float = 0.0) -> list[float]:
    """Seconds of requests on connections of their own."""
    found = []
    for _ in range(count):
        began = time.monotonic()
        assert pulse.text("/version") == "one"
        found.append(time.monotonic() - began)
        time.sleep(pause)
    return found


def warmed_up(start: Any, *options: str) -> Pulse:
    pulse: Pulse = start(*options).ready()
    for _ in range(100):
        pulse.text("/version")
    return pulse


@pytest.mark.parametrize("what", ["heads", "bodies"])
def test_two_thousand_drips_of_one_byte_a_second(start, mode, what):
    """They are ended in time and hold nobody up, though they are more than all of the pool."""
    pulse = warmed_up(
        start, *mode, "--head-timeout", "3", "--body-timeout", "3", "--body-min-rate", "240"
    )
    before = held(pulse)
    usual = statistics.median(latencies(pulse, 30))
    flood = Flood(pulse, what, 2000, 2000, per_second=1000)
    until(lambda: held(pulse).fds > before.fds + 1500)
    amidst = latencies(pulse, 30, 0.02)
    tally = flood.tally(60)
    assert statistics.median(amidst) < min(0.5, max(0.1, 10 * usual)), (usual, amidst)
    assert tally["statuses"] == {"408": 2000}
    assert tally["most"] > 1500
    assert 2.5 < tally["longest"] < 3 + 4
    assert_is_back(pulse, before)
    assert pulse.stop() == 0


@pytest.mark.timeout(300)
def test_a_hundred_thousand_hostile_connections(start, mode, tmp_path):
    """Each is answered as the wire cases say, or was gone before; all that the worker held for them
    is free again, and neither log has grown with them."""
    path = tmp_path / "access.log"
    # The wheel of deadlines keeps what has ended for as long as this.
    options = ("--head-timeout", "1", "--access-log", str(path), "--access-log-format", "json")
    pulse = warmed_up(start, *mode, *options)
    seen: collections.Counter = collections.Counter()

    def flood(count: int) -> None:
        tally = Flood(pulse, "hostile", count, 200).tally(60 + count / 800)
        assert tally["unlike"] == []
        assert sum(tally["statuses"].values()) == count
        assert tally["most"] <= 200
        seen.update(tally["statuses"])

    warm_up = FLOOD // 4
    flood(warm_up)
    before = assert_is_back(pulse, held(pulse))
    flood(FLOOD - warm_up)
    after = assert_is_back(pulse, before)
    assert after.private - before.private < 16 * MIB, (before, after)

    refused = sum(count for status, count in seen.items() if status.isdigit())
    assert refused > FLOOD // 3
    assert len(pulse.log.splitlines()) < 50
    assert pulse.stop() == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    refusals = [line for line in lines if line["refused"]]
    told = [line for line in refusals if line["status"]]
    left_out = [int(line["refused"].rpartition(" ")[2]) for line in refusals if not line["status"]]
    assert len(told) + sum(left_out) == refused
    seconds = collections.Counter(line["time"].partition(".")[0] for line in told)
    assert max(seconds.values()) <= 100
    assert len(left_out) <= len(seconds)
    assert {line["target"] for line in lines if not line["refused"]} <= {"/version", "/facts"}


def test_a_pipeline_does_not_starve_another_connection(start, mode):
    """CVE-2019-16770: a thousand requests at once are not served before anybody else's."""
    pulse = warmed_up(start, *mode)
    get = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"
    greedy = [socket.create_connection(("127.0.0.1", pulse.port), 20) for _ in range(8)]
    answered = [0] * len(greedy)

    def read(number: int) -> None:
        rest = b""
        while answered[number] < 1000:
            piece = greedy[number].recv(65536)
            assert piece
            rest += piece
            answered[number] += rest.count(b"HTTP/1.1 200 OK")
            rest = rest[rest.rfind(b"HTTP/1.1 200 OK") + 1 :]

    readers = [threading.Thread(target=read, args=(number,)) for number in range(len(greedy))]
    for client in greedy:
        client.sendall(get * 1000)
    for reader in readers:
        reader.start()
    others = latencies(pulse, 5)
    done_by_then = sum(answered)
    for reader in readers:
        reader.join(60)
    assert answered == [1000] * len(greedy)
    assert done_by_then < 1000 * len(greedy), "all of the pipelines went first"
    assert statistics.median(others) < 0.5, others
    for client in greedy:
        client.close()
    assert pulse.stop() == 0


def sent_before_the_end(client: socket.socket, most: int) -> int:
    """Bytes that the server took before it cut the connection."""
    sent = 0
    try:
        while sent < most:
            sent += client.send(b"x" * 65536)
    except ConnectionError:
        pass
    return sent


@pytest.mark.parametrize(
    ("framing", "begun"),
    [
        (b"Content-Length: 10737418240\r\n\r\n", b""),
        (b"Content-Length: 10737418240\r\nExpect: 100-continue\r\n\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"280000000\r\n"),
    ],
    ids=["length", "expect", "chunk"],
)
def test_an_upload_that_nobody_wants_is_not_read_to_its_end(start, mode, framing, begun):
    """10 GB to an address that is none: refused for its size, and cut off soon after."""
    pulse = warmed_up(start, *mode)
    before = held(pulse)
    client = socket.create_connection(("127.0.0.1", pulse.port), 20)
    client.sendall(b"POST /none HTTP/1.1\r\nHost: localhost\r\n" + framing + begun)
    told = client.recv(65536)
    assert told.startswith(b"HTTP/1.1 413 ")
    began = time.monotonic()
    assert sent_before_the_end(client, 1024 * MIB) < 32 * MIB  # of which the kernel has most
    assert time.monotonic() - began < 5
    client.close()
    assert_is_back(pulse, before)
    assert pulse.stop() == 0


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5]))
