"""The head of a request: bytes in, a :class:`Request` without its body out.  Pure.

llhttp (in httptools) does the tokenizing; this module adds what a server must refuse besides, and
turns header fields into keys of the environ as they come.  Sources: RFC 9110, RFC 9112, RFC 3875.

llhttp is fed one whole head, up to the empty line, and never a body: framing is then decided here,
by rules that stand in one place, and no upgrade or body can shift where it believes to be.

Header names with an underscore are dropped: ``X_Forwarded_For`` would otherwise become the same key
as ``X-Forwarded-For``, and a proxy that strips one does not strip the other.  ``Proxy`` is
dropped: its key is the environment variable HTTP_PROXY of CGI days (CVE-2016-5385).
"""

import re

import httptools

from gpulse.http.limits import Limits
from gpulse.http.request import Request, RequestError

_PLAIN = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}
_DROPPED = frozenset((b"proxy",))
_NAMES_KEPT = 1000
_HOSTS_KEPT = 1000
_LONGEST_KEPT = 100  # characters

_names: dict[bytes, str] = {}
"""Header name as sent -> environ key, "" for a dropped one.  Bounded: names come from clients."""
_hosts: set[str] = set()
"""Values of Host that were found good.  Bounded, too."""

_SINGLE = {
    "HTTP_HOST": "two Host fields",
    "CONTENT_LENGTH": "two Content-Length fields",
    "CONTENT_TYPE": "two Content-Type fields",
    "HTTP_TRANSFER_ENCODING": "two Transfer-Encoding fields",
}
"""Fields that may stand in a request once at most: two readers could disagree about two."""

_REQUEST_LINE = re.compile(rb"[A-Z]+ [^ ]+ HTTP/([0-9]\.[0-9])\r\n")
_NOT_IN_A_TARGET = re.compile(rb"[^\x21\x22\x24-\x7e]")
_HOST = re.compile(r"(?:[\w.~%!$&'()*+;=-]*|\[[0-9A-Fa-fv:.]+\])(?::[0-9]*)?", re.ASCII)


def environ_key(name: bytes) -> str:
    """The environ key of a header field's name; "" if the field is not passed on."""
    lower = name.lower()
    if b"_" in name or lower in _DROPPED:
        key = ""
    else:
        key = _PLAIN.get(lower) or "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if len(_names) < _NAMES_KEPT and len(name) <= _LONGEST_KEPT:
        _names[name] = key
    return key


