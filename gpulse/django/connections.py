"""``close_old_connections`` for handlers of sockets, at no cost where no database is used.

Django's own asks each configured database of the caller's whether it has a connection, which takes
2 us twice for each handler: as much as all else around it.  Here each pool member remembers the
connections that it ever opened, told by Django's signal, and looks at those.
"""

import threading
from typing import Any

from django.conf import settings
from django.db.backends.signals import connection_created


class _Member(threading.local):
    """What belongs to one pool member: a greenlet where threads are patched."""

    opened: "list[Any] | None" = None


_member = _Member()
_is_used = False
"""Somebody in this process has opened a connection."""


def _remember(connection: Any, **kwargs: Any) -> None:
    global _is_used
    _is_used = True
    opened = _member.opened
    if opened is None:
        opened = _member.opened = []
    if connection not in opened:
        opened.append(connection)  # one for each alias, and it reconnects by itself


connection_created.connect(_remember, dispatch_uid="gpulse.django.connections")


def opened() -> "list[Any] | None":
    """The connections that the calling member ever opened, None if there are none."""
    return _member.opened if _is_used else None


def close_old(connections: "list[Any]") -> None:
    """Close those that are broken or older than CONN_MAX_AGE allows.

    Not amid a transaction, in which a handler begins only where a test has opened it.
    """
    for connection in connections:
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


def reset_queries(connections: "list[Any]") -> None:
    """With DEBUG on, forget the queries that were recorded."""
    if settings.DEBUG:
        for connection in connections:
            connection.queries_log.clear()
