"""The handshake of an event stream: bounds, and the answer that becomes one."""

from typing import Any

from django.http import HttpRequest, HttpResponse

from gpulse.django import accounts
from gpulse.http.exchange import Exchange
from gpulse.http.upgrade import Upgrade
from gpulse.websocket.closecodes import RATE
from gpulse.websocket.consumer import WebSocketConsumer, text
from gpulse.websocket.eventstream import EventStreamSession

STREAM_AGAIN = 10
"""Seconds after which a stream that was refused may be tried again."""


def open_stream(
    consumer: WebSocketConsumer, request: HttpRequest, environ: dict[str, Any], exchange: Exchange
) -> HttpResponse:
    """Answer with a stream that the consumer feeds.

    Beyond ``per_user`` the new one is refused: an old one that was closed, as WebSockets are, would
    come back and throw out the next, for ever.
    """
    sockets, watch = consumer._services.sockets, consumer._services.accounts
    limits = sockets.limits_of(consumer.limits, type(consumer).__name__)
    identity = accounts.identity_of(request)
    address = str(environ.get("REMOTE_ADDR", ""))
    known = sockets.identities
    if limits.per_address and known.count_of_address(address) >= limits.per_address:
        return _beyond(request, "too many streams of this address")
    if limits.per_user and known.count_of_user(identity.user) >= limits.per_user:
        return _beyond(request, "too many streams of this user")

    def open_session(connection: Any, data: bytes) -> EventStreamSession:
        session = EventStreamSession(connection, sockets, consumer, limits)
        consumer._session = connection.protocol = session
        watch.accounts = accounts
        watch.watch(session, identity, address)
        session.start(data)
        return session

    exchange.upgrade = Upgrade([("Connection", "close")], open_session, status=200)
    response = _event_stream()
    response["X-Accel-Buffering"] = "no"  # nginx would wait for more
    return response


def _beyond(request: HttpRequest, reason: str) -> HttpResponse:
    """Refuse a stream beyond a bound; 204 would do as well for a browser, but 429 says why."""
    return not_now(request, text(429, reason, {"Retry-After": str(STREAM_AGAIN)}), RATE)


def not_now(request: HttpRequest, refusal: HttpResponse, code: int) -> HttpResponse:
    """A refusal that need not last, as the client understands it.

    ``EventSource`` stops for good at any status but 200: so does a new one.  One that comes back
    has had its place, and may have vanished without a word, so that its last stream counts until
    that is known: it is to ask again later.
    """
    if "Last-Event-ID" not in request.headers:
        return refusal
    closed = b": closed %d %s\n" % (code, refusal.content)
    return _event_stream(b"retry: %d\n\n%s" % (STREAM_AGAIN * 1000, closed))


def _event_stream(content: bytes = b"") -> HttpResponse:
    response = HttpResponse(content, content_type="text/event-stream; charset=utf-8")
    response["Cache-Control"] = "no-cache, no-transform"
    return response
