"""The server's side of the opening handshake (RFC 6455, 4.2), on a WSGI environ.  Pure."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Any

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
VERSION = "13"


class HandshakeError(Exception):
    """The handshake is refused.

    ``status`` and ``headers`` are the response's, ``reason`` its one line of text.
    """

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.headers = headers or {}


def tokens(value: str) -> list[str]:
    """The members of a comma-separated field, stripped."""
    return [token for token in (part.strip() for part in value.split(",")) if token]


def accept(environ: dict[str, Any], subprotocols: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Check a handshake; returns the fields of the 101 response.

    :param subprotocols: those the server speaks; the client's first among them is chosen.
    :raises HandshakeError: 405 not a GET, 426 no upgrade or another version, 400 a bad key.
    """
    if environ["REQUEST_METHOD"] != "GET":
        raise HandshakeError(405, "a WebSocket opens with GET", {"Allow": "GET"})
    if (
        environ.get("HTTP_UPGRADE", "").lower() != "websocket"
        or "upgrade" not in map(str.lower, tokens(environ.get("HTTP_CONNECTION", "")))
        or environ["SERVER_PROTOCOL"] != "HTTP/1.1"
    ):
        raise HandshakeError(
            426,
            "this address speaks WebSocket; a proxy in between must pass Upgrade and Connection on",
            {"Upgrade": "websocket", "Connection": "Upgrade"},
        )
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != VERSION:
        raise HandshakeError(
            426, "only version 13 of WebSocket is spoken", {"Sec-WebSocket-Version": VERSION}
        )
    key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
    try:
        valid = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        valid = False
    if not valid:
        raise HandshakeError(400, "Sec-WebSocket-Key is not the base64 form of 16 bytes")
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", base64.b64encode(digest).decode("ascii")),
    ]
    wanted = tokens(environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", ""))
    if any(not name.isascii() for name in wanted):
        raise HandshakeError(400, "Sec-WebSocket-Protocol is not ASCII")
    for name in wanted:
        if name in subprotocols:
            headers.append(("Sec-WebSocket-Protocol", name))
            break
    return headers
