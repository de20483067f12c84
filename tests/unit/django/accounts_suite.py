"""Accounts with a real Django: users, sessions of every kind, signals, a database in memory.

Run by test_accounts.py, in a process of its own.
"""

import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from types import ModuleType

import django
import pytest
from django.conf import settings

from gpulse.websocket.identities import ANONYMOUS, Credentials, Identities, Identity, auth_digest

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"
ALL_USERS = "django.contrib.auth.backends.AllowAllUsersModelBackend"
SESSIONS = "django.contrib.sessions.backends"

settings.configure(
    SECRET_KEY="now",
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "gpulse",  # before what it needs, as a site may write it
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
    ],
    AUTHENTICATION_BACKENDS=[MODEL_BACKEND],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    ROOT_URLCONF="no_urls",
)
django.setup()

from django.contrib import auth  # noqa: E402
from django.contrib.auth.backends import ModelBackend  # noqa: E402
from django.contrib.auth.middleware import AuthenticationMiddleware  # noqa: E402
from django.contrib.auth.models import AnonymousUser, User  # noqa: E402
from django.contrib.sessions.backends.base import SessionBase  # noqa: E402
from django.contrib.sessions.backends.file import SessionStore as FileSessions  # noqa: E402
from django.contrib.sessions.middleware import SessionMiddleware  # noqa: E402
from django.contrib.sessions.models import Session  # noqa: E402
from django.core import signing  # noqa: E402
from django.core.cache import cache  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.test import RequestFactory, override_settings  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402
from django.utils import timezone  # noqa: E402

from gpulse import store  # noqa: E402
from gpulse.django import accounts  # noqa: E402
from gpulse.errors import PublishError  # noqa: E402
from gpulse.store.message import decode  # noqa: E402
from gpulse.websocket.watch import CHANNEL, AccountWatch, Note  # noqa: E402

ENGINES = ["db", "cached_db", "cache", "file", "signed_cookies"]
ON_THE_SERVER = ENGINES[:-1]


class Member(User):
    """What a site's own code may save instead of the user."""

    class Meta:
        proxy = True
        app_label = "auth"


# The proxy was made after the apps were loaded.
accounts.connect()


class Store:
    """Keeps what is published; raises what it is told to."""

    def __init__(self):
        self.published = []
        self.error = None

    def publish(self, channel, payload):
        if self.error is not None:
            raise self.error
        assert channel == CHANNEL
        self.published.append(payload)

    @property
    def notes(self):
        return [accounts.read(decode(CHANNEL, payload).text) for payload in self.published]


@pytest.fixture(scope="session", autouse=True)
def tables():
    call_command("migrate", run_syncdb=True, verbosity=0)


@pytest.fixture(autouse=True)
def published(tables, tmp_path, monkeypatch):
    # A site that runs on this machine has nothing to do with it.
    monkeypatch.setattr("gpulse.runtimedir.find", lambda *args: None)
    fake = Store()
    store.install(fake)
    with override_settings(SESSION_FILE_PATH=str(tmp_path)):
        yield fake
    store.install(fake)
    User.objects.all().delete()
    Session.objects.all().delete()
    store.install(None)
    cache.clear()


@pytest.fixture
def user(published):
    user = User.objects.create_user("ann", password="old")
    assert published.published == []
    return user


@contextmanager
def engine(name, **others):
    if "_storage_path" in vars(FileSessions):  # of the test before
        del FileSessions._storage_path
    with override_settings(SESSION_ENGINE=f"{SESSIONS}.{name}", **others):
        yield


class Browser:
    """Keeps its session cookie."""

    def __init__(self):
        self.cookies = {}
        self.response = None

    def visit(self, view, *, user_middleware=True):
        """What ``view(request)`` returns; the response is an upgrade's."""
        found = []

        def answer(request):
            found.append(view(request))
            return HttpResponse(status=101)

        inner = AuthenticationMiddleware(answer) if user_middleware else answer
        request = RequestFactory().get("/socket")
        request.COOKIES.update(self.cookies)
        self.response = SessionMiddleware(inner)(request)
        for name, morsel in self.response.cookies.items():
            self.cookies[name] = morsel.value
        return found[0]

    def log_in(self, user, backend=MODEL_BACKEND, expiry=None):
        def view(request):
            auth.login(request, user, backend)
            if expiry is not None:
                request.session.set_expiry(expiry)

        self.visit(view)
        return self

    def log_out(self):
        self.visit(auth.logout)

    def open(self, **options):
        return self.visit(accounts.identity_of, **options)


