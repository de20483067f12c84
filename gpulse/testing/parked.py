"""What a test's clients have in common, WebSockets and event streams alike.

The request goes through Django's test client, so cookies, sessions and ``force_login`` work as they
do there; when the view has answered, the real session and the real consumer run inline (see
:mod:`gpulse.testing.inline`).
"""

import itertools
from collections.abc import Callable, Mapping
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from django.test import Client

from gpulse.connection.connection import Connection
from gpulse.errors import StoreError
from gpulse.http.upgrade import Upgrade
from gpulse.testing.inline import InlineSocket, InlineWorker, committing
from gpulse.websocket.channels import Refused
from gpulse.worker.services import ENVIRON_KEY

SHOWN = 200
"""Characters of a message or response that a failure shows."""


class ParkedClient:
    """A client whose connection stays open inside its ``with``.

    :param path: with its query string, if any.
    :param user: who is logged in, as by ``Client.force_login``.
    :param client: a test client whose cookies and session are used; by default a new one.
    :param headers: more fields of the request.  ``Origin`` is the site's own unless it is here;
        None sends none.
    :param secure: as if it came over TLS.
    :param raises: let exceptions of handlers come out of the call that led to them; else only the
        log and the close code tell, as in production.
    """

    status = 101
    """Of the response to a request that is welcome."""

    def __init__(
        self,
        path: str,
        *,
        user: Any = None,
        client: Client | None = None,
        headers: Mapping[str, str | None] | None = None,
        secure: bool = False,
        raises: bool = True,
    ) -> None:
        self.client = client or Client()
        """Django's; its cookies are those of the connection."""
        self.response: Any = None
        """The answer to the request; why it is refused, where it is."""
        self.consumer: Any = None
        """The consumer behind an open connection, to look at."""
        self._worker: InlineWorker | None = None
        self._connection: Connection | None = None
        self._socket = InlineSocket()
        self._buffer = bytearray()
        self._raised: list[Exception] = []
        self._path = path
        self._user = user
        self._headers = {name.lower(): text for name, text in (headers or {}).items()}
        self._secure = secure
        self._raises = raises

    # -- its life

    def __enter__(self) -> Self:
        self._worker = InlineWorker.acquire()
        self._worker.clients.append(self)
        try:
            if self._user is not None:
                self.client.force_login(self._user)
            self._open()
            self._run()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        try:
            if self._connection is not None:
                self._connection.abort()
                worker.run()
        finally:
            worker.clients.remove(self)
            worker.release()

    def _open(self) -> None:
        exchange = Exchange()
        headers = {"origin": self._own_origin(), **self._request_headers(), **self._headers}
        self.response = self._ask(self.client.get, self._path, headers, exchange)
        if exchange.upgrade is None or self.response.status_code != self.status:
            return
        self._connection, self._socket = self._current().open_connection(exchange.peer)
        self._accepted(exchange.upgrade)
        session: Any = exchange.upgrade.open_protocol(self._connection, b"")
        self._watch(session.handlers)

    def _ask(
        self,
        method: Callable[..., Any],
        path: str,
        headers: Mapping[str, str | None],
        exchange: "Exchange",
        **keywords: Any,
    ) -> Any:
        """The response to a request that the worker serves."""
        environ = {"gpulse.exchange": exchange, ENVIRON_KEY: self._current().services}
        with committing():
            return method(
                path,
                headers={name: text for name, text in headers.items() if text is not None},
                secure=self._secure,
                **keywords,
                **environ,
            )

    def _own_origin(self) -> str:
        return "https://testserver" if self._secure else "http://testserver"

    def _watch(self, consumer: Any) -> None:
        """Note what its handlers raise, and let their transactions commit."""
        self.consumer = consumer
        for name in ("handle", "on_request"):
            call = getattr(consumer, name, None)
            if call is not None:
                setattr(consumer, name, self._watched(call))

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any) -> Any:
            try:
                with committing():
                    return call(*args)
            except (Refused, StoreError):
                raise  # an answer to the client; or the store is away, and it is told that
            except Exception as error:
                self._raised.append(error)
                raise

        return watched

    # -- for the kinds

    def _request_headers(self) -> dict[str, str | None]:
        """The fields that make the request one of its kind, by names in lower case."""
        raise NotImplementedError

    def _accepted(self, upgrade: Upgrade) -> None:
        """The request is welcome."""

    def read(self) -> bool:
        """For the worker: look at what came; True if that had an answer."""
        raise NotImplementedError

    # -- for tests

    def advance(self, seconds: float) -> None:
        """Let time pass, for all clients of the test."""
        self._current().advance(seconds)
        self._run()

    def stop_reading(self) -> None:
        """Be a slow client: what the server sends waits there."""
        self._socket.reads = False

    def resume_reading(self) -> None:
        """Take what waits, and go on taking it."""
        self._socket.reads = True
        self._run()

    def vanish(self) -> None:
        """End the connection without a word, as a phone does in a tunnel."""
        assert self._connection is not None, f"{self}: it was never open"
        self._socket.incoming.append(b"")
        self._run()

    def _current(self) -> InlineWorker:
        assert self._worker is not None, f"{self._title()} is used outside its with"
        return self._worker

    def _run(self) -> None:
        """Do all that is to be done, and raise what handlers raised."""
        self._current().run()
        if self._raised:
            raised, self._raised = self._raised, []
            if self._raises:
                raise raised[0]

    def _take_in(self) -> None:
        """What came, into the buffer."""
        outgoing = self._socket.outgoing
        while outgoing:
            self._buffer += outgoing.popleft()

    # -- failures

    def _title(self) -> str:
        return f"{type(self).__name__}({self._path!r})"

    def _refusal(self) -> str:
        """How a refused request reads."""
        response = self.response
        body = "" if response.streaming else response.content.decode("utf-8", "replace")
        words = " ".join(body.split())[:SHOWN]
        return f"refused with {response.status_code}" + (f" ({words})" if words else "")


class Exchange:
    """As much of the server's exchange as the views of consumers use."""

    _ports = itertools.count(20_000)

    def __init__(self) -> None:
        self.request = SimpleNamespace(upgrade=True)
        self.peer = ("127.0.0.1", next(self._ports))
        self.upgrade: Upgrade | None = None


def shown(message: object) -> str:
    """A message in a failure's text."""
    text = repr(message)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
