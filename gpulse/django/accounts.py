"""Sockets follow accounts: a logout, a change of password, a deactivation or the end of a session
ends the user's sockets on every worker and machine.

Three parts, in the order of a login's life:

* :func:`identity_of`: at the handshake, who opens the socket and by what login.
* Receivers of Django's signals publish a message on ``CHANNEL``, and so does :func:`revoke`.  Each
  worker that has sockets of users reads them (:func:`read`), closes what is to be closed and checks
  what may have changed.
* :func:`check`: on a pool member, whether logins still hold, by the rules of Django's own
  ``django.contrib.auth.get_user``: the backend knows the user and lets it in, the password is the
  one of the login, the session is there.

A message is sent when the transaction commits, so that whoever is told finds the change in the
database.  No store, or one that is away, never breaks a logout or a save: it is one line in the
log, and the change is found by the next periodic check.

A message is signed with the site's secret key: an application that publishes on a channel that its
client chose cannot be made to log people out.  It names a session by a keyed digest, for who knows
a session's key has the session.

Runs in any process of the site; imports ``django.contrib.auth``'s models only in functions, for a
site without them has consumers, too.
"""

import logging
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from hmac import compare_digest
from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib import auth
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends import cache as cache_sessions
from django.contrib.sessions.backends import db as db_sessions
from django.contrib.sessions.backends import signed_cookies
from django.core import signing
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import close_old_connections, router, transaction
from django.db.models.signals import post_delete, post_save
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import salted_hmac

from gpulse import store
from gpulse.errors import PublishError, StoreError
from gpulse.store.message import encode
from gpulse.websocket.identities import ANONYMOUS, DIGEST, Credentials, Identity, auth_digest
from gpulse.websocket.watch import CHANNEL, HOLDS, Note, Verdict

log = logging.getLogger("gpulse.accounts")

_SALT = "gpulse.accounts"
_SESSION_SALT = "gpulse.accounts.session"

LOGGED_OUT = "logged out"
SESSION_ENDED = "the session ended"
PASSWORD_CHANGED = "the password was changed"
ACCOUNT_ENDED = "the account is not active any more"


# At the handshake


def identity_of(request: HttpRequest) -> Identity:
    """Who opens a socket with ``request``; on a pool member, for it may ask the database.

    It asks what ``request.user`` asks, and nothing more: what a handler later finds in
    ``self.user`` must be known now, or nobody would watch it.  The session is not modified, and
    that it was read does not count, so that the response gets no ``Vary`` for it.  (Django itself
    modifies a session whose hash was made with one of ``SECRET_KEY_FALLBACKS``.)
    """
    session = getattr(request, "session", None)
    accessed = getattr(session, "accessed", True)
    try:
        return _identity(getattr(request, "user", None), session)
    finally:
        if session is not None and not accessed and not session.modified:
            session.accessed = False


def _identity(user: Any, session: Any) -> Identity:
    if user is None or not user.is_authenticated or user.pk is None:
        key = getattr(session, "session_key", None)
        if not key or isinstance(session, signed_cookies.SessionStore):
            return ANONYMOUS
        return ANONYMOUS._replace(session_digest=session_digest(key))
    pk = _pk_text(user)
    if session is None or auth.SESSION_KEY not in session:
        # Middleware knows the user from elsewhere: a token, a certificate.
        return Identity(pk, _hash_of(user), b"", "", "", None)
    if session[auth.SESSION_KEY] == pk:
        auth_hash = session.get(auth.HASH_SESSION_KEY) or ""
        backend = sys.intern(str(session.get(auth.BACKEND_SESSION_KEY) or ""))
    else:  # a member of the staff who looks at the site as somebody else
        auth_hash, backend = _hash_of(user), ""
    if isinstance(session, signed_cookies.SessionStore):
        return Identity(pk, auth_hash, b"", "", backend, _cookie_expires_in(session))
    key = session.session_key or ""
    digest = session_digest(key) if key else b""
    return Identity(pk, auth_hash, digest, key, backend, float(session.get_expiry_age()))


def session_digest(session_key: str) -> bytes:
    """Names a session without giving it away: 16 bytes, keyed with ``SECRET_KEY``."""
    key = session_key.encode("utf-8", "surrogatepass")
    digest: bytes = salted_hmac(_SESSION_SALT, key, algorithm="sha256").digest()
    return digest[:DIGEST]


def _pk_text(user: Any) -> str:
    """The primary key as a session keeps it."""
    meta = getattr(user, "_meta", None)
    return str(user.pk if meta is None else meta.pk.value_to_string(user))


def _hash_of(user: Any) -> str:
    """Of a user of the site's model; empty for any other object, of which nobody can be asked."""
    try:
        model = auth.get_user_model()
    except ImproperlyConfigured:
        return ""  # a site without django.contrib.auth
    if not isinstance(user, model):
        return ""
    return str(user.get_session_auth_hash()) if hasattr(user, "get_session_auth_hash") else ""


