"""From a parsed request to the environ of PEP 3333.

Pure.  Header names with an underscore are dropped: ``X_Forwarded_For`` would otherwise become the
same key as ``X-Forwarded-For``, and a proxy that strips one does not strip the other.  ``Proxy``
is dropped: its key is the environment variable HTTP_PROXY of CGI days (CVE-2016-5385).
"""

import io
import socket
import sys
from typing import Any
from urllib.parse import unquote_to_bytes

from gpulse.http.parser import Request

_PLAIN = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}
_DROPPED = frozenset((b"proxy", b"transfer-encoding"))
_NAMES_KEPT = 1000

_names: dict[bytes, str] = {}
"""Header name as sent -> environ key, "" for a dropped one.  Bounded: names come from clients."""


def environ_key(name: bytes) -> str:
    """The environ key of a header field's name; "" if the field is not passed on."""
    lower = name.lower()
    if b"_" in name or lower in _DROPPED:
        key = ""
    else:
        key = _PLAIN.get(lower) or "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if len(_names) < _NAMES_KEPT:
        _names[name] = key
    return key


def listener_environ(listener: socket.socket, mode: str, workers: int) -> dict[str, Any]:
    """The part of the environ that all requests of one listener share.

    :param mode: "greenlet" or "thread"; both may call the application again before it returned.
    """
    name: str | bytes | tuple[Any, ...] = listener.getsockname()
    host, port = (name[0], str(name[1])) if isinstance(name, tuple) else ("localhost", "")
    return {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": workers > 1,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "SCRIPT_NAME": "",
        "SERVER_NAME": host,
        "SERVER_PORT": port or "80",
        "SERVER_SOFTWARE": "gpulse",
        "gpulse.mode": mode,
    }


def request_environ(request: Request, base: dict[str, Any], peer: Any) -> dict[str, Any]:
    """A new environ; ``base`` comes from :func:`listener_environ`.

    :param peer: (host, port, ...) for TCP; anything else means a unix socket, whose peer has no
        address.
    """
    environ = base.copy()
    path, _, query = request.target.partition(b"?")
    if b"%" in path:
        path = unquote_to_bytes(path)
    environ["REQUEST_METHOD"] = request.method
    environ["PATH_INFO"] = path.decode("latin-1")
    environ["QUERY_STRING"] = query.decode("latin-1")
    environ["RAW_URI"] = request.target.decode("latin-1")
    environ["SERVER_PROTOCOL"] = "HTTP/1.0" if request.is_http_1_0 else "HTTP/1.1"
    if type(peer) is tuple:
        environ["REMOTE_ADDR"] = peer[0]
        environ["REMOTE_PORT"] = str(peer[1])
    else:
        environ["REMOTE_ADDR"] = ""
    for name, value in request.headers:
        key = _names.get(name)
        if key is None:
            key = environ_key(name)
        if not key:
            continue
        text = value.decode("latin-1")
        if key in environ:
            # RFC 9110, 5.3: a list, but for cookies, which RFC 6265 joins by semicolons.
            text = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + text
        environ[key] = text
    if request.chunked:
        environ["CONTENT_LENGTH"] = str(request.body_size)
    environ["wsgi.input"] = body_file(request)
    return environ


def body_file(request: Request) -> Any:
    """The body as a file at its beginning: memory, or the temporary file it was spooled to."""
    if request.spool is not None:
        return request.spool
    body = request.body
    request.body = []
    return io.BytesIO(body[0] if len(body) == 1 else b"".join(body))
