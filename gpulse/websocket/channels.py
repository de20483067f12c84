"""A consumer for gpulse's own client: channels, acknowledged requests and presence on one socket.

It speaks the WebSocket subprotocol ``gpulse.v1``, JSON objects as text; docs/topics/client.rst has
the table of them.  Where a client's network lets no WebSocket through, the same URL serves the same
objects as an event stream (GET) and takes requests one by one (POST, with the site's CSRF check).

A site subclasses :class:`ChannelConsumer`, says who may listen to what, and answers requests::

    class Room(ChannelConsumer):
        def may_subscribe(self, channel):
            return channel == f"room:{self.kwargs['slug']}"

        def on_request(self, data, key):
            self.publish(f"room:{self.kwargs['slug']}", {"text": data["text"]}, key=key)

Nothing is allowed that the subclass does not allow.
"""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn

from django.http import HttpRequest, HttpResponse, JsonResponse

from gpulse.django import accounts
from gpulse.errors import StoreError
from gpulse.http.exchange import Exchange
from gpulse.store.base import check_channel
from gpulse.store.message import Event, encode
from gpulse.store.position import Position
from gpulse.websocket.closecodes import BAD_REQUEST
from gpulse.websocket.consumer import WebSocketConsumer, text
from gpulse.websocket.eventstream import EventStreamSession
from gpulse.websocket.identities import network_of
from gpulse.websocket.shapes import enveloped
from gpulse.websocket.streams import open_stream

SUBPROTOCOL = "gpulse.v1"
PING_AFTER = 25
"""Seconds of silence after which a client asks for a sign of life: below the 30 to 60 after which
proxies and mobile networks forget a connection."""
MAX_KEY = 100
"""Characters of an idempotency key."""
MAX_POST = 1_048_576
"""Bytes of a request that comes by POST."""
RESERVED = "gpulse:"
"""How channels of gpulse's own begin: no client listens to them."""
RETRY_AFTER = 1.0
"""Seconds after which a client may repeat what failed because the store was away."""

