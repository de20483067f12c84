"""The request parser: bytes in, requests out.  Pure: no socket, no clock, no file.

llhttp (in httptools) does the tokenizing; this module adds what a server must refuse besides,
bounds every part, and turns callbacks into :class:`Request` objects.  Sources: RFC 9110, RFC 9112.

* :meth:`RequestParser.feed` never raises; what is wrong ends up in ``error``, once, behind the
  requests that were complete before it.  After an error, after ``Connection: close`` and after an
  upgrade request nothing more is parsed.
* Requests come out in order; a request is complete when its whole body is there.
"""

import re
from collections import deque
from typing import BinaryIO

import httptools

from gpulse.http.limits import Limits


class RequestError(Exception):
    """A request that is refused: ``status`` for the client, ``reason`` for the log."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class Request:
    """One parsed request.

    ``body`` holds the pieces that are in memory; a server that spools takes them from there.
    """

    __slots__ = (
        "body",
        "body_size",
        "chunked",
        "content_length",
        "expects_continue",
        "head_complete",
        "headers",
        "is_http_1_0",
        "keep_alive",
        "method",
        "spool",
        "spooled",
        "target",
        "upgrade",
    )

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_http_1_0 = False
        self.keep_alive = True
        self.expects_continue = False
        self.upgrade = False
        """A GET that asks for a WebSocket; the bytes behind its head may be frames."""
        self.chunked = False
        self.content_length = 0
        self.head_complete = False
        self.body: list[bytes] = []
        self.body_size = 0
        self.spool: BinaryIO | None = None
        """Where the server moved the first part of a large body."""
        self.spooled = 0
        """Bytes of that part; the rest of ``body_size`` is in memory."""

    def discard_spool(self) -> None:
        """Delete what was spooled; the request is answered or refused."""
        if self.spool is not None:
            self.spool.close()
            self.spool = None


# Fields that may stand in a request once at most: two of them mean two readers could disagree.
_SINGLE = frozenset((b"host", b"content-length", b"content-type", b"transfer-encoding"))


class RequestParser:
    """See the module's text.

    :param limits: the bounds.
    """

    __slots__ = (
        "_head_bytes",
        "_llhttp",
        "_overhead",
        "_replaying",
        "_stopped",
        "at_upgrade",
        "current",
        "error",
        "limits",
        "requests",
        "rest",
    )

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests: deque[Request] = deque()
        """Complete requests, oldest first."""
        self.current: Request | None = None
        """The request that has begun and is not complete."""
        self.error: RequestError | None = None
        self.rest = b""
        """What followed an upgrade request: frames, or the next request if the upgrade is
        declined."""
        self.at_upgrade = False
        """Parsing stands behind an upgrade request and goes on with :meth:`resume`."""
        self._stopped = False
        self._head_bytes = 0
        self._overhead = 0  # bytes of a chunked request that are no data, once a feed is parsed
        self._replaying = False
        self._llhttp: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)

    # -- for the server

    def feed(self, data: bytes) -> None:
        """Parse the next bytes of the connection."""
        if self._stopped:
            return
        current = self.current
        if current is None or not current.head_complete:
            self._head_bytes += len(data)
        self._overhead += len(data)
        self._execute(data)
        current = self.current
        if self._stopped:
            return
        # What llhttp holds back of an unfinished head is counted by what was fed.
        if current is not None and current.head_complete:
            # A chunk of one byte carries five of framing, and is no attack.
            most = self.limits.chunk_overhead + 8 * current.body_size
            if current.chunked and self._overhead > most:
                self._fail(400, "chunk sizes, extensions and trailers are too long")
        elif current is not None:
            if len(current.target) > self.limits.request_line:
                self._fail(414, "the request target is too long")
            elif self._head_bytes > self.limits.head:
                self._fail(431, "the request head is too long")
        elif not self.requests and self._head_bytes > self.limits.head:
            self._fail(400, "nothing but empty lines")

    def resume(self) -> None:
        """Go on as HTTP after an upgrade request was answered with something else than 101."""
        rest, self.rest = self.rest, b""
        self._stopped = self.at_upgrade = False
        self._llhttp = httptools.HttpRequestParser(self)
        if rest:
            self.feed(rest)

    def stop(self) -> None:
        """Parse nothing more and let go of llhttp, which refers back to this object."""
        self._stopped = True
        self._llhttp = None

    # -- inside

    def _fail(self, status: int, reason: str) -> None:
        self.error = RequestError(status, reason)
        self.stop()

    def _execute(self, data: bytes) -> None:
        assert self._llhttp is not None
        try:
            self._llhttp.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, RequestError):
                raise
            self.error = cause
            self.stop()
        except httptools.HttpParserError as error:
            self._refused(error)

    def _refused(self, error: httptools.HttpParserError) -> None:
        if self.requests and not self.requests[-1].keep_alive and self.current is None:
            self.stop()  # bytes behind `Connection: close` are nobody's
            return
        if isinstance(error, httptools.HttpParserInvalidMethodError):
            self._fail(400, "not an HTTP method")
        else:
            self._fail(400, str(error))

    def _upgraded(self, rest: bytes) -> None:
        """llhttp saw a request with ``Upgrade`` or CONNECT and stopped behind its head."""
        if self.requests and self.requests[-1].upgrade and self.current is None:
            self._stopped = self.at_upgrade = True
            self.rest = rest
            return
        # Any other upgrade is ignored (RFC 9110, 7.8): go on behind the head, with the body if
        # there is one.  llhttp would take the body for the other protocol, so a fresh one is put
        # on the track of this request's framing.
        self._llhttp = httptools.HttpRequestParser(self)
        request = self.current
        if request is not None:
            framing = (
                b"Transfer-Encoding: chunked"
                if request.chunked
                else b"Content-Length: %d" % request.content_length
            )
            self._replaying = True
            self._llhttp.feed_data(b"POST / HTTP/1.1\r\nHost: _\r\n" + framing + b"\r\n\r\n")
            self._replaying = False
        if rest:
            self._execute(rest)

    # -- llhttp's callbacks; what they raise comes back as the context of HttpParserCallbackError

    def on_message_begin(self) -> None:
        if self.current is None:
            self.current = Request()

    def on_url(self, piece: bytes) -> None:
        request = self.current
        assert request is not None
        if not request.head_complete:
            request.target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self.current
        assert request is not None
        if request.head_complete:
            if name.lower() in _SINGLE and not self._replaying:
                raise RequestError(400, "a trailer that may not be one")
            return
        request.headers.append((name, value))
        if len(request.headers) > self.limits.header_count:
            raise RequestError(431, "too many header fields")

    def on_headers_complete(self) -> None:
        request = self.current
        assert request is not None
        assert self._llhttp is not None
        if request.head_complete:
            return
        request.head_complete = True
        llhttp = self._llhttp
        request.method = llhttp.get_method().decode("ascii")
        version = llhttp.get_http_version()
        if version == "1.0":
            request.is_http_1_0 = True
        elif version != "1.1":
            # A request line without a version is no request of ours, nor of HTTP/1.
            raise RequestError(400 if version == "0.9" else 505, f"HTTP/{version}")
        request.keep_alive = llhttp.should_keep_alive()
        check_head(request, self.limits)
        request.upgrade = request.upgrade and llhttp.should_upgrade()
        if request.method == "CONNECT":
            raise RequestError(405, "CONNECT")
        if self._head_bytes > self.limits.head or request.chunked:
            size = head_size(request)
            if size > self.limits.head:
                raise RequestError(431, "the request head is too long")
            self._overhead -= size
        self._head_bytes = 0

    def on_body(self, piece: bytes) -> None:
        request = self.current
        assert request is not None
        request.body.append(piece)
        request.body_size += len(piece)
        self._overhead -= len(piece)
        if request.body_size > self.limits.body:
            raise RequestError(413, "the body is too long")

    def on_message_complete(self) -> None:
        request = self.current
        assert request is not None
        assert self._llhttp is not None
        if request.content_length > request.body_size and self._llhttp.should_upgrade():
            return  # the head of a request whose body llhttp took for another protocol
        if request.chunked and not request.body_size and self._llhttp.should_upgrade():
            return
        self.current = None
        self._head_bytes = 0
        self._overhead = 0
        self.requests.append(request)


_NOT_A_TARGET = re.compile(rb"[^\x21-\x7e]")
_HOST = re.compile(rb"(?:[\w.~%!$&'()*+;=-]*|\[[0-9A-Fa-fv:.]+\])(?::[0-9]*)?")


def head_size(request: Request) -> int:
    """Bytes of the head as it was sent, but for white space around values."""
    line = len(request.method) + len(request.target) + len("  HTTP/1.1\r\n")
    fields = sum(len(name) + len(value) + len(": \r\n") for name, value in request.headers)
    return line + fields + len("\r\n")


def origin_form(method: str, target: bytes, host: bytes | None) -> bytes:
    """The target as ``/path?query`` or ``*`` (RFC 9112, 3.2).

    :raises RequestError: 400 for a target that is none, or that names another host than ``Host``.
    """
    if _NOT_A_TARGET.search(target):
        raise RequestError(400, "a target with bytes that must be percent-encoded")
    if target.startswith(b"/") or (target == b"*" and method == "OPTIONS") or method == "CONNECT":
        return target
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise RequestError(400, "a target that is neither a path nor a URL")
    end = re.search(rb"[/?]", rest)
    authority = rest[: end.start()] if end else rest
    if host is not None and authority.lower() != host.lower():
        raise RequestError(400, "a target for another host than Host says")
    path = rest[end.start() :] if end else b"/"
    return path if path.startswith(b"/") else b"/" + path


def check_head(request: Request, limits: Limits) -> None:
    """What llhttp lets pass and a server must not; fills in the framing.

    :raises RequestError: with the status to answer.
    """
    if len(request.target) > limits.request_line:
        raise RequestError(414, "the request target is too long")
    host: bytes | None = None
    length: bytes | None = None
    coding: bytes | None = None
    content_type = False
    upgrade = b""
    for name, value in request.headers:
        size = len(name)
        # Lengths first: most fields need no lower-casing at all.
        if size == 4 and name.lower() == b"host":
            if host is not None:
                raise RequestError(400, "two Host fields")
            if not _HOST.fullmatch(value):
                raise RequestError(400, "a Host that is no host and port")
            host = value
        elif size == 14 and name.lower() == b"content-length":
            if length is not None:
                raise RequestError(400, "two Content-Length fields")
            length = value
        elif size == 12 and name.lower() == b"content-type":
            if content_type:
                raise RequestError(400, "two Content-Type fields")
            content_type = True
        elif size == 17 and name.lower() == b"transfer-encoding":
            if coding is not None:
                raise RequestError(400, "two Transfer-Encoding fields")
            coding = value
        elif size == 7 and name.lower() == b"upgrade":
            upgrade = value
        elif size == 6 and name.lower() == b"expect":
            if value.lower() != b"100-continue":
                raise RequestError(417, "an unknown expectation")
            request.expects_continue = not request.is_http_1_0
    if host is None and not request.is_http_1_0:
        raise RequestError(400, "no Host field")
    request.target = origin_form(request.method, request.target, host)
    if coding is not None:
        if length is not None or request.is_http_1_0:
            raise RequestError(400, "Transfer-Encoding with Content-Length or in HTTP/1.0")
        if coding.lower() != b"chunked":
            # identity was one until RFC 7230; who sends it may read on to another end.
            status = 400 if coding.lower() == b"identity" else 501
            raise RequestError(status, "an unknown transfer coding")
        request.chunked = True
    elif length is not None:
        if not length.isdigit() or len(length) > 19:
            raise RequestError(400, "a Content-Length that is no number")
        request.content_length = int(length)
        if request.content_length > limits.body:
            raise RequestError(413, "the body is too long")
    if upgrade.lower() == b"websocket" and request.method == "GET":
        request.upgrade = not (request.chunked or request.content_length or request.is_http_1_0)
