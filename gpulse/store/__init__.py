"""The data store: channels and presence between workers and machines.

The contract is in :mod:`gpulse.store.base`.  Here is which implementation a URL means, and the
store of this process, which :func:`publish` uses.  A worker installs its own at boot.  Any other
process (a management command, a Celery task, a script on another machine) opens one at its first
publish, from the environment variable ``GPULSE_DATA_STORE`` or from ``settings.GPULSE`` of Django.

Importing this costs neither gevent nor redis-py; opening a store by URL imports the latter.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from gpulse import storeurl
from gpulse.errors import PublishError, StoreError
from gpulse.store.base import Holding, Note, Store, Subscriber
from gpulse.store.memory import MemoryStore
from gpulse.store.message import Event, encode
from gpulse.store.missing import MissingStore

__all__ = [
    "Event",
    "Holding",
    "Note",
    "Store",
    "Subscriber",
    "current",
    "install",
    "open_store",
    "publish",
]

DEFAULT_APP_NAME = "gpulse"

_APP_NAME = re.compile(r"[^\s{}\x00-\x1f\x7f]{1,64}")
_log = logging.getLogger("gpulse.store")
_lock = threading.Lock()
_current: Store | None = None


def open_store(
    url: str,
    app_name: str = DEFAULT_APP_NAME,
    workers: int = 1,
    call_hub: Callable[[Callable[[], None]], object] | None = None,
) -> Store:
    """The store of ``url``; nothing is connected before its first use.

    :param url: see :mod:`gpulse.storeurl`; empty where the embedded store found no server program:
        then one worker gets a store in memory, and several one that says what to install.
    :param app_name: sites with different names share a server without hearing each other.
    :param call_hub: runs a function on the hub's thread, for the store in memory.
    :raises StoreError: a bad URL or app name, in one line.
    """
    if not _APP_NAME.fullmatch(app_name):
        raise StoreError(
            f"the app name {app_name!r} cannot prefix channels: "
            "write 1 to 64 characters without spaces and braces"
        )
    if not url:
        return MemoryStore(call_hub) if workers == 1 else MissingStore()
    parsed = storeurl.parse(url)
    if parsed.scheme == "memory":
        if workers > 1:
            _log.warning(
                "memory:// is a store per worker: the %d workers do not hear each other", workers
            )
        return MemoryStore(call_hub)
    # A process that needs no server is spared redis-py.
    from gpulse.store.client import RedisStore

    return RedisStore(parsed, app_name)


def install(store: Store | None) -> None:
    """Make ``store`` the store of this process; None to find it anew at its next use."""
    global _current
    with _lock:
        _current = store


def current() -> Store:
    """The store of this process.

    :raises PublishError: none was installed and none is set.
    :raises StoreError: the URL that is set is bad.
    """
    global _current
    store = _current
    if store is not None:
        return store
    with _lock:
        if _current is None:
            _current = _open_from_outside()
        return _current


def publish(channel: str, message: Any) -> int:
    """Publish ``message`` (str, bytes or JSON-able) on ``channel``; how many subscribers there are.

    A subscriber is a worker, not a socket.

    :raises PublishError: the store is away or not set.
    :raises ValueError: a bad channel name, or a message that is too long.
    :raises TypeError: a message that JSON cannot hold.
    """
    return current().publish(channel, encode(message))


def _open_from_outside() -> Store:
    """The store of a process that is not a worker."""
    settings = _django_settings()
    url = os.environ.get("GPULSE_DATA_STORE") or settings.get("data_store") or "embedded"
    if url == "embedded":
        raise PublishError(
            "this process is no gpulse worker, and the embedded store answers only to its site's "
            "workers: set GPULSE_DATA_STORE or settings.GPULSE['data_store'] to the URL of one "
            "data store for both"
        )
    app_name = (
        os.environ.get("GPULSE_PULSE_APP_NAME")
        or settings.get("pulse_app_name")
        or DEFAULT_APP_NAME
    )
    return open_store(str(url), str(app_name))


def _django_settings() -> Mapping[str, Any]:
    """``settings.GPULSE`` where this is a process of Django, which is not imported for that."""
    module = sys.modules.get("django.conf")
    if module is None:
        return {}
    settings = module.settings
    if not settings.configured and "DJANGO_SETTINGS_MODULE" not in os.environ:
        return {}
    found: Mapping[str, Any] = getattr(settings, "GPULSE", None) or {}
    return found