def credentials(identity):
    return Credentials(
        identity.user, identity.backend, auth_digest(identity.auth_hash), identity.session_key
    )


def check(identity):
    [verdict] = accounts.check([credentials(identity)])
    return verdict


# At the handshake


def test_a_visitor_without_a_cookie_costs_no_query_and_no_header():
    with CaptureQueriesContext(connection) as queries:
        browser = Browser()
        assert browser.open() == ANONYMOUS
    assert len(queries) == 0
    assert not browser.response.has_header("Vary")
    assert not browser.response.cookies


def test_a_request_without_sessions_and_users_is_a_visitors():
    assert accounts.identity_of(RequestFactory().get("/")) == ANONYMOUS


def test_a_user_object_of_middleware_that_keeps_no_session():
    request = RequestFactory().get("/")
    request.user = AnonymousUser()
    assert accounts.identity_of(request) == ANONYMOUS


@pytest.mark.parametrize("name", ENGINES)
def test_a_login_is_known_with_all_that_ends_it(name, user):
    with engine(name):
        browser = Browser().log_in(user)
        identity = browser.open()
    assert identity.user == str(user.pk)
    assert identity.auth_hash == user.get_session_auth_hash()
    assert identity.backend == MODEL_BACKEND
    assert 1209500 < identity.expires_in <= 1209600
    key = "" if name == "signed_cookies" else browser.cookies["sessionid"]
    assert identity.session_key == key
    assert identity.session_digest == (accounts.session_digest(key) if key else b"")
    assert not browser.response.has_header("Vary")
    assert not browser.response.cookies


def test_the_digest_of_a_session_is_keyed():
    digest = accounts.session_digest("k" * 32)
    assert len(digest) == 16
    assert digest == accounts.session_digest("k" * 32)
    with override_settings(SECRET_KEY="another"):
        assert digest != accounts.session_digest("k" * 32)


def test_a_session_that_the_application_read_still_varies(user):
    browser = Browser().log_in(user)

    def view(request):
        request.session.get("color")
        return accounts.identity_of(request)

    browser.visit(view)
    assert browser.response["Vary"] == "Cookie"


def test_a_session_that_the_application_changed_is_still_saved(user):
    browser = Browser().log_in(user)

    def view(request):
        request.session["color"] = "red"
        return accounts.identity_of(request)

    browser.visit(view)
    assert "sessionid" in browser.response.cookies
    assert browser.visit(lambda request: request.session["color"]) == "red"


@pytest.mark.parametrize("name", ENGINES)
def test_a_visitors_session_is_named_where_the_server_keeps_it(name):
    def view(request):
        request.session["basket"] = [1]

    with engine(name):
        browser = Browser()
        browser.visit(view)
        identity = browser.open()
        key = browser.cookies["sessionid"]
    digest = b"" if name == "signed_cookies" else accounts.session_digest(key)
    assert identity == ANONYMOUS._replace(session_digest=digest)


def test_a_cookie_that_names_no_session_is_a_visitors():
    browser = Browser()
    browser.cookies["sessionid"] = "x" * 32
    assert browser.open() == ANONYMOUS


def test_a_session_is_named_without_the_authentication_middleware(user):
    browser = Browser().log_in(user)
    identity = browser.open(user_middleware=False)
    digest = accounts.session_digest(browser.cookies["sessionid"])
    assert identity == ANONYMOUS._replace(session_digest=digest)


def test_a_session_of_its_own_length(user):
    assert Browser().log_in(user, expiry=300).open().expires_in == 300
    soon = Browser().log_in(user, expiry=timezone.now() + timedelta(seconds=300)).open()
    assert 290 < soon.expires_in <= 300


