"""WebSockets: a Django view until the 101, a parked socket after it.

What applications use::

    from gpulse.websocket import WebSocketConsumer
"""

from gpulse.websocket.consumer import WebSocketConsumer

__all__ = ["WebSocketConsumer"]