def _cookie_expires_in(session: Any) -> float:
    """A session in a signed cookie ends as long after its signature as its age says."""
    age = float(session.get_session_cookie_age())
    try:
        signed = signing.b62_decode(session.session_key.rsplit(":", 2)[1])
    except (AttributeError, IndexError, ValueError):
        return age
    at = datetime.fromtimestamp(signed, tz=timezone.get_default_timezone())
    if not settings.USE_TZ:
        at = at.replace(tzinfo=None)
    age = min(age, float(session.get_expiry_age(modification=at)))
    return float(age - (timezone.now() - at).total_seconds())


# Telling


def revoke(
    user: Any = None, session_key: str | None = None, reason: str = "the login was revoked"
) -> None:
    """Close sockets with 4401, on all workers and machines, when the transaction commits.

    Call it where no signal tells of a change: after ``QuerySet.update(is_active=False)``, or when
    a user lost a permission that a consumer asked for at its handshake.

    :param user: a user or its primary key: all of the user's sockets.
    :param session_key: only the sockets that were opened with this session.
    :param reason: sent to the client in the close frame; at most 123 bytes of UTF-8.
    :raises ValueError: neither is given, or the reason is too long.
    """
    if user is None and not session_key:
        raise ValueError("revoke() needs a user or a session key")
    if len(reason.encode()) > 123:
        raise ValueError("a close reason is at most 123 bytes of UTF-8")
    if user is not None:
        user = _pk_text(user) if hasattr(user, "pk") else str(user)
    digest = session_digest(session_key) if session_key else b""
    _tell_on_commit(Note(user, digest, reason, close=True))


def connect() -> None:
    """Connect the receivers; once, when all models are loaded."""
    user_logged_out.connect(_logged_out, dispatch_uid="gpulse.accounts.logged_out")
    model = auth.get_user_model()
    # Django sends a proxy's or a child's own class.  A receiver of all classes would do, too, but
    # would also slow down every deletion of the site.
    for each in apps.get_models():
        if issubclass(each, model):
            uid = f"gpulse.accounts.{each._meta.label}"
            post_save.connect(_user_saved, sender=each, dispatch_uid=uid)
            post_delete.connect(_user_deleted, sender=each, dispatch_uid=uid)


def _logged_out(request: Any = None, user: Any = None, **kwargs: Any) -> None:
    """Sent before the session is deleted."""
    if user is None:
        return  # nobody was logged in
    session = getattr(request, "session", None)
    key = getattr(session, "session_key", None)
    if isinstance(session, signed_cookies.SessionStore):
        key = None  # nothing on the server tells one of the user's sessions from another
    digest = session_digest(key) if key else b""
    _tell_on_commit(Note(_pk_text(user), digest, LOGGED_OUT, close=True))


def _user_saved(
    instance: Any = None,
    created: bool = False,
    update_fields: Collection[str] | None = None,
    using: str | None = None,
    **kwargs: Any,
) -> None:
    if created or (update_fields is not None and set(update_fields) <= {"last_login"}):
        return
    # What makes a login end is the model's and the backend's matter, so the workers check.
    _tell_on_commit(Note(_pk_text(instance), b"", "", close=False), using)


def _user_deleted(instance: Any = None, using: str | None = None, **kwargs: Any) -> None:
    _tell_on_commit(Note(_pk_text(instance), b"", ACCOUNT_ENDED, close=True), using)


def _tell_on_commit(note: Note, using: str | None = None) -> None:
    connection = transaction.get_connection(using)
    if connection.in_atomic_block:
        connection.on_commit(partial(_tell, note), robust=True)
    else:
        _tell(note)  # without a look at the connection, which may be away or not be needed at all


def _tell(note: Note) -> None:
    """Publish; what goes wrong is a line in the log."""
    try:
        current = store.current()
    except StoreError as error:
        log.info(
            "the sockets of user %s learn of a change only at their next check: %s",
            note.user,
            error,
        )
        return
    try:
        current.publish(CHANNEL, encode(_write(note)))
    except PublishError as error:
        log.warning(
            "the sockets of user %s learn of a change only at their next check: %s",
            note.user,
            error,
        )


def _write(note: Note) -> str:
    text: str = signing.dumps(
        {"user": note.user, "session": note.session.hex(), "why": note.reason, "close": note.close},
        salt=_SALT,
    )
    return text


def read(text: str) -> Note | None:
    """The note in a message of ``CHANNEL``; None for one that this site did not write."""
    try:
        found = signing.loads(text, salt=_SALT)
        return Note(
            found["user"], bytes.fromhex(found["session"]), found["why"], bool(found["close"])
        )
    except (signing.BadSignature, KeyError, TypeError, ValueError):
        return None


