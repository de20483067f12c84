"""What travels through the store: the payload of a message and the event made of it.

A payload is one kind byte and the body::

    b"t" + UTF-8       a str
    b"b" + bytes       a bytes
    b"j" + JSON text   anything else that JSON can hold, without NaN and Infinity
    b"m" + b"+" or b"-" + UTF-8    presence: a member came, or went
    b"p" + POSITION + b":" + payload    one of the above, with its place in the channel's history

The kind byte is what lets a text message come out as text and a binary one as binary, though the
store carries bytes; the body is what a WebSocket frame carries, so a delivery copies it and never
decodes it.  There is no history of this format to keep: a worker that meets a payload it does not
know (another program's, another version's) refuses it with ValueError, and the subscriber counts it
and goes on.

Pure: no I/O, no clock.  Used in every process that publishes or subscribes.
"""

import json
from collections.abc import Callable
from typing import Any

from gpulse.store.position import Position

MAX_PAYLOAD = 4 * 1024 * 1024
"""The longest payload in bytes, the kind byte included.  A publish of more is refused, and what a
foreign program publishes beyond it is not delivered.  A page of 5,000 sockets that gets one such
message already moves 20 GB."""

TEXT, BINARY, JSON, PRESENCE = "t", "b", "j", "m"
GAP = "g"
"""The kind of an event that never travels: messages were lost on the way to this worker."""
MAX_POSITION = 40
"""Bytes of a position: an epoch of 16, a dash, an offset of 20."""

_UNSET: Any = object()


def encode(message: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """The payload of ``message``.

    :param message: str, bytes (or bytearray, memoryview), or what ``json.dumps`` takes.
    :param default: as of ``json.dumps``: called for what JSON does not know.
    :raises ValueError: longer than ``MAX_PAYLOAD``, a lone surrogate, NaN or Infinity.
    :raises TypeError: JSON cannot hold it.
    """
    if isinstance(message, str):
        payload = b"t" + message.encode()
    elif isinstance(message, (bytes, bytearray, memoryview)):
        payload = b"b" + message
    else:
        text = json.dumps(
            message, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=default
        )
        payload = b"j" + text.encode()
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(
            f"a message of {len(payload) - 1} bytes is longer than the {MAX_PAYLOAD - 1} that the "
            "store carries; publish where to fetch it instead"
        )
    return payload


def encode_presence(joined: bool, member: str) -> bytes:
    """The payload that says that the first socket of ``member`` came, or its last one went."""
    return (b"m+" if joined else b"m-") + member.encode()


class Event:
    """One message that arrived on a channel; shared by all receivers of a worker, so read-only."""

    __slots__ = ("_message", "_text", "channel", "data", "forms", "kind", "position")

    def __init__(
        self,
        channel: str,
        kind: str,
        data: bytes,
        text: str | None = None,
        position: str | None = None,
    ) -> None:
        self.channel = channel
        self.kind = kind
        """``TEXT``, ``BINARY``, ``JSON``, ``PRESENCE`` or ``GAP``."""
        self.data = data
        """The body as bytes: UTF-8 but for ``BINARY``."""
        self.position = position
        """Where it stands in the channel's history, as text; None without a history."""
        self._text = text
        self._message = _UNSET
        self.forms: dict[Any, Any] = {}
        """Where the first receiver of a form leaves its encoding for the others."""

    @property
    def text(self) -> str:
        """The body as text.  :raises ValueError: the event is binary and not UTF-8."""
        if self._text is None:
            self._text = self.data.decode()
        return self._text

    @property
    def message(self) -> Any:
        """What was published: str, bytes or the JSON value, decoded once.

        The JSON value is one object for all receivers of the worker: copy it before a change.

        :raises ValueError: not JSON, which only another program than gpulse can have published.
        """
        if self._message is _UNSET:
            if self.kind == BINARY:
                self._message = self.data
            elif self.kind == TEXT:
                self._message = self.text
            else:
                self._message = json.loads(self.text)
        return self._message

    def __repr__(self) -> str:
        return f"<Event {self.channel!r} {self.kind} {len(self.data)} bytes>"


def decode(channel: str, payload: bytes) -> Event:
    """The event of a payload that came from the store.

    UTF-8 is checked here, because one ill-formed text frame makes every browser close its socket.

    :raises ValueError: empty, too long, of unknown kind, with a bad position or not UTF-8.
    """
    if len(payload) > MAX_PAYLOAD + MAX_POSITION + 2:
        raise ValueError(f"a payload of {len(payload)} bytes is over {MAX_PAYLOAD}")
    kind, body = payload[:1], payload[1:]
    position = None
    if kind == b"p":
        written, _, payload = body.partition(b":")
        position = str(Position.parse(written.decode("ascii", "replace")))
        kind, body = payload[:1], payload[1:]
    if kind == b"b":
        return Event(channel, BINARY, body, None, position)
    if kind in (b"t", b"j"):
        return Event(channel, kind.decode(), body, body.decode(), position)
    if kind == b"m" and body[:1] in (b"+", b"-"):
        return Event(channel, PRESENCE, body, body.decode(), position)
    raise ValueError(f"a payload of unknown kind {kind!r}: not published by gpulse")
