"""A bare WebSocket client (RFC 6455) for the benchmarks: as little work as Python allows.

It trusts the server: what arrives is compared with the bytes that are expected, not parsed.
"""

import socket

from servers import DEADLINE, HOST, get

_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
PING = b"\x89\x00"
PONG = b"\x8a\x80\x00\x00\x00\x00"
"""Empty.  Masks are of zeros: fit for a benchmark, not for the web (RFC 6455, 5.3)."""


def text_frame(payload: bytes, *, masked: bool) -> bytes:
    """A whole text message of at most 125 bytes."""
    assert len(payload) < 126
    mask_bit, mask = (0x80, bytes(4)) if masked else (0, b"")
    return bytes((0x81, mask_bit | len(payload))) + mask + payload


def handshake(port: int, path: str, headers: str = "") -> bytes:
    """The request that opens a WebSocket.

    :param headers: more lines, each with its end.
    """
    head = _HANDSHAKE.format(path=path, host=f"{HOST}:{port}")
    return f"{head}{headers}\r\n".encode()


def open_websocket(port: int, path: str, first: bytes = b"", headers: str = "") -> socket.socket:
    """A connection after the 101, non-blocking.

    :param first: what the server sends at once; waited for and compared.
    :param headers: see :func:`handshake`.
    :raises SystemExit: the server declines, or sends something else.
    """
    client = socket.create_connection((HOST, port), DEADLINE)
    client.sendall(handshake(port, path, headers))
    received = b""
    while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < len(first):
        data = client.recv(65536)
        if not data:
            break
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 ") or rest != first:
        raise SystemExit(f"no WebSocket at {path}: {received[:300]!r}")
    client.setblocking(False)
    return client


def open_keep_alive(port: int, path: str) -> socket.socket:
    """A connection that had one response and stays open, non-blocking."""
    client = socket.create_connection((HOST, port), DEADLINE)
    status, _ = get(client, path)
    if status != 200:
        raise SystemExit(f"{path} answers {status}")
    client.setblocking(False)
    return client
