"""For code written for Django Channels: its layer, its events by type, its consumers' methods.

A site moves by changing imports::

    from gpulse.channels import WebsocketConsumer, async_to_sync, get_channel_layer

A *group* is a channel of the data store of the same name, so ``group_send`` and
:func:`gpulse.publish` reach the same sockets.  Channels itself is not needed; where it stays
installed, ``"gpulse.channels.ChannelLayer"`` is a BACKEND for its CHANNEL_LAYERS.

Everything here is done when the call returns, and what it returns can be awaited too: so the same
method serves sync code, async code, and code that wraps it into ``async_to_sync``.

Refused: ``receive`` and the capacity and expiry of a layer, for a message is kept for nobody who is
not there; and adding another process's socket to a group.

Source: https://channels.readthedocs.io/en/stable/channel_layer_spec.html
"""

import json
import uuid
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import cached_property
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from asgiref.sync import async_to_sync as _async_to_sync
from asgiref.sync import markcoroutinefunction

from gpulse import store
from gpulse.websocket.closecodes import FORBIDDEN
from gpulse.websocket.consumer import WebSocketConsumer

DENIED = FORBIDDEN
"""The close code of a socket whose ``connect`` refused it."""

_sockets: "WeakValueDictionary[str, GroupEvents]" = WeakValueDictionary()


class DenyConnection(Exception):  # noqa: N818 - Channels' name
    """Raise it in ``connect`` to refuse the socket."""


class _Done:
    """The awaitable of what is done already."""

    __slots__ = ("_value",)

    def __init__(self, value: Any = None) -> None:
        self._value = value

    def __await__(self) -> Generator[None, None, Any]:
        yield from ()
        return self._value


class ChannelLayer:
    """The methods of a layer of Channels.

    Each does its work before it returns; awaiting what it returns is allowed, and not needed.
    """

    extensions: Sequence[str] = ("groups",)

    def __init__(self, **config: Any) -> None:
        if config:
            raise ValueError(
                f"CHANNEL_LAYERS sets {', '.join(sorted(config))} for gpulse.channels.ChannelLayer,"
                " which takes nothing: the server is named by GPULSE['data_store']"
            )

    def group_send(self, group: str, message: dict[str, Any]) -> Awaitable[None]:
        """Publish ``message`` to the sockets of ``group``.

        :param message: with a ``type``, which names the method that gets it.
        :raises ValueError: no type, or not the name of a channel.
        :raises PublishError: the store does not answer.
        """
        store.publish(group, _typed(message))
        return _Done()

    def send(self, channel: str, message: dict[str, Any]) -> Awaitable[None]:
        """Publish ``message`` to the one socket with this ``channel_name``."""
        return self.group_send(channel, message)

    def group_add(self, group: str, channel: str) -> Awaitable[None]:
        """Subscribe a socket of this process; returns when the store has confirmed.

        :raises ValueError: no socket of this process has that ``channel_name``.
        :raises SubscribeError: the store does not answer.
        """
        _socket(channel).subscribe(group)
        return _Done()

    def group_discard(self, group: str, channel: str) -> Awaitable[None]:
        """Unsubscribe a socket of this process; nothing if it is gone, for it was so then."""
        socket = _sockets.get(channel)
        if socket is not None:
            socket.unsubscribe(group)
        return _Done()

    def new_channel(self, prefix: str = "specific") -> Awaitable[str]:
        """A name that nobody has."""
        return _Done(_new_name(prefix))

    def receive(self, channel: str) -> Awaitable[dict[str, Any]]:
        """:raises NotImplementedError: always: consumers get what is published, others cannot."""
        raise NotImplementedError(
            f"nothing is received from the channel {channel} by hand: gpulse hands messages to "
            "the handlers of consumers"
        )


_METHODS = ("group_send", "send", "group_add", "group_discard", "new_channel", "receive")
for _name in _METHODS:
    # So that async_to_sync takes them for what they can be used as.
    markcoroutinefunction(getattr(ChannelLayer, _name))

_layer = ChannelLayer()


def get_channel_layer(alias: str = "default") -> ChannelLayer:
    """The layer; there is one, whatever the alias."""
    return _layer


def async_to_sync(call: Callable[..., Any]) -> Callable[..., Any]:
    """asgiref's, but for the methods of the layer, which are sync already.

    In greenlet mode it is more than a saving: an event loop that waits in one greenlet makes Django
    refuse its ORM to all others.
    """
    if isinstance(getattr(call, "__self__", None), ChannelLayer):
        return call
    wrapped: Callable[..., Any] = _async_to_sync(call)
    return wrapped


