"""Server-sent events: channels at a URL that browsers read with ``EventSource``.

::

    path("news/events", EventStream.as_view(channels=["news"]))

The view is an ordinary GET through URLs and middleware; after its head the connection is parked, as
a WebSocket is.  Each message comes as one event whose data are the message as it was published
(bytes as base64).  On channels with a history a browser that comes back gets what it missed, for
its ``Last-Event-ID`` says how far it had read.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import base64
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse

from gpulse.errors import StoreError
from gpulse.http.exchange import Exchange
from gpulse.store.base import check_channel
from gpulse.store.message import BINARY as BINARY_EVENT
from gpulse.store.message import GAP, PRESENCE, Event
from gpulse.websocket.closecodes import NORMAL, OVERLOAD
from gpulse.websocket.consumer import WebSocketConsumer, text
from gpulse.websocket.eventstream import EventStreamSession, decode_id
from gpulse.websocket.frames import TEXT
from gpulse.websocket.streams import not_now, open_stream

log = logging.getLogger("gpulse.sse")

MAX_ID = 65_536
"""Bytes of a Last-Event-ID; what is longer is taken for one that says nothing."""


def as_text(event: Event) -> tuple[int, bytes] | None:
    """The message as one event's data."""
    if event.kind in (PRESENCE, GAP):
        return None
    if event.kind == BINARY_EVENT:
        return TEXT, base64.b64encode(event.data)
    return TEXT, event.data


class EventStream(WebSocketConsumer):
    """A stream of what is published on some channels.

    Override :meth:`get_channels` where they depend on the request, and ``admit`` to refuse; a
    response or a status of 400 to 499 refuses with it.
    """

    channels: ClassVar[Sequence[str]] = ()
    """The channels of every stream of this view."""

    _reacting = False
    """``on_event`` works on an event with a position."""

    @staticmethod
    def shape(event: Event) -> tuple[int, bytes] | None:
        return as_text(event)

    def get_channels(self, request: HttpRequest) -> Sequence[str]:
        """The channels of this request; as many as ``limits["subscriptions"]`` allows."""
        return self.channels

    def on_open(self) -> None:
        session = self._session
        assert isinstance(session, EventStreamSession)
        missing = self._is_back and not self._positions
        for channel in self._channels:
            since = self._positions.get(channel)
            try:
                found = self.subscribe(channel, since)
            except ValueError:  # what is said to be a position is none
                since, missing = None, True
                found = self.subscribe(channel)
            except StoreError as error:
                if session.is_closed:
                    return
                log.error("%s: %s", type(self).__name__, error)
                self._services.pool.call_hub(session.close)
                return
            missing = missing or found.recovered is False
            at = since if found.missed else found.position
            self._services.pool.call_hub(session.at, channel, at)
        if missing:
            self.on_gap(self._channels[0], None)
        self._services.pool.call_hub(session.tell)

    def on_gap(self, channel: str, position: str | None) -> None:
        """Messages are missing: tell the page by an event named ``gap``."""
        self._services.pool.call_hub(self._session.send_frame, b"event: gap\ndata: \n\n")

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """End the stream; a browser comes back after some seconds.

        An ``on_event`` that does this is done with its event, which does not come again then.
        """
        if self._reacting:
            self._has_reacted(done=True)
        super().close(code, reason)

    def _dispatch(self, handler: str, *args: Any) -> None:
        """``on_event``: let the last of what it sends carry the position."""
        event = args[0] if handler == "on_event" else None
        if event is None or event.position is None:
            super()._dispatch(handler, *args)
            return
        session = self._session
        assert isinstance(session, EventStreamSession)
        self._reacting, done = True, False
        self._services.pool.call_hub(session.react, event)
        try:
            super()._dispatch(handler, event)
            done = True
        finally:
            self._reacting = False
            self._has_reacted(done=done)

    def _has_reacted(self, *, done: bool) -> None:
        session = self._session
        assert isinstance(session, EventStreamSession)
        self._services.pool.call_hub(partial(session.reacted, done=done))

    # -- the view

    def _handshake(self, environ: dict[str, Any], exchange: Exchange) -> HttpResponse:
        request = self.request
        if request.method != "GET":
            return text(405, "an event stream is read with GET", {"Allow": "GET"})
        verdict = self.admit(request)
        if isinstance(verdict, int):
            return text(verdict - 4000 if 4400 <= verdict < 4500 else 403, "not admitted")
        if verdict is not None:
            return verdict
        refusal = self._refusal(request)
        if refusal is not None:
            is_full = refusal.status_code == 503
            return not_now(request, refusal, OVERLOAD) if is_full else refusal
        self._channels = list(dict.fromkeys(self.get_channels(request)))
        limits = self._services.sockets.limits_of(self.limits, type(self).__name__)
        if len(self._channels) > limits.subscriptions:
            raise ImproperlyConfigured(
                f"{type(self).__name__}.get_channels returned {len(self._channels)} channels; "
                f"limits['subscriptions'] allows {limits.subscriptions}"
            )
        for channel in self._channels:
            check_channel(channel)
        # UTF-8 in what WSGI has decoded as Latin-1 (PEP 3333).
        last = request.META.get("HTTP_LAST_EVENT_ID", "").encode("latin-1", "replace")
        text_of_id = last.decode("utf-8", "replace")
        self._is_back = text_of_id not in ("", "-")  # and has read of channels with a history
        self._positions = decode_id(text_of_id) if len(last) <= MAX_ID else {}
        return open_stream(self, request, environ, exchange)
