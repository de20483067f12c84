"""The room: what happens on the WebSocket at ``/message``.

A handler is ordinary synchronous code.  It runs on the worker's pool, one at a time for each
socket and in order, and may use the ORM, the session, anything a view may use.  Between handlers
the socket is parked and holds neither a greenlet nor a thread.

The other sockets may be in other workers or on other machines, so nothing is kept in a global:
what all must know goes through the store.  :data:`ROOM` is a channel of the store.  A frame
published there reaches every subscribed socket, and the default ``on_event`` sends it to the
client as it is.
"""

from chat.visitors import Visitor
from gpulse.websocket import WebSocketConsumer

ROOM = "room"

MESSAGE_LIMIT = 2000
"""The longest message, in characters; the page counts the same number down."""


class Room(WebSocketConsumer):
    """One socket in the room."""

    def on_open(self) -> None:
        """List who is here, then join them.

        The order matters.  Subscribed first, we miss nothing that happens from now on; whom the
        list shows was here before.  Our own joined arrives as an event, like everybody's.
        """
        me = Visitor.of(self.request)
        self.subscribe(ROOM)
        # With another tab open we are on the list ourselves, and join without a second event.  Our
        # own name comes last, so that the page knows: up to there it reads the list.
        present = self.presence.members(ROOM)
        for member in sorted(present, key=lambda member: (member == me.member, member)):
            self.send(Visitor.from_member(member).joined())
        # The store publishes joined if this is our first socket anywhere; and it keeps gone, to be
        # published after our last, even when the worker dies and on_close never runs.
        self.presence.join(ROOM, me.member, hello=me.joined(), will=me.gone())
        # The request is over, and a reload may hand the socket to a new process: what the other
        # handlers need goes into the state, which comes along.
        self.state["member"] = me.member

    def on_message(self, message: str | bytes) -> None:
        """Say ``message`` to everybody in the room, ourselves included."""
        if isinstance(message, bytes):
            self.close(1003, "the chat takes text")
        elif len(message) > MESSAGE_LIMIT:
            self.close(1009, f"a message has at most {MESSAGE_LIMIT} characters")
        elif text := one_line(message):
            self.publish(ROOM, Visitor.from_member(self.state["member"]).says(text))

    def on_close(self, code: int, reason: str) -> None:
        """Leave, if we got as far as joining."""
        if "member" in self.state:
            self.presence.leave(ROOM, self.state["member"])


def one_line(text: str) -> str:
    """The lines of ``text``, stripped and joined by a space; empty ones are left out."""
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line for line in lines if line)
