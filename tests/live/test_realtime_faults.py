"""Faults of the realtime parts that show on a real server only."""

import os
import signal
import socket
import time

from pulse import Pulse, until

STREAM = (
    b"GET /lobby?channels={%s} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
)


def open_stream(pulse, *channels):
    names = ",".join(f'"{channel}":null' for channel in channels).encode()
    client = socket.create_connection(("127.0.0.1", pulse.port), timeout=10)
    client.sendall(STREAM % names)
    return client


def test_a_store_that_hangs_does_not_hold_up_the_pages(tmp_path):
    """Each subscription may wait for it once, not all of a pool's members again and again."""
    pulse = Pulse(tmp_path, "-w", "1", "--history", "kept:*=50/60")
    clients = []
    try:
        pulse.ready()
        store = pulse.store()
        os.kill(store, signal.SIGSTOP)
        try:
            for number in range(15):
                channels = [f"kept:{name}{number}" for name in "abc"]
                clients.append(open_stream(pulse, *channels))
            time.sleep(3)
            slowest = 0.0
            end = time.monotonic() + 3
            while time.monotonic() < end:
                begun = time.monotonic()
                assert pulse.get("/pid")[0] == 200
                slowest = max(slowest, time.monotonic() - begun)
                time.sleep(0.05)
            assert slowest < 1
        finally:
            os.kill(store, signal.SIGCONT)
    finally:
        for client in clients:
            client.close()
        pulse.close()


def test_clients_that_leave_early_or_send_nonsense_do_not_fill_the_log(tmp_path):
    pulse = Pulse(tmp_path, "-w", "1", "--history", "kept:*=50/60")
    try:
        pulse.ready()
        for _ in range(20):
            client = open_stream(pulse, "kept:a", "kept:b")
            client.shutdown(socket.SHUT_WR)  # the stream ends with it
            while client.recv(65536):
                pass
            client.close()
        with open_stream(pulse, "\\ud800") as client:
            client.settimeout(1)
            got = b""
            while not any(word in got for word in (b"error", b"closed", b" 400 ")):
                got += client.recv(65536)
        assert b'"code":4' in got or got.startswith(b"HTTP/1.1 400 ")
        until(lambda: pulse.get("/pid")[0] == 200)
        assert "ERROR" not in pulse.log
    finally:
        pulse.close()
