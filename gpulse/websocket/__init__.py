"""WebSockets: a Django view until the 101, a parked socket after it.

What applications use::

    from gpulse.websocket import WebSocketConsumer

The name is resolved when it is asked for: the worker imports this package's lower modules, and the
consumer stands above the worker and needs Django.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpulse.websocket.consumer import WebSocketConsumer

__all__ = ["WebSocketConsumer"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from gpulse.websocket.consumer import WebSocketConsumer

        return WebSocketConsumer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
