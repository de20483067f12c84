"""TLS in front of a server program that cannot do it, as stunnel would be, by threads.

What does not begin as TLS is passed on as it is: sentinels and replicas talk to a server at the
address that it announces, which is the front's, and in plain.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

HANDSHAKE = b"\x16"
"""The first byte of TLS: a record of its handshake (RFC 8446, 5.1)."""


class TlsFront:
    """On a port of 127.0.0.1, for the server on the unix socket ``path``.  Also a context manager
    that ends it.

    :param context: the server's side, with its certificate.
    """

    def __init__(self, path: Path, context: ssl.SSLContext) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._opened: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._path = path
        self._context = context
        self.port: int = self._listener.getsockname()[1]
        self.encrypted = 0
        """Connections whose handshake went well."""
        self.plain = 0
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in tuple(self._opened):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in tuple(self._threads):
            thread.join(5.0)
        for end in self._opened:
            end.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                outside, _ = self._listener.accept()
                outside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as servers do
                self._opened.append(outside)
                self._start(self._serve, outside)

    def _serve(self, outside: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if outside.recv(1, socket.MSG_PEEK) == HANDSHAKE:
                outside = self._context.wrap_socket(outside, server_side=True)
                self._opened.append(outside)
                self.encrypted += 1
            else:
                self.plain += 1
            inside = socket.socket(socket.AF_UNIX)
            self._opened.append(inside)
            inside.connect(str(self._path))
            self._start(_pump, inside, outside)
            _pump(outside, inside)
        with contextlib.suppress(OSError):
            outside.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