class GroupEvents(WebSocketConsumer):
    """A consumer that handles an event by its type: ``{"type": "chat.message", ...}`` is given to
    ``chat_message(event)``."""

    @property
    def channel_layer(self) -> ChannelLayer:
        return _layer

    @cached_property
    def channel_name(self) -> str:
        """A channel of this socket alone, subscribed at the first use of the name.

        :raises SubscribeError: the store does not answer.
        """
        name = _new_name("specific")
        self.subscribe(name)
        _sockets[name] = self
        return name

    def on_event(self, channel: str, message: Any, position: str | None) -> None:
        """Call the handler of the message's type.

        :raises ValueError: there is none, or the message has no type.
        """
        _typed(message)
        name = message["type"].replace(".", "_")
        handler = None if name.startswith("_") else getattr(type(self), name, None)
        if handler is None or self._is_own(name):
            raise ValueError(
                f"{type(self).__name__} has no handler {name!r} for a message of the type "
                f"{message['type']!r} on {channel}"
            )
        handler(self, message)

    @classmethod
    def _is_own(cls, name: str) -> bool:
        """Whether it is a method of a consumer as such, which no message may call."""
        ours = (__name__, WebSocketConsumer.__module__)
        return any(base.__module__ in ours and hasattr(base, name) for base in cls.__mro__)


class WebsocketConsumer(GroupEvents):
    """A consumer with the methods of ``channels.generic.websocket.WebsocketConsumer``.

    One thing differs: when ``connect`` runs, the handshake is over.  So ``accept`` does nothing,
    the subprotocol is chosen from ``subprotocols``, and a socket is refused by a close code that
    the page can read, 4403, in place of a status that it cannot.
    """

    groups: ClassVar[Sequence[str]] = ()
    """Subscribed before ``connect``."""

    @cached_property
    def scope(self) -> dict[str, Any]:
        """What most code reads of an ASGI scope, made of the request."""
        request = self.request
        meta = request.META
        return {
            "type": "websocket",
            "path": request.path,
            "query_string": meta.get("QUERY_STRING", "").encode("latin-1"),
            "headers": [
                (name.lower().encode("latin-1"), value.encode("latin-1"))
                for name, value in request.headers.items()
            ],
            "client": [meta.get("REMOTE_ADDR", ""), int(meta.get("REMOTE_PORT") or 0)],
            "subprotocols": [
                name.strip()
                for name in meta.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(",")
                if name.strip()
            ],
            "cookies": request.COOKIES,
            "session": getattr(request, "session", None),
            "user": self.user,
            "url_route": {"args": (), "kwargs": self.kwargs},
        }

    # -- what to override

    def connect(self) -> None:
        """The socket is open."""
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """A message came: text or binary."""

    def disconnect(self, code: int) -> None:
        """The socket is gone; its groups are left already."""

    # -- what to call

    def accept(self, subprotocol: str | None = None, headers: Any = None) -> None:
        """Does nothing: the handshake has accepted."""

    def send(
        self, text_data: str | None = None, bytes_data: bytes | None = None, close: bool = False
    ) -> None:
        """Send a message: text or binary; then close, if wanted."""
        if text_data is None and bytes_data is None:
            raise ValueError("send needs text_data or bytes_data")
        super().send(text_data if text_data is not None else bytes_data)
        if close:
            self.close()

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Start to close, with 1000 if no code is given."""
        super().close(1000 if code is None else code, reason or "")

    # -- the handlers of gpulse

    def on_open(self) -> None:
        for group in self.groups:
            self.subscribe(group)
        try:
            self.connect()
        except DenyConnection as error:
            self.close(DENIED, str(error)[:41])

    def on_message(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.receive(text_data=message)
        else:
            self.receive(bytes_data=message)

    def on_close(self, code: int, reason: str) -> None:
        self.disconnect(code)


class JsonWebsocketConsumer(WebsocketConsumer):
    """``channels.generic.websocket.JsonWebsocketConsumer``: messages are JSON text."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data is None:
            raise ValueError("a binary message came where JSON text is spoken")
        self.receive_json(self.decode_json(text_data))

    def receive_json(self, content: Any) -> None:
        """A message came."""

    def send_json(self, content: Any, close: bool = False) -> None:
        """Send a value as JSON text."""
        self.send(text_data=self.encode_json(content), close=close)

    @classmethod
    def decode_json(cls, text_data: str) -> Any:
        return json.loads(text_data)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        return json.dumps(content)


def _typed(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ValueError(f"a message of a group is a dict with a type, not {str(message)[:100]!r}")
    return message


def _socket(channel: str) -> GroupEvents:
    socket = _sockets.get(channel)
    if socket is None:
        raise ValueError(
            f"{channel} is the channel_name of no socket in this process: a consumer adds itself "
            "to a group, others publish to it"
        )
    return socket


def _new_name(prefix: str) -> str:
    return f"{prefix}.gpulse!{uuid.uuid4().hex}"
