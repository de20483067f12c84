"""The request parser of one connection: bytes in, requests out.  Pure.

From the head (:mod:`gpulse.http.head`) through the body, by its length or by its chunks
(:mod:`gpulse.http.chunked`), to a whole :class:`Request`; every part is bounded.

* :meth:`RequestParser.feed` never raises.  What is wrong ends up in ``error``, once; after it
  nothing more is parsed.
* It gives out one request at a time and leaves what is behind it in ``rest``, unread: the caller
  feeds that when it is ready for the next one.  So a request behind an error, behind ``Connection:
  close`` or behind an upgrade is never begun.
"""

import re

from gpulse.http.chunked import ChunkDecoder
from gpulse.http.head import HeadParser
from gpulse.http.limits import Limits
from gpulse.http.request import Request, RequestError

PIECES = 128
"""Pieces of a body after which those in memory are joined: a piece of two bytes takes 43."""

LONGEST_METHOD = 32
"""Bytes of a method; llhttp knows none that is longer."""

_END = b"\r\n\r\n"
_EMPTY_LINES = re.compile(rb"(?:\r\n)*")
_METHOD_BEGUN = re.compile(rb"[!#$%%&'*+.^_`|~0-9A-Za-z-]{1,%d}(?: |\Z)" % LONGEST_METHOD)
_BROKEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")


class RequestParser:
    """See the module's text.

    :param limits: the bounds.
    :param heads: parses heads; shared by all connections.
    """

    __slots__ = ("_chunks", "_empty", "_heads", "_held", "current", "error", "limits", "rest")

    def __init__(self, limits: Limits, heads: HeadParser | None = None) -> None:
        self._held: bytearray | None = None  # the beginning of a head
        self._empty = 0  # bytes of empty lines before it
        self._chunks: ChunkDecoder | None = None
        self.current: Request | None = None
        """The request whose head is whole and whose body is not."""
        self.error: RequestError | None = None
        self.rest = b""
        """What followed the request that was given out last."""

        self.limits = limits
        self._heads = heads or HeadParser(limits)

    @property
    def has_begun(self) -> bool:
        """A request has begun and is not whole; empty lines before it do not count."""
        return self.current is not None or (self._held is not None and self._held != b"\r")

    def feed(self, data: bytes) -> Request | None:
        """Parse the next bytes of the connection, one or more.

        :returns: a whole request, if these bytes complete one; ``rest`` is then what is behind it.
        """
        try:
            if self.current is not None:
                return self._feed_body(self.current, data)
            size = len(data)
            if (
                self._held is None
                and self.error is None
                and data.find(_END) == size - 4
                and 4 < size <= self.limits.head
                and data[0] != 13
            ):
                # The usual case: a head, and nothing else.
                request = self._heads.parse(data)
                if not request.has_body:
                    self.rest = b""
                    return request
                return self._begin_body(request, b"")
            return self._feed_head(data) if self.error is None else None
        except RequestError as error:
            # Its own copy: a traceback refers to this frame, and so to this object.
            self.error = RequestError(error.status, error.reason)
            self.stop()
            return None

    def stop(self) -> None:
        """Let go of what is unfinished; the connection ends or speaks something else."""
        if self.current is not None:
            self.current.discard_body()
        self.current = self._held = self._chunks = None

    # -- inside

    def _feed_head(self, data: bytes) -> Request | None:
        """Gather a head that comes in pieces, or with something before or behind it."""
        if self._held is None or self._held == b"\r":
            if self._held is not None:
                data, self._held = b"\r" + data, None
            data = self._strip_empty_lines(data)
        held = self._held if self._held is not None else bytearray()
        looked_at = len(held)
        # No more than what breaks the bound, in case that is not the first piece.
        taken = data[: self.limits.head - looked_at + 1]
        held += taken
        self._held = held or None
        if not held or held == b"\r":
            return None
        end = held.find(_END, max(0, looked_at - 3)) + 4
        if end < 4:
            self._check_begun(held, looked_at)
            return None
        if end > self.limits.head:
            self._refuse_size(held)
        rest = data[len(taken) - (len(held) - end) :]
        request = self._heads.parse(bytes(held[:end]))
        self._held, self._empty = None, 0
        return self._begin_body(request, rest)

    def _strip_empty_lines(self, data: bytes) -> bytes:
        """Pass over empty lines before a request (RFC 9112, 2.2)."""
        lines = _EMPTY_LINES.match(data)
        assert lines is not None
        self._empty += lines.end()
        if self._empty >= self.limits.head:
            raise RequestError(400, "nothing but empty lines")
        data = data[lines.end() :]
        if len(data) > 1 and data[0] == 13:
            raise RequestError(400, "a CR without LF before a request")
        return data

    def _check_begun(self, held: bytearray, looked_at: int) -> None:
        """Refuse a head at once that can never become one; the rest is found out at its end."""
        if looked_at <= LONGEST_METHOD and not _METHOD_BEGUN.match(held):
            raise RequestError(400, "not an HTTP method")
        if len(held) > self.limits.head:
            self._refuse_size(held)
        if _BROKEN.search(held, max(0, looked_at - 1)):
            raise RequestError(400, "a control character, or a line that does not end with CRLF")
        # Once a request line is whole it need not be looked at again.
        most = self.limits.request_line + LONGEST_METHOD + 1
        if (
            looked_at <= most
            and len(held) > self.limits.request_line
            and self._target_size(held) > self.limits.request_line
        ):
            self._refuse_size(held)

    def _refuse_size(self, held: bytearray) -> None:
        if not _METHOD_BEGUN.match(held):
            raise RequestError(400, "not an HTTP method")
        if self._target_size(held) > self.limits.request_line:
            raise RequestError(414, "the request target is too long")
        raise RequestError(431, "the request head is too long")

    @staticmethod
    def _target_size(held: bytearray) -> int:
        line = held.partition(b"\r\n")[0]
        return len(line.partition(b" ")[2].partition(b" ")[0])

    def _begin_body(self, request: Request, data: bytes) -> Request | None:
        if not request.has_body:
            self.rest = data
            return request
        self.current = request
        self._chunks = ChunkDecoder(self.limits) if request.chunked else None
        return self._feed_body(request, data) if data else None

    def _feed_body(self, request: Request, data: bytes) -> Request | None:
        rest: bytes | None
        if self._chunks is not None:
            piece = self._chunks.feed(data)
            rest = self._chunks.rest
        else:
            left = request.content_length - request.body_size
            piece = data[:left]
            rest = data[left:] if len(data) >= left else None
        if piece:
            request.body.append(piece)
            request.body_size += len(piece)
            if len(request.body) >= PIECES:
                request.body = [b"".join(request.body)]
        if rest is None:
            return None
        self.current = self._chunks = None
        self.rest = rest
        return request
