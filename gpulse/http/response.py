"""The response writer of PEP 3333: what the application says, as bytes of RFC 9112.

Pure: bytes go to ``send``, which is given.  A small response leaves in one piece.

Framing, in this order: none for HEAD, 1xx, 204, 304; the application's Content-Length; a
Content-Length of ours when the whole body is in hand; chunked in HTTP/1.1; the end of the
connection in HTTP/1.0. A body longer than its Content-Length is cut; a shorter one closes the
connection, so that the client can tell.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from gpulse.http.request import Request

_STATUS = re.compile(r"[1-9][0-9][0-9](?: [^\r\n\x00]*)?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_KEPT = 1000
_statuses: set[str] = set()
"""Statuses that were found good.  Bounded: an application may make them up."""
_ordinary: set[str] = set()
"""Names of header fields, as applications spell them, that mean nothing to the server.  Bounded."""
_HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_NOT_INTERIM = _HOP_BY_HOP | {"content-length"}
_OURS = frozenset(("date", "server", "x-request-id"))
"""What the server says unless the application does."""

Headers = list[tuple[str, str]]
TOGETHER = 65_536
"""Bytes of a body that leave in one piece with the head; to copy more costs more than a send."""


class ResponseError(Exception):
    """The application's response breaks PEP 3333 or RFC 9110; the request ends with a 500."""


