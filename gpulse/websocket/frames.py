"""Frames a server sends (RFC 6455, 5.2): whole, unmasked, uncompressed.  Pure."""

import struct

TEXT, BINARY = 1, 2


def encode_frame(opcode: int, data: bytes) -> bytes:
    """One whole frame; the payload's length chooses the 2, 4 or 10 byte head."""
    size = len(data)
    first = 0x80 | opcode
    if size < 126:
        return bytes((first, size)) + data
    if size < 65536:
        return struct.pack("!BBH", first, 126, size) + data
    return struct.pack("!BBQ", first, 127, size) + data
