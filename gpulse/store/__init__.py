"""The data store: channels and presence between workers and machines.

The contract is in :mod:`gpulse.store.base`.  Here is which implementation a URL means, and the
store of this process, which :func:`publish` uses.  A worker installs its own at boot.  Any other
process (a management command, a Celery task, a script on another machine) opens one at its first
publish, from the environment variable ``GPULSE_DATA_STORE`` or from ``settings.GPULSE`` of Django;
the embedded store of a running site is found by :mod:`gpulse.runtimedir`, and found anew when the
site was started again.

Importing this costs neither gevent nor a parser of replies; opening a store by URL imports the
latter.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from gpulse import runtimedir, storeurl
from gpulse.errors import PublishError, StoreError
from gpulse.historyrules import HistoryRules, parse_history
from gpulse.store.base import Holding, Note, Receipt, Store, Subscriber, check_channel
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
_found: str | None = None
"""The socket of the embedded store that ``_current`` is; None if it is another."""


def open_store(
    url: str,
    app_name: str = DEFAULT_APP_NAME,
    workers: int = 1,
    call_hub: Callable[[Callable[[], None]], object] | None = None,
    history: HistoryRules | None = None,
) -> Store:
    """The store of ``url``; nothing is connected before its first use.

    :param url: see :mod:`gpulse.storeurl`; empty where the embedded store found no server program:
        then one worker gets a store in memory, and several one that says what to install.
    :param app_name: sites with different names share a server without hearing each other.
    :param call_hub: runs a function on the hub's thread, for the store in memory.
    :param history: which channels keep one; all processes of a site have to agree.
    :raises StoreError: a bad URL or app name, in one line.
    """
    if not _APP_NAME.fullmatch(app_name):
        raise StoreError(
            f"the app name {app_name!r} cannot prefix channels: "
            "write 1 to 64 characters without spaces and braces"
        )
    if not url:
        return MemoryStore(call_hub, rules=history) if workers == 1 else MissingStore()
    parsed = storeurl.parse(url)
    if parsed.scheme == "memory":
        if workers > 1:
            _log.warning(
                "memory:// is a store per worker: the %d workers do not hear each other", workers
            )
        return MemoryStore(call_hub, rules=history)
    # A process that needs no server is spared its parser.
    from gpulse.store.client import RedisStore

    return RedisStore(parsed, app_name, rules=history)


def open_site(site: runtimedir.Site) -> Store:
    """The embedded store of a site that runs on this machine."""
    return open_store(site.url, site.app_name, history=HistoryRules(site.history))


def installed() -> Store | None:
    """The store that was installed or found for this process, None if there is none yet."""
    return _current


def install(store: Store | None) -> None:
    """Make ``store`` the store of this process; None to find it anew at its next use."""
    global _current, _found
    with _lock:
        _current, _found = store, None


def current() -> Store:
    """The store of this process.

    :raises PublishError: none was installed and none is set.
    :raises StoreError: the URL that is set is bad.
    """
    global _current
    store = _current
    if store is not None and (_found is None or os.path.exists(_found)):
        return store
    with _lock:
        if _current is None or (_found is not None and not os.path.exists(_found)):
            _current, former = _open_from_outside(), _current
            if former is not None:
                former.close()
        return _current


def publish(channel: str, message: Any, *, key: str = "") -> Receipt:
    """Publish ``message`` (str, bytes or JSON-able) on ``channel``; see :func:`gpulse.publish`."""
    return current().publish(channel, encode(message), key=key)


def publish_on_commit(
    channel: str, message: Any, *, key: str = "", using: str | None = None
) -> None:
    """Publish when Django's transaction commits; the store's failure is logged in one line.

    :raises ValueError: a bad channel, or a message that is too long.
    :raises TypeError: a message that JSON cannot hold.
    """
    from django.db import transaction  # a publisher without a database needs no Django

    payload = encode(message)
    check_channel(channel)

    def committed() -> None:
        try:
            current().publish(channel, payload, key=key)
        except StoreError as error:
            _log.error("a message on channel %s that a commit was to publish: %s", channel, error)

    transaction.on_commit(committed, using=using)


def _open_from_outside() -> Store:
    """The store of a process that is not a worker."""
    global _found
    settings = _django_settings()
    url = os.environ.get("GPULSE_DATA_STORE") or settings.get("data_store") or "embedded"
    app_name = (
        os.environ.get("GPULSE_PULSE_APP_NAME")
        or settings.get("pulse_app_name")
        or DEFAULT_APP_NAME
    )
    if url == "embedded":
        site = runtimedir.find(str(app_name), settings_file(), os.environ)
        if site is None:
            raise PublishError(
                "this process is no gpulse worker, and no site with an embedded store runs here "
                f"for this user under the name {app_name!r} with these settings: start it, run "
                "this as its user, or set GPULSE_DATA_STORE or settings.GPULSE['data_store'] to "
                "the URL of one data store for both"
            )
        _found = runtimedir.socket_path(site)
        return open_site(site)
    _found = None
    raw = os.environ.get("GPULSE_HISTORY") or settings.get("history") or ()
    try:
        rules = HistoryRules(parse_history(raw))
    except ValueError as error:
        raise PublishError(f"GPULSE_HISTORY or settings.GPULSE['history'] {error}") from None
    return open_store(str(url), str(app_name), history=rules)


def settings_file() -> str:
    """The file of Django's settings module; empty without Django or such a module."""
    conf = sys.modules.get("django.conf")
    name = getattr(conf.settings, "SETTINGS_MODULE", None) if conf and _is_django() else None
    found: str | None = getattr(sys.modules.get(name or ""), "__file__", None)
    return os.path.realpath(found) if found else ""


def _django_settings() -> Mapping[str, Any]:
    """``settings.GPULSE`` where this is a process of Django, which is not imported for that."""
    if not _is_django():
        return {}
    found: Mapping[str, Any] = getattr(sys.modules["django.conf"].settings, "GPULSE", None) or {}
    return found


def _is_django() -> bool:
    module = sys.modules.get("django.conf")
    if module is None:
        return False
    return module.settings.configured or "DJANGO_SETTINGS_MODULE" in os.environ
