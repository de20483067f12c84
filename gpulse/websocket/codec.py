"""Frames that a client sends, decoded (RFC 6455, 5).  Pure: bytes in, messages out.

Strict: what the RFC forbids a client ends the conversation with the close code that it names.
Data is refused as early as it can be known to be wrong: a frame that is too large on its announced
length, text on the first byte that is not UTF-8, though its frame or message is not whole.

A message's bytes lie in one buffer as they come, so neither empty fragments nor single bytes can
make more of them than they are.  Between messages nothing is kept: whoever has very many sockets
needs no decoder for an idle one, nor for a :func:`short_text`.
"""

from codecs import utf_8_decode
from typing import Any, Final

from gpulse.websocket.closecodes import (
    INVALID_DATA,
    NO_STATUS,
    PROTOCOL_ERROR,
    TOO_LARGE,
    may_be_received,
)
from gpulse.websocket.deflate import InflateError, TooLargeError, inflate
from gpulse.websocket.frames import (
    BINARY,
    CLOSE,
    COMPRESSED,
    CONTINUATION,
    CONTROL_SIZE,
    FIN,
    MASKED,
    TEXT,
)


def xor(data: "bytes | bytearray | memoryview[int]", mask: bytes | bytearray) -> bytes:
    """The bytes XOR the mask's four: what masks and unmasks (5.3).

    By one operation on long numbers: three to forty times slower than the function in C, and for
    all but the shortest payloads far faster than a loop.
    """
    size = len(data)
    key = (bytes(mask) * (size // 4 + 1))[:size]
    number = int.from_bytes(data, "big") ^ int.from_bytes(key, "big")
    return number.to_bytes(size, "big")


try:
    from websockets.speedups import apply_mask
except ImportError:  # a build of websockets without its C part
    apply_mask = xor

Item = tuple[int, Any]
"""Opcode and content: TEXT str, BINARY, PING and PONG bytes, CLOSE (code, reason)."""

_WHOLE_TEXT: Final = FIN | TEXT
_WHOLE_BINARY: Final = FIN | BINARY
_CONTROL_BIT: Final = 0x08
_RESERVED_BITS: Final = 0x70
_MASKED_SHORT: Final = MASKED - 6
"""What the second byte of a short masked frame is more than the frame's size."""
_SHORT: Final = 125 + 6
"""Size of the largest frame with the shortest head."""


class _ViolationError(Exception):
    """The client broke the protocol; ``args`` are the close code and the reason."""


class _Unfinished:
    """What is kept between two reads while a frame or a message has begun."""

    __slots__ = ("checked", "compressed", "fin", "head", "kind", "left", "mask", "message")

    def __init__(self) -> None:
        self.head = b""
        """The start of a frame whose payload has not begun, or of a control frame."""
        self.left = 0
        """Bytes of the current data frame that are still to come."""
        self.mask = b""
        """Its mask, turned to where the next byte belongs."""
        self.fin = False
        """Whether it is the last of its message."""
        self.kind = CONTINUATION
        """TEXT or BINARY while a message is under way."""
        self.compressed = False
        self.message = bytearray()
        self.checked = 0
        """How much of the message is known to be whole characters."""


_OVER = _Unfinished()
"""After a close frame or an error: nothing more is read.  Shared, and never written to."""


def short_text(data: bytes, max_size: int) -> str | None:
    """The message if the data are one short text and nothing else, as nearly all that most sockets
    ever receive; None for all else, and for what is wrong."""
    size = len(data)
    if (
        5 < size <= _SHORT
        and data[0] == _WHOLE_TEXT
        and data[1] == size + _MASKED_SHORT
        and size - 6 <= max_size
    ):
        try:
            return apply_mask(data[6:], data[2:6]).decode()
        except UnicodeDecodeError:
            return None
    return None


class Decoder:
    """What comes in on one WebSocket.

    :param max_size: bytes of the largest message, as it comes and inflated.
    :param deflates: the handshake agreed on it; if not, compressed messages are an error.
    """

    __slots__ = ("_deflates", "_max_size", "_unfinished", "error")

    def __init__(self, max_size: int, deflates: bool = False) -> None:
        self._unfinished: _Unfinished | None = None
        self._max_size = max_size
        self._deflates = deflates
        self.error: tuple[int, str] | None = None
        """Close code and reason once the client broke the protocol.  What comes after that, as what
        comes after a close frame, is ignored."""

    @property
    def is_idle(self) -> bool:
        """It knows nothing that another decoder would not."""
        return self._unfinished is None

    def feed(self, data: bytes) -> list[Item]:
        """What these bytes complete, in order; look at ``error`` afterwards."""
        if self._unfinished is None:
            text = short_text(data, self._max_size)
            if text is not None:
                return [(TEXT, text)]
        elif self._unfinished is _OVER:
            return []
        items: list[Item] = []
        try:
            self._read(data, items)
        except _ViolationError as violation:
            self._fail(*violation.args)
        except UnicodeDecodeError:
            self._fail(INVALID_DATA, "a text message is not UTF-8")
        except InflateError:
            self._fail(PROTOCOL_ERROR, "a message cannot be decompressed")
        except TooLargeError:
            self._fail(TOO_LARGE, f"messages are at most {self._max_size} bytes")
        return items

    def _fail(self, code: int, reason: str) -> None:
        self._unfinished = _OVER
        self.error = code, reason

    def _read(self, data: bytes, items: list[Item]) -> None:
        """Frame by frame.  Raises what ends the conversation; ``items`` holds what came before."""
        at = 0
        unfinished = self._unfinished
        if unfinished is not None:
            if unfinished.left:
                at = self._read_payload(unfinished, data, 0, items)
            elif unfinished.head:
                data = unfinished.head + data
                unfinished.head = b""
        size = len(data)
        max_size = self._max_size
        while True:
            # Whole messages in frames of less than 64 KiB: what most clients send.
            while (unfinished is None or not unfinished.kind) and size - at > 5:
                first = data[at]
                if first != _WHOLE_TEXT and first != _WHOLE_BINARY:
                    break
                length = data[at + 1] - MASKED
                payload_at = at + 6
                if length > CONTROL_SIZE:
                    payload_at = at + 8
                    if length > 126 or (length := data[at + 2] << 8 | data[at + 3]) < 126:
                        break
                end = payload_at + length
                if end > size or length < 0 or length > max_size:
                    break
                payload = apply_mask(data[payload_at:end], data[payload_at - 4 : payload_at])
                at = end
                items.append(
                    (TEXT, payload.decode()) if first == _WHOLE_TEXT else (BINARY, payload)
                )
            # All others.
            if size - at < 2:
                break
            taken = self._read_frame(data, at, items)
            unfinished = self._unfinished
            if unfinished is _OVER:
                return
            if not taken:
                break
            at += taken
        if at < size and not (unfinished is not None and unfinished.left):
            if unfinished is None:
                unfinished = _Unfinished()
            unfinished.head = data[at:]
        elif unfinished is not None and not unfinished.kind:
            unfinished = None
        self._unfinished = unfinished

    def _read_frame(self, data: bytes, at: int, items: list[Item]) -> int:
        """Read one frame; returns how much of the data it is, 0 while not enough is there."""
        unfinished = self._unfinished
        kind = CONTINUATION if unfinished is None else unfinished.kind
        first = data[at]
        self._check_head(first, data[at + 1], kind)
        is_control = first & _CONTROL_BIT
        length = data[at + 1] - MASKED
        size = len(data)
        payload_at = at + 6
        if length > CONTROL_SIZE:
            payload_at = at + (8 if length == 126 else 14)
            if size < payload_at - 4:
                return 0
            length = _long_length(data[at + 2 : payload_at - 4])
        if not is_control and length > self._max_size:
            raise TooLargeError
        if size < payload_at:
            return 0
        mask = data[payload_at - 4 : payload_at]
        if is_control:
            end = payload_at + length
            if end > size:
                return 0
            payload = apply_mask(data[payload_at:end], mask)
            if first == FIN | CLOSE:
                items.append((CLOSE, _close_of(payload)))
                self._unfinished = _OVER
            else:
                items.append((first & 0x0F, payload))
            return end - at
        if unfinished is None:
            unfinished = self._unfinished = _Unfinished()
        if not kind:
            unfinished.kind = first & 0x0F
            unfinished.compressed = first & COMPRESSED != 0
        elif len(unfinished.message) + length > self._max_size:
            raise TooLargeError
        unfinished.left = length
        unfinished.mask = mask
        unfinished.fin = first >= FIN
        return self._read_payload(unfinished, data, payload_at, items) - at

    def _check_head(self, first: int, second: int, kind: int) -> None:
        """Refuse a frame on its first two bytes.

        :param kind: TEXT or BINARY within a message, else CONTINUATION.
        """
        opcode = first & 0x0F
        if second < MASKED:
            raise _ViolationError(PROTOCOL_ERROR, "a frame is not masked")
        if first & _RESERVED_BITS and not (
            first & _RESERVED_BITS == COMPRESSED and self._deflates and opcode in (TEXT, BINARY)
        ):
            raise _ViolationError(PROTOCOL_ERROR, "a reserved bit is set")
        if opcode & _CONTROL_BIT:
            if opcode > 10:
                raise _ViolationError(PROTOCOL_ERROR, "an opcode is reserved")
            if first < FIN:
                raise _ViolationError(PROTOCOL_ERROR, "a control frame is fragmented")
            if second > MASKED + CONTROL_SIZE:
                raise _ViolationError(PROTOCOL_ERROR, "a control frame is too long")
        elif opcode > BINARY:
            raise _ViolationError(PROTOCOL_ERROR, "an opcode is reserved")
        elif (opcode == CONTINUATION) is (kind == CONTINUATION):
            raise _ViolationError(
                PROTOCOL_ERROR,
                "a message began within another" if kind else "there is no message to continue",
            )

    def _read_payload(
        self, unfinished: _Unfinished, data: bytes, at: int, items: list[Item]
    ) -> int:
        """Take what is there of the current data frame; returns where the next one begins."""
        left = unfinished.left
        piece = data[at : at + left] if at or left < len(data) else data
        took = len(piece)
        mask = unfinished.mask
        message = unfinished.message
        message += apply_mask(piece, mask)
        unfinished.left = left = left - took
        if left:
            turn = took & 3
            unfinished.mask = mask[turn:] + mask[:turn]
        if not left and unfinished.fin:
            items.append(self._content(unfinished))
            unfinished.kind = CONTINUATION
            unfinished.message = bytearray()
            unfinished.checked = 0
        elif took and unfinished.kind == TEXT and not unfinished.compressed:
            start = unfinished.checked
            unfinished.checked += utf_8_decode(message[start:], "strict", False)[1]
        return at + took

    def _content(self, unfinished: _Unfinished) -> Item:
        """The message, whole."""
        content: bytes | bytearray = unfinished.message
        if unfinished.compressed:
            content = inflate(content, self._max_size)
        if unfinished.kind == TEXT:
            return TEXT, content.decode()
        return BINARY, bytes(content)


def _long_length(field: bytes) -> int:
    """A length of two or eight bytes: it must need them, and be below 2 to the 63rd (5.2)."""
    length = int.from_bytes(field, "big")
    if length < 126 if len(field) == 2 else length < 65536:
        raise _ViolationError(PROTOCOL_ERROR, "a length is not in its shortest form")
    if length >> 63:
        raise _ViolationError(PROTOCOL_ERROR, "a length has its highest bit set")
    return length


def _close_of(payload: bytes) -> tuple[int, str]:
    """Code and reason of a close frame (5.5.1, 7.4)."""
    if not payload:
        return NO_STATUS, ""
    try:
        reason = payload[2:].decode()
    except UnicodeDecodeError:
        raise _ViolationError(INVALID_DATA, "a close reason is not UTF-8") from None
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not may_be_received(code):
        raise _ViolationError(PROTOCOL_ERROR, "a close frame has no valid code")
    return code, reason
