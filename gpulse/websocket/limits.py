"""The bounds of one WebSocket in one object.  Pure.

What a site may choose is a row of ``gpulse.options``, and what one class of consumers may choose is
an entry of its ``limits``; the rest is said here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from gpulse.options import BY_NAME

CLOSE, DROP = "close", "drop"
"""What becomes of a client that reads too slowly: it is closed, or loses its oldest messages."""


def _option(name: str) -> Any:
    """The default and the name of the option that sets the field."""
    return field(default=BY_NAME[name].default, metadata={"option": name})


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Sizes in bytes, times in seconds, rates per second, the rest counts; 0 is no bound where the
    option says so."""

    message: int = _option("websocket_message")
    """Largest message, also of one that comes compressed."""
    inbox: int = _option("websocket_inbox")
    """Messages that wait for a handler before reading stops."""
    events: int = _option("websocket_events")
    """Events that wait for an ``on_event`` of the application's before the socket is closed."""
    outgoing: int = _option("websocket_outgoing")
    """Bytes that wait for the client before it counts as too slow."""
    outgoing_age: float = _option("websocket_outgoing_age")
    """How long the oldest of them may wait before it does."""
    slow: str = _option("websocket_slow")
    """``CLOSE`` or ``DROP``."""
    rate: float = _option("websocket_rate")
    """Messages from the client in the long run; 0: any."""
    burst: int = _option("websocket_burst")
    """Messages at once within that rate."""
    subscriptions: int = _option("websocket_subscriptions")
    """Channels of one socket."""
    per_user: int = _option("websocket_per_user")
    """Sockets of one user on one worker; 0: any."""
    per_address: int = _option("websocket_per_address")
    """Sockets of one client address on one worker; 0: any."""
    idle_timeout: float = _option("websocket_idle_timeout")
    """Time without a message from the client before the socket is closed; 0: never."""
    ping_interval: float = _option("websocket_ping_interval")
    """Silence before a ping."""
    ping_timeout: float = _option("websocket_ping_timeout")
    """How long the client then has to send anything."""
    compress_from: int = _option("websocket_compress_from")
    """Shortest message that is compressed where the client can; 0: none is."""
    write_stall: float = 30.0
    """Longest time in which a client takes not one byte."""
    close_timeout: float = 5.0
    """From our close frame to the end of the connection."""

    @classmethod
    def of(cls, config: Any) -> Self:
        """The bounds that the options ask for."""
        return cls(
            **{
                name: getattr(config, each.metadata["option"])
                for name, each in cls.__dataclass_fields__.items()
                if "option" in each.metadata
            }
        )

    def changed(self, wanted: Mapping[str, Any], owner: str) -> Self:
        """These bounds with those of a consumer's ``limits``, checked as the options are.

        :param owner: the class, for the message.
        :raises ValueError: no such bound, or a value that its option refuses.
        """
        values: dict[str, Any] = {}
        for name, value in wanted.items():
            known = self.__dataclass_fields__.get(name)
            if known is None:
                names = ", ".join(self.__dataclass_fields__)
                raise ValueError(f"{owner}.limits has {name!r}, which is none of {names}")
            option = known.metadata.get("option")
            try:
                values[name] = BY_NAME[option].check(value) if option else float(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{owner}.limits[{name!r}] {error}: {value!r}") from None
        return replace(self, **values)
