"""Clients that misbehave at every stage of a real server, in both modes.

After each round the server answers, has let go of what the round took, and has logged no traceback.
"""

import json
import socket
import struct
import threading
import time

import pytest
from pulse import Pulse, until
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

HANDSHAKE = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
UPLOAD = b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST /body HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
SOCKETS = (b"/echo", b"/room/hostile", b"/legacy")


class Watch:
    """What the server held before, to be held again after."""

    def __init__(self, pulse: Pulse) -> None:
        self.pulse = pulse
        # What is made once: the subscriber, the file threads.
        for _ in range(20):
            with open_client(pulse) as client:
                client.sendall(UPLOAD % 700_000 + b"x" * 700_000)
                read_head(client)
            pulse.text("/file")
        for path in SOCKETS:
            with pulse.socket(path.decode()) as client:
                client.send("x")
                client.recv(timeout=10)
        self._before = self._steady()

    def _facts(self) -> dict[str, int]:
        return json.loads(self.pulse.text("/facts"))

    def _steady(self) -> dict[str, int]:
        before = self._facts()
        while (now := self._facts())["fds"] != before["fds"]:
            before = now
            time.sleep(0.2)
        return now

    def settle(self, threads: int = 12) -> None:
        """All is as it was; what a load has made once may stay: file threads, members of the pool,
        and a few connections to the store."""
        seen = []

        def is_back() -> bool:
            now = self._facts()
            seen.append({key: now[key] for key in ("fds", "greenlets", "threads")})
            return (
                now["pid"] == self._before["pid"]
                and now["fds"] <= self._before["fds"] + 5
                and now["greenlets"] <= self._before["greenlets"] + 55
                and now["threads"] <= self._before["threads"] + threads
            )

        try:
            until(is_back, seconds=15)
        except AssertionError:
            raise AssertionError((self._before, seen[-1])) from None
        assert_no_fault_of_ours(self.pulse)


def assert_no_fault_of_ours(pulse: Pulse) -> None:
    """The site's loop does not catch what gevent-websocket raises on a dead socket."""
    log = pulse.log
    assert log.count("Traceback") == log.count("WebSocketError: Socket is dead"), log
    assert "failed with" not in log, log  # an error in a callback of the hub


def open_client(pulse: Pulse, receive_buffer: int | None = None) -> socket.socket:
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(10)
    client.connect(("127.0.0.1", pulse.port))
    return client


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def masked(opcode: Opcode, data: bytes = b"", fin: bool = True) -> bytes:
    return bytes(Frame(opcode, data, fin).serialize(mask=True))


