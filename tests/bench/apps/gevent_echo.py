"""An echo on gevent-websocket, as its documentation has it: ``python gevent_echo.py PORT``."""

import signal
import sys

import gevent
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler


def application(environ, start_response):
    websocket = environ.get("wsgi.websocket")
    if websocket is None:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
        return [b"ok\n"]
    while (message := websocket.receive()) is not None:
        websocket.send(message)
    return []


if __name__ == "__main__":
    server = WSGIServer(
        ("127.0.0.1", int(sys.argv[1])), application, log=None, handler_class=WebSocketHandler
    )
    gevent.signal_handler(signal.SIGTERM, server.stop, 1)
    server.serve_forever()
