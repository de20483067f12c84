"""How an exchange leaves HTTP: a handshake that was accepted (101), or a response without an end
(200), as an event stream.  Pure but for the protocol that it opens."""

from collections.abc import Callable, Iterable
from typing import Any

from gpulse.connection.connection import Protocol
from gpulse.http.response import Headers, encode_head

STREAM = "text/event-stream"
"""The content type of a response without an end."""


class Upgrade:
    """What the connection becomes when the view's response has the status ``status``.

    :param headers: the fields of the response that the handshake decides.
    :param open_protocol: called on the hub with the connection and the bytes that followed the
        handshake; returns what the connection speaks from now on.
    :param status: 101, or 200 for a body that ends with the connection.
    """

    __slots__ = ("headers", "open_protocol", "status")

    def __init__(
        self,
        headers: Iterable[tuple[str, str]],
        open_protocol: Callable[[Any, bytes], Protocol],
        status: int = 101,
    ) -> None:
        self.headers = list(headers)
        self.open_protocol = open_protocol
        self.status = status

    def suits(self, code: int, headers: Headers) -> bool:
        """Whether the response is still the view's: a middleware may have answered in its place."""
        if code != self.status:
            return False
        return code == 101 or any(
            name.lower() == "content-type" and value.startswith(STREAM) for name, value in headers
        )

    def head(self, common: str, application_headers: Headers) -> bytes:
        """The head of the response; cookies and such that the view's middleware set go along."""
        switches = self.status == 101
        lines = [f"HTTP/1.1 {'101 Switching Protocols' if switches else '200 OK'}\r\n"]
        left_out = ("content-type", "content-length") if switches else ("content-length",)
        count = 1
        for name, value in [*self.headers, *application_headers]:
            if name.lower() not in left_out:
                lines += (name, ": ", value, "\r\n")
                count += 1
        return encode_head(lines, count, common)
