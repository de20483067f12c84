"""The server's side of the opening handshake (RFC 6455, 4.2), on a WSGI environ.  Pure."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from gpulse.websocket.deflate import Deflate, is_token, negotiate

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


class Accepted(NamedTuple):
    """What a handshake agreed on."""

    headers: list[tuple[str, str]]
    """The fields of the 101 response."""
    subprotocol: str | None = None
    """The one that was chosen."""
    deflate: Deflate | None = None
    """How messages may be compressed; None: not at all."""


def tokens(value: str) -> list[str]:
    """The members of a comma-separated field, stripped."""
    return [token for token in (part.strip(" \t") for part in value.split(",")) if token]


def accept(
    environ: dict[str, Any], subprotocols: Sequence[str] = (), deflate: bool = True
) -> Accepted:
    """Check a handshake.

    A field that came twice is one value with a comma in it here, as PEP 3333 has it.

    :param subprotocols: those the server speaks; the client's first among them is chosen.
    :param deflate: whether compression is agreed on if the client offers it.
    :raises HandshakeError: 405 not a GET, 426 no upgrade or another version, 400 a bad field.
    """
    if environ["REQUEST_METHOD"] != "GET":
        raise HandshakeError(405, "a WebSocket opens with GET", {"Allow": "GET"})
    if (
        "websocket" not in map(str.lower, tokens(environ.get("HTTP_UPGRADE", "")))
        or "upgrade" not in map(str.lower, tokens(environ.get("HTTP_CONNECTION", "")))
        or environ["SERVER_PROTOCOL"] != "HTTP/1.1"
    ):
        raise HandshakeError(
            426,
            "this address speaks WebSocket; a proxy in between must pass Upgrade and Connection on",
            {"Upgrade": "websocket", "Connection": "Upgrade"},
        )
    version = environ.get("HTTP_SEC_WEBSOCKET_VERSION", "")
    if "," in version:
        raise HandshakeError(400, "Sec-WebSocket-Version came more than once")
    if version != VERSION:
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
    subprotocol = _subprotocol(environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", ""), subprotocols)
    if subprotocol is not None:
        headers.append(("Sec-WebSocket-Protocol", subprotocol))
    try:
        agreed = negotiate(environ.get("HTTP_SEC_WEBSOCKET_EXTENSIONS", ""))
    except ValueError as error:
        raise HandshakeError(400, f"Sec-WebSocket-Extensions: {error}") from None
    if not deflate:
        agreed = None
    elif agreed is not None:
        headers.append(("Sec-WebSocket-Extensions", agreed.response))
    return Accepted(headers, subprotocol, agreed)


def _subprotocol(field: str, spoken: Sequence[str]) -> str | None:
    """The client's first that we speak."""
    wanted = tokens(field)
    if not all(map(is_token, wanted)):
        raise HandshakeError(400, "Sec-WebSocket-Protocol is not a list of names")
    return next((name for name in wanted if name in spoken), None)
