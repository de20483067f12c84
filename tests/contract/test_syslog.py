"""Log lines to daemons: real datagram sockets, unix and UDP, that come and go."""

import os
import re
import socket
import subprocess
import sys
import time

import pytest
from contract.wsgi_site import until

from gpulse import syslog
from gpulse.errors import FileError
from gpulse.logs import LineWriter, open_sink
from gpulse.syslog import DatagramSink

DEADLINE = 5.0


class Daemon:
    """Takes datagrams on a unix socket or on UDP."""

    def __init__(self, family, address):
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(DEADLINE)

    def receive(self):
        return self.socket.recv(65536)

    def close(self):
        self.socket.close()


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "log")


@pytest.fixture
def start(path):
    """``start()`` runs a daemon at ``path``, again if need be."""
    daemons = []

    def start():
        if os.path.exists(path):
            os.unlink(path)
        daemons.append(Daemon(socket.AF_UNIX, path))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.close()


class FakeClock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


STAMP = rb"[A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d"


@pytest.fixture(params=["unix", "127.0.0.1", "localhost", "::1"])
def daemon_and_target(request, start, path):
    if request.param == "unix":
        yield start(), f"syslog:unix:{path}"
        return
    family, _, _, _, address = socket.getaddrinfo(request.param, 0, type=socket.SOCK_DGRAM)[0]
    daemon = Daemon(family, address)
    port = daemon.socket.getsockname()[1]
    host = f"[{request.param}]" if ":" in request.param else request.param
    yield daemon, f"syslog:udp://{host}:{port}"
    daemon.close()


def test_each_line_is_one_message(daemon_and_target):
    daemon, target = daemon_and_target
    writer = LineWriter(open_sink(f"{target}?facility=local0", "mysite"))
    for number in range(50):
        writer.write(f"line {number}")
    host = b"" if "unix" in target else re.escape(os.uname().nodename.split(".")[0].encode()) + b" "
    for number in range(50):
        expected = rb"<134>%s %smysite\[%d\]: line %d" % (STAMP, host, os.getpid(), number)
        assert re.fullmatch(expected, daemon.receive())
    assert writer.close(DEADLINE)
    assert writer.dropped == 0


def test_the_journal_gets_its_fields(start, path):
    daemon = start()
    writer = LineWriter(open_sink(f"journal:unix:{path}", "mysite"))
    writer.write("one")
    writer.write("two\nlines")
    assert daemon.receive() == b"PRIORITY=6\nSYSLOG_IDENTIFIER=mysite\nMESSAGE=one\n"
    assert daemon.receive() == (
        b"PRIORITY=6\nSYSLOG_IDENTIFIER=mysite\nMESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\n"
    )
    assert writer.close(DEADLINE)


def test_the_longest_line_arrives_whole(daemon_and_target):
    daemon, target = daemon_and_target
    writer = LineWriter(open_sink(target))
    writer.write("x" * 100_000 + " end")
    message = daemon.receive()
    assert message.endswith(b" end")
    assert len(message) > 16_000
    assert writer.close(DEADLINE)


def test_a_daemon_that_is_not_there_is_one_line(path):
    with pytest.raises(FileError, match=f"^cannot log to syslog at {path}: No such file"):
        open_sink(f"syslog:unix:{path}")
    with open(path, "w"):
        pass
    with pytest.raises(FileError, match=r"^cannot log to the journal at .*: Connection refused$"):
        open_sink(f"journal:unix:{path}")


