"""What happens on the WebSockets: the page's, one for each room, and the plain one at ``/message``.

Handlers are ordinary synchronous code.  They run on the worker's pool, one at a time for each
socket and in order, and may use the ORM, the session, anything a view may use.  Between handlers a
socket is parked and holds neither a greenlet nor a thread.

The other sockets may be in other workers or on other machines, so nothing is kept in a global: what
all must know goes through the database and the store.
"""

from typing import Any

from django.http import HttpRequest
from django.shortcuts import get_object_or_404

from chat.models import LOBBY, ROOMS, Message, Room
from chat.visitors import Visitor
from gpulse.websocket import ChannelConsumer, Refused, WebSocketConsumer

MESSAGE_LIMIT = 2000
"""The longest message, in characters; the page counts the same number down."""


class RoomSocket(ChannelConsumer):
    """The page's.  The base class speaks with gpulse.js: subscriptions, catching up after a lost
    connection, presence, acknowledgements.  Left to us is who may hear what and do what."""

    limits = {"message": 16_384, "inbox": 64, "rate": 3, "burst": 30}

    def admit(self, request: HttpRequest) -> None:
        """404 for a room that is not there."""
        get_object_or_404(Room, slug=self.kwargs["slug"])

    def member(self) -> str:
        """Our name in presence, kept in the state: a reload may hand the socket to a process that
        has nothing else of it."""
        if "member" not in self.state:
            self.state["member"] = Visitor.of(self.request).member
        return self.state["member"]

    def may_subscribe(self, channel: str) -> bool:
        """Whether the page may hear ``channel``.  Who is typing has a channel without history: it
        is not worth telling later."""
        slug = self.kwargs["slug"]
        return channel in (f"room:{slug}", f"typing:{slug}", ROOMS)

    def on_request(self, data: Any, key: str) -> Any:
        """Do what the page asks; what is returned acknowledges it.  If the store fails the page is
        told so, and asks again under the same key."""
        me, room = self.member(), Room.objects.get(slug=self.kwargs["slug"])
        try:
            match data:
                case {"do": "say", "text": str(text)}:
                    return room.say(me, checked(text), key).frame()
                case {"do": "edit", "id": int(pk), "text": str(text)}:
                    return room.change(me, pk, checked(text)).frame()
                case {"do": "delete", "id": int(pk)}:
                    return room.change(me, pk, None).frame()
                case {"do": "typing"}:
                    return self.publish(f"typing:{room.slug}", {"member": me}).receivers
        except Message.DoesNotExist:
            raise Refused("that message is not yours, or it was deleted", 404) from None
        raise Refused("the chat knows say, edit, delete and typing", 400)


class MessageSocket(WebSocketConsumer):
    """The socket at ``/message``: text in, frames out.  It is in the lobby."""

    def on_open(self) -> None:
        """List who is here, then join them.

        Subscribed first, we miss nothing from now on; whom the list shows was here before.  Our own
        joined arrives as an event, or with another socket open in the list, where it comes last: so
        the client knows that up to there it reads the list.
        """
        me, channel = Visitor.of(self.request).member, Room(slug=LOBBY).channel
        self.subscribe(channel)
        for member in sorted(self.presence.members(channel), key=lambda each: (each == me, each)):
            self.on_presence(channel, member, joined=True)
        # The store tells of our first socket and of the end of our last, even if the worker dies.
        self.presence.enter(channel, me)
        self.state["member"] = me

    def on_message(self, message: str | bytes) -> None:
        """Say ``message`` to everybody in the lobby, ourselves included."""
        if isinstance(message, bytes):
            self.close(1003, "the chat takes text")
        elif len(message) > MESSAGE_LIMIT:
            self.close(1009, f"a message has at most {MESSAGE_LIMIT} characters")
        elif text := one_line(message.replace("\0", "")):
            Room.objects.get(slug=LOBBY).say(self.state["member"], text)

    def on_presence(self, channel: str, member: str, joined: bool) -> None:
        """Tell of it in a frame.  There is no ``on_event``: a message is published as the frame
        that clients want, so it is encoded once for all of them."""
        self.send(Visitor.from_member(member).frame("chatuser", "joined" if joined else "gone"))

    def on_close(self, code: int, reason: str) -> None:
        """Leave, if we got as far as joining."""
        if "member" in self.state:
            self.presence.leave(Room(slug=LOBBY).channel, self.state["member"])


def checked(text: str) -> str:
    """``text`` as the page may send it: with lines, but neither empty nor too long.  PostgreSQL
    cannot hold the character NUL."""
    if 0 < len(text := text.replace("\0", "").strip()) <= MESSAGE_LIMIT:
        return text
    raise Refused(f"a message has 1 to {MESSAGE_LIMIT} characters", 400)


def one_line(text: str) -> str:
    """The lines of ``text``, stripped and joined by a space; empty ones are left out."""
    return " ".join(filter(None, map(str.strip, text.splitlines())))
