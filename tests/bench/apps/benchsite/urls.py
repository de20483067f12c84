"""The pages and sockets that are measured."""

import os

from django.http import HttpResponse
from django.urls import path

from gpulse.websocket import WebSocketConsumer


def hello(request):
    return HttpResponse("Hello, world\n", content_type="text/plain")


def pid(request):
    return HttpResponse(str(os.getpid()), content_type="text/plain")


class Echo(WebSocketConsumer):
    def on_message(self, message):
        self.send(message)


class Idle(WebSocketConsumer):
    """Says when it is open."""

    def on_open(self):
        self.send("ready")


class Room(WebSocketConsumer):
    """Says when the store has confirmed its channel."""

    def on_open(self):
        self.subscribe(f"room:{self.kwargs['name']}")
        self.send("ready")


class Rooms(WebSocketConsumer):
    """Like Room, in ``count`` rooms from ``first`` on."""

    limits = {"subscriptions": 10_000}

    def on_open(self):
        first = self.kwargs["first"]
        for number in range(first, first + self.kwargs["count"]):
            self.subscribe(f"room:{number}")
        self.send("ready")


urlpatterns = [
    path("", hello),
    path("pid", pid),
    path("echo", Echo.as_view()),
    path("idle", Idle.as_view()),
    path("room/<slug:name>", Room.as_view()),
    path("rooms/<int:first>/<int:count>", Rooms.as_view()),
]
