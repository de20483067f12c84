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

from gpulse.http.parser import Request

_STATUS = re.compile(r"[1-9][0-9][0-9](?: [^\r\n\x00]*)?")
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
Headers = list[tuple[str, str]]


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
        "_common",
        "_headers",
        "_length",
        "_request",
        "_send",
        "head_sent",
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
        self._common = common
        self._headers: Headers = []
        self._length: int | None = None
        self._chunked = False
        self.status = ""
        self.keep_alive = keep_alive
        self.head_sent = False
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
        if type(status) is not str or not _STATUS.fullmatch(status):
            raise ResponseError(f"the status {status!r} is not 'NNN Reason'")
        self.status = status
        self._headers = headers
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
        is_sequence = type(pieces) is list or type(pieces) is tuple
        size = len(pieces) if is_sequence else _single(pieces)  # type: ignore[arg-type]
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

    def send_file(self, size: int | None, blocks: Iterable[bytes]) -> None:
        """Send a file's blocks; ``size``, its length in bytes, is the Content-Length unless one
        was given."""
        if size is not None and not self.head_sent and not self._named("content-length"):
            self._headers = [*self._headers, ("Content-Length", str(size))]
        for block in blocks:
            self.write(block)
            if self.has_no_body or (self._length is not None and self.sent >= self._length):
                break
        self.truncated = False  # a Content-Length shorter than the file means a range of it
        self.finish()

    # -- inside

    def _named(self, name: str) -> bool:
        return any(key.lower() == name for key, _ in self._headers)

    def _start(self, data: bytes, complete: bool) -> None:
        has_no_body = self.has_no_body
        head = self._head(len(data) if complete else None)
        self.head_sent = True
        if has_no_body:
            self._send(head)
        elif not data:
            self._send(head)
            if complete and self._length:
                self.keep_alive = False
        else:
            data = self._cut(data)
            self.sent += len(data)
            if self._chunked:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            if len(data) < 65536:
                self._send(head + data)
            else:
                self._send(head)
                self._send(data)
            if complete and self._length is not None and self.sent < self._length:
                self.keep_alive = False

    def _head(self, size: int | None) -> bytes:
        """The head as bytes.

        :param size: the body's length, None when it is not known yet.
        """
        request = self._request
        lines = ["HTTP/1.1 ", self.status, "\r\n"]
        # The separators are counted so that one look at the whole head finds a CR, LF or NUL that
        # an application let through (response splitting).
        count = 1
        upgrades = False
        common = self._common
        for name, value in self._headers:
            lower = name.lower()
            if lower == "content-length":
                self._length = _length(value, self._length)
                if self.status[:3] == "204" or self.status[0] == "1":
                    continue  # it must not be sent (RFC 9110, 8.6), and Django sends one of 0
            elif lower == "upgrade" and self.status.startswith("426"):
                upgrades = True  # RFC 9110, 15.5.22 asks for it, so PEP 3333 cannot mean it
            elif lower in _HOP_BY_HOP:
                if lower == "connection" and value.lower() == "close":
                    self.keep_alive = False
                    continue  # ours says it
                raise ResponseError(f"{name} is the server's header (hop-by-hop, PEP 3333)")
            elif lower == "date" or lower == "server":
                common = _without(common, lower)
            lines += (name, ": ", value, "\r\n")
            count += 1
        code = self.status[:3]
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
        if upgrades:
            lines.append(f"Connection: {'' if self.keep_alive else 'close, '}Upgrade\r\n")
            count += 1
        elif not self.keep_alive:
            lines.append("Connection: close\r\n")
            count += 1
        elif request.is_http_1_0:
            lines.append("Connection: keep-alive\r\n")
            count += 1
        try:
            text = "".join(lines)
            if text.count("\n") != count or text.count("\r") != count or "\0" in text:
                raise ResponseError("a header has CR, LF or NUL in it")
            return (text + common + "\r\n").encode("latin-1")
        except (TypeError, UnicodeEncodeError) as error:
            raise ResponseError(f"a header is not a latin-1 string: {error}") from None

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


def _length(value: str, before: int | None) -> int:
    if before is not None or not value.isascii() or not value.isdigit():
        raise ResponseError(f"the Content-Length {value!r} is no number, or the second one")
    return int(value)


def _without(common: str, name: str) -> str:
    return "".join(
        line for line in common.splitlines(keepends=True) if not line.lower().startswith(name + ":")
    )


def plain_response(status: str, keep_alive: bool, common: str, extra: str = "") -> bytes:
    """A whole text/plain response of the server's own.

    :param extra: further header lines, each ended by CRLF.
    """
    body = status + "\n"
    connection = "" if keep_alive else "Connection: close\r\n"
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n{extra}{connection}{common}\r\n{body}"
    ).encode("latin-1")
