"""A WebSocket client for tests: the site's URLs and middleware, and no network.  Works in
``TestCase`` and with pytest."""

import base64
import json
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from gpulse.http.upgrade import Upgrade
from gpulse.testing.parked import Exchange, ParkedClient, shown
from gpulse.websocket.closecodes import ABNORMAL, NO_STATUS, NORMAL
from gpulse.websocket.frames import BINARY, CLOSE, PING, PONG, TEXT
from gpulse.websocket.handshake import VERSION

Message = str | bytes

_KEY = base64.b64encode(b"gpulse.testing: ").decode()
_CONTINUATION = 0


class WebSocketClient(ParkedClient):
    """A client of one WebSocket, open inside its ``with``.

    ::

        with WebSocketClient("/rooms/lobby/socket", user=ann) as ws:
            ws.send("hello")
            assert ws.receive_json() == {"user": "ann", "message": "hello"}

    Several clients of one test hear each other.  When a call returns, all that it leads to is done:
    handlers ran, and what they sent waits here.

    :param subprotocols: those that the client speaks, the best first.
    :param options: of :class:`~gpulse.testing.parked.ParkedClient`: ``user``, ``client``,
        ``headers``, ``secure``, ``raises``.
    """

    def __init__(self, path: str, *, subprotocols: Sequence[str] = (), **options: Any) -> None:
        super().__init__(path, **options)
        self.subprotocol: str | None = None
        """The one that the server chose."""
        self.closed: tuple[int, str] | None = None
        """Code and reason once the server closed, or answered :meth:`close`; 1006 where the
        connection just ended; None while the socket is open, and where it never was."""
        self._inbox: deque[Message] = deque()
        self._partial: tuple[int, bytearray] | None = None
        self._close_sent = False
        self._sent: list[Message] = []
        self._got = 0
        self._requests = 0
        self._subprotocols = subprotocols

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self.is_open and error is None:
                self.close()
        finally:
            self._leave()

    # -- looking

    @property
    def is_open(self) -> bool:
        """Messages can be sent."""
        return self._connection is not None and self.closed is None

    @property
    def received(self) -> list[Message]:
        """All messages that wait; they do not wait any more."""
        self._run()
        found = list(self._inbox)
        self._got += len(found)
        self._inbox.clear()
        return found

    # -- talking

    def send(self, message: Message) -> None:
        """Send text (str) or a binary message (bytes).

        :raises AssertionError: the socket is not open.
        """
        assert self.is_open, f"{self}: nothing can be sent"
        self._sent.append(message)
        if isinstance(message, str):
            self._write(TEXT, message.encode())
        else:
            self._write(BINARY, message)
        self._run()

    def send_json(self, value: Any) -> None:
        """Send a value as JSON text."""
        self.send(json.dumps(value))

    def receive(self) -> Message:
        """The next message.

        :raises AssertionError: none waits; it says what was sent so far.
        """
        self._run()
        assert self._inbox, f"{self}: no message waits"
        self._got += 1
        return self._inbox.popleft()

    def receive_json(self) -> Any:
        """The value of the next message, which is JSON.

        :raises AssertionError: none waits, or it is not JSON.
        """
        message = self.receive()
        try:
            return json.loads(message)
        except ValueError as error:
            raise AssertionError(f"{self}: {shown(message)} is not JSON: {error}") from None

    def request(self, frame: Mapping[str, Any]) -> Any:
        """Send a request of ``gpulse.v1``, with an id of its own; the reply to it.

        Other messages keep waiting.

        :raises AssertionError: no reply came.
        """
        self._requests += 1
        number = frame.get("id", self._requests)
        self.send_json({**frame, "id": number})
        for message in self._inbox:
            reply = json.loads(message) if isinstance(message, str) else None
            if isinstance(reply, dict) and reply.get("id") == number:
                self._inbox.remove(message)
                self._got += 1
                return reply
        waiting = ", ".join(map(shown, self._inbox)) or "nothing"
        raise AssertionError(f"{self}: no reply came; what waits: {waiting}")

    def post(self, frame: Mapping[str, Any]) -> Any:
        """Send a request of ``gpulse.v1`` by POST, as a client without WebSockets does; the
        response of Django's test client."""
        response = self._ask(
            self.client.post,
            self._path,
            {"origin": self._own_origin()},
            Exchange(),
            data=json.dumps(frame),
            content_type="application/json",
        )
        self._run()
        return response

    def close(self, code: int | None = NORMAL, reason: str = "") -> None:
        """Close; ``on_close`` has run when this returns.

        :param code: None sends a close frame without one.
        """
        assert self.is_open, f"{self}: it cannot be closed"
        self._write_close(code, reason)
        self._run()

    # -- the handshake

    def _request_headers(self) -> dict[str, str | None]:
        return {
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-version": VERSION,
            "sec-websocket-key": _KEY,
            "sec-websocket-protocol": ", ".join(self._subprotocols) or None,
        }

    def _accepted(self, upgrade: Upgrade) -> None:
        self.subprotocol = dict(upgrade.headers).get("Sec-WebSocket-Protocol")

    # -- frames

    def _write(self, opcode: int, payload: bytes) -> None:
        """Send a frame; it is masked with zeros, so its bytes stay as they are."""
        size = len(payload)
        if size < 126:
            head = bytes([0x80 | opcode, 0x80 | size])
        elif size < 65_536:
            head = bytes([0x80 | opcode, 0x80 | 126]) + struct.pack("!H", size)
        else:
            head = bytes([0x80 | opcode, 0x80 | 127]) + struct.pack("!Q", size)
        if not self._socket.is_closed:
            self._socket.incoming.append(head + bytes(4) + payload)

    def _write_close(self, code: int | None, reason: str) -> None:
        self._close_sent = True
        self._write(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())

    def read(self) -> bool:
        self._take_in()
        has_answered = False
        while self.closed is None and (frame := self._next_frame()) is not None:
            has_answered |= self._took(*frame)
        sock = self._socket
        if sock.is_shut and self._connection is not None and sock.reads:
            if self.closed is None:
                self.closed = (ABNORMAL, "the connection ended without a close")
            if not sock.is_closed and not sock.incoming:
                sock.incoming.append(b"")
                has_answered = True
        return has_answered

    def _next_frame(self) -> tuple[bool, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, size = buffer[0], buffer[1]
        start = {126: 4, 127: 10}.get(size, 2)
        if len(buffer) < start:
            return None
        if start > 2:
            size = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + size:
            return None
        payload = bytes(buffer[start : start + size])
        del buffer[: start + size]
        return bool(first & 0x80), first & 0x0F, payload

    def _took(self, fin: bool, opcode: int, payload: bytes) -> bool:
        """Take one frame; True if it had an answer."""
        if opcode == PING:
            self._write(PONG, payload)
            return True
        if opcode == CLOSE:
            code = struct.unpack("!H", payload[:2])[0] if payload else NO_STATUS
            self.closed = (code, payload[2:].decode())
            if not self._close_sent:
                self._write_close(code if payload else None, "")
            return True
        if opcode == _CONTINUATION and self._partial is not None:
            opcode, parts = self._partial
            parts += payload
        elif opcode in (TEXT, BINARY):
            parts = bytearray(payload)
        else:
            return False
        self._partial = None if fin else (opcode, parts)
        if fin:
            self._inbox.append(parts.decode() if opcode == TEXT else bytes(parts))
        return False

    # -- failures

    def __str__(self) -> str:
        """What a failure has to tell."""
        said = [self._title()]
        if self.response is None:
            said.append("not opened yet")
        elif self._connection is None:
            said.append(self._refusal())
        elif self.closed is not None:
            said.append(f"closed with {self.closed[0]} {self.closed[1]!r}")
        else:
            said.append("open")
        said.append(f"{len(self._sent)} sent so far")
        if self._sent:
            said[-1] += f" (the last: {shown(self._sent[-1])})"
        said.append(f"{self._got} received")
        return ", ".join(said)
