"""The pages and sockets of those who are logged in."""

from benchsite.urls import hello, pid
from django.urls import path

from gpulse.websocket import WebSocketConsumer


class Member(WebSocketConsumer):
    """A room of people who are logged in; says when the store has confirmed its channel."""

    def on_open(self):
        self.state["name"] = self.user.get_username()
        self.subscribe(f"room:{self.kwargs['name']}")
        self.send("ready")


urlpatterns = [
    path("", hello),
    path("pid", pid),
    path("member/<slug:name>", Member.as_view()),
]
