"""The server's own answers: to what is no proper request, and to one that is not run.  Pure."""

from typing import Any

REASONS = {
    400: "400 Bad Request",
    405: "405 Method Not Allowed",
    408: "408 Request Timeout",
    413: "413 Content Too Large",
    414: "414 URI Too Long",
    417: "417 Expectation Failed",
    431: "431 Request Header Fields Too Large",
    501: "501 Not Implemented",
    503: "503 Service Unavailable",
    505: "505 HTTP Version Not Supported",
    507: "507 Insufficient Storage",
}
_EXTRA = {
    405: "Allow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT\r\n",
    503: "Retry-After: 1\r\n",
}


def refusal(status: int, common: str, *, is_head: bool = False) -> bytes:
    """The answer that refuses, after which the connection ends.

    :param common: the header lines of every response, each ended by CRLF.
    """
    extra = _EXTRA.get(status, "")
    return plain_response(REASONS[status], False, common, extra, is_head=is_head)


def plain_response(
    status: str, keep_alive: bool, common: str, extra: str = "", *, is_head: bool = False
) -> bytes:
    """A whole text/plain response of the server's own.

    :param extra: further header lines, each ended by CRLF.
    :param is_head: it answers a HEAD, and has no body.
    """
    body = status + "\n"
    connection = "" if keep_alive else "Connection: close\r\n"
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n{extra}{connection}{common}\r\n{'' if is_head else body}"
    ).encode("latin-1")


def peer_text(peer: Any) -> str:
    """A peer's address for a log line."""
    if isinstance(peer, tuple):
        return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
    return "unix"
