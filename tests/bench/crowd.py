"""Very many idle connections, and what each of them costs the server."""

import resource
import selectors
import socket
import time
from collections.abc import Callable

from servers import private_bytes
from sockets import PING, PONG

SETTLE = 1.5
"""Seconds for the worker to finish what it has begun."""
SPARE_FILES = 200
"""Open files of a process besides the connections."""


class Crowd:
    """Open connections that do nothing but answer pings; a context manager that closes them.

    :param open_one: opens the n-th connection to a port, non-blocking.
    """

    def __init__(self, port: int, open_one: Callable[[int, int], socket.socket]) -> None:
        self._port = port
        self._open_one = open_one
        self._selector = selectors.EpollSelector()
        self._sockets: list[socket.socket] = []

    def grow(self, count: int) -> None:
        """Have ``count`` connections open."""
        while len(self._sockets) < count:
            client = self._open_one(self._port, len(self._sockets))
            self._sockets.append(client)
            self._selector.register(client, selectors.EVENT_READ, client)
            if len(self._sockets) % 100 == 0:
                self.idle(0.0)

    def idle(self, seconds: float) -> None:
        """Answer pings for so long.

        :raises SystemExit: the server closed a connection or sent something else.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = self._selector.select(max(0.0, deadline - time.monotonic()))
            for key, _ in found:
                received = key.data.recv(4096)
                if received != PING:
                    raise SystemExit(f"an idle connection got {received[:80]!r}")
                key.data.send(PONG)
            if not found and time.monotonic() >= deadline:
                return

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for client in self._sockets:
            client.close()


def bytes_each(crowd: Crowd, worker: int, warm_up: int, total: int) -> tuple[int, int, float]:
    """Grow the crowd in two steps; the worker's private memory after each, and the difference per
    connection, garbage that waits for the collector included.

    :param worker: process id.
    :param warm_up: connections open at the first look.
    :param total: connections open at the second look.
    """
    crowd.grow(warm_up)
    crowd.idle(SETTLE)
    before = private_bytes(worker)
    crowd.grow(total)
    crowd.idle(SETTLE)
    after = private_bytes(worker)
    return before, after, (after - before) / (total - warm_up)


def allow_files(count: int) -> None:
    """Let this process, and the server that inherits it, open so many files.

    :raises SystemExit: the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise SystemExit(f"{count} open files are needed and {hard} allowed: see ulimit -Hn")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
