"""A worker's HTTP side inside the test process: a real listener on a port of the kernel's choice.

The test is the main greenlet; clients are gevent's sockets, so waiting for an answer lets the hub
work.
"""

import os
import socket
import struct
import time
from dataclasses import dataclass

import gevent
import gevent.socket
from websockets.frames import Opcode
from websockets.protocol import CLIENT, OPEN
from websockets.protocol import Protocol as WireProtocol

from gpulse.config import Config
from gpulse.connection.timers import DeadlineWheel, Turner
from gpulse.http.accesslog import AccessLog
from gpulse.http.limits import Limits
from gpulse.http.server import HttpServer
from gpulse.websocket.compat import LegacyWebSockets
from gpulse.websocket.limits import SocketLimits
from gpulse.websocket.sockets import Sockets
from gpulse.worker.threads import ThreadPool

DEADLINE = 10.0
RESOLUTION = 0.02
"""Seconds; deadlines of a tenth of a second can be tested so."""


def until(condition):
    """Let the hub run until ``condition()`` is true."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        gevent.sleep(0.002)


def open_descriptors():
    return len(os.listdir("/dev/fd"))


class Site:
    """Put together as ``gpulse.worker.worker`` does it.

    :param kind: GreenletPool or ThreadPool.
    :param log_format: of the lines in ``lines``.
    :param path: listens on this unix socket instead of a port.
    :param limits: in place of those that the options make.
    :param tls: a context that the port speaks TLS with.
    :param config: options.
    """

    def __init__(
        self,
        kind,
        application,
        size=3,
        limits=None,
        log_format="combined",
        path=None,
        tls=None,
        **config,
    ):
        self.lines = []
        self.clients = []
        self.gates = []
        self.pool = kind(size, lambda: None)
        self.wheel = DeadlineWheel(time.monotonic(), RESOLUTION)
        self.sockets = Sockets(self.pool, self.wheel, 100, SocketLimits(), lambda session: None)
        loop = gevent.get_hub().loop
        mode = "greenlet" if self.pool.is_on_hub else "thread_workers"
        options = Config.defaults(**{mode: size, **config})
        self.server = HttpServer(
            loop,
            self.pool,
            application,
            options,
            limits=limits or Limits.of(options),
            wheel=self.wheel,
            access_log=AccessLog(self.lines.append, log_format),
            legacy_websocket=LegacyWebSockets(
                self.sockets, application, threads=kind is ThreadPool
            ),
            served=lambda: None,
            environ={"test.site": self},
            tls=tls,
        )
        if path is None:
            self.listener = socket.create_server(("127.0.0.1", 0))
        else:
            self.listener = socket.create_server(str(path), family=socket.AF_UNIX)
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        self.turner = Turner(loop, self.wheel)
        self.turner.start()
        self.server.listen([self.listener])

    def connect(self, receive_buffer=None):
        client = Client(self.address, receive_buffer)
        self.clients.append(client)
        return client

    def get(self, path="/", **fields):
        """One request on a connection of its own."""
        client = self.connect()
        client.request("GET", path, Connection="close", **fields)
        answer = client.read()
        client.close()
        return answer

    def gate(self):
        """What an application waits on until the test opens it."""
        gate = self.pool.waiter()
        self.gates.append(gate)
        return gate

    def is_quiet(self):
        """No connection, no work."""
        pool = self.pool
        return not (self.server.connections or pool.busy or pool.queued or pool.detached)

    def close(self):
        for gate in self.gates:
            gate.set()
        for client in self.clients:
            client.close()
        until(self.is_quiet)
        self.server.stop_accepting()
        self.listener.close()
        self.turner.stop()


@dataclass
class Answer:
    status: int
    fields: dict
    body: bytes
    is_whole: bool = True
    """False: the connection ended within the body."""

    @property
    def closes(self):
        return self.fields.get("connection") == "close"


class Client:
    """A raw HTTP client that says exactly what the test says."""

    def __init__(self, address, receive_buffer=None):
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        self.sock = gevent.socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(address)
        self.buffer = bytearray()
        self.heard = []
        self.wire = WireProtocol(CLIENT, state=OPEN, max_size=None)

    def send(self, data):
        self.sock.sendall(data)

    def request(self, method, path, body=None, **fields):
        lines = [f"{method} {path} HTTP/1.1", "Host: x"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + (body or b""))

    def more(self):
        """Read once; False at the end."""
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def read_to(self, mark):
        while mark not in self.buffer:
            assert self.more(), f"the connection ended; so far {bytes(self.buffer[:200])!r}"
        at = self.buffer.index(mark)
        found = bytes(self.buffer[:at])
        del self.buffer[: at + len(mark)]
        return found

    def read_exactly(self, size):
        while len(self.buffer) < size and self.more():
            pass
        found = bytes(self.buffer[:size])
        del self.buffer[:size]
        return found

    def read(self, method="GET"):
        """The next response."""
        first, *lines = self.read_to(b"\r\n\r\n").decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        fields = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name.lower() not in fields or name == "Set-Cookie", f"{name} twice"
            fields[name.lower()] = value
        if method == "HEAD" or status < 200 or status in (204, 304):
            return Answer(status, fields, b"")
        if "content-length" in fields:
            size = int(fields["content-length"])
            body = self.read_exactly(size)
            return Answer(status, fields, body, len(body) == size)
        if fields.get("transfer-encoding") == "chunked":
            return self._read_chunks(status, fields)
        body = self.read_all()
        return Answer(status, fields, body)

    def _read_chunks(self, status, fields):
        body = b""
        while True:
            try:
                size = int(self.read_to(b"\r\n"), 16)
            except AssertionError:
                return Answer(status, fields, body, is_whole=False)
            piece = self.read_exactly(size)
            body += piece
            if len(piece) < size or self.read_exactly(2) != b"\r\n":
                return Answer(status, fields, body, is_whole=False)
            if not size:
                return Answer(status, fields, body)

    def read_all(self):
        """All bytes until the server closes."""
        while self.more():
            pass
        found = bytes(self.buffer)
        self.buffer.clear()
        return found

    def is_ended(self):
        """The server closed, and nothing was left to read."""
        return self.read_all() == b""

    def upgrade(self, path="/", **fields):
        """The opening handshake; returns the answer."""
        self.request(
            "GET",
            path,
            Connection="Upgrade",
            Upgrade="websocket",
            Sec_WebSocket_Version="13",
            Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
            **fields,
        )
        return self.read()

    def finish_sending(self):
        self.sock.shutdown(socket.SHUT_WR)

    def say(self, name, *args):
        """Send a frame: ``text``, ``binary``, ``close`` and so on, as the core of
        ``websockets``."""
        getattr(self.wire, "send_" + name)(*args)
        self._pass_on()

    def _pass_on(self):
        data = b"".join(self.wire.data_to_send())
        if data:
            self.send(data)

    def hear(self):
        """The next message; the close code when the server closed."""
        while True:
            data = bytes(self.buffer)
            self.buffer.clear()
            if data:
                self.wire.receive_data(data)
            self.heard += self.wire.events_received()
            self._pass_on()
            while self.heard:
                frame = self.heard.pop(0)
                if frame.opcode is Opcode.TEXT:
                    return frame.data.decode()
                if frame.opcode is Opcode.BINARY:
                    return bytes(frame.data)
            if self.wire.close_rcvd is not None:
                return self.wire.close_rcvd.code
            assert self.more(), "the connection ended without a close"

    def reset(self):
        """Leave without a word: the server gets ECONNRESET."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self.sock.close()
