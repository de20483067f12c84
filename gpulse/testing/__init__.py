"""Helpers for the tests of a site.

::

    from gpulse.testing import WebSocketClient      # a consumer, without network and processes
    from gpulse.testing import EventStreamClient    # an event stream, likewise
    from gpulse.testing import InlineWorker         # what these share, where it is to outlive them
    from gpulse.testing import LivePulse, live_pulse  # the real server, beside the test

Names are resolved when they are asked for: the clients need Django's settings, the server does not.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpulse.testing.client import WebSocketClient
    from gpulse.testing.inline import InlineWorker
    from gpulse.testing.live import LivePulse, live_pulse
    from gpulse.testing.stream import EventStreamClient

__all__ = ["EventStreamClient", "InlineWorker", "LivePulse", "WebSocketClient", "live_pulse"]

_MODULES = {
    "EventStreamClient": "stream",
    "InlineWorker": "inline",
    "LivePulse": "live",
    "WebSocketClient": "client",
    "live_pulse": "live",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"gpulse.testing.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
