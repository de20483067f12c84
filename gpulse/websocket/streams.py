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
    """Refuse a stream.  ``EventSource`` stops for good at any status but 200: so does a new one,
    for which 204 would do as well, but 429 says why, and to others when to try again.  One that
    comes back may have vanished without a word, and its last stream counts until that is known:
    it is to ask again later."""
    if "Last-Event-ID" in request.headers:
        line = f"retry: {STREAM_AGAIN * 1000}\n\n: closed {RATE} {reason}\n\n"
        return _event_stream(line.encode())
    return text(429, reason, {"Retry-After": str(STREAM_AGAIN)})


def _event_stream(content: bytes = b"") -> HttpResponse:
    response = HttpResponse(content, content_type="text/event-stream; charset=utf-8")
    response["Cache-Control"] = "no-cache, no-transform"
    return response
