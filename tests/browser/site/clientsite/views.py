import os

from django.http import HttpResponse
from django.shortcuts import render

import gpulse
from gpulse.websocket import ChannelConsumer, Refused

POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; img-src data:"


def page(request):
    """The page; its parameter ``socket`` is the URL that it connects to."""
    response = render(request, "clientsite/page.html", {"socket": request.GET["socket"]})
    response["Content-Security-Policy"] = POLICY
    return response


def publish(request):
    gpulse.publish(request.GET["channel"], {"text": request.GET["text"]}, key=request.GET["key"])
    return HttpResponse(status=204)


class Room(ChannelConsumer):
    def on_open(self):
        self.send({"pid": os.getpid()})

    def may_subscribe(self, channel):
        return channel != "secret"

    def member(self):
        return self.request.GET.get("name", "somebody")

    def on_request(self, data, key):
        if data.get("code"):
            raise Refused("as you like", data["code"], retry_after=2)
        if data.get("close"):
            self.close(data["close"], "as you like")
            return None
        self.publish("room:a", data, key=key)
        return {"key": key, "pid": os.getpid()}


class Refusing(Room):
    def admit(self, request):
        return 4401


def without_upgrade(view):
    """As behind a proxy that lets no WebSocket through."""

    def blocked(request):
        if "HTTP_UPGRADE" in request.META:
            return HttpResponse(status=502)
        return view(request)

    return blocked


blocked = without_upgrade(Room.as_view())
refused_and_blocked = without_upgrade(Refusing.as_view())
