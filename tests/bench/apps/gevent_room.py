"""A room in one process on gevent-websocket: ``python gevent_room.py PORT``.

What comes at ``/publish`` goes to every socket at ``/room/lobby``, in a plain loop.
"""

import signal
import sys

import gevent
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler
from message import TEXT

clients = set()


def application(environ, start_response):
    websocket = environ.get("wsgi.websocket")
    if websocket is None:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
        return [b"ok\n"]
    if environ["PATH_INFO"] == "/publish":
        while websocket.receive() is not None:
            for client in list(clients):
                client.send(TEXT)
        return []
    websocket.send("ready")
    clients.add(websocket)
    try:
        while websocket.receive() is not None:
            pass
    finally:
        clients.discard(websocket)
    return []


if __name__ == "__main__":
    server = WSGIServer(
        ("127.0.0.1", int(sys.argv[1])), application, log=None, handler_class=WebSocketHandler
    )
    gevent.signal_handler(signal.SIGTERM, server.stop, 1)
    server.serve_forever()