class Response:
    """One response.

    :param request: what is answered.
    :param send: takes bytes to the connection; may block its caller; raises when the client is
        gone.
    :param common: the header lines of every response (Server, Date), each ended by CRLF.
    :param keep_alive: whether the connection may serve another request afterwards.
    """

    __slots__ = (
        "_chunked",
        "_length",
        "_request",
        "_send",
        "_upgrades",
        "common",
        "head_sent",
        "headers",
        "is_whole",
        "keep_alive",
        "sent",
        "status",
        "truncated",
    )

    def __init__(
        self, request: Request, send: Callable[[bytes], None], common: str, keep_alive: bool
    ) -> None:
        self._request = request
        self._send = send
        self._length: int | None = None
        self._chunked = False
        self._upgrades = False
        self.common = common
        """The server's own header lines, each ended by CRLF."""
        self.status = ""
        self.headers: Headers = []
        """As the application gave them."""
        self.keep_alive = keep_alive
        self.head_sent = False
        self.is_whole = False
        """All of it, head and body, is in the one piece that is being sent, and is small."""
        self.sent = 0
        """Body bytes given to the connection, framing not counted."""
        self.truncated = False
        """The application wrote more than its Content-Length."""

    # -- the application's side

    def start_response(
        self, status: str, headers: Headers, exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info:
            try:
                if self.head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # break the cycle with the traceback, as PEP 3333 asks
        elif self.status:
            raise ResponseError("start_response was called twice without exc_info")
        if type(status) is not str or status not in _statuses:
            _check_status(status)
        self.status = status
        self.headers = headers
        return self.write

    def write(self, data: bytes) -> None:
        """Send one piece of the body; the first also sends the head."""
        if type(data) is not bytes:
            raise ResponseError(f"the body has a {type(data).__name__} in it, not bytes")
        if not self.head_sent:
            # An empty piece would be the last chunk, and must not send the head (PEP 3333).
            if data:
                self._start(data, complete=False)
        elif data:
            self._send_body(data)

    # -- the server's side

    @property
    def code(self) -> int:
        """The status as a number; 0 before start_response."""
        return int(self.status[:3]) if self.status else 0

    @property
    def has_no_body(self) -> bool:
        code = self.status[:3]
        return self._request.method == "HEAD" or code in ("204", "304") or code[:1] == "1"

    def write_all(self, pieces: Iterable[bytes]) -> None:
        """Send what the application returned, and the end."""
        kind = type(pieces)
        size = len(pieces) if kind is list or kind is tuple else _single(pieces)  # type: ignore[arg-type]
        if size == 1 and not self.head_sent:
            data = b"".join(pieces)
            if not self.status:
                raise ResponseError("start_response was not called")
            self._start(data, complete=True)
            return
        for piece in pieces:
            if piece or type(piece) is not bytes:
                if not self.status:
                    raise ResponseError("start_response was not called")
                self.write(piece)
                if self.head_sent and self.has_no_body:
                    break  # nobody would see the rest
        self.finish()

    def finish(self) -> None:
        """The body is complete."""
        if not self.status:
            raise ResponseError("start_response was not called")
        if not self.head_sent:
            self._start(b"", complete=True)
        elif self._chunked:
            self._send(b"0\r\n\r\n")
        elif self._length is not None and self.sent < self._length and not self.has_no_body:
            self.keep_alive = False

    def send_blocks(self, size: int | None, blocks: Iterable[bytes]) -> None:
        """Send a file's blocks; ``size``, its length in bytes, is the Content-Length unless one
        was given."""
        self._give_length(size)
        for block in blocks:
            self.write(block)
            if self.has_no_body or (self._length is not None and self.sent >= self._length):
                break
        self.truncated = False  # a Content-Length shorter than the file means a range of it
        self.finish()

    def start_file(self, size: int) -> int:
        """Send the head of a response whose body is a file that the caller sends.

        :param size: bytes of the file; they are the Content-Length unless one was given.
        :returns: how many of them are to be sent.
        """
        self._give_length(size)
        head = self._head(size)
        self.head_sent = True
        self._send(head)
        if self.has_no_body:
            return 0
        length = size if self._length is None else self._length
        self.sent = min(size, length)
        if self.sent < length:
            self.keep_alive = False
        return self.sent

    # -- inside

    def _give_length(self, size: int | None) -> None:
        named = any(name.lower() == "content-length" for name, _ in self.headers)
        if size is not None and not self.head_sent and not named:
            self.headers = [*self.headers, ("Content-Length", str(size))]

    def _start(self, data: bytes, complete: bool) -> None:
        size = len(data)
        head = self._head(size if complete else None)
        self.head_sent = True
        if not size or self.has_no_body:
            self.is_whole = complete
            self._send(head)
            if complete and self._length and not self.has_no_body:
                self.keep_alive = False
            return
        length = self._length
        if length is not None and size != length:
            data = self._cut(data)
            if complete and size < length:
                self.keep_alive = False
        self.sent = len(data)
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if len(data) < TOGETHER:
            self.is_whole = complete
            self._send(head + data)
        else:
            self._send(head)
            self._send(data)

    def _head(self, size: int | None) -> bytes:
        """The head as bytes.

        :param size: the body's length, None when it is not known yet.
        """
        request = self._request
        status = self.status
        if status[0] == "1":
            raise ResponseError(
                f"status {status[:3]} is no last response; only a WebSocket view may send 101, and "
                "a 103 goes out by wsgi.early_hints"
            )
        lines = [f"HTTP/1.1 {status}\r\n"]
        # The line ends are counted so that one look at the whole head finds a CR, LF or NUL that
        # an application let through (response splitting).
        count = 1
        for name, value in self.headers:
            if name in _ordinary or self._is_sent(name, value):
                lines += (name, ": ", value, "\r\n")
                count += 1
        code = status[:3]
        if self._length is None and code != "204" and code != "304" and code[0] != "1":
            if size is not None and not (request.method == "HEAD" and not size):
                # To HEAD an empty body says nothing about the length that GET would have.
                self._length = size
                lines.append(f"Content-Length: {size}\r\n")
                count += 1
            elif size is None and not request.is_http_1_0:
                self._chunked = request.method != "HEAD"
                lines.append("Transfer-Encoding: chunked\r\n")
                count += 1
            elif size is None:
                self.keep_alive = False
        if self._upgrades:
            lines.append(f"Connection: {'' if self.keep_alive else 'close, '}Upgrade\r\n")
            count += 1
        elif not self.keep_alive:
            lines.append("Connection: close\r\n")
            count += 1
        elif request.is_http_1_0:
            lines.append("Connection: keep-alive\r\n")
            count += 1
        return encode_head(lines, count, self.common)

    def _is_sent(self, name: str, value: str) -> bool:
        """Take notice of a field that concerns us; True if it is sent as it is.

        :raises ResponseError: the field is not the application's to send.
        """
        if name == "Content-Length" or (type(name) is str and name.lower() == "content-length"):
            if self._length is not None or not (value.isascii() and value.isdigit()):
                raise ResponseError(f"the Content-Length {value!r} is no number, or the second one")
            self._length = int(value)
            # To a 204 it must not be sent (RFC 9110, 8.6), and Django sends one of 0.
            return not (self.status[:3] == "204" or self.status[0] == "1")
        if type(name) is not str or not _NAME.fullmatch(name):
            raise ResponseError(f"{name!r} is no name of a header field")
        lower = name.lower()
        if lower == "upgrade" and self.status.startswith("426"):
            self._upgrades = True  # RFC 9110, 15.5.22 asks for it, so PEP 3333 cannot mean it
        elif lower in _HOP_BY_HOP:
            if lower == "connection" and value.lower() == "close":
                self.keep_alive = False
                return False  # ours says it
            raise ResponseError(f"{name} is the server's header (hop-by-hop, PEP 3333)")
        elif lower in _OURS:
            self.common = _without(self.common, lower)
        elif len(_ordinary) < _KEPT:
            _ordinary.add(name)
        return True

    def _cut(self, data: bytes) -> bytes:
        if self._length is not None and self.sent + len(data) > self._length:
            self.truncated = True
            return data[: self._length - self.sent]
        return data

    def _send_body(self, data: bytes) -> None:
        if self.has_no_body:
            return
        data = self._cut(data)
        if not data:
            return
        self.sent += len(data)
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._send(data)


def _check_status(status: str) -> None:
    if type(status) is not str or not _STATUS.fullmatch(status):
        raise ResponseError(f"the status {status!r} is not 'NNN Reason'")
    if len(_statuses) < _KEPT:
        _statuses.add(status)


def encode_head(lines: Iterable[str], count: int, common: str) -> bytes:
    """Lines of a head as bytes, with ``common`` and an empty line behind them.

    :param count: the line ends that ``lines`` should have.
    """
    try:
        text = "".join(lines)
        if text.count("\n") != count or text.count("\r") != count or "\0" in text:
            raise ResponseError("a header has CR, LF or NUL in it")
        return (text + common + "\r\n").encode("latin-1")
    except (TypeError, UnicodeEncodeError) as error:
        raise ResponseError(f"a header is not a latin-1 string: {error}") from None


def interim_head(status: str, headers: Headers) -> bytes:
    """The head of an interim response (1xx), which has no fields of the server's own.

    :raises ResponseError: a field is no text of one line, has no proper name, or is hop-by-hop.
    """
    lines = ["HTTP/1.1 ", status, "\r\n"]
    for name, value in headers:
        if type(name) is not str or not _NAME.fullmatch(name) or name.lower() in _NOT_INTERIM:
            raise ResponseError(f"{name!r} is no field of an interim response")
        lines += (name, ": ", value, "\r\n")
    return encode_head(lines, len(headers) + 1, "")


def _single(pieces: Iterable[bytes]) -> int:
    """len() of what the application returned; 0 when it has none and must be iterated.

    Django's HttpResponse has ``streaming`` False and yields its content in one piece.
    """
    if getattr(pieces, "streaming", True) is False:
        return 1
    try:
        return len(pieces)  # type: ignore[arg-type]
    except TypeError:
        return 0


def _without(common: str, name: str) -> str:
    return "".join(
        line for line in common.splitlines(keepends=True) if not line.lower().startswith(name + ":")
    )
