"""The application's side of a WebSocket or an event stream, as the server sees it."""

from typing import Protocol

from gpulse.store.message import GAP, PRESENCE, Event

EVENT_HANDLERS = frozenset({"on_event", "on_presence", "on_gap"})
HANDLERS = {PRESENCE: "on_presence", GAP: "on_gap"}
"""Kinds of events with a handler of their own; all others have ``on_event``."""


class Handlers(Protocol):
    """What the application does with a socket.  Handlers are called on the pool, one at a time."""

    @property
    def handled(self) -> frozenset[str]:
        """The handlers of events that the application has: of ``on_event``, ``on_presence`` and
        ``on_gap``.  Other events go to the client in their shape."""

    def shape(self, event: Event, /) -> tuple[int, bytes] | None:
        """How an event goes to the client, see :mod:`gpulse.websocket.shapes`."""

    def handle(self, handler: str, *args: object) -> None:
        """Call ``on_open()``, ``on_message(message)``, ``on_rate_exceeded(message, seconds)``,
        ``on_event(event)``, ``on_presence(event)``, ``on_gap(event)`` or ``on_close(code,
        reason)``; whatever else belongs around a handler is its matter."""


class NoHandlers:
    """The application's side of what has none, or has it no more."""

    handled: frozenset[str] = frozenset()

    @staticmethod
    def shape(event: Event) -> tuple[int, bytes] | None:
        return None

    def handle(self, handler: str, *args: object) -> None:
        """Nothing happens."""


NO_HANDLERS = NoHandlers()
