"""Who may open a socket: Django's access mixins, for consumers.

::

    class Room(PermissionRequiredMixin, WebSocketConsumer):
        permission_required = "rooms.enter_room"

A view would redirect to the login or answer 403.  A script in a browser sees neither of a refused
handshake: it learns only that no socket opened (close code 1006), as if the server were away, and
tries again.  So the handshake is accepted and the socket closed at once with a code that the script
can read and that tells it to stay away: 4401 for a visitor who is not logged in, 4403 for a user
who may not.  No handler of the consumer runs.

What is asked at the handshake is not asked again: a login that ends closes the socket by itself,
but after taking a permission away call :func:`gpulse.django.accounts.revoke`.

Name a mixin before the consumer; the other order is refused, for it would check nothing.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, TypeAlias

from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpRequest, HttpResponse

from gpulse.websocket.closecodes import FORBIDDEN, UNAUTHENTICATED
from gpulse.websocket.consumer import WebSocketConsumer

Answer: TypeAlias = int | HttpResponse | None
"""What ``admit`` returns: None lets the client in; a close code closes the socket as soon as it is
open; a response is sent in place of the handshake."""


class AccessMixin:
    """What the three have in common.  Each asks, and then asks what stands behind it."""

    raise_exception: ClassVar[bool] = False
    """True: the handshake is answered 403, as for clients that are no browsers."""
    permission_denied_message: ClassVar[str] = ""
    """Of that 403."""

    request: HttpRequest

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for each in cls.__mro__:
            if each is WebSocketConsumer:
                raise ImproperlyConfigured(
                    f"{cls.__name__} names an access mixin behind the consumer, where it is never "
                    "asked; name it first"
                )
            if each is AccessMixin:
                return

    def admit(self, request: HttpRequest) -> Answer:
        """Whether this client may open the socket; before it opens.  ``self.request``,
        ``self.user`` and ``self.kwargs`` are set."""
        answer: Answer = super().admit(request)  # type: ignore[misc]
        return answer

    def handle_no_permission(self) -> Answer:
        """The answer to a client that may not; override it to redirect, for example."""
        if self.raise_exception:
            raise PermissionDenied(self.permission_denied_message)
        return FORBIDDEN if self._user.is_authenticated else UNAUTHENTICATED

    @property
    def _user(self) -> Any:
        user = getattr(self.request, "user", None)
        if user is None:
            raise ImproperlyConfigured(
                f"{type(self).__name__} asks who the user is, but nothing sets request.user: add "
                "django.contrib.auth.middleware.AuthenticationMiddleware to MIDDLEWARE"
            )
        return user


class LoginRequiredMixin(AccessMixin):
    """Only for users who are logged in."""

    def admit(self, request: HttpRequest) -> Answer:
        if not self._user.is_authenticated:
            return self.handle_no_permission()
        return super().admit(request)


class PermissionRequiredMixin(AccessMixin):
    """Only for users who have all of ``permission_required``."""

    permission_required: ClassVar[str | Iterable[str] | None] = None
    """One permission (``"app.codename"``) or several."""

    def get_permission_required(self) -> Iterable[str]:
        """The permissions to ask for.  :raises ImproperlyConfigured: none are named."""
        if self.permission_required is None:
            name = type(self).__name__
            raise ImproperlyConfigured(
                f"{name} does not say which permission it requires: set "
                f"{name}.permission_required or override {name}.get_permission_required()"
            )
        if isinstance(self.permission_required, str):
            return (self.permission_required,)
        return self.permission_required

    def has_permission(self) -> bool:
        """Override it to ask otherwise, for example about one object."""
        return bool(self._user.has_perms(self.get_permission_required()))

    def admit(self, request: HttpRequest) -> Answer:
        if not self.has_permission():
            return self.handle_no_permission()
        return super().admit(request)


class UserPassesTestMixin(AccessMixin):
    """Only where :meth:`test_func` returns true."""

    def test_func(self) -> bool:
        """Override it; ``self.request``, ``self.user`` and ``self.kwargs`` are set."""
        name = type(self).__name__
        raise NotImplementedError(f"{name} asks test_func() and does not define it")

    def admit(self, request: HttpRequest) -> Answer:
        if not self.test_func():
            return self.handle_no_permission()
        return super().admit(request)
