"""permessage-deflate (RFC 7692), each message by itself.  Pure.

Neither side keeps a window between messages: we always answer ``server_no_context_takeover`` and
``client_no_context_takeover``.  So an idle socket costs nothing, and what one broadcast was
compressed to is the same for all sockets whose windows are as large: it is made once.

What comes in is inflated to its bound and not further, whatever its ratio.
"""

import re
import zlib
from typing import NamedTuple

NAME = "permessage-deflate"

LEVEL = 3
"""Of zlib.  16 KiB of JSON become 21 % in 30 us; zlib's default (6) makes it 20 % in 72 us.  Below
1 KiB they are alike, and setting up is nearly all of the 5 us."""

TAIL = b"\x00\x00\xff\xff"
"""The end of each message that is left out on the wire (7.2.1)."""

_END = TAIL + b"\x03\x00"
"""The tail, and an empty last block: zlib says so only if the message ended before it."""

PIECE = 65536
"""Bytes of input at once, and a quarter of the bytes of output, for messages that are large."""

LAST_BLOCKS = 16
"""Blocks with BFINAL in one message.  One is what an encoder without a flush makes (7.2.3.4); each
more costs a new inflater, and a hostile message could hold one in every two bytes."""

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SPACE = r"[ \t]*"
_EXTENSION = re.compile(rf"{_SPACE}({_TOKEN}){_SPACE}")
_PARAMETER = re.compile(
    rf";{_SPACE}({_TOKEN}){_SPACE}"
    rf"(?:={_SPACE}(?:({_TOKEN})|\"((?:[^\"\\]|\\[\x00-\x7f])*)\"){_SPACE})?"
)
_EMPTY = re.compile(_SPACE)
_IS_TOKEN = re.compile(_TOKEN)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

_BITS = {str(bits): bits for bits in range(8, 16)}
"""Values of the window parameters: decimal, without leading zeros (7.1.2)."""


def is_token(text: str) -> bool:
    """Whether a name is one that a field may have (RFC 9110, 5.6.2)."""
    return _IS_TOKEN.fullmatch(text) is not None


class Deflate(NamedTuple):
    """What was agreed for one socket."""

    server_bits: int
    """Base-2 logarithm of the largest window that the client keeps for us: 9 to 15."""
    response: str
    """The value of Sec-WebSocket-Extensions in the answer."""


class InflateError(Exception):
    """The message is no deflated data, or not a whole one."""


class TooLargeError(Exception):
    """The message is larger than its bound once inflated."""


Parameters = list[tuple[str, str | None]]


def parse_extensions(value: str) -> list[tuple[str, Parameters]]:
    """The value of Sec-WebSocket-Extensions: each extension with its parameters, in order.

    Values lose their quotes; None is a parameter without a value.

    :raises ValueError: not of the grammar of RFC 6455, 9.1.
    """
    found: list[tuple[str, Parameters]] = []
    at, end = 0, len(value)
    while at < end:
        extension = _EXTENSION.match(value, at)
        if extension is None:  # RFC 9110, 5.6.1: members of a list may be empty
            at = _EMPTY.match(value, at).end()  # type: ignore[union-attr]
        else:
            at = extension.end()
            parameters: Parameters = []
            while (parameter := _PARAMETER.match(value, at)) is not None:
                name, text, quoted = parameter.groups()
                if quoted is not None:
                    text = _ESCAPED.sub(r"\1", quoted)
                    if not is_token(text):
                        raise ValueError(f"the quoted value of {name} is no token")
                parameters.append((name, text))
                at = parameter.end()
            found.append((extension[1], parameters))
        if at < end:
            if value[at] != ",":
                raise ValueError("it is not a list of extensions")
            at += 1
    return found


def negotiate(value: str) -> Deflate | None:
    """What we take of the client's offers: the first that we can keep to; None if there is none.

    An offer with a parameter that is unknown, doubled or has a wrong value is declined (7.1), and
    so is a window of 256 bytes for us, which zlib cannot do.

    :param value: Sec-WebSocket-Extensions of the request.
    :raises ValueError: not of the field's grammar.
    """
    for name, parameters in parse_extensions(value):
        if name == NAME:
            bits = _server_bits(parameters)
            if bits is not None:
                response = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
                if "server_max_window_bits" in dict(parameters):
                    response += f"; server_max_window_bits={bits}"
                return Deflate(bits, response)
    return None


def _server_bits(parameters: Parameters) -> int | None:
    """The window that an offer leaves us; None declines it."""
    bits = 15
    if len(dict(parameters)) < len(parameters):
        return None
    for name, value in parameters:
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                return None
        elif name == "client_max_window_bits":
            # Nothing to keep to: we inflate with the largest window, and it is gone afterwards.
            if value is not None and value not in _BITS:
                return None
        elif name == "server_max_window_bits":
            if value not in _BITS or value == "8":
                return None
            bits = _BITS[value]
        else:
            return None
    return bits


def compress(data: bytes, bits: int) -> bytes:
    """One whole message, without the tail; what cannot be compressed grows by some bytes.

    :param bits: 9 to 15.
    """
    deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, -bits)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[: -len(TAIL)]


def inflate(data: bytes | bytearray, limit: int) -> bytes | bytearray:
    """One whole message; ``data`` came without the tail.

    :param limit: bytes; little more is ever allocated.
    :raises TooLargeError: the message is larger.
    :raises InflateError: not deflated, not whole, or followed by something else.
    """
    if not data:
        return b""  # it should be a zero byte (7.2.3.6), and some leave that out too
    inflater = zlib.decompressobj(-15)
    data = data + _END
    try:
        # Nearly all messages are done with one call.
        text = inflater.decompress(data, min(limit, PIECE) + 1)
        if inflater.eof and not inflater.unused_data and len(text) <= limit:
            return text
        return _inflate_in_pieces(data, limit)
    except zlib.error as error:
        raise InflateError(str(error)) from None


def _inflate_in_pieces(data: bytes | bytearray, limit: int) -> bytearray:
    text = bytearray()
    inflater = zlib.decompressobj(-15)
    last_blocks = 0
    at = 0
    while at < len(data):
        waiting: bytes = bytes(data[at : at + PIECE])
        at += PIECE
        while waiting:
            if inflater.eof:
                last_blocks += 1
                if last_blocks > LAST_BLOCKS:
                    raise InflateError("too many last blocks")
                inflater = zlib.decompressobj(-15)
            text += inflater.decompress(waiting, min(4 * PIECE, limit + 1 - len(text)))
            if len(text) > limit:
                raise TooLargeError
            waiting = inflater.unconsumed_tail or inflater.unused_data
    if not inflater.eof:
        raise InflateError("the message is not whole")
    return text