def test_a_stream_socket_is_refused(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(path)
        stream.listen()
        with pytest.raises(FileError, match="Protocol wrong type for socket"):
            open_sink(f"syslog:unix:{path}")


def test_a_name_that_nobody_has_is_one_line():
    with pytest.raises(FileError, match=r"^cannot log to syslog at no-such-host\.invalid:514: .+"):
        open_sink("syslog:udp://no-such-host.invalid")


def test_a_daemon_that_restarts_costs_no_line(start, path):
    clock = FakeClock()
    daemon = start()
    sink = DatagramSink(syslog.parse(f"journal:unix:{path}"), clock=clock)
    assert sink.write([b"one\n"]) == 0
    daemon.receive()
    daemon.close()
    daemon = start()
    clock.now += syslog.RECONNECT
    assert sink.write([b"two\n"]) == 0
    assert daemon.receive().endswith(b"=two\n")
    sink.close()


def test_a_daemon_that_has_gone_costs_lines_until_it_is_back(start, path):
    clock = FakeClock()
    daemon = start()
    sink = DatagramSink(syslog.parse(f"journal:unix:{path}"), clock=clock)
    daemon.close()
    os.unlink(path)
    clock.now += syslog.RECONNECT
    assert sink.write([b"a\n", b"b\n"]) == 2
    daemon = start()
    assert sink.write([b"c\n"]) == 1  # it is not looked for again and again
    clock.now += syslog.RECONNECT
    assert sink.write([b"d\n", b"e\n"]) == 0
    assert daemon.receive().endswith(b"=d\n")
    assert daemon.receive().endswith(b"=e\n")
    sink.close()


def test_a_daemon_that_comes_late_is_waited_for_if_one_is_patient(start, path):
    clock = FakeClock()
    sink = DatagramSink(syslog.parse(f"journal:unix:{path}"), patient=True, clock=clock)
    assert sink.write([b"a\n"]) == 1
    daemon = start()
    clock.now += syslog.RECONNECT
    assert sink.write([b"b\n"]) == 0
    assert daemon.receive().endswith(b"=b\n")
    sink.close()


def test_a_reopen_looks_for_the_daemon_at_once(start, path):
    sink = DatagramSink(syslog.parse(f"journal:unix:{path}"), patient=True, clock=FakeClock())
    daemon = start()
    sink.reopen()
    assert sink.write([]) == 0
    assert sink.write([b"a\n"]) == 0
    assert daemon.receive().endswith(b"=a\n")
    sink.close()


def test_a_port_where_nobody_listens_is_tried_once_a_second():
    probe = Daemon(socket.AF_INET, ("127.0.0.1", 0))
    port = probe.socket.getsockname()[1]
    probe.close()
    clock = FakeClock()
    sink = DatagramSink(syslog.parse(f"syslog:udp://127.0.0.1:{port}"), clock=clock)
    assert sink.write([b"a\n"]) == 0  # UDP: nothing tells, until the answer of the kernel's is here
    until(lambda: sink.write([b"b\n"]) == 1)
    assert sink.write([b"c\n"] * 100) == 100
    daemon = Daemon(socket.AF_INET, ("127.0.0.1", port))
    clock.now += syslog.RECONNECT
    assert sink.write([b"d\n"]) == 0
    assert daemon.receive().endswith(b": d")
    sink.close()
    daemon.close()


def test_a_daemon_that_takes_nothing_holds_up_neither_the_caller_nor_the_end(start, path):
    start()  # its queue holds a few hundred lines at most, and it reads none
    writer = LineWriter(open_sink(f"syslog:unix:{path}"), limit=1000)
    began = time.monotonic()
    for number in range(1500):
        writer.write(str(number))
    assert time.monotonic() - began < 1
    assert writer.close(DEADLINE)
    assert writer.dropped > 500


def test_a_daemon_that_takes_nothing_stops_no_greenlet(start, path):
    start()
    script = """
import gevent.monkey
gevent.monkey.patch_all()
import os, sys, gevent
from gpulse.logs import LineWriter, open_sink
writer = LineWriter(open_sink(f"syslog:unix:{sys.argv[1]}"))
for number in range(5000):
    writer.write(str(number))
ticks = []
def tick():
    for _ in range(60):
        gevent.sleep(0.005)
        ticks.append(1)
gevent.spawn(tick).join(timeout=0.9)  # less than a line waits
print(len(ticks), flush=True)
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, path],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stdout.strip() == "60", done.stderr


def test_a_line_too_long_for_the_socket_is_lost_alone(start, path):
    daemon = start()
    sink = DatagramSink(syslog.parse(f"journal:unix:{path}"))
    assert sink.write([b"x" * 4_000_000 + b"\n", b"short\n"]) == 1
    assert daemon.receive().endswith(b"=short\n")
    sink.close()


def test_no_descriptor_is_left_open(start, path):
    start()
    before = len(os.listdir("/proc/self/fd"))
    writer = LineWriter(open_sink(f"syslog:unix:{path}"))
    writer.write("x")
    writer.reopen()
    writer.write("y")
    assert writer.close(DEADLINE)
    with pytest.raises(FileError):
        open_sink(f"syslog:unix:{path}-none")
    assert len(os.listdir("/proc/self/fd")) == before
