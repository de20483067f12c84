"""An accepted handshake: how an exchange leaves HTTP.  Pure but for the protocol that it opens."""

from collections.abc import Callable, Iterable
from typing import Any

from gpulse.connection.connection import Protocol
from gpulse.http.response import Headers, encode_head


class Upgrade:
    """An accepted handshake.

    :param headers: the fields of the 101 response that the handshake decides.
    :param open_protocol: called on the hub with the connection and the bytes that followed the
        handshake; returns what the connection speaks from now on.
    """

    __slots__ = ("headers", "open_protocol")

    def __init__(
        self, headers: Iterable[tuple[str, str]], open_protocol: Callable[[Any, bytes], Protocol]
    ) -> None:
        self.headers = list(headers)
        self.open_protocol = open_protocol

    def head(self, common: str, application_headers: Headers) -> bytes:
        """The 101 response; cookies and such that the view's middleware set go along."""
        lines = ["HTTP/1.1 101 Switching Protocols\r\n"]
        count = 1
        for name, value in [*self.headers, *application_headers]:
            if name.lower() not in ("content-type", "content-length"):
                lines += (name, ": ", value, "\r\n")
                count += 1
        return encode_head(lines, count, common)
