"""One request in flight: runs the application on a pool member and writes its response.

An exchange is submitted to the pool and called there.  From then until :meth:`Exchange._ended` it
holds the connection, so it may write to the socket itself; everything else that concerns the
connection it asks of the hub through ``pool.call_hub``.

A slow reader: what the kernel does not take is buffered by the connection and the pool member goes
on. Only an application that produces more while HIGH_WATER bytes wait is made to wait for the
reader.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from gpulse.connection.connection import HIGH_WATER, Protocol
from gpulse.http.environ import request_environ
from gpulse.http.files import FileWrapper
from gpulse.http.parser import Request
from gpulse.http.response import Headers, Response, ResponseError, plain_response

if TYPE_CHECKING:
    from gpulse.http.protocol import HttpProtocol

log = logging.getLogger("gpulse.http")


class ClientGone(OSError):  # noqa: N818 - an event, not a fault
    """The client closed the connection; there is nobody to write to."""


class Refusal(BaseException):
    """Raised beneath the application to answer with a plain response of the server's own.

    No Exception, for a framework would catch that and answer 500 with a traceback in the log.

    :param status: the status code.
    :param reason: one line for the client.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class Exchange:
    """See the module's text; made on the hub, called on the pool."""

    __slots__ = (
        "_connection",
        "_head",
        "_protocol",
        "_queued",
        "environ",
        "keep_alive",
        "request",
        "response",
        "server",
        "started",
        "switched",
        "upgrade",
    )

    def __init__(self, protocol: "HttpProtocol", request: Request, keep_alive: bool) -> None:
        self._protocol = protocol
        self._connection = protocol.connection
        self.server = protocol.server
        self.request = request
        self.keep_alive = keep_alive
        self.environ: dict[str, Any] = {}
        self.response: Response | None = None
        self.upgrade: Upgrade | None = None
        """Set by a view: what the connection becomes if the view's response has status 101."""
        self.switched = False
        """The connection speaks another protocol already."""
        self.started = 0.0
        self._queued = 0
        self._head = b""

    def __str__(self) -> str:
        """Method and path as they were sent, so that no escaped newline breaks a log line."""
        return f"{self.request.method} {self.request.target.partition(b'?')[0].decode('latin-1')}"

    @property
    def peer(self) -> Any:
        """The client's address as ``accept`` gave it."""
        return self._connection.peer

    # -- on the pool

    def __call__(self) -> None:
        """Run the application and write its response.

        Raises only what ends its member; the connection is given back whatever happens.
        """
        failed = True
        try:
            failed = not self._handle()
        finally:
            self.server.pool.call_hub(self._ended, failed)

    def _handle(self) -> bool:
        """True if the client has its response, or will."""
        server = self.server
        self.started = time.monotonic()
        # A worker that drains gives a connection this one response more.
        keep_alive = self.keep_alive and not server.draining
        response = self.response = Response(
            self.request, self.send, server.common_headers(), keep_alive
        )
        environ = self.environ = request_environ(
            self.request, self._protocol.base_environ, self._connection.peer
        )
        environ["gpulse.exchange"] = self
        websocket = None
        if self.request.upgrade:
            websocket = environ["wsgi.websocket"] = server.legacy_websocket(self)
        try:
            return self._run(environ, response)
        except ClientGone:
            log.debug("%s: the client left", self)
            return False
        except Refusal as refusal:
            return self._answer(response, f"{refusal.status} {refusal.reason}")
        except ResponseError as error:
            log.error("%s: %s", self, error)
            return self._answer(response, "500 Internal Server Error")
        except Exception:
            log.exception("%s: the application raised", self)
            return self._answer(response, "500 Internal Server Error")
        except BaseException as error:  # SystemExit, GreenletExit: the pool decides
            log.error("%s: ended by %r", self, type(error).__name__)
            raise
        finally:
            if websocket is not None:
                websocket.end()
            self.request.discard_spool()
            server.log_access(self)
            # Both refer back to the environ; without them it goes when its last user does.
            environ.pop("gpulse.exchange", None)
            environ.pop("wsgi.websocket", None)

    def _run(self, environ: dict[str, Any], response: Response) -> bool:
        """True if the response is whole on its way."""
        result = self.server.application(environ, response.start_response)
        try:
            if self.switched:
                return True
            if self.upgrade is not None and response.code == 101:
                # Made here, where a field that breaks the head can still be answered with a 500.
                self._head = self.upgrade.head(self.server.common_headers(), response._headers)
                return True
            if response.code == 101:
                raise ResponseError(
                    "status 101 without an upgrade: only a WebSocket view may send it"
                )
            if self.server.draining:
                response.keep_alive = False  # the drain began while the application worked
            if isinstance(result, FileWrapper) and not response.head_sent:
                read = self.server.pool.blocking
                response.send_file(result.remaining(), result.blocks(read))
            else:
                response.write_all(result)
        finally:
            self._close_result(result)
        if response.truncated:
            log.warning(
                "%s: the application wrote more than its Content-Length; the rest was cut", self
            )
        return True

    def _close_result(self, result: Any) -> None:
        """PEP 3333's close(); the response is out, so what it raises concerns the log alone."""
        close = getattr(result, "close", None)
        if close is None:
            return
        try:
            close()
        except Exception:
            log.exception("%s: close() raised", self)

    def _answer(self, response: Response, status: str) -> bool:
        """True if the client could still be told."""
        if response.head_sent or self.switched or self._connection.lost:
            return False
        response.keep_alive = False
        response.status = status
        try:
            self.send(plain_response(response.status, False, self.server.common_headers()))
        except ClientGone:
            return False
        return True

    def send(self, data: bytes) -> None:
        """Give bytes to the connection; waits while HIGH_WATER bytes are buffered.

        :raises ClientGone: nobody reads any more, or what is read is no HTTP any more.
        """
        connection = self._connection
        if self.switched:
            raise ClientGone("the connection speaks another protocol")
        if self._queued >= HIGH_WATER:
            self._wait_drained()
        if connection.lost:
            raise ClientGone("the client closed the connection")
        rest: bytes | memoryview = data
        if not self._queued:
            sent = connection.try_send(data)
            if connection.lost:
                raise ClientGone("the client closed the connection")
            if sent == len(data):
                return
            rest = memoryview(data)[sent:]
        self._queued += len(rest)
        self.server.pool.call_hub(self._protocol.enqueue, rest)

    def _wait_drained(self) -> None:
        waiter = self.server.pool.waiter()
        self.server.pool.call_hub(self._connection.when_drained, waiter.set)
        # Ends by itself: a reader that takes nothing for write_stall seconds is cut off, and a
        # lost connection counts as drained.
        while not waiter.wait(self.server.limits.write_stall):
            pass
        self._queued = 0

    def switch(self, upgrade: "Upgrade") -> None:
        """Leave HTTP now, while the application still runs: for code that loops over a WebSocket.

        :raises ClientGone: the client left before, or has begun to read an HTTP response.
        """
        response = self.response
        if response is None or response.head_sent:
            raise ClientGone("the request has its HTTP response")
        self.send(upgrade.head(self.server.common_headers(), []))
        # Not before: whoever sets it leaves the connection's release to the hub's switch.
        self.switched = True
        self.server.pool.call_hub(self._protocol.switch, upgrade)

    # -- on the hub

    def _ended(self, failed: bool) -> None:
        # The response refers back to us by its send; letting go of it here keeps both from the
        # garbage collector, which would otherwise run every hundred requests.
        response, self.response = self.response, None
        if self.switched:
            self.server.exchange_ended()
            return
        if response is None:
            self._protocol.exchange_ended(keep_alive=False, failed=True)
            return
        if not failed and self.upgrade is not None and response.code == 101:
            self._protocol.enqueue(self._head)
            self._protocol.switch(self.upgrade)
            self.server.exchange_ended()
            return
        self._protocol.exchange_ended(keep_alive=response.keep_alive and not failed, failed=failed)


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
                lines.append(f"{name}: {value}\r\n")
                count += 1
        text = "".join(lines)
        if text.count("\n") != count or text.count("\r") != count or "\0" in text:
            raise ResponseError("a header has CR, LF or NUL in it")
        return (text + common + "\r\n").encode("latin-1")
