"""Who may open a socket."""

from types import SimpleNamespace

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpResponse

from gpulse.websocket import WebSocketConsumer
from gpulse.websocket.mixins import (
    LoginRequiredMixin,
    PermissionRequiredMixin,
    UserPassesTestMixin,
)


@pytest.fixture(autouse=True)
def configured():
    if not settings.configured:
        settings.configure()


class User:
    def __init__(self, *permissions, is_authenticated=True):
        self.is_authenticated = is_authenticated
        self.permissions = set(permissions)

    def has_perms(self, wanted):
        return self.permissions >= set(wanted)


VISITOR = User(is_authenticated=False)


def admit(kind, user):
    consumer = kind()
    consumer.request = SimpleNamespace(user=user)
    consumer.kwargs = {}
    return consumer.admit(consumer.request)


class Members(LoginRequiredMixin, WebSocketConsumer):
    pass


class Editors(PermissionRequiredMixin, WebSocketConsumer):
    permission_required = "news.change_article"


class Publishers(Editors):
    permission_required = ("news.change_article", "news.publish")


class Fortunate(UserPassesTestMixin, WebSocketConsumer):
    def test_func(self):
        return self.request.user.permissions == {"luck"}


class FortunateEditors(Fortunate, PermissionRequiredMixin):
    permission_required = "luck"


@pytest.mark.parametrize(
    ("kind", "user", "answer"),
    [
        (Members, User(), None),
        (Members, VISITOR, 4401),
        (Editors, User("news.change_article"), None),
        (Editors, User(), 4403),
        (Editors, VISITOR, 4401),
        (Publishers, User("news.change_article"), 4403),
        (Publishers, User("news.change_article", "news.publish"), None),
        (Fortunate, User("luck"), None),
        (Fortunate, User("luck", "skill"), 4403),
        (Fortunate, VISITOR, 4401),
        (FortunateEditors, User("luck"), None),
        (FortunateEditors, User("skill"), 4403),
    ],
)
def test_who_may_open_a_socket(kind, user, answer):
    assert admit(kind, user) == answer


def test_all_mixins_and_the_consumer_itself_are_asked():
    class Closed(WebSocketConsumer):
        def admit(self, request):
            return HttpResponse(status=418)

    class Both(LoginRequiredMixin, PermissionRequiredMixin, Closed):
        permission_required = ["a", "b"]

    assert admit(Both, VISITOR) == 4401
    assert admit(Both, User("a")) == 4403
    assert admit(Both, User("a", "b")).status_code == 418


def test_raise_exception_answers_the_handshake_instead():
    class Strict(LoginRequiredMixin, WebSocketConsumer):
        raise_exception = True
        permission_denied_message = "members only"

    with pytest.raises(PermissionDenied, match="members only"):
        admit(Strict, VISITOR)


def test_what_is_missing_is_told():
    class Nameless(PermissionRequiredMixin, WebSocketConsumer):
        pass

    class Untested(UserPassesTestMixin, WebSocketConsumer):
        pass

    with pytest.raises(ImproperlyConfigured, match=r"Nameless\.permission_required"):
        admit(Nameless, User())
    with pytest.raises(NotImplementedError, match="Untested"):
        admit(Untested, User())


def test_without_the_authentication_middleware_nobody_is_let_in():
    consumer = Members()
    consumer.request = SimpleNamespace()
    with pytest.raises(ImproperlyConfigured, match="AuthenticationMiddleware"):
        consumer.admit(consumer.request)


def test_a_mixin_behind_the_consumer_is_refused():
    with pytest.raises(ImproperlyConfigured, match="name it first"):

        class Open(WebSocketConsumer, LoginRequiredMixin):
            pass
