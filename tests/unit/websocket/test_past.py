"""The handshake's request after the handshake."""

import pytest
from django.conf import settings
from django.test import RequestFactory

from gpulse.websocket.past import Past


@pytest.fixture(autouse=True)
def configured():
    if not settings.configured:
        settings.configure()


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


def test_it_is_small():
    past = Past(handshake(HTTP_USER_AGENT="x" * 100))
    assert len(past._environ) < 1500
    assert past._attributes is None
