"""The sockets of the rooms."""

import json

import gpulse
from gpulse.websocket import ChannelConsumer, Refused, WebSocketConsumer


class Room(WebSocketConsumer):
    """Text in, JSON out."""

    limits = {"idle_timeout": 600, "rate": 1, "burst": 5}

    def on_open(self):
        self.channel = f"room:{self.kwargs['slug']}"
        since = self.request.GET.get("since")
        found = self.subscribe(self.channel, since=since)
        self.send({"hello": str(self.user), "position": found.position, "missed": found.missed})

    def on_message(self, message):
        if not self.user.is_authenticated:
            self.close(4403, "log in to talk")
            return
        gpulse.publish(self.channel, {"user": self.user.username, "text": message}, on_commit=True)


class RoomChannel(ChannelConsumer):
    """The same for gpulse's client."""

    def may_subscribe(self, channel):
        return channel == f"room:{self.kwargs['slug']}"

    def on_request(self, data, key):
        if not data.get("text"):
            raise Refused("an empty message", 400)
        if data["text"] == "boom":
            raise RuntimeError("a mistake in the handler")
        self.publish(f"room:{self.kwargs['slug']}", data, key=key)
        return {"length": len(json.dumps(data))}
