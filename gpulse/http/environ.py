"""From a parsed request to the environ of PEP 3333.  Pure."""

import io
import socket
import sys
from typing import Any
from urllib.parse import unquote_to_bytes

from gpulse.http.request import Request


def listener_environ(
    listener: socket.socket, mode: str, workers: int, scheme: str = "http"
) -> dict[str, Any]:
    """The part of the environ that all requests of one listener share.

    :param mode: "greenlet" or "thread"; both may call the application again before it returned.
    :param scheme: "https" where the listener speaks TLS.
    """
    name: str | bytes | tuple[Any, ...] = listener.getsockname()
    host, port = (name[0], str(name[1])) if isinstance(name, tuple) else ("localhost", "")
    return {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": workers > 1,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "SCRIPT_NAME": "",
        "SERVER_NAME": host,
        "SERVER_PORT": port or ("443" if scheme == "https" else "80"),
        "SERVER_SOFTWARE": "gpulse",
        "gpulse.mode": mode,
    }


def request_environ(request: Request, base: dict[str, Any], peer: Any) -> dict[str, Any]:
    """A new environ; ``base`` comes from :func:`listener_environ`.

    :param peer: (host, port, ...) for TCP; anything else means a unix socket, whose peer has no
        address.
    """
    target = request.target.decode("latin-1")
    path, _, query = target.partition("?")
    if "%" in path:
        path = unquote_to_bytes(path).decode("latin-1")
    environ = {**base, **request.fields}
    environ["REQUEST_METHOD"] = request.method
    environ["PATH_INFO"] = path
    environ["QUERY_STRING"] = query
    environ["RAW_URI"] = target
    environ["SERVER_PROTOCOL"] = "HTTP/1.0" if request.is_http_1_0 else "HTTP/1.1"
    if type(peer) is tuple:
        environ["REMOTE_ADDR"] = peer[0]
        environ["REMOTE_PORT"] = str(peer[1])
    else:
        environ["REMOTE_ADDR"] = ""
    if request.chunked:
        environ["CONTENT_LENGTH"] = str(request.body_size)
    environ["wsgi.input"] = body_file(request)
    return environ


def body_file(request: Request) -> Any:
    """The body as a file at its beginning: memory, or the temporary file it was spooled to."""
    if request.spool is not None:
        return request.spool
    if not request.body:
        return io.BytesIO()
    body, request.body = request.body, []
    return io.BytesIO(body[0] if len(body) == 1 else b"".join(body))
