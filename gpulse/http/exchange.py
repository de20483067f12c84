"""One request in flight: runs the application on a pool member and writes its response.

An exchange is submitted to the pool and called there.  From then until ``exchange_ended`` of its
protocol it holds the connection, so it may write to the socket itself; everything else that
concerns the connection it asks of the hub through ``pool.call_hub``.

A slow reader: what the kernel does not take is buffered by the connection and the pool member goes
on. Only an application that produces more while HIGH_WATER bytes wait is made to wait for the
reader.
"""

import itertools
import logging
import os
import time
from collections.abc import Iterable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gpulse.connection.connection import HIGH_WATER
from gpulse.http.accelerate import FileRoots, chosen_range, open_file, range_is_wanted
from gpulse.http.endings import ClientGone, Refusal, RequestTimeout
from gpulse.http.environ import request_environ
from gpulse.http.files import FileWrapper
from gpulse.http.forwarded import KEYS as FORWARDING
from gpulse.http.refusals import plain_response
from gpulse.http.request import Request
from gpulse.http.response import (
    Headers,
    Response,
    ResponseError,
    interim_head,
)
from gpulse.http.upgrade import Upgrade

if TYPE_CHECKING:
    from gpulse.http.protocol import HttpProtocol

GIVEN_UP = "503 Service Unavailable"

_NO_ENVIRON: Any = MappingProxyType({})
"""Shared by all exchanges that have not begun or have ended."""

FILE_IN_MEMORY = 65_536
"""Bytes of a file that are read at once, and sent together with the head."""

log = logging.getLogger("gpulse.http")


