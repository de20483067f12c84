"""One view for each thing that the live tests look at."""

import gc
import os
import threading
import time

import greenlet
from django.core.signals import request_finished
from django.db import connection
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

import gpulse
from gpulse.websocket import ChannelConsumer, Refused, WebSocketConsumer

from .version import VERSION

finished = 0
at_once = most_at_once = 0
lock = threading.Lock()


def count_finished(**kwargs):
    global finished
    finished += 1


request_finished.connect(count_finished)


def pid(request):
    return HttpResponse(str(os.getpid()))


def scheme(request):
    """How the client reached us."""
    return JsonResponse(
        {
            "is_secure": request.is_secure(),
            "url": request.build_absolute_uri(),
            "protocol": request.META.get("SSL_PROTOCOL"),
        }
    )


def version(request):
    return HttpResponse(VERSION)


def sleep(request):
    """Sleep, and count how many do so at once."""
    global at_once, most_at_once
    with lock:
        at_once += 1
        most_at_once = max(most_at_once, at_once)
    time.sleep(float(request.GET.get("seconds", "0.1")))
    with lock:
        at_once -= 1
    return HttpResponse("slept")


def pg_sleep(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s), pg_backend_pid()", [request.GET.get("seconds", "0.2")])
        return HttpResponse(str(cursor.fetchone()[1]))


def facts(request):
    """What could leak."""
    gc.collect()
    return JsonResponse(
        {
            "pid": os.getpid(),
            "fds": len(os.listdir("/proc/self/fd")),
            "greenlets": sum(isinstance(found, greenlet.greenlet) for found in gc.get_objects()),
            "threads": threading.active_count(),
            "finished": finished,
            "most_at_once": most_at_once,
        }
    )


@csrf_exempt
def echo_body(request):
    return HttpResponse(request.body, content_type="application/octet-stream")


def stream(request):
    def pieces():
        for number in range(int(request.GET.get("count", "10"))):
            yield f"{number}\n" * int(request.GET.get("repeat", "1"))

    return StreamingHttpResponse(pieces())


def file(request):
    return FileResponse(open(__file__, "rb"))


def fail(request):
    raise RuntimeError("on purpose")


def block(request):
    while True:
        pass


def publish(request):
    receipt = gpulse.publish(request.GET["channel"], {"text": request.GET["text"]})
    return HttpResponse(str(receipt.receivers))


class Echo(WebSocketConsumer):
    def on_message(self, message):
        self.send(message)


class Room(WebSocketConsumer):
    def on_open(self):
        self.subscribe(f"room:{self.kwargs['name']}")
        self.send({"pid": os.getpid()})

    def on_message(self, message):
        self.publish(f"room:{self.kwargs['name']}", message)


class Lobby(ChannelConsumer):
    """Everybody may listen to kept:* and plain:*, and say who they are by a query."""

    limits = {"rate": 50, "burst": 20, "subscriptions": 3}

    def may_subscribe(self, channel):
        return channel.startswith(("kept:", "plain:"))

    def member(self):
        return self.request.GET.get("member")

    def on_request(self, data, key):
        if data == "fail":
            raise RuntimeError("on purpose")
        if data == "refuse":
            raise Refused("not today", 409, retry_after=3)
        receipt = self.publish(data["channel"], data["message"], key=key)
        return {"position": receipt.position, "duplicate": receipt.duplicate, "pid": os.getpid()}


def legacy(request):
    """Written for gevent-websocket."""
    websocket = request.environ.get("wsgi.websocket")
    if websocket is None:
        return HttpResponse("no WebSocket")
    while (message := websocket.receive()) is not None:
        websocket.send(message)
    return HttpResponse("ignored")
