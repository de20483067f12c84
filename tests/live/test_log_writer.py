"""The log writer in processes of its own, with and without gevent."""

import socket
import subprocess
import sys

from gpulse.logs import LineWriter


def test_the_thread_is_native_under_monkey_patching_so_a_full_pipe_stops_no_greenlet() -> None:
    script = """
import gevent.monkey
gevent.monkey.patch_all()
import os, sys, time, gevent
from gpulse.logs import LineWriter
read_fd, write_fd = os.pipe()
os.set_blocking(write_fd, False)
try:
    while os.write(write_fd, b"x" * 4096):
        pass
except BlockingIOError:
    os.set_blocking(write_fd, True)
writer = LineWriter(write_fd)
writer.write("blocks the native thread")
ticks = []
def tick():
    for _ in range(20):
        gevent.sleep(0.005)
        ticks.append(1)
gevent.spawn(tick).join(timeout=4)
print(len(ticks), flush=True)
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stdout.strip() == "20", done.stderr


def test_the_module_does_not_import_gevent() -> None:
    script = "import sys, gpulse.logs; sys.exit('gevent' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=20, check=False).returncode == 0


def test_lines_that_come_together_are_written_together() -> None:
    """Each run of the thread takes the GIL from the hub; one per line costs more than a request."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        theirs.settimeout(20)
        writer = LineWriter(ours.fileno())
        for number in range(100):
            writer.write(str(number))
        packets = []
        while sum(packet.count(b"\n") for packet in packets) < 100:
            packets.append(theirs.recv(65536))  # a write(2) is a datagram
        assert len(packets) <= 3
        assert writer.close(5)
