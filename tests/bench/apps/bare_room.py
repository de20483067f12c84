"""The least that a room can cost: no framework, no store, a loop of ``send`` over the sockets.

``python bare_room.py PORT``.  What comes at ``/publish`` goes to every socket at ``/room/``.
"""

import resource
import select
import socket
import sys

from message import TEXT

FRAME = bytes((0x81, len(TEXT))) + TEXT.encode()
PUBLISH_SIZE = 13
"""Bytes of a frame that a publisher sends."""
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"


class Room:
    def __init__(self, port):
        self.epoll = select.epoll()
        self.listener = socket.create_server(("127.0.0.1", port), backlog=2048)
        self.listener.setblocking(False)
        self.epoll.register(self.listener.fileno(), select.EPOLLIN)
        self.clients = {}
        self.members = {}
        self.publishers = set()

    def serve(self):
        while True:
            for descriptor, _ in self.epoll.poll():
                if descriptor == self.listener.fileno():
                    self.accept()
                else:
                    self.read(descriptor)

    def accept(self):
        client, _ = self.listener.accept()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.clients[client.fileno()] = client
        self.epoll.register(client.fileno(), select.EPOLLIN)

    def read(self, descriptor):
        client = self.clients[descriptor]
        try:
            data = client.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.members.pop(descriptor, None)
            self.publishers.discard(descriptor)
            del self.clients[descriptor]
            client.close()
        elif descriptor in self.publishers:
            for _ in range(len(data) // PUBLISH_SIZE):
                for member in self.members.values():
                    member.send(FRAME)
        elif data.startswith(b"GET /publish "):
            self.publishers.add(descriptor)
            client.send(SWITCH)
        elif data.startswith(b"GET /room/"):
            self.members[descriptor] = client
            client.send(SWITCH + b"\x81\x05ready")
        else:
            client.send(PAGE)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    Room(int(sys.argv[1])).serve()
