"""The handshake's request after the handshake."""

from types import SimpleNamespace

import pytest
from django.conf import settings
from django.test import RequestFactory

from gpulse.websocket import past as module
from gpulse.websocket.past import Past


@pytest.fixture(autouse=True)
def configured():
    if not settings.configured:
        settings.configure()
    module._kinds.clear()


def handshake(**headers):
    return RequestFactory().get("/rooms/é/?a=1&a=2", HTTP_COOKIE="theme=dark", **headers)


def test_it_has_the_same_address_headers_and_cookies():
    then = handshake(HTTP_USER_AGENT="Aé/1", HTTP_EMPTY="", REMOTE_ADDR="192.0.2.7")
    now = Past(then).request()
    assert (now.method, now.path, now.path_info) == ("GET", then.path, then.path_info)
    assert now.GET.getlist("a") == ["1", "2"]
    assert now.COOKIES == {"theme": "dark"}
    assert dict(now.headers) == dict(then.headers)
    assert now.META["REMOTE_ADDR"] == "192.0.2.7"
    assert now.get_full_path() == then.get_full_path()
    assert now.body == b""


def test_what_middleware_put_on_it_is_there():
    then = handshake()
    then.tenant = {"name": "a"}
    assert Past(then).request().tenant is then.tenant


def test_a_user_of_somebody_elses_middleware_is_kept():
    then = handshake()
    then.user = object()
    assert Past(then).request().user is then.user


def test_without_sessions_and_users_there_are_none():
    now = Past(handshake()).request()
    assert not hasattr(now, "session")
    assert not hasattr(now, "user")


def test_a_path_may_have_a_zero_byte():
    then = RequestFactory().get("/rooms/%00/%00%00/", HTTP_USER_AGENT="x")
    now = Past(then).request()
    assert now.path_info == then.path_info == "/rooms/\0/\0\0/"
    assert now.headers["User-Agent"] == "x"


def test_a_header_may_be_no_utf_8():
    assert Past(handshake(HTTP_X_NAME="\udce9")).request().META["HTTP_X_NAME"] == "\udce9"


class Session:
    def __init__(self, key):
        self.session_key = key


@pytest.fixture
def session_engine(monkeypatch):
    monkeypatch.setattr(module, "import_module", lambda name: SimpleNamespace(SessionStore=Session))


@pytest.mark.usefixtures("session_engine")
@pytest.mark.parametrize("key", ["abc", "another since the login", None])
def test_a_session_is_found_again_by_its_key(key):
    then = RequestFactory().get("/", HTTP_COOKIE=f"a=b; {settings.SESSION_COOKIE_NAME}=abc")
    then.session = Session(key)
    past = Past(then)
    assert past.request().session.session_key == key
    assert (past._session is True) is (key == "abc")  # it stands in the cookie


@pytest.mark.usefixtures("session_engine")
@pytest.mark.parametrize("header", ["a=b", "sessionid=another"])
def test_a_session_key_that_the_sites_middleware_put_in_place_of_the_cookie_is_kept(header):
    """As for a mobile application, whose key comes in a header of its own."""
    then = RequestFactory().get("/", HTTP_COOKIE=header)
    then.COOKIES["sessionid"] = "abc"
    then.session = Session("abc")
    assert Past(then).request().session.session_key == "abc"


def test_it_is_small():
    past = Past(handshake(HTTP_USER_AGENT="x" * 100, HTTP_ACCEPT_LANGUAGE="de"))
    assert len(past._own) < 150
    assert past._attributes is None


def test_sockets_of_one_kind_of_browser_share_what_is_alike():
    one, two, other = (
        Past(handshake(HTTP_USER_AGENT=agent, REMOTE_ADDR=address))
        for agent, address in (("x", "192.0.2.1"), ("x", "192.0.2.2"), ("y", "192.0.2.1"))
    )
    assert one._alike is two._alike
    assert two.request().META["REMOTE_ADDR"] == "192.0.2.2"
    assert other.request().headers["User-Agent"] == "y"


def test_what_is_shared_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "_KINDS", 3)
    pasts = [Past(handshake(HTTP_USER_AGENT=f"x{number}")) for number in range(10)]
    assert len(module._kinds) <= 3
    long = Past(handshake(HTTP_USER_AGENT="x" * 4000))
    assert long._alike not in module._kinds
    assert long.request().headers["User-Agent"] == "x" * 4000
    assert [past.request().headers["User-Agent"] for past in pasts] == [f"x{n}" for n in range(10)]
