"""The request of a handshake that is over, kept small and made again when it is asked for.

A request with its environ, session and user takes 6 KB of an idle socket, and after ``on_open``
most sockets never look at it again.  What is kept is what could also be handed to another process:
the text of the environ, the key of the session, and attributes that the site's own middleware has
put on the request.  A user whom the session knows is read from the database anew, so a handler sees
the account as it is; any other user object is kept.
"""

import io
import sys
from functools import partial
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest
from django.urls import Resolver404, ResolverMatch, resolve
from django.utils.functional import SimpleLazyObject

_OWN = frozenset(
    {
        *("environ", "path_info", "path", "META", "method", "content_type", "content_params"),
        *("COOKIES", "GET", "session", "user", "auser", "resolver_match", "_stream"),
        *("_read_started", "_cached_user", "_acached_user", "csrf_processing_done", "_messages"),
        *("csrf_cookie_needs_update", "_encoding", "_upload_handlers", "headers", "accepted_types"),
    }
)
"""Attributes that Django gives every request."""


class PastRequest(WSGIRequest):
    """A request made again; as the one of the handshake, but for what was read of its body."""

    _match: ResolverMatch | None = None

    @property
    def resolver_match(self) -> ResolverMatch | None:
        if self._match is None:
            try:
                self._match = resolve(self.path_info, getattr(self, "urlconf", None))
            except Resolver404:
                return None
        return self._match

    @resolver_match.setter
    def resolver_match(self, match: ResolverMatch | None) -> None:
        self._match = match


class Past:
    """What is kept of a request."""

    __slots__ = ("_attributes", "_environ", "_has_session", "_has_user", "_session_key", "_user")

    def __init__(self, request: HttpRequest) -> None:
        texts = [
            part
            for name, value in request.META.items()
            if type(value) is str
            for part in (name, value)
        ]
        self._environ = "\0".join(texts).encode("utf-8", "surrogatepass")
        self._has_session = hasattr(request, "session")
        self._session_key: str | None = getattr(
            getattr(request, "session", None), "session_key", None
        )
        # The authentication middleware's, which the session knows, or somebody else's.
        self._has_user = hasattr(request, "_cached_user")
        self._user = None if self._has_user else getattr(request, "user", None)
        self._attributes = {
            name: value for name, value in vars(request).items() if name not in _OWN
        } or None

    def request(self) -> PastRequest:
        """The request, made again."""
        texts = self._environ.decode("utf-8", "surrogatepass").split("\0")
        environ: dict[str, Any] = dict(zip(texts[::2], texts[1::2], strict=True))
        for name in ("PATH_INFO", "SCRIPT_NAME"):
            # Django has decoded these two in place.
            environ[name] = environ.get(name, "").encode().decode("latin-1")
        environ["wsgi.input"] = io.BytesIO()
        environ["wsgi.errors"] = sys.stderr
        request = PastRequest(environ)
        if self._has_session:
            engine = import_module(settings.SESSION_ENGINE)
            request.session = engine.SessionStore(self._session_key)
        if self._has_user:
            request.user = SimpleLazyObject(partial(_user_of, request))
        elif self._user is not None:
            request.user = self._user
        for name, value in (self._attributes or {}).items():
            setattr(request, name, value)
        return request


def _user_of(request: HttpRequest) -> Any:
    from django.contrib.auth import get_user  # needs its models, which a site may not have

    return get_user(request)
