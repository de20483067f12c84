"""Where the chat keeps its users and sessions: ``DATABASE_URL`` -> an entry of ``DATABASES``.

::

    sqlite:////var/lib/chat/db.sqlite3                      four slashes: an absolute path
    postgresql://chat:secret@db.example:5432/chat?sslmode=require
    postgresql://chat@/chat?host=/run/postgresql            a unix socket

What follows the question mark goes to the driver's connect call.
"""

from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured


def database(url: str) -> dict[str, Any]:
    """The ``DATABASES`` entry for ``url``.

    :raises ImproperlyConfigured: it is none of the above.
    """
    try:
        parts = urlsplit(url)
        name = unquote(parts.path.removeprefix("/"))
        if parts.scheme == "sqlite" and name and not parts.netloc:
            return _sqlite(name)
        if parts.scheme in ("postgres", "postgresql") and name:
            return _postgresql(name, parts)
    except ValueError:
        pass  # urlsplit's word for a malformed host or port: refused below, like all the rest
    # The value is not shown: it may hold a password.
    raise ImproperlyConfigured(
        "DATABASE_URL names no database that the chat can use: "
        "write sqlite:////PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME"
    )


def _postgresql(name: str, parts: SplitResult) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or ""),
        "PORT": parts.port or "",
        "OPTIONS": dict(parse_qsl(parts.query)),
        # A pool member serves many requests in its life, so a connection is worth keeping.
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
    }


def _sqlite(path: str) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": {
            # SQLite waits for its lock inside C code, where no other greenlet can run: write-ahead
            # logging makes that wait rare, the timeout (seconds) keeps it short, and IMMEDIATE
            # takes the lock at the start of a transaction, where waiting for it still helps.
            "timeout": 2,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }
