"""The chunked transfer coding, decoded (RFC 9112, 7.1).  Pure.

Strict: a size is plain hexadecimal digits, every line ends with CRLF, extensions and trailers have
the grammar of the RFC and are thrown away, and a trailer may not be a field that frames or routes
the request.  Whatever is wrong is a :class:`RequestError`; it never looks like the body's end.

Bounded: ``chunk_overhead`` for one line, and for all sizes and extensions beyond eight times the
data, since a chunk of one byte carries five of framing and is no attack; ``trailers`` for the lines
behind the last chunk.
"""

import re

from gpulse.http.limits import Limits
from gpulse.http.request import RequestError

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_EXTENSION = b"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_SIZE_AND_EXTENSIONS = re.compile(b"([0-9A-Fa-f]{1,15})(?:%b)*\r\n" % _EXTENSION)
_TRAILER = re.compile(b"(%b):%b\r\n" % (_TOKEN, _TEXT))
_BEGUN_LINE = re.compile(b"%b\r?" % _TEXT)

FORBIDDEN_TRAILERS = frozenset(
    (b"connection", b"content-length", b"content-type", b"expect", b"host", b"transfer-encoding")
)
"""Fields that frame or route a request (RFC 9110, 6.5.1): behind its body they only mislead."""

_SIZE_LINE, _CHUNK, _CHUNK_END, _TRAILERS = range(4)


class ChunkDecoder:
    """One chunked body.

    :param limits: ``body``, ``chunk_overhead`` and ``trailers``, in bytes.
    """

    __slots__ = ("_left", "_limits", "_line", "_overhead", "_size", "_state", "_trailers", "rest")

    def __init__(self, limits: Limits) -> None:
        self._line = b""  # a line that has begun and not ended
        self._left = 0  # bytes of the chunk that have not come
        self._state = _SIZE_LINE
        self.rest: bytes | None = None
        """What followed the body; None until the body is complete."""

        self._limits = limits

        self._size = 0
        self._overhead = 0
        self._trailers = 0

    def feed(self, data: bytes) -> bytes:
        """The body's data in the next bytes of the connection.

        :raises RequestError: 400 for what is no chunked body, 413 for one that is too long.
        """
        # Where an earlier look for the end of a line has ended; one byte back, for its CR.
        seen = max(0, len(self._line) - 1)
        if self._line:
            data, self._line = self._line + data, b""
        pieces = []
        at = 0
        while self.rest is None:
            if self._state == _CHUNK:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._state = _CHUNK_END
            if self._state == _CHUNK_END:
                if not data.startswith(b"\r\n", at):
                    if data[at:] not in (b"", b"\r"):
                        raise RequestError(400, "a chunk longer than its size")
                    self._line = data[at:]
                    break
                at += 2
                self._state = _SIZE_LINE
            end = data.find(b"\n", max(at, seen)) + 1
            if not end:
                self._hold(data, at, seen)
                break
            if self._state == _SIZE_LINE:
                self._begin_chunk(data, at, end)
            elif data.startswith(b"\r\n", at):
                self.rest = data[end:]
            else:
                self._check_trailer(data, at, end)
            at = end
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _hold(self, data: bytes, at: int, seen: int) -> None:
        """Keep the beginning of a line, if it can be one."""
        self._line = data[at:]
        if self._state == _TRAILERS:
            # The CR of the empty line behind them is no trailer.
            begun = 0 if self._line == b"\r" else len(self._line)
            if self._trailers + begun > self._limits.trailers:
                raise RequestError(400, "the trailers are too long")
        elif len(self._line) > self._limits.chunk_overhead:
            raise RequestError(400, "a chunk extension is too long")
        if not _BEGUN_LINE.fullmatch(data, max(at, seen)):
            raise RequestError(400, "a line of a chunked body with a control character in it")

    def _begin_chunk(self, data: bytes, at: int, end: int) -> None:
        found = _SIZE.fullmatch(data, at, end) or _SIZE_AND_EXTENSIONS.fullmatch(data, at, end)
        if found is None:
            raise RequestError(400, "a chunk size that is no number, or a broken extension")
        self._overhead += end - at + 2
        most = self._limits.chunk_overhead
        if end - at > most or self._overhead > most + 8 * self._size:
            raise RequestError(400, "chunk sizes and extensions are too long")
        self._left = int(found[1], 16)
        self._size += self._left
        if self._size > self._limits.body:
            raise RequestError(413, "the body is too long")
        self._state = _CHUNK if self._left else _TRAILERS

    def _check_trailer(self, data: bytes, at: int, end: int) -> None:
        found = _TRAILER.fullmatch(data, at, end)
        if found is None:
            raise RequestError(400, "a trailer that is no header field")
        if found[1].lower() in FORBIDDEN_TRAILERS:
            raise RequestError(400, "a trailer that may not be one")
        self._trailers += end - at
        if self._trailers > self._limits.trailers:
            raise RequestError(400, "the trailers are too long")
