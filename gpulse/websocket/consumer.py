"""The class that applications subclass: a Django view until the 101, a socket's handlers after it.

The handshake is an ordinary GET through URLs and middleware: ``self.request`` has its user and
session, and a 404 or a redirect to the login is an ordinary response.  After the 101 the request
is over.  Each handler runs on a member of the pool, one at a time per socket, in order; between
handlers the socket holds nothing.  Handlers are sync code and may use the database as a view does.

A handler that raises ends the socket with close code 1011; the traceback goes to the log.
"""

import json
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.db import close_old_connections, reset_queries
from django.http import HttpRequest, HttpResponse

from gpulse.errors import SubscribeError
from gpulse.http.exchange import Exchange
from gpulse.http.upgrade import Upgrade
from gpulse.store import message as wire
from gpulse.store.base import check_channel
from gpulse.store.presence import Presence
from gpulse.websocket.frames import BINARY, TEXT
from gpulse.websocket.handshake import HandshakeError, accept
from gpulse.websocket.session import NORMAL, WebSocketSession
from gpulse.worker.services import ENVIRON_KEY, Services

SUBSCRIBE_TIMEOUT = 5.0
"""Seconds to wait for the store to confirm; the subscriber itself gives up sooner."""

View = Callable[..., HttpResponse]


