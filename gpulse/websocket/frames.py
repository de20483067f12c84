"""Frames that a server sends (RFC 6455, 5.2): whole, unmasked, one message in one frame.  Pure."""

import struct

from gpulse.websocket.closecodes import NO_STATUS

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
"""The opcodes; all others are reserved."""

FIN, COMPRESSED, MASKED = 0x80, 0x40, 0x80
"""Bits of a frame's first byte (the last of its message; RSV1 of RFC 7692) and of its second."""

CONTROL_SIZE = 125
"""Longest payload of a close, a ping or a pong."""

REASON_SIZE = CONTROL_SIZE - 2
"""Longest close reason, in bytes of UTF-8."""

_TEXT_HEADS = tuple(bytes((FIN | TEXT, size)) for size in range(126))
"""The heads of short texts, which are most of what is sent."""

_pack_medium = struct.Struct("!BBH").pack
_pack_large = struct.Struct("!BBQ").pack


def encode_frame(opcode: int, data: bytes, compressed: bool = False) -> bytes:
    """One whole frame; the payload's length chooses the 2, 4 or 10 byte head.

    :param compressed: ``data`` is what :func:`gpulse.websocket.deflate.compress` made.
    """
    size = len(data)
    if size < 126:
        if opcode == TEXT and not compressed:
            return _TEXT_HEADS[size] + data
        return bytes((FIN | COMPRESSED | opcode if compressed else FIN | opcode, size)) + data
    first = FIN | COMPRESSED | opcode if compressed else FIN | opcode
    if size < 65536:
        return _pack_medium(first, 126, size) + data
    return _pack_large(first, 127, size) + data


def encode_close(code: int, reason: str = "") -> bytes:
    """A close frame.

    :param code: one that may be sent, or NO_STATUS: the frame is then empty.
    :param reason: what is beyond ``REASON_SIZE`` bytes is cut off, never within a character.
    """
    if code == NO_STATUS:
        return encode_frame(CLOSE, b"")
    text = reason.encode()
    if len(text) > REASON_SIZE:
        text = text[:REASON_SIZE].decode("utf-8", "ignore").encode()
    return encode_frame(CLOSE, code.to_bytes(2, "big") + text)