@pytest.mark.parametrize(
    ("expiry", "age", "left"), [(None, 1000, 1209600 - 1000), (300, 100, 200), (300, 500, -200)]
)
def test_a_session_in_a_cookie_ends_by_the_time_of_its_signature(
    expiry, age, left, user, monkeypatch
):
    now = time.time()
    with engine("signed_cookies"):
        monkeypatch.setattr(time, "time", lambda: now - age)
        browser = Browser().log_in(user, expiry=expiry)
        monkeypatch.undo()
        assert browser.open().expires_in == pytest.approx(left, abs=5)


def test_a_session_in_a_cookie_without_time_zones(user):
    with engine("signed_cookies", USE_TZ=False, TIME_ZONE="America/Chicago"):
        assert Browser().log_in(user).open().expires_in == pytest.approx(1209600, abs=5)


def test_a_session_signed_with_an_older_key_gets_its_new_name(user):
    with override_settings(SECRET_KEY="older"):
        browser = Browser().log_in(user)
        before = browser.open()
    with override_settings(SECRET_KEY_FALLBACKS=["older"]):
        after = browser.open()
        assert after.session_key == browser.cookies["sessionid"] != before.session_key
        assert "sessionid" in browser.response.cookies
        assert check(after).reason == ""
        assert check(before).reason == accounts.SESSION_ENDED


def with_user(user):
    def view(request):
        request.user = user
        return accounts.identity_of(request)

    return view


def test_a_user_known_by_a_token_is_watched_without_a_session(user):
    identity = Browser().visit(with_user(user))
    assert identity == Identity(str(user.pk), user.get_session_auth_hash(), b"", "", "", None)
    assert check(identity).reason == ""
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert check(identity).reason == accounts.ACCOUNT_ENDED


def test_a_user_that_is_no_row_of_the_site_is_counted_and_not_asked_about():
    class Machine:
        is_authenticated = True
        pk = 17

    identity = Browser().visit(with_user(Machine()))
    assert identity == Identity("17", "", b"", "", "", None)


def test_whoever_acts_as_somebody_else_is_watched_as_that_user_and_by_the_session(user):
    boss = User.objects.create_user("boss", password="b")
    browser = Browser().log_in(boss)
    identity = browser.visit(with_user(user))
    assert (identity.user, identity.backend) == (str(user.pk), "")
    assert check(identity).reason == ""
    browser.log_out()
    assert check(identity).reason == accounts.SESSION_ENDED


# Checking


@pytest.mark.parametrize("name", ENGINES)
def test_a_login_holds_and_then_ends(name, user):
    with engine(name):
        identity = Browser().log_in(user).open()
        assert check(identity).reason == ""
        user.set_password("new")
        user.save()
        assert check(identity).reason == accounts.PASSWORD_CHANGED
        user.is_active = False
        user.save()
        assert check(identity).reason == accounts.ACCOUNT_ENDED
        user.delete()
        assert check(identity).reason == accounts.ACCOUNT_ENDED


@pytest.mark.parametrize("name", ON_THE_SERVER)
def test_a_session_that_was_left_ends_its_login_and_no_other(name, user):
    with engine(name):
        browser, other = Browser().log_in(user), Browser().log_in(user)
        identities = [browser.open(), other.open()]
        browser.log_out()
        verdicts = accounts.check([credentials(identity) for identity in identities])
        assert [verdict.reason for verdict in verdicts] == [accounts.SESSION_ENDED, ""]


@pytest.mark.parametrize("name", ["db", "cached_db"])
def test_the_database_knows_when_a_session_ends(name, user):
    with engine(name):
        identity = Browser().log_in(user).open()
        rows = Session.objects.filter(session_key=identity.session_key)
        rows.update(expire_date=timezone.now() + timedelta(seconds=50))
        assert check(identity).expires_in == pytest.approx(50, abs=5)
        rows.update(expire_date=timezone.now() - timedelta(seconds=1))
        assert check(identity).reason == accounts.SESSION_ENDED


