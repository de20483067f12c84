"""Accepts connections from a listener that all workers share.

Runs on the hub.  Each turn of the loop takes at most BATCH connections: a worker that is busy with
a turn leaves the rest of a burst to the others, which keeps long-lived sockets spread over the
workers. When descriptors run out it pauses for a moment instead of spinning on a readable listener.
"""

import _socket
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

BATCH = 4
PAUSE = 0.5
"""Seconds without accepting after the process or the machine ran out of descriptors or memory."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

log = logging.getLogger("gpulse.worker")


class Acceptor:
    """Calls ``accepted(sock, peer, listener)`` for each new connection.

    :param loop: the hub's loop.
    :param listener: a listening, non-blocking socket.
    :param accepted: takes a non-blocking ``_socket.socket`` that it owns from then on.
    """

    def __init__(
        self,
        loop: Any,
        listener: socket.socket,
        accepted: Callable[[_socket.socket, Any, socket.socket], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._accepted = accepted
        self._watcher = loop.io(listener.fileno(), 1)
        self._timer: Any = None
        self._is_started = False
        self._is_tcp = listener.family in (socket.AF_INET, socket.AF_INET6)

    def start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._watcher.start(self._acceptable)

    def stop(self) -> None:
        """Take no more; connections in the kernel's queue are left to the other workers."""
        self._is_started = False
        self._watcher.stop()
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def close(self) -> None:
        self.stop()
        self._watcher.close()

    def _acceptable(self) -> None:
        for _ in range(BATCH):
            if not self._is_started:
                return  # stopped by whoever took the last one
            try:
                # The C method: no Python-level socket object, patched or not, is made.
                fd, peer = _socket.socket._accept(self._listener)  # type: ignore[attr-defined]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error)
                    return
                # Network errors of the connection that was to be accepted show up here: accept(2).
                log.debug("a connection failed before it was accepted: %s", error)
                return
            sock = _socket.socket(fileno=fd)
            sock.setblocking(False)
            if self._is_tcp:
                try:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                except OSError:
                    sock.close()  # reset by the peer already
                    continue
            try:
                self._accepted(sock, peer, self._listener)
            except Exception:
                # Out of here it would stop the watcher, and this worker would never accept again.
                log.exception("%s: the new connection is closed", peer)
                sock.close()

    def _pause(self, error: OSError) -> None:
        log.warning(
            "no connection accepted for %s s: %s; raise the limit of open files "
            "(ulimit -n, LimitNOFILE=)",
            PAUSE,
            error.strerror,
        )
        self.stop()
        self._timer = self._loop.timer(PAUSE)
        self._timer.start(self.start)
