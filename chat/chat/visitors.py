"""Who is in the chat, and the frames that tell of it.

A visitor is called by the username after logging in, and before that by a name made up for the
session: ``an_`` and six letters.  A frame, as the page receives it::

    {"message": "hello", "user": "an_kqwzpd", "authenticated": false, "channel": "webchat"}
    {"message": "joined", "user": "ann", "authenticated": true, "channel": "chatuser"}

Nothing here knows of sockets or of the store: it is plain code, tested without either.
"""

import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse

SESSION_KEY = "chat_name"


@dataclass(frozen=True, slots=True)
class Visitor:
    """One person, in however many tabs."""

    name: str
    authenticated: bool

    @classmethod
    def of(cls, request: HttpRequest) -> "Visitor":
        """Who sends this request; a newcomer is given a name, which the session keeps."""
        if request.user.is_authenticated:
            return cls(request.user.get_username(), authenticated=True)
        if SESSION_KEY not in request.session:
            letters = (secrets.choice(string.ascii_lowercase) for _ in range(6))
            request.session[SESSION_KEY] = "an_" + "".join(letters)
        return cls(request.session[SESSION_KEY], authenticated=False)

    @classmethod
    def from_member(cls, member: str) -> "Visitor":
        """The visitor that ``member`` stands for: the inverse of :attr:`member`."""
        kind, _, name = member.partition(":")
        return cls(name, authenticated=kind == "user")

    @property
    def member(self) -> str:
        """The visitor as presence counts it; the prefix keeps a user called ``an_kqwzpd`` and the
        guest of that name apart."""
        return f"{'user' if self.authenticated else 'guest'}:{self.name}"

    def says(self, message: str) -> dict[str, Any]:
        """The frame of a message."""
        return self._frame("webchat", message)

    def joined(self) -> dict[str, Any]:
        """The frame of a first socket."""
        return self._frame("chatuser", "joined")

    def gone(self) -> dict[str, Any]:
        """The frame of a last socket's end."""
        return self._frame("chatuser", "gone")

    def _frame(self, channel: str, message: str) -> dict[str, Any]:
        return {
            "message": message,
            "user": self.name,
            "authenticated": self.authenticated,
            "channel": channel,
        }


def named(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Decorate ``view`` so that its visitor has a name before it runs.

    The name must be in the session while the request still lives: the session is saved, and its
    cookie set, on the response.  For a WebSocket that response is the 101 of the handshake.
    """

    @wraps(view)
    def view_of_a_visitor(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        Visitor.of(request)
        return view(request, *args, **kwargs)

    return view_of_a_visitor