def test_a_session_that_was_prolonged_ends_later(user):
    browser = Browser().log_in(user)
    identity = browser.open()
    Session.objects.update(expire_date=timezone.now() + timedelta(seconds=50))
    browser.visit(lambda request: request.session.update({"color": "red"}))
    assert check(identity).expires_in == pytest.approx(1209600, abs=5)


def test_an_expired_session_file_ends_the_login_and_leaves_no_other(user, tmp_path):
    with engine("file"):
        identity = Browser().log_in(user).open()
        with override_settings(SESSION_COOKIE_AGE=-1):
            assert check(identity).reason == accounts.SESSION_ENDED
    assert list(tmp_path.iterdir()) == []


def test_sessions_of_a_store_of_the_sites_own(user, monkeypatch):
    kept = {}

    class SessionStore(SessionBase):
        def load(self):
            if self.session_key not in kept:
                self._session_key = None
            return dict(kept.get(self.session_key, {}))

        def exists(self, session_key):
            return session_key in kept

        def create(self):
            self._session_key = self._get_new_session_key()
            self.save()
            self.modified = True

        def save(self, must_create=False):
            kept[self._get_or_create_session_key()] = dict(self._get_session(no_load=must_create))

        def delete(self, session_key=None):
            kept.pop(session_key or self.session_key, None)

    module = ModuleType("own_sessions")
    module.SessionStore = SessionStore
    monkeypatch.setitem(sys.modules, "own_sessions", module)
    with override_settings(SESSION_ENGINE="own_sessions"):
        browser = Browser().log_in(user)
        identity = browser.open()
        assert check(identity) == ("", None)
        browser.log_out()
        assert check(identity).reason == accounts.SESSION_ENDED
    assert kept == {}


@pytest.mark.parametrize("name", ["db", "cached_db"])
def test_two_queries_serve_any_number_of_logins(name):
    with engine(name):
        people = [User(username=str(number), password="x") for number in range(50)]
        User.objects.bulk_create(people)
        logins = [credentials(Browser().log_in(each).open()) for each in User.objects.all()]
        with CaptureQueriesContext(connection) as queries:
            verdicts = accounts.check(logins + logins)
    assert len(queries) == 2
    assert [verdict.reason for verdict in verdicts] == [""] * 100


def test_a_password_hash_made_with_an_older_key_still_holds(user):
    with override_settings(SECRET_KEY="older"):
        identity = Browser().log_in(user).open()
    assert check(identity).reason == accounts.PASSWORD_CHANGED
    with override_settings(SECRET_KEY_FALLBACKS=["oldest", "older"]):
        assert check(identity).reason == ""


def test_a_backend_that_lets_inactive_users_in_is_believed(user):
    with override_settings(AUTHENTICATION_BACKENDS=[ALL_USERS]):
        identity = Browser().log_in(user, ALL_USERS).open()
        User.objects.update(is_active=False)
        assert check(identity).reason == ""


def test_a_backend_that_the_site_gave_up_ends_its_logins(user):
    with override_settings(AUTHENTICATION_BACKENDS=[ALL_USERS, MODEL_BACKEND]):
        identity = Browser().log_in(user, ALL_USERS).open()
        assert check(identity).reason == ""
    assert check(identity).reason == accounts.ACCOUNT_ENDED


class Doorkeeper(ModelBackend):
    """A backend with a rule of its own."""

    banned = set()

    def get_user(self, user_id):
        return None if user_id in self.banned else super().get_user(user_id)


def test_a_backend_with_a_rule_of_its_own_is_asked(user, monkeypatch):
    path = f"{__name__}.Doorkeeper"
    monkeypatch.setattr(auth, "load_backend", lambda found: Doorkeeper())
    with override_settings(AUTHENTICATION_BACKENDS=[path]):
        identity = Browser().log_in(user, path).open()
        assert check(identity).reason == ""
        monkeypatch.setattr(Doorkeeper, "banned", {user.pk})
        assert check(identity).reason == accounts.ACCOUNT_ENDED


def test_a_primary_key_that_is_none_ends_the_login():
    verdicts = accounts.check(
        [Credentials("no number", backend, b"", "") for backend in ("", MODEL_BACKEND)]
    )
    assert [verdict.reason for verdict in verdicts] == [accounts.ACCOUNT_ENDED] * 2