log = logging.getLogger("gpulse.websocket")


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The application refuses a request; the client is told so, and the socket stays open.

    :param reason: one line for the person in front of the client.
    :param code: like an HTTP status: 400, 403, 404, 409, 429 or 503.
    :param retry_after: seconds after which the same request may succeed.
    """

    def __init__(self, reason: str, code: int = 403, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.retry_after = retry_after


class ChannelConsumer(WebSocketConsumer):
    """See the module's text.

    ``on_open`` and ``on_close`` may be overridden as ever; ``on_message`` is taken.
    """

    subprotocols = (SUBPROTOCOL,)
    _present: dict[str, str]
    _subscribed: set[str]

    @staticmethod
    def shape(event: Event) -> tuple[int, bytes] | None:
        return enveloped(event)

    # -- what to override

    def may_subscribe(self, channel: str) -> bool:
        """Whether this client may listen to ``channel``, and see who else does."""
        return False

    def member(self) -> str | None:
        """This client's name in the presence of its channels, None to be invisible there.

        By default the username of a user who is logged in.
        """
        user = self.user
        if user is None or not user.is_authenticated:
            return None
        return str(user.get_username())

    def on_request(self, data: Any, key: str) -> Any:
        """The client sent ``data``, a JSON value, and waits for what this returns (JSON-able).

        It may come again with the same ``key`` if its acknowledgement was lost on the way.  A
        request by POST has no socket: ``send``, ``close`` and ``subscribe`` are not for it.

        :param key: up to 100 printable ASCII characters; empty: the client gave none.
        :raises Refused: the client is told why.
        """
        raise Refused("nothing can be sent here", 404)

    # -- what to call

    def send(self, message: Any) -> None:
        """Send a message that belongs to no channel; the client's ``push`` event.

        :param message: what JSON can express.
        """
        self._reply({"type": "push", "data": message})

    def _reply(self, reply: Mapping[str, Any]) -> None:
        super().send(reply)

    # -- the socket

    def _dispatch(self, handler: str, *args: Any) -> None:
        if handler == "on_open":
            self._present = {}
            self._subscribed = set()
            self._reply({"type": "welcome", "ping": PING_AFTER})
            self.on_open()
            for request in self._first_requests():
                self._handle_request(request)
        elif handler == "on_message":
            parsed = _parsed(args[0])
            if parsed is None:
                self.close(BAD_REQUEST, "a request is a JSON object with a type")
            else:
                self._handle_request(parsed)
        elif handler == "on_rate_exceeded":
            refused = Refused("too many messages", 429, retry_after=args[1])
            self._reply(_error(_parsed(args[0]) or {}, refused))
        elif handler == "on_close":
            try:
                self.on_close(*args)
            finally:
                for channel in list(self._present):
                    self._leave(channel)
        else:
            super()._dispatch(handler, *args)

    def _first_requests(self) -> list[dict[str, Any]]:
        """What an event stream asks for in its URL."""
        return getattr(self, "_wanted", [])

    def _handle_request(self, request: dict[str, Any]) -> None:
        kind = request.get("type")
        if kind == "ping":
            self._reply({"type": "pong"})
            return
        handle = self._requests.get(kind) if isinstance(kind, str) else None
        if handle is None:
            self.close(BAD_REQUEST, "a request of an unknown type")
            return
        reply = self._answer_request(handle, request)
        if reply is not None:
            self._reply(reply)

    def _answer_request(
        self,
        handle: "Callable[[ChannelConsumer, dict[str, Any]], dict[str, Any] | None]",
        request: dict[str, Any],
    ) -> dict[str, Any] | None:
        """The reply to a request; None: it is sent already."""
        try:
            reply = handle(self, request)
            if reply is not None:
                encode(reply)  # what JSON cannot hold is the application's fault, told as such
            return reply
        except Refused as refused:
            return _error(request, refused)
        except StoreError as error:
            session = getattr(self, "_session", None)
            if session is not None and session.is_closed:
                return None  # it left while its request waited for the store
            log.error("%s: %s", type(self).__name__, error)
            away = Refused("the server cannot reach its data store", 503, RETRY_AFTER)
            return _error(request, away)
        except Exception:
            log.exception("%s: a request of type %s failed", type(self).__name__, request["type"])
            return _error(request, Refused("the server failed on this request", 500))

    def _subscribe(self, request: dict[str, Any]) -> None:
        channel = self._allowed_channel(request)
        since = request.get("since")
        if since is not None and not isinstance(since, str):
            raise Refused("since is a position, a text", 400)
        pool, session = self._services.pool, self._session
        if since is not None:
            try:
                Position.parse(since)
            except ValueError as error:
                raise Refused(str(error), 400) from None
        had, was_there = channel in self._subscribed, channel in self._present
        # Who is there is asked for after the subscription, so that no joining is missed; and the
        # answer goes out before what the channel has to say.
        pool, session = self._services.pool, self._session
        pool.call_hub(session.hold)
        try:
            try:
                found = self.subscribe(channel, since)
            except ValueError as error:
                raise Refused(str(error), 403) from None
            self._subscribed.add(channel)
            reply = {
                "type": "subscribed",
                "id": request.get("id"),
                "channel": channel,
                "position": found.position,
                "recovered": found.recovered,
                "missed": found.missed,
            }
            if request.get("presence"):
                self._join(channel)
                reply["members"] = self.presence.roster(channel)
            if isinstance(session, EventStreamSession):
                pool.call_hub(session.at, channel, since if found.missed else found.position)
            self._reply(reply)
        except BaseException:
            # What an earlier request made stays.
            if not was_there:
                self._leave(channel)
            if not had:
                self._subscribed.discard(channel)
                self.unsubscribe(channel)
            raise
        finally:
            pool.call_hub(session.release)

    def _unsubscribe(self, request: dict[str, Any]) -> dict[str, Any]:
        channel = _text_of(request, "channel")
        self._subscribed.discard(channel)
        self.unsubscribe(channel)
        self._leave(channel)
        return _ok(request)

    def _send(self, request: dict[str, Any]) -> dict[str, Any]:
        key = request.get("key", "")
        if not (isinstance(key, str) and key.isascii() and len(key) <= MAX_KEY):
            raise Refused(f"a key is at most {MAX_KEY} ASCII characters", 400)
        if key and not (key.isprintable() and " " not in key):
            raise Refused("a key has no spaces and control characters", 400)
        return _ok(request, self.on_request(request.get("data"), key))

    def _who(self, request: dict[str, Any]) -> dict[str, Any]:
        return _ok(request, self.presence.roster(self._allowed_channel(request)))

    _requests: ClassVar[dict[str, Callable[["ChannelConsumer", dict[str, Any]], Any]]] = {
        "subscribe": _subscribe,
        "unsubscribe": _unsubscribe,
        "send": _send,
        "presence": _who,
    }
    """THE table of what a client may ask for, but for ``ping``."""

    def _allowed_channel(self, request: dict[str, Any]) -> str:
        channel = _text_of(request, "channel")
        try:
            check_channel(channel)
        except ValueError as error:
            raise Refused(str(error), 400) from None
        if not self._is_open(channel):
            raise Refused("this channel is not open to you", 403)
        return channel

    def _is_open(self, channel: str) -> bool:
        return not channel.startswith(RESERVED) and self.may_subscribe(channel)

    def _join(self, channel: str) -> None:
        member = self.member()
        if member is not None and channel not in self._present:
            self.presence.enter(channel, member)
            self._present[channel] = member

    def _leave(self, channel: str) -> None:
        member = self._present.pop(channel, None)
        if member is None:
            return
        try:
            self.presence.leave(channel, member)
        except StoreError as error:
            # The worker's presence makes the store's equal to its own when the store is back.
            log.warning("%s has left %s, to be told later: %s", member, channel, error)

    # -- without a WebSocket

    def _handshake(self, environ: dict[str, Any], exchange: Exchange) -> HttpResponse:
        request = self.request
        if "websocket" not in environ.get("HTTP_UPGRADE", "").lower():
            if request.method == "POST":
                return self._post(request)
            if request.method == "GET" and "text/event-stream" in request.headers.get("Accept", ""):
                return self._stream(request, environ, exchange)
        return super()._handshake(environ, exchange)

    def _verdict(self, request: HttpRequest) -> HttpResponse | None:
        """:meth:`admit` for a client that understands statuses."""
        verdict = self.admit(request)
        if isinstance(verdict, int):
            status = verdict - 4000 if 4400 <= verdict < 4600 else 403
            return text(status, "not admitted")
        return verdict

    def _post(self, request: HttpRequest) -> HttpResponse:
        """One request: ``send`` or ``presence``.  The CSRF middleware has checked its token."""
        refusal = self._verdict(request)
        if refusal is not None:
            return refusal
        if len(request.body) > MAX_POST:
            return text(413, f"a request has at most {MAX_POST} bytes")
        parsed = _parsed(request.body.decode("utf-8", "replace"))
        if parsed is None or parsed.get("type") not in ("send", "presence"):
            return text(400, "POST a JSON object of type send or presence")
        self._present = {}
        wait = self._post_wait(request)
        if wait:
            reply = _error(parsed, Refused("too many messages", 429, retry_after=wait))
        else:
            reply = self._answer_request(self._requests[parsed["type"]], parsed) or {}
        return JsonResponse(reply, json_dumps_params={"ensure_ascii": False})

    def _post_wait(self, request: HttpRequest) -> float:
        """Seconds that this client has to wait for the rate of its requests; 0.0: none."""
        sockets = self._services.sockets
        limits = sockets.limits_of(self.limits, type(self).__name__)
        if not limits.rate:
            return 0.0
        identity = accounts.identity_of(request)
        who = identity.user or network_of(request.META.get("REMOTE_ADDR", ""))
        return sockets.post_rates.take(
            (type(self), who), sockets.clock(), limits.rate, limits.burst
        )

    def _stream(
        self, request: HttpRequest, environ: dict[str, Any], exchange: Exchange
    ) -> HttpResponse:
        refusal = self._refusal(request) or self._verdict(request)
        if refusal is not None:
            return refusal
        wanted = _wanted_channels(request)
        if wanted is None:
            return text(400, "channels is a JSON object of channels and positions")
        self._wanted = wanted
        return open_stream(self, request, environ, exchange)


def _parsed(message: str | bytes) -> dict[str, Any] | None:
    """A request; None if it is none: no JSON object, or one that cannot be answered in JSON."""
    if isinstance(message, bytes):
        return None
    try:
        request = json.loads(message, parse_constant=_no_constant)
        if "\\u" in message:
            encode(request)  # half a pair of surrogates is no text
    except (ValueError, RecursionError):
        return None
    if not isinstance(request, dict) or type(request.get("id")) not in (int, str, type(None)):
        return None
    return request


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not in JSON")


def _wanted_channels(request: HttpRequest) -> list[dict[str, Any]] | None:
    """The subscriptions that the URL of a stream asks for; None: they cannot be understood."""
    try:
        channels = json.loads(request.GET.get("channels", "{}"))
        presence = json.loads(request.GET.get("presence", "[]"))
        encode(channels)  # half a pair of surrogates is no text
    except (ValueError, RecursionError):
        return None
    if not isinstance(channels, dict) or not isinstance(presence, list):
        return None
    if not all(since is None or isinstance(since, str) for since in channels.values()):
        return None
    return [
        {
            "type": "subscribe",
            "id": 0,
            "channel": channel,
            "since": since,
            "presence": channel in presence,
        }
        for channel, since in channels.items()
    ]


def _text_of(request: dict[str, Any], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str):
        raise Refused(f"{name} is missing, or no text", 400)
    return value


def _ok(request: Mapping[str, Any], data: Any = None) -> dict[str, Any]:
    return {"type": "ok", "id": request.get("id"), "data": data}


def _error(request: Mapping[str, Any], refused: Refused) -> dict[str, Any]:
    reply = {
        "type": "error",
        "id": request.get("id"),
        "code": refused.code,
        "reason": refused.reason,
    }
    if isinstance(request.get("channel"), str):
        reply["channel"] = request["channel"]  # on a stream no request has a number of its own
    if refused.retry_after is not None:
        reply["retry_after"] = round(refused.retry_after, 3)
    return reply
