"""Very many sockets that only receive, read with as little work as Python allows.

All messages of a round are of one size, so a socket's bytes say how many it has and which one comes
next; nothing is parsed, so servers must not ping.  One process with epoll; a read takes whatever
the kernel holds.
"""

import contextlib
import select
import socket
import time
from collections.abc import Callable

MOST_EVENTS = 1024
READ_SIZE = 16_384


class Audience:
    """Open sockets; a context manager that closes them.

    :param name: of the server, for messages.
    :param size: bytes of each frame that comes.
    :param clients: non-blocking, owned from now on.
    """

    def __init__(self, name: str, size: int, clients: list[socket.socket]) -> None:
        self._epoll = select.epoll()
        self._bytes = {client.fileno(): 0 for client in clients}
        self._receive = {client.fileno(): client.recv for client in clients}
        self._name = name
        self._size = size
        self._clients = clients
        self.frames = 0
        """Whole frames since the last :meth:`reset`."""
        for client in clients:
            self._epoll.register(client.fileno(), select.EPOLLIN)

    def __len__(self) -> int:
        return len(self._clients)

    def reset(self) -> None:
        """Begin to count anew; nothing must be under way."""
        self._bytes = dict.fromkeys(self._bytes, 0)
        self.frames = 0

    def listen(
        self,
        until: float,
        enough: int | None = None,
        on_frame: Callable[[int, float], None] | None = None,
    ) -> None:
        """Receive until a moment, or until there are so many frames.

        :param until: monotonic seconds.
        :param on_frame: called with each frame's number in its socket, from 0, and the moment.
        :raises SystemExit: the server closed a socket.
        """
        poll, receive, counts, size = self._epoll.poll, self._receive, self._bytes, self._size
        clock = time.monotonic
        while (enough is None or self.frames < enough) and (now := clock()) < until:
            found = poll(until - now, MOST_EVENTS)
            total = 0
            for descriptor, _ in found:
                data = receive[descriptor](READ_SIZE)
                if not data:
                    raise SystemExit(f"{self._name} closed a socket")
                before = counts[descriptor]
                after = counts[descriptor] = before + len(data)
                frames = after // size - before // size
                total += frames
                if on_frame is not None and frames:
                    moment = clock()
                    for number in range(before // size, after // size):
                        on_frame(number, moment)
            self.frames += total

    def __enter__(self) -> "Audience":
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()
        with contextlib.ExitStack() as stack:
            for client in self._clients:
                stack.callback(client.close)