class Exchange:
    """See the module's text; made on the hub, called on the pool."""

    __slots__ = (
        "_claim",
        "_connection",
        "_protocol",
        "_queued",
        "_stopped",
        "abandoned",
        "due",
        "environ",
        "given_up",
        "keep_alive",
        "queued_at",
        "request",
        "request_id",
        "response",
        "served",
        "server",
        "started",
        "switched",
        "switching_head",
        "upgrade",
    )

    def __init__(self, protocol: "HttpProtocol", request: Request, keep_alive: bool) -> None:
        self._protocol = protocol
        self._connection = protocol.connection
        self.server = protocol.server
        self.request = request
        self.keep_alive = keep_alive
        self.environ: dict[str, Any] = _NO_ENVIRON
        """Empty before and after."""
        self.request_id = ""
        self.response: Response | None = None
        self.upgrade: Upgrade | None = None
        """Set by a view: what the connection becomes if the view's response has its status."""
        self.switched = False
        """The connection speaks another protocol already."""
        self.served = protocol.served
        """Requests that the connection has had, this one included."""
        self.queued_at = time.monotonic()
        self.started = 0.0
        """When the application was called; 0 before."""
        self.due = 0.0
        """When it is to be stopped; 0 for never."""
        self._queued = 0
        self.switching_head = b""
        """The head that ends this exchange where it leaves HTTP; empty if it ends otherwise."""
        # Whoever takes the one thing in it first, the member that answers or the hub that gives
        # the member up, may write to the client.  None where nobody is ever given up.
        self._claim: list[None] | None = [None] if self.server.has_deadlines else None
        self.abandoned = False
        """The client has its answer from the hub, and the connection is no longer ours."""
        self.given_up = ""
        """The header lines for the answer of an exchange that is not to end by itself."""
        self._stopped = False

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
        is_answered = False
        try:
            is_answered = self._handle()
        finally:
            if self.server.pool.is_on_hub:
                self._protocol.exchange_ended(self, is_answered)
            else:
                self.server.pool.call_hub(self._protocol.exchange_ended, self, is_answered)

    def _handle(self) -> bool:
        """True if the client has its response, or will."""
        server, request = self.server, self.request
        begun = time.monotonic()
        # A worker that drains gives a connection this one response more.
        keep_alive = self.keep_alive and not server.draining
        response = Response(request, self.send, server.common, keep_alive)
        self.response = response
        environ = request_environ(request, self._protocol.base_environ, self._connection.peer)
        self.environ = environ
        if not request.fields.keys().isdisjoint(FORWARDING):
            server.trust.apply(environ, self._connection.speaker)
        environ["gpulse.exchange"] = self
        environ["wsgi.early_hints"] = self.send_early_hints
        if server.gives_ids:
            self._give_id(environ, response)
        if server.has_deadlines:
            seconds = server.deadlines.of(environ["PATH_INFO"])
            self.due = begun + seconds if seconds else 0.0
        self.started = begun  # the hub may look from here on: ``due`` is known
        websocket = None
        if request.upgrade:
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
        except Exception as error:
            if self._stopped:
                log.warning("%s: stopped, and on its way out raised %r", self, error)
                return self._answer(response, GIVEN_UP)
            log.exception("%s: the application raised", self)
            return self._answer(response, "500 Internal Server Error")
        except BaseException as error:  # SystemExit, GreenletExit: the pool decides
            log.error("%s: ended by %r", self, type(error).__name__)
            raise
        finally:
            if request.spool is not None:
                request.discard_body()
            if server.access_log is not None and not self.abandoned:
                server.access_log.write_exchange(self)
            if websocket is not None:
                websocket.end()
                environ.pop("wsgi.websocket", None)
            # No cycle is left behind: what the request held goes when its last user does.
            self.environ = _NO_ENVIRON
            if self.upgrade is not None:
                # What is open keeps its environ, and must not keep us for it.
                environ.pop("gpulse.exchange", None)
                environ.pop("wsgi.early_hints", None)

    def _run(self, environ: dict[str, Any], response: Response) -> bool:
        """True if the response is whole on its way."""
        server = self.server
        result = server.application(environ, response.start_response)
        try:
            if self.switched:
                return True
            if self._stopped and response.code >= 500 and not response.head_sent:
                # Django's own: at the end of a transaction it met the connection closed by us.
                raise RequestTimeout
            if self.upgrade is not None and self.upgrade.suits(response.code, response.headers):
                # Made here, where a field that breaks the head can still be answered with a 500.
                self.switching_head = self.upgrade.head(response.common, response.headers)
                return True
            if server.draining:
                response.keep_alive = False  # the drain began while the application worked
            body = result
            if server.files is not None and not response.head_sent:
                if not response.status:
                    body = _begun(result)  # a generator, which says its status only now
                file = self._named_file(server.files, response)
                if file is not None:
                    self._close_result(result)
                    result = body = file
            if type(body) is FileWrapper and not response.head_sent:
                self._send_file(body, response)
            else:
                response.write_all(body)
        finally:
            if type(result) is not list:
                self._close_result(result)
        if response.truncated:
            log.warning(
                "%s: the application wrote more than its Content-Length; the rest was cut", self
            )
        return True

    def _send_file(self, result: FileWrapper, response: Response) -> None:
        """Give a large file to the connection, which sends it without us; read a small one."""
        if not response.status:
            raise ResponseError("start_response was not called")
        size = result.remaining()
        if size is None or size <= FILE_IN_MEMORY:
            response.send_blocks(size, result.blocks(self.server.pool.blocking))
            return
        count = response.start_file(size)
        if count:
            file = result.plain_file()
            fd = os.dup(file.fileno())  # close() of the result is not far
            position = file.tell()
            self._queued += count
            self.server.pool.call_hub(self._protocol.send_file, fd, position, count)

    def _named_file(self, files: FileRoots, response: Response) -> FileWrapper | None:
        """The file that the response names in place of its body, if it names one.

        :raises Refusal: 404, it may not be sent.
        """
        named = files.take(response.headers)
        if named is None:
            return None
        response.headers, directory, path = named
        try:
            file = self.server.pool.blocking(open_file, directory, path)
        except OSError as error:
            log.error("%s: the view names a file that is not sent: %s", self, error)
            raise Refusal(404, "Not Found") from None
        wrapper = FileWrapper(file)
        wanted = self.request.fields.get("HTTP_RANGE") if self.request.method == "GET" else None
        if any(name.lower() == "accept-ranges" for name, _ in response.headers):
            return wrapper  # the application has ranges of its own, or wants none
        response.headers.append(("Accept-Ranges", "bytes"))
        if (
            wanted is not None
            and response.code == 200
            and range_is_wanted(self.request.fields, response.headers)
        ):
            self._choose_range(wanted, wrapper, response)
        return wrapper

    def _choose_range(self, wanted: str, wrapper: FileWrapper, response: Response) -> None:
        size = wrapper.remaining() or 0
        try:
            chosen = chosen_range(wanted, size)
        except ValueError:
            response.status = "416 Range Not Satisfiable"
            response.headers += [("Content-Range", f"bytes */{size}"), ("Content-Length", "0")]
            return
        if chosen is not None:
            first, length = chosen
            wrapper.filelike.seek(first)
            response.status = "206 Partial Content"
            response.headers += [
                ("Content-Range", f"bytes {first}-{first + length - 1}/{size}"),
                ("Content-Length", str(length)),
            ]

    def send_early_hints(self, headers: Headers) -> None:
        """``environ["wsgi.early_hints"]``: send a 103 with these fields (RFC 8297) before the
        response, once or more; nothing to an HTTP/1.0 client, which would not understand it.

        :raises ResponseError: a field is no text of one line, or is hop-by-hop.
        """
        head = interim_head("103 Early Hints", headers)
        response = self.response
        if response is not None and not response.head_sent and not self.request.is_http_1_0:
            self.send(head)

    def _give_id(self, environ: dict[str, Any], response: Response) -> None:
        """Keep the id that a trusted proxy gave, or make one."""
        self.request_id = self.server.request_id(environ, self._connection.speaker)
        environ["HTTP_X_REQUEST_ID"] = environ["gpulse.request_id"] = self.request_id
        response.common += f"X-Request-ID: {self.request_id}\r\n"

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
        is_head = self.request.method == "HEAD"
        response.sent = 0 if is_head else len(status) + 1
        try:
            self.send(plain_response(status, False, response.common, is_head=is_head))
        except ClientGone:
            return False
        return True

    def send(self, data: bytes) -> None:
        """Give bytes to the connection; waits while HIGH_WATER bytes are buffered.

        :raises ClientGone: nobody reads any more, or what is read is no HTTP any more.
        """
        connection, response = self._connection, self.response
        if self.switched:
            raise ClientGone("the connection speaks another protocol")
        if response is None:
            raise ClientGone("the request is over")  # a ``write`` that was kept
        if self._claim is not None:
            self._claim_connection(self._claim)
        if self._queued >= HIGH_WATER:
            self._wait_drained()
        if connection.lost:
            raise ClientGone("the client closed the connection")
        rest: bytes | memoryview = data
        if not self._queued:
            outbox, pool = self.server.outbox, self.server.pool
            if (
                outbox is not None
                and response.is_whole
                and response.keep_alive
                # Nobody else is within a job, whom this turn of the hub could yet resume.
                and pool.busy == 1
                and not pool.detached
                and connection.gather(data, outbox)
            ):
                return
            sent = connection.try_send(data)
            if connection.lost:
                raise ClientGone("the client closed the connection")
            if sent == len(data):
                return
            rest = memoryview(data)[sent:]
        self._queued += len(rest)
        self.server.pool.call_hub(self._protocol.enqueue, rest)

    def _claim_connection(self, claim: list[None]) -> None:
        try:
            claim.pop()
        except IndexError:
            raise ClientGone("the request was given up and is answered") from None
        self._claim = None

    def _wait_drained(self) -> None:
        waiter = self.server.pool.waiter()
        self.server.pool.call_hub(self._connection.when_drained, waiter.set)
        # Ends by itself: a reader that takes nothing for write_stall seconds is cut off, and a
        # lost connection counts as drained.
        while not waiter.wait(self.server.limits.write_stall):
            pass
        self._queued = 0

    def switch(self, upgrade: Upgrade) -> None:
        """Leave HTTP now, while the application still runs: for code that loops over a WebSocket.

        :raises ClientGone: the client left before, or has begun to read an HTTP response.
        """
        response = self.response
        if response is None or response.head_sent:
            raise ClientGone("the request has its HTTP response")
        self.send(upgrade.head(response.common, []))
        # Not before: whoever sets it leaves the connection's release to the hub's switch.
        self.switched = True
        self.server.pool.call_hub(self._protocol.switch, upgrade)

    # -- on the hub

    def log_overdue(self, now: float) -> None:
        """Say where a request is that has had its time."""
        log.error(
            "%s: not answered after %.1f s, see --request-timeout; it is at\n%s",
            self,
            now - self.started,
            self.server.pool.stack_of(self),
        )

    def interrupt(self) -> bool:
        """Have the application stopped where it waits; False where that cannot be."""
        self._stopped = True
        stopped: bool = self.server.pool.interrupt(self, RequestTimeout())
        return stopped

    def abandon(self) -> bool:
        """Take the right to answer from the member; False if the response has begun."""
        try:
            if self._claim is None:
                return False
            self._claim.pop()
        except IndexError:
            return False
        self.abandoned = True
        self.give_up(GIVEN_UP)
        return True

    def give_up(self, status: str) -> None:
        """Have this status in the log; a member that runs keeps the application's response, which
        nobody will get."""
        response = self.response
        self.given_up = response.common if response is not None else self.server.common
        self.response = Response(self.request, self.send, self.given_up, keep_alive=False)
        self.response.status = status
        if not self.environ:  # it never began
            base, peer = self._protocol.base_environ, self._connection.peer
            self.environ = request_environ(self.request, base, peer)
            self.server.trust.apply(self.environ, self._connection.speaker)


def _begun(result: Iterable[bytes]) -> Iterable[bytes]:
    """What the application returned, with its first piece made."""
    pieces = iter(result)
    first = next(pieces, b"")
    return itertools.chain((first,), pieces)
