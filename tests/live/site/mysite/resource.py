"""An application of gevent-websocket's own kind: a Resource with a WebSocketApplication."""

from geventwebsocket.resource import Resource, WebSocketApplication


class Chatter(WebSocketApplication):
    def on_message(self, message, *args, **kwargs):
        if message is not None:
            for client in self.ws.handler.server.clients.values():
                client.ws.send(f"all hear {message}")


def page(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"a page"]


application = Resource([("/chatter", Chatter), ("/", page)])
