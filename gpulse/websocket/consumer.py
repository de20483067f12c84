"""The class that applications subclass: a Django view until the 101, a socket's handlers after it.

The handshake is an ordinary GET through URLs and middleware: ``self.request`` has its user and
session, and a 404 or a redirect to the login is an ordinary response.  After the 101 the request
is over.  Each handler runs on a member of the pool, one at a time per socket, in order; between
handlers the socket holds nothing.  Handlers are sync code and may use the database as a view does.

A handler that raises ends the socket with close code 1011; the traceback goes to the log.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from typing import Any, ClassVar, cast

from django.conf import settings
from django.core.exceptions import DisallowedHost, ImproperlyConfigured
from django.http import HttpRequest, HttpResponse

from gpulse.django import accounts, connections
from gpulse.errors import SubscribeError
from gpulse.http.exchange import Exchange
from gpulse.http.upgrade import Upgrade
from gpulse.store import message as wire
from gpulse.store.base import Receipt, check_channel
from gpulse.store.fanout import Subscribed
from gpulse.store.message import Event
from gpulse.store.presence import Presence
from gpulse.websocket.closecodes import NORMAL, RATE, REPLACED, may_be_sent
from gpulse.websocket.frames import BINARY, TEXT
from gpulse.websocket.handlers import EVENT_HANDLERS
from gpulse.websocket.handshake import HandshakeError, accept
from gpulse.websocket.identities import ANONYMOUS, Identity
from gpulse.websocket.limits import SocketLimits
from gpulse.websocket.outlet import Outlet
from gpulse.websocket.past import Past
from gpulse.websocket.session import WebSocketSession
from gpulse.websocket.shapes import plain
from gpulse.worker.services import ENVIRON_KEY, Services

SUBSCRIBE_TIMEOUT = 5.0
"""Seconds to wait for the store to confirm; the subscriber itself gives up sooner."""

View = Callable[..., HttpResponse]

_AUTHORITY = re.compile(r"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]+)?")
"""What a browser writes behind the scheme of an Origin, in lower case."""


class WebSocketConsumer:
    """One open WebSocket.

    Override ``on_open``, ``on_message``, ``on_close`` and, where events need work before they go to
    the client, ``on_event``.
    """

    subprotocols: ClassVar[Sequence[str]] = ()
    """Values of Sec-WebSocket-Protocol that this consumer speaks; the client's first among them is
    chosen."""

    limits: ClassVar[Mapping[str, Any]] = {}
    """Bounds of these sockets in place of the site's: names of
    :class:`~gpulse.websocket.limits.SocketLimits` and what their options take, as ``{"message":
    "4k", "rate": 5}``."""

    handled: ClassVar[frozenset[str]] = frozenset()
    """Which handlers of events the class overrides; found out by itself."""

    kwargs: dict[str, Any]
    """What the URL pattern captured."""
    state: dict[str, Any]
    """The application's own, JSON-able: what must outlive the process that holds the socket."""
    subprotocol: str | None = None
    """The one that was chosen."""

    _services: Services
    _session: Outlet
    _request: HttpRequest | None = None
    _past: Past | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.handled = frozenset(
            name
            for name in EVENT_HANDLERS
            if getattr(cls, name) is not getattr(WebSocketConsumer, name)
        )

    # -- what to override

    @staticmethod
    def shape(event: Event) -> tuple[int, bytes] | None:
        """How an event without a handler goes to the client: opcode and payload, None for not at
        all.  What it returns is shared by all sockets of the class."""
        return plain(event)

    def admit(self, request: HttpRequest) -> int | HttpResponse | None:
        """Whether the handshake is welcome, before it is accepted.

        :returns: None: yes.  A close code: the socket is opened and closed with it, because a
            script in a browser can read a close code but not the status of a refusal.  A response:
            the refusal.
        """
        return None

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

    def on_presence(self, channel: str, member: str, joined: bool) -> None:
        """The first socket of a member entered a subscribed channel, or its last one left."""

    def on_gap(self, channel: str, position: str | None) -> None:
        """Messages of a subscribed channel were lost while the store was away, and no history has
        them, or were dropped because the client reads too slowly: fetch anew what they were about.

        :param position: from where the channel goes on; None without a history.
        """

    def on_rate_exceeded(self, message: str | bytes, seconds: float) -> None:
        """A message came too soon (``limits``: rate, burst) and is not handed to ``on_message``.

        Without an override the socket is closed with 4429.

        :param seconds: until the next one is welcome.
        """
        self.close(RATE, "too many messages")

    def on_close(self, code: int, reason: str) -> None:
        """The socket is gone; nothing can be sent any more.  Called once, after ``on_open``."""

    # -- what to call

    @property
    def request(self) -> HttpRequest:
        """The handshake.

        After ``on_open`` it is made again for each handler that asks for it: with the same headers,
        session and user, and with what the site's middleware has put on it.
        """
        if self._request is None and self._past is not None:
            self._request = self._past.request()
        assert self._request is not None
        return self._request

    @request.setter
    def request(self, request: HttpRequest) -> None:
        self._request = request

    @property
    def user(self) -> Any:
        """``request.user``, None without the authentication middleware."""
        return getattr(self.request, "user", None)

    def send(self, message: Any) -> None:
        """Send one message: str as text, bytes as binary, anything else as JSON text.

        It is queued and sent when the client reads; ``limits`` (outgoing, outgoing_age, slow) say
        what becomes of a client that does not.

        :raises TypeError: JSON cannot hold it.
        """
        if isinstance(message, str):
            opcode, data = TEXT, message.encode()
        elif isinstance(message, (bytes, bytearray, memoryview)):
            opcode, data = BINARY, bytes(message)
        else:
            opcode, data = TEXT, wire.encode(message)[1:]
        pool = self._services.pool
        if pool.is_on_hub:  # one call less
            self._session.send(opcode, data)
        else:
            pool.call_hub(self._session.send, opcode, data)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Start to close.

        :param code: 1000, 1001, 1003, 1007 to 1009, 1011 to 1014 or 3000 to 4999 (RFC 6455, 7.4).
        :param reason: at most 123 bytes of UTF-8.
        :raises ValueError: a code or reason that may not be sent.
        """
        if not may_be_sent(code):
            raise ValueError(f"close code {code} may not be sent; use 1000 or 4000 to 4999")
        if len(reason.encode()) > 123:
            raise ValueError("a close reason is at most 123 bytes of UTF-8")
        self._services.pool.call_hub(self._session.close, code, reason)

    def subscribe(self, channel: str, since: str | None = None) -> Subscribed:
        """Receive what is published on ``channel`` from now on; returns when the store confirmed.

        :param since: the position of the last message that the client has.  Where the channel has a
            history that reaches back so far, the messages missed come first, in order and once.
        :returns: ``position`` of the channel's newest message (None without a history),
            ``recovered`` (None where nothing was to be recovered; False: messages are missing,
            fetch anew what they were about) and ``missed``, how many messages come first.
        :raises ValueError: not a channel name or position, or more channels than ``limits`` allow.
        :raises SubscribeError: the store does not answer.
        """
        check_channel(channel)
        pool, fanout, session = self._services.pool, self._services.fanout, self._session
        most = session.limits.subscriptions
        waiter = pool.waiter()
        outcome: list[Subscribed | Exception] = []

        def done(answer: Subscribed | SubscribeError) -> None:
            outcome.append(answer)
            waiter.set()

        def add() -> None:
            if session.is_closed:
                # Its subscriptions were dropped already; one made now would stay forever.
                done(SubscribeError(f"channel {channel}: the socket is closed"))
                return
            if fanout.count_of(session) >= most and not fanout.has(channel, session):
                outcome.append(ValueError(f"channel {channel}: a socket has at most {most}"))
                waiter.set()
                return
            try:
                fanout.add(channel, session, done, since)
            except ValueError as error:
                outcome.append(error)
                waiter.set()

        pool.call_hub(add)
        if not waiter.wait(SUBSCRIBE_TIMEOUT):
            pool.call_hub(fanout.remove, channel, session)  # or it would come true later
            raise SubscribeError(f"channel {channel}: the store did not confirm in time; try again")
        answer = outcome[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def unsubscribe(self, channel: str) -> None:
        """Receive nothing more from ``channel``; it is no error never to have subscribed."""
        self._services.pool.call_hub(self._leave_channel, channel)

    def _leave_channel(self, channel: str) -> None:
        """On the hub."""
        self._services.fanout.remove(channel, self._session)
        self._session.forget(channel)

    def publish(self, channel: str, message: Any, key: str = "") -> Receipt:
        """Publish to all subscribers of ``channel`` on all workers and machines, this one included.

        :param key: published once only within some minutes, however often it is repeated; for
            channels with a history.
        :raises PublishError: the store does not answer.
        """
        return self._services.store.publish(channel, wire.encode(message), key=key)

    @property
    def presence(self) -> Presence:
        """Who is where: ``join``, ``leave`` and ``members`` of a channel."""
        return self._services.presence

    # -- the view

    @classmethod
    def as_view(cls, **initkwargs: Any) -> View:
        """A view for ``path()``.

        :param initkwargs: set as attributes of each consumer; each must be one that the class has.
        :raises django.core.exceptions.ImproperlyConfigured: ``limits`` has a name or a value that
            is refused.
        """
        for name in initkwargs:
            if not hasattr(cls, name):
                raise TypeError(
                    f"{cls.__name__}.as_view() got {name!r}, which is no attribute of it"
                )
        try:
            SocketLimits().changed(initkwargs.get("limits", cls.limits), cls.__name__)
        except ValueError as error:
            raise ImproperlyConfigured(str(error)) from None

        def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            consumer = cls()
            for name, value in initkwargs.items():
                setattr(consumer, name, value)
            return consumer._answer(request, kwargs)

        view.__name__ = view.__qualname__ = cls.__name__
        view.__doc__ = cls.__doc__
        view.__module__ = cls.__module__
        view.view_class = cls  # type: ignore[attr-defined]
        return view

    def _answer(self, request: HttpRequest, kwargs: dict[str, Any]) -> HttpResponse:
        """The view."""
        self.request = request
        self.kwargs = kwargs
        self.state = {}
        environ: dict[str, Any] = getattr(request, "environ", {})
        exchange: Exchange | None = environ.get("gpulse.exchange")
        if exchange is None:
            return text(501, "WebSockets are served by `manage.py pulse`, not by this server")
        self._services = cast(Services, environ[ENVIRON_KEY])
        return self._handshake(environ, exchange)

    def _handshake(self, environ: dict[str, Any], exchange: Exchange) -> HttpResponse:
        request, sockets = self.request, self._services.sockets
        limits = sockets.limits_of(self.limits, type(self).__name__)
        try:
            accepted = accept(environ, self.subprotocols, deflate=limits.compress_from > 0)
        except HandshakeError as error:
            return text(error.status, error.reason, error.headers)
        if not exchange.request.upgrade:
            # The parser went on in HTTP behind it, so what follows cannot be frames.
            return text(400, "a WebSocket opens with a GET that has no body")
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        verdict = self.admit(request)
        if isinstance(verdict, HttpResponse):
            return verdict
        if verdict is not None and (verdict is True or not may_be_sent(verdict)):
            raise TypeError(
                f"{type(self).__name__}.admit returned {verdict!r}, which is no close code that "
                "may be sent: return one of 4400 to 4499, a response, or None"
            )
        address = str(environ.get("REMOTE_ADDR", ""))
        if (
            verdict is None
            and limits.per_address
            and sockets.identities.count_of_address(address) >= limits.per_address
        ):
            verdict = RATE
        identity = ANONYMOUS if verdict is not None else accounts.identity_of(request)
        self.subprotocol = accepted.subprotocol

        def open_session(connection: Any, data: bytes) -> WebSocketSession:
            session = WebSocketSession(connection, sockets, self, limits, accepted.deflate)
            self._session = connection.protocol = session
            if verdict is not None:
                session.start_closing(verdict, "not admitted")
            else:
                self._register(session, identity, address)
                session.start(data)
            return session

        exchange.upgrade = Upgrade(accepted.headers, open_session)
        return HttpResponse(status=101)

    def _refusal(self, request: HttpRequest) -> HttpResponse | None:
        """What is checked alike of a WebSocket and of an event stream."""
        if not origin_is_trusted(request):
            return text(403, "this page's origin may not open a WebSocket here")
        if self._services.sockets.are_full:
            return text(503, "no more WebSockets on this worker", {"Retry-After": "1"})
        if request.resolver_match is not None:
            # The URL patterns that did not match, kept for the debug page of a 404: over 1 KB.
            request.resolver_match.tried = None
        return None

    def _register(self, session: Outlet, identity: Identity, address: str) -> None:
        """On the hub: take the socket in; the user's oldest makes room for it."""
        watch, identities = self._services.accounts, self._services.sockets.identities
        watch.accounts = accounts
        watch.watch(session, identity, address)
        most, user = session.limits.per_user, identity.user
        while most and user is not None and identities.count_of_user(user) > most:
            oldest = identities.sockets_of_user(user)[0]
            identities.unregister(oldest)  # it may take its time to close
            oldest.close(REPLACED, f"the user opened more than {most} sockets")

    # -- for the session

    def handle(self, handler: str, *args: object) -> None:
        """Run one handler as Django runs a request.

        Database connections that may not be kept are closed before and after.  The handler starts
        in an empty context, so that no language, time zone or URLconf that an earlier job of this
        member activated is left: Django keeps these in context variables.
        """
        opened = connections.opened()
        if opened is not None:
            connections.reset_queries(opened)
            connections.close_old(opened)
        try:
            Context().run(self._dispatch, handler, *args)
        finally:
            opened = connections.opened()
            if opened is not None:
                connections.close_old(opened)
            if self._request is not None:
                if self._past is None:
                    self._past = Past(self._request)
                self._request = None

    def _dispatch(self, handler: str, *args: Any) -> None:
        if handler in EVENT_HANDLERS:
            args = _arguments(handler, args[0])
        getattr(self, handler)(*args)