class WebSocketConsumer:
    """One open WebSocket.

    Override ``on_open``, ``on_message``, ``on_close`` and, where events need work before they go to
    the client, ``on_event``.
    """

    subprotocols: ClassVar[Sequence[str]] = ()
    """Values of Sec-WebSocket-Protocol that this consumer speaks; the client's first among them is
    chosen."""

    request: HttpRequest
    """The handshake."""
    user: Any
    """``request.user``, None without the authentication middleware."""
    kwargs: dict[str, Any]
    """What the URL pattern captured."""
    state: dict[str, Any]
    """The application's own, JSON-able: what must outlive the process that holds the socket."""

    _services: Services
    _session: WebSocketSession

    # -- what to override

    def on_open(self) -> None:
        """The socket is open.  What is sent here goes out before any event."""

    def on_message(self, message: str | bytes) -> None:
        """A whole message came: text as str, binary as bytes."""

    def on_event(self, channel: str, message: Any, position: str | None) -> None:
        """A message was published on a subscribed channel.

        Without an override nothing runs: the message goes to the client as it was published, text
        as text, bytes as binary, anything else as JSON text.

        :param position: where the message stands in the channel's history; None without one.
        """

    def on_close(self, code: int, reason: str) -> None:
        """The socket is gone; nothing can be sent any more.  Called once, after ``on_open``."""

    # -- what to call

    def send(self, message: Any) -> None:
        """Send one message: str as text, bytes as binary, anything else as JSON text.

        It is queued and sent when the client reads; a client that lets more than 1 MiB wait is
        closed.  Dropped when the socket is closing.
        """
        if isinstance(message, str):
            opcode, data = TEXT, message.encode()
        elif isinstance(message, bytes):
            opcode, data = BINARY, message
        else:
            text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
            opcode, data = TEXT, text.encode()
        self._services.pool.call_hub(self._session.send, opcode, data)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Start to close.

        :param code: 1000, 1001, 1003, 1007 to 1014 or 3000 to 4999 (RFC 6455, 7.4).
        :param reason: at most 123 bytes of UTF-8.
        :raises ValueError: a code or reason that may not be sent.
        """
        if not (code in (1000, 1001, 1003, *range(1007, 1015)) or 3000 <= code < 5000):
            raise ValueError(f"close code {code} may not be sent; use 1000 or 4000 to 4999")
        if len(reason.encode()) > 123:
            raise ValueError("a close reason is at most 123 bytes of UTF-8")
        self._services.pool.call_hub(self._session.close, code, reason)

    def subscribe(self, channel: str) -> None:
        """Receive what is published on ``channel`` from now on; returns when the store confirmed.

        :raises ValueError: not a channel name.
        :raises SubscribeError: the store does not answer.
        """
        check_channel(channel)
        pool = self._services.pool
        waiter = pool.waiter()
        outcome: list[SubscribeError | None] = []

        def done(error: SubscribeError | None) -> None:
            outcome.append(error)
            waiter.set()

        def add() -> None:
            if self._session.is_closed:
                # Its subscriptions were dropped already; one made now would stay forever.
                done(SubscribeError(f"channel {channel}: the socket is closed"))
            else:
                self._services.fanout.add(channel, self._session, done)

        pool.call_hub(add)
        if not waiter.wait(SUBSCRIBE_TIMEOUT):
            raise SubscribeError(f"channel {channel}: the store did not confirm in time; try again")
        if outcome[0] is not None:
            raise outcome[0]

    def unsubscribe(self, channel: str) -> None:
        """Receive nothing more from ``channel``; it is no error never to have subscribed."""
        self._services.pool.call_hub(self._services.fanout.remove, channel, self._session)

    def publish(self, channel: str, message: Any) -> int:
        """Publish to all subscribers of ``channel`` on all workers and machines, this one included.

        :returns: how many workers were subscribed.
        :raises PublishError: the store does not answer.
        """
        return self._services.store.publish(channel, wire.encode(message))

    @property
    def presence(self) -> Presence:
        """Who is where: ``join``, ``leave`` and ``members`` of a channel."""
        return self._services.presence

    # -- the view

    @classmethod
    def as_view(cls, **initkwargs: Any) -> View:
        """A view for ``path()``.

        :param initkwargs: set as attributes of each consumer; each must be one that the class has.
        """
        for name in initkwargs:
            if not hasattr(cls, name):
                raise TypeError(
                    f"{cls.__name__}.as_view() got {name!r}, which is no attribute of it"
                )

        def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            consumer = cls()
            for name, value in initkwargs.items():
                setattr(consumer, name, value)
            return consumer._handshake(request, kwargs)

        view.__name__ = view.__qualname__ = cls.__name__
        view.__doc__ = cls.__doc__
        view.__module__ = cls.__module__
        view.view_class = cls  # type: ignore[attr-defined]
        return view

    def _handshake(self, request: HttpRequest, kwargs: dict[str, Any]) -> HttpResponse:
        environ: dict[str, Any] = getattr(request, "environ", {})
        exchange: Exchange | None = environ.get("gpulse.exchange")
        if exchange is None:
            return _text(501, "WebSockets are served by `manage.py pulse`, not by this server")
        try:
            headers = accept(environ, self.subprotocols)
        except HandshakeError as error:
            return _text(error.status, error.reason, error.headers)
        if not exchange.request.upgrade:
            # The parser went on in HTTP behind it, so what follows cannot be frames.
            return _text(400, "a WebSocket opens with a GET that has no body")
        if not origin_is_trusted(request):
            return _text(403, "this page's origin may not open a WebSocket here")
        services = cast(Services, environ[ENVIRON_KEY])
        if services.sockets.are_full:
            return _text(503, "no more WebSockets on this worker", {"Retry-After": "1"})
        if request.resolver_match is not None:
            # The URL patterns that did not match, kept for the debug page of a 404: over 1 KB.
            request.resolver_match.tried = None
        self.request = request
        self.user = getattr(request, "user", None)
        self.kwargs = kwargs
        self.state = {}
        self._services = services
        exchange.upgrade = Upgrade(headers, self._open)
        return HttpResponse(status=101)

    def _open(self, connection: Any, data: bytes) -> WebSocketSession:
        """On the hub, after the 101."""
        self._session = WebSocketSession(connection, self._services.sockets, self)
        connection.protocol = self._session
        self._session.start(data)
        return self._session

    # -- for the session

    @property
    def takes_events(self) -> bool:
        """Whether a subclass overrides ``on_event``."""
        return type(self).on_event is not WebSocketConsumer.on_event

    def handle(self, handler: str, *args: object) -> None:
        """Run one handler as Django runs a request.

        Database connections that may not be kept are closed before and after.  The handler starts
        in an empty context, so that no language, time zone or URLconf that an earlier job of this
        member activated is left: Django keeps these in context variables.
        """
        if settings.DEBUG:
            reset_queries()
        close_old_connections()
        try:
            Context().run(getattr(self, handler), *args)
        finally:
            close_old_connections()


def origin_is_trusted(request: HttpRequest) -> bool:
    """Whether the page that opens the socket may use the user's cookies here.

    Browsers send cookies with any page's WebSocket and apply no same-origin rule, so the server
    has to (cross-site WebSocket hijacking).  A client without Origin is no browser.
    """
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
        host = request.get_host()
    except (ValueError, DisallowedHost):
        return False
    if parts.netloc.lower() == host.lower() and parts.scheme in ("http", "https"):
        # Behind a proxy that ends TLS the page's scheme is https while ours is http.
        return parts.scheme == "https" or not request.is_secure()
    for trusted in settings.CSRF_TRUSTED_ORIGINS:
        scheme, _, pattern = trusted.partition("://")
        if scheme != parts.scheme:
            continue
        if pattern == parts.netloc or (
            pattern.startswith("*.") and parts.netloc.endswith(pattern[1:])
        ):
            return True
    return False


def _text(status: int, text: str, headers: dict[str, str] | None = None) -> HttpResponse:
    response = HttpResponse(text + "\n", status=status, content_type="text/plain; charset=utf-8")
    for name, value in (headers or {}).items():
        if name.lower() != "connection":  # the server's (PEP 3333)
            response[name] = value
    return response