def read_head(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(1)
        assert piece, data
        data += piece
    return data


def resets_at_every_stage(pulse: Pulse) -> None:
    stages = [
        b"",
        b"G",
        GET[:30],
        GET % b"/version",
        GET % b"/sleep?seconds=0.3",
        (GET % b"/version") * 50,
        GET % b"/stream?count=100&repeat=100000",
        GET % b"/file",
        UPLOAD % 2_000_000,
        UPLOAD % 2_000_000 + b"x" * 700_000,
        CHUNKED + b"5\r\nab",
        b"not HTTP at all\r\n\r\n",
        *(HANDSHAKE % path for path in SOCKETS),
        *(HANDSHAKE % path + masked(Opcode.TEXT, b"x") * 50 for path in SOCKETS),
    ]
    for pause in (0, 0.02):
        for stage in stages:
            for leave in (reset, socket.socket.close, None):
                client = open_client(pulse)
                client.sendall(stage)
                time.sleep(pause)
                if leave is None:
                    client.shutdown(socket.SHUT_WR)
                    reset(client)
                else:
                    leave(client)


def drips_of_one_byte(pulse: Pulse) -> None:
    clients = [open_client(pulse) for _ in range(3)]
    messages = [
        GET % b"/version",
        UPLOAD % 5 + b"hello",
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    ]
    for at in range(max(map(len, messages))):
        for client, message in zip(clients, messages, strict=True):
            client.sendall(message[at : at + 1])
        time.sleep(0.001)
    for client in clients:
        assert read_head(client).startswith(b"HTTP/1.1 200 OK")
        client.close()
    with open_client(pulse) as client:
        for byte in HANDSHAKE % b"/echo" + masked(Opcode.TEXT, b"drip"):
            client.sendall(bytes([byte]))
            time.sleep(0.001)
        assert read_head(client).startswith(b"HTTP/1.1 101")
        assert client.recv(6) == b"\x81\x04drip"


def thousands_of_pipelined_requests(pulse: Pulse) -> None:
    count = 3000
    with open_client(pulse) as client:
        sender = threading.Thread(target=client.sendall, args=((GET % b"/version") * count,))
        sender.start()
        client.settimeout(20)
        received = rest = b""
        found = 0
        while found < count:
            piece = client.recv(65536)
            assert piece, found
            received = rest + piece
            found += received.count(b"HTTP/1.1 200 OK")
            at = max(0, received.rfind(b"HTTP/1.1 200 OK") + 1)
            rest = received[max(at, len(received) - 14) :]
        sender.join()


def slow_readers_do_not_hold_up_the_others(pulse: Pulse) -> None:
    slow = []
    for number in range(12):
        client = open_client(pulse, receive_buffer=4096)
        # Whole responses wait in a buffer; as many streams as the pool has members would fill it.
        client.sendall(GET % (b"/stream?count=3&repeat=60000", b"/file")[number % 2])
        slow.append(client)
    assert pulse.text("/version") == "one"
    for client in slow:
        client.recv(1)
        reset(client)


def garbage_behind_the_handshake(pulse: Pulse) -> None:
    garbage = [
        b"\x00" * 100,
        b"\xff" * 1000,
        b"\x81\x05hello",  # not masked
        b"\x88\x80abcd" * 3,
        GET % b"/version",
        masked(Opcode.CONT, b"nothing to go on with"),
        masked(Opcode.TEXT, b"\xff\xfe"),
        masked(Opcode.TEXT, b"a", fin=False) + masked(Opcode.CLOSE, b"\x03\xe8"),
        masked(Opcode.CLOSE, b"\x00"),
        masked(Opcode.TEXT, b"x" * 10) + b"\x81\xff\x7f" + b"\xff" * 11,  # 2**63 bytes to come
        masked(Opcode.CONT, fin=False) * 5000,
    ]
    for path in SOCKETS:
        for piece in garbage:
            with open_client(pulse) as client:
                client.sendall(HANDSHAKE % path + piece)
                assert read_head(client).startswith(b"HTTP/1.1 101")
                while True:
                    try:
                        if not client.recv(65536):
                            break
                    except ConnectionResetError:
                        break


def bad_handshakes_of_a_loop_are_answered_plainly(pulse: Pulse) -> None:
    with open_client(pulse) as client:
        client.sendall((HANDSHAKE % b"/legacy").replace(b"Version: 13", b"Version: 7"))
        assert read_head(client).startswith(b"HTTP/1.1 426 ")


def floods_and_clients_that_never_answer_a_close(pulse: Pulse) -> None:
    clients = []
    for path in SOCKETS:
        client = open_client(pulse, receive_buffer=4096)
        client.sendall(HANDSHAKE % path)
        assert read_head(client).startswith(b"HTTP/1.1 101")
        client.settimeout(0.3)
        for piece in (masked(Opcode.TEXT, b"x" * 1000), masked(Opcode.PING, b"y" * 100)):
            try:
                for _ in range(200):
                    client.sendall(piece * 100)
            except OSError:
                break
        clients.append(client)
        assert pulse.text("/version") == "one"
    for client in clients:
        reset(client)


ROUNDS = (
    resets_at_every_stage,
    drips_of_one_byte,
    thousands_of_pipelined_requests,
    slow_readers_do_not_hold_up_the_others,
    garbage_behind_the_handshake,
    bad_handshakes_of_a_loop_are_answered_plainly,
    floods_and_clients_that_never_answer_a_close,
)


def test_the_server_gets_over_each_round(start, mode):
    """One server for all, so that what one round breaks cannot hide behind a restart."""
    pulse = start(*mode).ready()
    watch = Watch(pulse)
    for play in ROUNDS:
        play(pulse)
        watch.settle()
    assert pulse.stop() == 0


def test_a_stop_in_the_middle_of_everything(start, mode):
    """Nobody keeps the worker beyond the graceful timeout, and well-behaved sockets learn of it."""
    pulse = start(*mode, "--graceful-timeout", "2").ready()
    clients = []
    for stage in (
        b"",
        GET[:20],
        UPLOAD % 2_000_000 + b"x" * 600_000,
        (GET % b"/version") * 20,
        GET % b"/stream?count=50&repeat=100000",
        HANDSHAKE % b"/echo",  # never answers the close
        HANDSHAKE % b"/legacy",
    ):
        client = open_client(pulse, receive_buffer=4096)
        client.sendall(stage)
        clients.append(client)
    polite = pulse.socket("/echo")
    pulse.text("/version")
    begun = time.monotonic()
    pulse.send_signal("TERM")
    with pytest.raises(ConnectionClosed) as caught:
        polite.recv(timeout=10)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1012
    assert pulse.process.wait(20) == 0
    assert time.monotonic() - begun < 6
    pulse.assert_gone()
    assert_no_fault_of_ours(pulse)
    for client in clients:
        client.close()