def _arguments(handler: str, event: Event) -> tuple[Any, ...]:
    """What an event's handler gets."""
    if handler == "on_event":
        return event.channel, event.message, event.position
    if handler == "on_presence":
        return event.channel, event.data[1:].decode(), event.data.startswith(b"+")
    return event.channel, event.position


def origin_is_trusted(request: HttpRequest) -> bool:
    """Whether the page that opens the socket may use the user's cookies here.

    Browsers send cookies with any page's WebSocket and apply no same-origin rule, so the server
    has to (cross-site WebSocket hijacking).  A client without Origin is no browser.
    """
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None:
        return True
    scheme, _, authority = origin.lower().partition("://")
    if scheme not in ("http", "https") or not _AUTHORITY.fullmatch(authority):
        return False
    try:
        host = request.get_host().lower()
    except DisallowedHost:
        return False
    # Behind a proxy that ends TLS the page's scheme is https while ours is http.
    if authority == host and (scheme == "https" or not request.is_secure()):
        return True
    return any(_covers(each.lower(), scheme, authority) for each in settings.CSRF_TRUSTED_ORIGINS)


def _covers(trusted: str, scheme: str, authority: str) -> bool:
    """Whether an entry of CSRF_TRUSTED_ORIGINS covers the origin; as in CsrfViewMiddleware, "*."
    covers the domain itself, too."""
    its_scheme, _, pattern = trusted.partition("://")
    if its_scheme != scheme:
        return False
    if pattern.startswith("*."):
        return authority == pattern[2:] or authority.endswith(pattern[1:])
    return authority == pattern


def text(status: int, line: str, headers: dict[str, str] | None = None) -> HttpResponse:
    response = HttpResponse(line + "\n", status=status, content_type="text/plain; charset=utf-8")
    for name, value in (headers or {}).items():
        if name.lower() != "connection":  # the server's (PEP 3333)
            response[name] = value
    return response