class HeadParser:
    """Heads, one after the other, of any number of connections.

    :param limits: ``request_line``, ``header_count`` and ``body``.
    """

    _fields: dict[str, str]
    _target: bytes

    __slots__ = (
        "_extra",
        "_fields",
        "_goes_on",
        "_is_complete",
        "_limits",
        "_llhttp",
        "_target",
        "_twice",
        "_wants_upgrade",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._begin()

    def _begin(self) -> None:
        """Know nothing of an earlier head."""
        self._llhttp = httptools.HttpRequestParser(self)

    def parse(self, head: bytes) -> Request:
        """Parse one head, from its method to its empty line.

        :returns: the request; its body is not there yet.
        :raises RequestError: with the status to answer.
        """
        self._target = b""
        self._fields = {}
        self._extra = 0  # fields that made no key of their own
        self._twice = ""
        self._is_complete = False
        broken = ""  # not the error itself: it would refer to this frame, and that to it
        try:
            self._llhttp.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # it stands behind the head, where we are, too
        except httptools.HttpParserInvalidMethodError:
            broken = "not an HTTP method"
        except httptools.HttpParserError as error:
            broken = str(error) or "not HTTP"
        try:
            if not self._is_complete:
                # Without an error: PRI, with which HTTP/2 begins and goes on.
                raise RequestError(_status_of_broken(head), broken or "not a whole head")
            request = self._request(head)
            if broken:
                raise RequestError(400, broken)
        except RequestError:
            self._begin()
            raise
        if self._wants_upgrade or request.has_body or not self._goes_on:
            self._begin()  # llhttp would read on in a body, or nothing more
        return request

    # -- llhttp's callbacks

    def on_url(self, piece: bytes) -> None:
        self._target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        key = _names.get(name)
        if key is None:
            key = environ_key(name)
        if key:
            fields = self._fields
            if key in fields:
                self._again(key, value)
            else:
                fields[key] = value.decode("latin-1")
        else:
            self._extra += 1

    def _again(self, key: str, value: bytes) -> None:
        self._extra += 1
        if key in _SINGLE:
            self._twice = self._twice or key
        # RFC 9110, 5.3: a list, but for cookies, which RFC 6265 joins by semicolons.
        separator = "; " if key == "HTTP_COOKIE" else ","
        # The end of the last value is stripped with all others; here it would be in the middle.
        before = self._fields[key].rstrip(" \t")
        self._fields[key] = before + separator + value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._is_complete = True
        self._goes_on = self._llhttp.should_keep_alive()
        self._wants_upgrade = self._llhttp.should_upgrade()

    # -- what llhttp lets pass and a server must not

    def _request(self, head: bytes) -> Request:
        limits, target, fields = self._limits, self._target, self._fields
        if len(target) > limits.request_line:
            raise RequestError(414, "the request target is too long")
        if len(fields) + self._extra > limits.header_count:
            raise RequestError(431, "too many header fields")
        if self._twice:
            raise RequestError(400, _SINGLE[self._twice])
        request = Request()
        method = request.method = self._llhttp.get_method().decode("ascii")
        request.target = target
        request.fields = fields
        # One space each: llhttp skips several, and speaks RTSP and ICE, too.
        behind_target = len(method) + 1 + len(target)
        if not head.startswith(b" HTTP/1.1\r\n", behind_target):
            if not head.startswith(b" HTTP/1.0\r\n", behind_target):
                raise RequestError(_status_of_broken(head), "not HTTP/1.1 or HTTP/1.0")
            request.is_http_1_0 = True
        if b" \r\n" in head or b"\t\r\n" in head:
            # White space around a value is no part of it (RFC 9112, 5.1); llhttp leaves it behind.
            for key, value in fields.items():
                fields[key] = value.rstrip(" \t")
        host = fields.get("HTTP_HOST")
        if host not in _hosts:
            check_host(host, request.is_http_1_0)
        if method == "CONNECT":
            raise RequestError(405, "CONNECT")
        if target[:1] != b"/" or _NOT_IN_A_TARGET.search(target):
            request.target = origin_form(method, target, host)
        if not _CONCERN_THE_CONNECTION.isdisjoint(fields):
            check_connection(request, limits)
            request.upgrade = request.upgrade and self._wants_upgrade
        elif request.is_http_1_0:
            request.keep_alive = False
        return request


def _status_of_broken(head: bytes) -> int:
    """505 for a request line that would be one in another version of HTTP."""
    version = _REQUEST_LINE.match(head)
    return 505 if version is not None and version[1] not in (b"1.0", b"1.1") else 400


def check_host(host: str | None, is_http_1_0: bool) -> None:
    """Check the value of Host (RFC 9112, 3.2), and remember a good one.

    :raises RequestError: 400; there is none, or it is no host with or without a port.
    """
    if host is None:
        if not is_http_1_0:
            raise RequestError(400, "no Host field")
    elif not _HOST.fullmatch(host):
        raise RequestError(400, "a Host that is no host and port")
    elif len(_hosts) < _HOSTS_KEPT and len(host) <= _LONGEST_KEPT:
        _hosts.add(host)


_CONCERN_THE_CONNECTION = frozenset(
    ("CONTENT_LENGTH", "HTTP_CONNECTION", "HTTP_EXPECT", "HTTP_TRANSFER_ENCODING", "HTTP_UPGRADE")
)


def check_connection(request: Request, limits: Limits) -> None:
    """Check the fields that say how the connection goes on; fill in the framing.

    :raises RequestError: with the status to answer.
    """
    fields = request.fields
    if "HTTP_TRANSFER_ENCODING" in fields:
        _check_coding(request, fields.pop("HTTP_TRANSFER_ENCODING"))
    elif "CONTENT_LENGTH" in fields:
        length = fields["CONTENT_LENGTH"]
        if not (length.isascii() and length.isdigit()) or len(length) > 19:
            raise RequestError(400, "a Content-Length that is no number")
        request.content_length = int(length)
        request.has_body = request.content_length > 0
        if request.content_length > limits.body:
            raise RequestError(413, "the body is too long")
    # Not as llhttp sees it, which takes Proxy-Connection for the same field.
    connection = fields.get("HTTP_CONNECTION", "").lower()
    options = [option.strip(" \t") for option in connection.split(",")]
    request.keep_alive = "close" not in options and (
        not request.is_http_1_0 or "keep-alive" in options
    )
    if "HTTP_EXPECT" in fields:
        if fields["HTTP_EXPECT"].lower() != "100-continue":
            raise RequestError(417, "an unknown expectation")
        request.expects_continue = not request.is_http_1_0
    if "HTTP_UPGRADE" in fields:
        request.upgrade = (
            fields["HTTP_UPGRADE"].lower() == "websocket"
            and request.method == "GET"
            and not (request.has_body or request.is_http_1_0)
        )


def _check_coding(request: Request, coding: str) -> None:
    if "CONTENT_LENGTH" in request.fields or request.is_http_1_0:
        raise RequestError(400, "Transfer-Encoding with Content-Length or in HTTP/1.0")
    coding = coding.lower()
    if coding != "chunked":
        # identity was one until RFC 7230; who sends it may read on to another end.
        status = 400 if coding in ("identity", "") else 501
        raise RequestError(status, "an unknown transfer coding")
    request.chunked = request.has_body = True


def origin_form(method: str, target: bytes, host: str | None) -> bytes:
    """The target as ``/path?query`` or ``*`` (RFC 9112, 3.2).

    :raises RequestError: 400 for a target that is none, or that names another host than ``Host``.
    """
    if _NOT_IN_A_TARGET.search(target):
        raise RequestError(400, "a target with bytes that must be percent-encoded")
    if target.startswith(b"/") or (target == b"*" and method == "OPTIONS"):
        return target
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise RequestError(400, "a target that is neither a path nor a URL")
    end = re.search(rb"[/?]", rest)
    authority = rest[: end.start()] if end else rest
    if not authority or (host is not None and authority.lower() != host.lower().encode("latin-1")):
        raise RequestError(400, "a target for another host than Host says")
    path = rest[end.start() :] if end else b"/"
    return path if path.startswith(b"/") else b"/" + path