# Checking


def check(logins: Sequence[Credentials]) -> list[Verdict]:
    """For each login whether it still holds, and when its session ends.

    On a pool member: it asks the user's table once, and once the sessions'.  Both are read where
    they are written, for a replica may not have got the change yet.

    :raises Exception: whatever the database or the session store raises; nothing is known then.
    """
    close_old_connections()
    try:
        wanted = set(logins)
        users = _users(wanted)
        sessions = _sessions({login.session_key for login in wanted if login.session_key})
        verdicts = {
            login: _judge(login, users[login.backend, login.user], sessions) for login in wanted
        }
        return [verdicts[login] for login in logins]
    finally:
        close_old_connections()


def _judge(login: Credentials, user: Any, sessions: Mapping[str, float | None]) -> Verdict:
    if user is None:
        return Verdict(ACCOUNT_ENDED, None)
    if login.auth and not _proves(login.auth, user):
        return Verdict(PASSWORD_CHANGED, None)
    if not login.session_key:
        return HOLDS
    if login.session_key not in sessions:
        return Verdict(SESSION_ENDED, None)
    return Verdict("", sessions[login.session_key])


def _proves(digest: bytes, user: Any) -> bool:
    """Whether the hash of the login is the user's, made with any key that the site still takes."""
    if not hasattr(user, "get_session_auth_hash"):
        return True  # a backend's own kind of user, as Django has it
    if compare_digest(digest, auth_digest(user.get_session_auth_hash())):
        return True
    older = getattr(user, "get_session_auth_fallback_hash", tuple)
    return any(compare_digest(digest, auth_digest(each)) for each in older())


def _users(logins: Iterable[Credentials]) -> dict[tuple[str, str], Any]:
    """The user of each (backend, primary key); None for one that may not be logged in."""
    wanted: dict[str, set[str]] = {}
    for login in logins:
        wanted.setdefault(login.backend, set()).add(login.user)
    found: dict[tuple[str, str], Any] = {}
    for path, keys in wanted.items():
        found.update(((path, key), user) for key, user in _users_of(path, keys))
    return found


def _users_of(path: str, keys: set[str]) -> Iterable[tuple[str, Any]]:
    # Imports the models of django.contrib.auth.
    from django.contrib.auth.backends import ModelBackend

    allows: Callable[[Any], bool] = _is_active
    if path:
        if path not in settings.AUTHENTICATION_BACKENDS:
            return [(key, None) for key in keys]  # as Django: the site does not use it any more
        backend = auth.load_backend(path)
        if getattr(type(backend), "get_user", None) is not ModelBackend.get_user:
            return [(key, _ask(backend, key)) for key in keys]
        allows = backend.user_can_authenticate
    model = auth.get_user_model()
    values = {key: _pk_value(model, key) for key in keys}
    manager = model._default_manager.db_manager(router.db_for_write(model))
    users = manager.in_bulk([value for value in values.values() if value is not None])
    known = {key: users.get(value) for key, value in values.items()}
    return [(key, user if user and allows(user) else None) for key, user in known.items()]


def _ask(backend: Any, key: str) -> Any:
    """A backend with a ``get_user`` of its own, one by one."""
    value = _pk_value(auth.get_user_model(), key)
    return None if value is None else backend.get_user(value)


def _pk_value(model: Any, key: str) -> Any:
    try:
        return model._meta.pk.to_python(key)
    except ValidationError:
        return None


def _is_active(user: Any) -> bool:
    return bool(getattr(user, "is_active", True))


def _sessions(keys: set[str]) -> dict[str, float | None]:
    """The sessions that are there, each with the seconds until it ends or None where its store does
    not say."""
    if not keys:
        return {}
    engine: Any = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(engine, db_sessions.SessionStore):
        now = timezone.now()
        model = engine.get_model_class()
        rows = model._default_manager.using(router.db_for_write(model)).filter(
            session_key__in=keys, expire_date__gt=now
        )
        return {
            key: (ends - now).total_seconds()
            for key, ends in rows.values_list("session_key", "expire_date")
        }
    if issubclass(engine, cache_sessions.SessionStore):
        names = {engine.cache_key_prefix + key: key for key in keys}
        found = caches[settings.SESSION_CACHE_ALIAS].get_many(names)
        return {names[name]: None for name, data in found.items() if auth.SESSION_KEY in data}
    return {key: None for key in keys if _is_logged_in(engine(key), key)}


def _is_logged_in(session: Any, key: str) -> bool:
    """Whether a session of any other store is there."""
    found = auth.SESSION_KEY in session
    if session.session_key not in (key, None):
        session.delete()  # the file store makes an empty one in place of one that expired
    return found
