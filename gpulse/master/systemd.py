"""The service manager's protocols: notification and socket activation.

Source: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).  The variables are taken out of
the environment, so that neither workers nor their children mistake them for their own.
Notification never fails the master: without a socket, or with a dead one, it does nothing.
"""

import os
import socket
import time
from collections.abc import MutableMapping

from gpulse import logs
from gpulse.master.facts import Stage

FIRST_FD = 3
"""SD_LISTEN_FDS_START."""

_log = logs.logger("master")
_LINES = {Stage.READY: "READY=1", Stage.RELOADING: "RELOADING=1", Stage.STOPPING: "STOPPING=1"}


class Notifier:
    """The datagram socket named by NOTIFY_SOCKET; runs in the master."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        name = environ.pop("NOTIFY_SOCKET", "")
        self._name = f"\0{name[1:]}" if name.startswith("@") else name
        self._socket: socket.socket | None = None
        self.watchdog_interval = _watchdog_interval(environ)
        """Seconds between two signs of life, half of what is allowed; 0 where none is wanted."""
        self._alive_due = time.monotonic()
        if self._name:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    @property
    def fds(self) -> tuple[int, ...]:
        """What a child must close."""
        return () if self._socket is None else (self._socket.fileno(),)

    def notify(self, stage: Stage | None, status: str) -> None:
        """Tell a stage of the service's life, if it changed, and its status line."""
        lines = [f"STATUS={status}"]
        if stage is not None:
            lines.append(_LINES[stage])
            lines.append(f"MAINPID={os.getpid()}")
        if stage is Stage.RELOADING:
            # Type=notify-reload needs the time, to tell this reload's READY=1 from an older one.
            lines.append(f"MONOTONIC_USEC={int(time.monotonic() * 1e6)}")
        self._send("\n".join(lines))

    def tend(self, now: float) -> None:
        """Give the sign of life if it is due."""
        if self.watchdog_interval and now >= self._alive_due:
            self._alive_due = now + self.watchdog_interval
            self._send("WATCHDOG=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(text.encode("utf-8", "replace"), self._name)
        except OSError as error:
            _log.debug("the service manager did not take %r: %s", text, error)


def take_listen_fds(environ: MutableMapping[str, str]) -> range:
    """The descriptors that the service manager opened for this process; empty if none."""
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return range(0)
    return range(FIRST_FD, FIRST_FD + int(count))


def _watchdog_interval(environ: MutableMapping[str, str]) -> float:
    pid = environ.pop("WATCHDOG_PID", "")
    allowed = environ.pop("WATCHDOG_USEC", "")
    if not allowed.isdecimal() or pid not in ("", str(os.getpid())):
        return 0.0
    return int(allowed) / 1e6 / 2
