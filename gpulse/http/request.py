"""One parsed request, and the error that refuses one."""

from typing import BinaryIO


class RequestError(Exception):
    """A request that is refused: ``status`` for the client, ``reason`` for the log."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class Request:
    """One request, whole when the parser gives it out.

    ``body`` holds the pieces that are in memory; a server that spools takes them from there.
    """

    __slots__ = (
        "body",
        "body_size",
        "chunked",
        "content_length",
        "expects_continue",
        "fields",
        "has_body",
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
        self.fields: dict[str, str] = {}
        """The header fields by their key in the environ; a repeated one is joined."""
        self.is_http_1_0 = False
        self.keep_alive = True
        self.expects_continue = False
        self.upgrade = False
        """A GET that asks for a WebSocket; the bytes behind it may be frames."""
        self.has_body = False
        """Bytes belong to it behind its head: chunks, or ``content_length`` of them."""
        self.chunked = False
        self.content_length = 0
        self.body: list[bytes] = []
        self.body_size = 0
        """Bytes of the body so far, framing not counted."""
        self.spool: BinaryIO | None = None
        """Where the server moved the first part of a large body."""
        self.spooled = 0
        """Bytes of that part; the rest of ``body_size`` is in memory."""

    def discard_body(self) -> None:
        """Forget the body and delete what was spooled; the request is answered or refused."""
        self.body = []
        if self.spool is not None:
            self.spool.close()
            self.spool = None