def test_a_database_that_is_away_is_told_to_the_caller(user):
    identity = Browser().log_in(user).open()
    with connection.execute_wrapper(lambda *_: 1 / 0), pytest.raises(ZeroDivisionError):
        check(identity)


# Telling


@pytest.mark.parametrize("name", ON_THE_SERVER)
def test_a_logout_names_the_user_and_the_session(name, user, published):
    with engine(name):
        browser = Browser().log_in(user)
        key = browser.cookies["sessionid"]
        browser.log_out()
    digest = accounts.session_digest(key)
    assert published.notes == [Note(str(user.pk), digest, accounts.LOGGED_OUT, True)]
    assert key.encode() not in published.published[0]


def test_a_logout_of_a_session_in_a_cookie_is_one_of_all_the_users(user, published):
    with engine("signed_cookies"):
        Browser().log_in(user).log_out()
    assert published.notes == [Note(str(user.pk), b"", accounts.LOGGED_OUT, True)]


def test_a_visitors_logout_and_a_login_say_nothing(user, published):
    Browser().log_out()
    Browser().log_in(user)  # saves last_login
    assert User.objects.get().last_login is not None
    assert published.published == []


def test_a_saved_user_is_to_be_checked(user, published):
    note = Note(str(user.pk), b"", "", False)
    user.save()
    user.save(update_fields=["password", "last_login"])
    Member.objects.get().save()
    assert published.notes == [note] * 3
    user.save(update_fields=["last_login"])
    user.save(update_fields=[])
    assert published.notes == [note] * 3


def test_a_deleted_user_is_to_be_closed(user, published):
    pk = str(user.pk)
    User.objects.filter(pk=user.pk).delete()
    assert published.notes == [Note(pk, b"", accounts.ACCOUNT_ENDED, True)]


def test_nothing_is_said_before_the_commit_and_never_after_a_rollback(user, published):
    with transaction.atomic():
        user.save()
        accounts.revoke(user)
        assert published.published == []
    assert len(published.published) == 2
    with transaction.atomic():
        user.save()
        transaction.set_rollback(True)
    assert len(published.published) == 2


def test_revoke(user, published):
    accounts.revoke(user, reason="banned")
    accounts.revoke(user.pk)
    accounts.revoke(session_key="k" * 32)
    digest = accounts.session_digest("k" * 32)
    assert published.notes == [
        Note(str(user.pk), b"", "banned", True),
        Note(str(user.pk), b"", "the login was revoked", True),
        Note(None, digest, "the login was revoked", True),
    ]
    with pytest.raises(ValueError, match="user or a session"):
        accounts.revoke()
    with pytest.raises(ValueError, match="123 bytes"):
        accounts.revoke(user, reason="é" * 62)


def test_a_store_that_is_away_is_one_line_and_breaks_nothing(user, published, caplog):
    browser = Browser().log_in(user)
    published.error = PublishError("the data store is away")
    browser.log_out()
    with transaction.atomic():
        user.save()
    user.delete()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert all("the data store is away" in line for line in caplog.messages)
    assert not any("\n" in line for line in caplog.messages)
    assert not User.objects.exists()


def test_without_a_store_it_is_a_line_that_nobody_sees_unasked(user, caplog, monkeypatch):
    def none():
        raise PublishError("this process is no worker")

    monkeypatch.setattr(store, "current", none)
    caplog.set_level("INFO", logger="gpulse.accounts")
    user.save()
    [record] = caplog.records
    assert record.levelname == "INFO"
    assert "this process is no worker" in record.getMessage()


def test_a_database_that_is_away_does_not_break_a_logout(user, published):
    with engine("cache"):
        browser = Browser().log_in(user)

        def view(request):
            request.user.is_authenticated  # noqa: B018 - asks the database
            with connection.execute_wrapper(lambda *_: 1 / 0):
                auth.logout(request)

        browser.visit(view)
    assert len(published.published) == 1


# Reading


