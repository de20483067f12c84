"""WebSockets: a Django view until the 101, a parked socket after it.

What applications use::

    from gpulse.websocket import ChannelConsumer, LoginRequiredMixin, Refused, WebSocketConsumer

The names are resolved when they are asked for: the worker imports this package's lower modules, and
consumers stand above the worker and need Django.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpulse.websocket.channels import ChannelConsumer, Refused
    from gpulse.websocket.consumer import WebSocketConsumer
    from gpulse.websocket.mixins import (
        LoginRequiredMixin,
        PermissionRequiredMixin,
        UserPassesTestMixin,
    )

__all__ = [
    "ChannelConsumer",
    "LoginRequiredMixin",
    "PermissionRequiredMixin",
    "Refused",
    "UserPassesTestMixin",
    "WebSocketConsumer",
]

_HOMES = {"Refused": "channels", "ChannelConsumer": "channels", "WebSocketConsumer": "consumer"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'mixins')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
