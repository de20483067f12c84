"""The request of a handshake that is over, kept small and made again when it is asked for.

A request with its environ, session and user takes 6 KB of an idle socket, and after ``on_open``
most sockets never look at it again.  What is kept is what could also be handed to another process:
the text of the environ, the key of the session, and attributes that the site's own middleware has
put on the request.  A user whom the session knows is read from the database anew, so a handler sees
the account as it is; any other user object is kept.

Most of an environ is the server's or the browser's and the same for many sockets: that part is one
text for all of them, and only the values of the rest are a socket's own.
"""

import io
import json
import sys
from functools import partial
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, parse_cookie
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


_ALIKE = (
    *("SERVER_", "SCRIPT_NAME", "REQUEST_METHOD", "wsgi.", "gpulse.mode", "HTTP_ACCEPT"),
    *("HTTP_CACHE_CONTROL", "HTTP_CONNECTION", "HTTP_HOST", "HTTP_ORIGIN", "HTTP_PRAGMA"),
    *("HTTP_SEC_CH_", "HTTP_SEC_FETCH_", "HTTP_SEC_WEBSOCKET_EXTENSIONS", "HTTP_UPGRADE"),
    *("HTTP_SEC_WEBSOCKET_PROTOCOL", "HTTP_SEC_WEBSOCKET_VERSION", "HTTP_USER_AGENT"),
)
"""How names begin of which many sockets have one value."""

_KINDS = 1000
"""Texts of alike parts that are known at a time: about one for each version of a browser."""
_KIND_SIZE = 2048
"""Bytes of the longest that is shared.  No browser's is longer, and what is known outlives its
sockets, so nobody shall fill the memory with it."""

_kinds: dict[bytes, bytes] = {}

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _pack(value: list[Any]) -> bytes:
    # A header of bytes that are no UTF-8 has lone surrogates, and a path may have a NUL.
    return _encode(value).encode("utf-8", "surrogatepass")


def _unpack(packed: bytes) -> Any:
    return json.loads(packed.decode("utf-8", "surrogatepass"))


def _shared(packed: bytes) -> bytes:
    """The object that is kept of all that are equal."""
    if len(packed) > _KIND_SIZE:
        return packed
    if len(_kinds) >= _KINDS:
        _kinds.clear()  # those in use stay with their sockets
    return _kinds.setdefault(packed, packed)


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

    __slots__ = ("_alike", "_attributes", "_own", "_session")

    def __init__(self, request: HttpRequest) -> None:
        texts = {name: value for name, value in request.META.items() if type(value) is str}
        own = [name for name in texts if not name.startswith(_ALIKE)]
        self._own = _pack([texts.pop(name) for name in own])
        # The authentication middleware's, which the session knows, or somebody else's.
        knows_user = hasattr(request, "_cached_user")
        self._alike = _shared(_pack([texts, own, knows_user]))
        # False: there is none.  True: its key is the one in the cookie.
        self._session = _session_of(request)
        attributes = {name: value for name, value in vars(request).items() if name not in _OWN}
        if not knows_user and hasattr(request, "user"):
            attributes["user"] = request.user
        self._attributes = attributes or None

    def request(self) -> PastRequest:
        """The request, made again."""
        environ: dict[str, Any]
        environ, own, knows_user = _unpack(self._alike)
        environ.update(zip(own, _unpack(self._own), strict=True))
        for name in ("PATH_INFO", "SCRIPT_NAME"):
            # Django has decoded these two in place.
            environ[name] = environ.get(name, "").encode().decode("latin-1")
        environ["wsgi.input"] = io.BytesIO()
        environ["wsgi.errors"] = sys.stderr
        request = PastRequest(environ)
        if self._session is not False:
            key = _key_in_cookie(request) if self._session is True else self._session
            request.session = import_module(settings.SESSION_ENGINE).SessionStore(key)
        if knows_user:
            request.user = SimpleLazyObject(partial(_user_of, request))
        for name, value in (self._attributes or {}).items():
            setattr(request, name, value)
        return request


def _session_of(request: HttpRequest) -> bool | str | None:
    if not hasattr(request, "session"):
        return False
    key: str | None = getattr(request.session, "session_key", None)
    return True if key is not None and key == _key_in_cookie(request) else key


def _key_in_cookie(request: HttpRequest) -> str | None:
    """By the header: a site's middleware may have put another key into ``COOKIES``."""
    cookies = parse_cookie(request.META.get("HTTP_COOKIE", ""))
    key: str | None = cookies.get(settings.SESSION_COOKIE_NAME)
    return key


def _user_of(request: HttpRequest) -> Any:
    from django.contrib.auth import get_user  # needs its models, which a site may not have

    return get_user(request)