def test_only_what_the_site_signed_is_read(user, published):
    accounts.revoke(user)
    text = decode(CHANNEL, published.published[0]).text
    assert accounts.read(text) is not None
    assert accounts.read(text[:-1] + ("A" if text[-1] != "A" else "B")) is None
    assert accounts.read("") is None
    assert accounts.read('{"user": "1", "session": "", "why": "", "close": true}') is None
    with override_settings(SECRET_KEY="another"):
        assert accounts.read(text) is None
    with override_settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=["now"]):
        assert accounts.read(text) is not None


@pytest.mark.parametrize(
    "content", [[], {}, {"user": "1"}, {"user": "1", "session": "xyz", "why": "", "close": 1}]
)
def test_a_signed_message_of_another_version_is_ignored(content):
    assert accounts.read(signing.dumps(content, salt="gpulse.accounts")) is None


# All together


class Socket:
    def __init__(self):
        self.entry = None
        self.closed = None

    def close(self, code, reason):
        assert self.closed is None
        self.closed = (code, reason)


class Site:
    """One worker of a site."""

    def __init__(self, published):
        self.now = 1000.0
        self.published = published
        self.identities = Identities()
        self.watch = AccountWatch(self.identities, self, self, lambda: self.now)
        self.watch.accounts = accounts

    def add(self, channel, receiver, done):
        assert (channel, receiver) == (CHANNEL, self.watch)

    def submit(self, job):
        job()

    def call_hub(self, call, *args):
        call(*args)

    def open(self, browser):
        socket = Socket()
        self.watch.watch(socket, browser.open(), "192.0.2.1")
        return socket

    def turn(self, seconds=0.0):
        published, self.published.published = self.published.published, []
        for payload in published:
            self.watch.deliver(decode(CHANNEL, payload))
        self.now += seconds
        self.watch.tick(self.now)


@pytest.mark.parametrize("name", ON_THE_SERVER)
def test_a_logout_closes_the_sockets_of_that_browser(name, user, published):
    site = Site(published)
    with engine(name):
        laptop, phone = Browser().log_in(user), Browser().log_in(user)
        tabs = [site.open(laptop), site.open(laptop)]
        other = site.open(phone)
        laptop.log_out()
        site.turn()
        assert [tab.closed for tab in tabs] == [(4401, accounts.LOGGED_OUT)] * 2
        for _ in range(100):
            site.turn(5.0)
        assert other.closed is None
        assert site.watch.checked > 5


def test_a_changed_password_closes_all_but_the_one_that_logs_in_again(user, published):
    site = Site(published)
    browser, other = Browser().log_in(user), Browser().log_in(user)
    sockets = [site.open(browser), site.open(other)]

    def change(request):
        request.user.set_password("new")
        request.user.save()
        auth.update_session_auth_hash(request, request.user)

    browser.visit(change)
    site.turn()
    reasons = [socket.closed for socket in sockets]
    assert reasons == [(4401, accounts.PASSWORD_CHANGED)] * 2
    again = site.open(browser)
    site.turn(100.0)
    assert again.closed is None


def test_an_ordinary_save_closes_nothing(user, published):
    site = Site(published)
    socket = site.open(Browser().log_in(user))
    user.first_name = "Ann"
    user.save()
    site.turn()
    assert site.watch.checked == 1
    assert socket.closed is None


def test_a_silent_update_is_found_within_a_minute_and_a_told_one_at_once(user, published):
    site = Site(published)
    silent = site.open(Browser().log_in(user))
    User.objects.update(is_active=False)
    site.turn()
    assert silent.closed is None
    for _ in range(12):
        site.turn(1.0)
    assert silent.closed == (4401, accounts.ACCOUNT_ENDED)
    User.objects.update(is_active=True)
    told = site.open(Browser().log_in(user))
    User.objects.update(is_active=False)
    accounts.revoke(user)
    site.turn()
    assert told.closed == (4401, "the login was revoked")


def test_clearsessions_and_deleted_sessions_are_found(user, published):
    site = Site(published)
    socket = site.open(Browser().log_in(user))
    Session.objects.all().delete()
    for _ in range(12):
        site.turn(1.0)
    assert socket.closed == (4401, accounts.SESSION_ENDED)
