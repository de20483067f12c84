"""Who is in the chat, and the frames that tell of it.

A visitor is called by the username after logging in, and before that by a name made up for the
session: ``an_`` and six letters.  A frame, as everybody in a room receives it::

    {"message": "hello", "user": "an_kqwzpd", "authenticated": false, "channel": "webchat"}
    {"message": "joined", "user": "ann", "authenticated": true, "channel": "chatuser"}
"""

import secrets
import string
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest


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
        if "chat_name" not in request.session:
            letters = (secrets.choice(string.ascii_lowercase) for _ in range(6))
            request.session["chat_name"] = "an_" + "".join(letters)
        return cls(request.session["chat_name"], authenticated=False)

    @classmethod
    def from_member(cls, member: str) -> "Visitor":
        """The visitor that ``member`` stands for: the inverse of :attr:`member`."""
        kind, _, name = member.partition(":")
        return cls(name, authenticated=kind == "user")

    @property
    def member(self) -> str:
        """The visitor in one word, for presence and as the author of messages.  The prefix keeps a
        user called ``an_kqwzpd`` and the guest of that name apart."""
        return f"{'user' if self.authenticated else 'guest'}:{self.name}"

    def frame(self, channel: str, message: str, **more: Any) -> dict[str, Any]:
        """The frame of what this visitor says (``webchat``), or is (``chatuser``)."""
        who = {"user": self.name, "authenticated": self.authenticated}
        return {"message": message, **who, "channel": channel, **more}
