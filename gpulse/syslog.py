"""Where log lines go besides files: a syslog daemon, or systemd's journal.

::

    syslog:                    the machine's own, at /dev/log
    syslog:unix:/PATH          a daemon that listens on another socket
    syslog:udp://HOST[:PORT]   one on another machine; port 514 unless named
    journal:                   systemd's journal, in its own protocol
    journal:unix:/PATH         the journal of a namespace: /run/systemd/journal.NAME/socket

Behind it ``?facility=NAME&tag=NAME`` for syslog and ``?tag=NAME`` for the journal.

Syslog messages have the form of RFC 3164, which is what all daemons understand on /dev/log: to a
unix socket without a host name, as syslog(3) writes them, to UDP with it.  The time in them is
local time, as that RFC wants it.  All lines have the severity "info".

A line is a datagram.  The writer's thread sends it and may wait for a daemon that is slow, but not
long: what cannot be sent is lost, and counted by the writer.  A daemon that has gone is looked for
at once and then once in a while; host names are looked up anew then, on that thread.  Sockets are
those of ``_socket``, which gevent does not patch.

Imported by the cold master, which checks the option: standard library only.

Source: RFC 3164; systemd's "Native Journal Protocol"; unix(7), udp(7).
"""

import _socket
import contextlib
import errno
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

from gpulse.errors import FileError

TAG = "gpulse"
"""The program's name in the system's log."""
SEND_TIMEOUT = 1.0
"""Seconds that one line waits for a daemon whose queue is full."""
RECONNECT = 1.0
"""Seconds between two attempts to reach a daemon that has gone; lines of meanwhile are lost."""

DEV_LOG = "/dev/log" if sys.platform == "linux" else "/var/run/syslog"
JOURNAL = "/run/systemd/journal/socket"
PORT = 514
FACILITIES = {"user": 1, "daemon": 3} | {f"local{number}": 16 + number for number in range(8)}

_INFO = 6
_UNIX_PATH_BYTES = 107
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FORMS = "must be a path, -, syslog:, syslog:unix:/PATH, syslog:udp://HOST:PORT or journal:"
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")
_TAG = re.compile(r"[A-Za-z0-9_.-]{1,32}")  # RFC 3164, 4.1.3, and what names of services have


@dataclass(frozen=True, slots=True)
class Target:
    """A daemon; made by :func:`parse`."""

    kind: Literal["syslog", "journal"]
    path: str = ""
    """The unix socket, or empty for UDP."""
    host: str = ""
    port: int = 0
    facility: str = "daemon"
    tag: str = TAG

    @property
    def display(self) -> str:
        """For people: the daemon, and where it should be."""
        name = "the journal" if self.kind == "journal" else "syslog"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{name} at {self.path or f'{host}:{self.port}'}"


# -- the option


def is_file(target: str) -> bool:
    """Whether a value of the option is a path: neither "-" nor a daemon."""
    return target != "-" and target.partition(":")[0].lower() not in ("syslog", "journal")


def parse_target(raw: object) -> str | None:
    """The value of the option ``--access-log``, as it is written; None for an empty text.

    :raises ValueError: its text continues the sentence "--access-log X: ".
    """
    if not isinstance(raw, str) or not raw.isprintable():
        raise ValueError("must be one line of text")
    text = raw.strip()
    if text and text != "-":
        if not is_file(text):
            parse(text)
        elif "://" in text:
            raise ValueError(_FORMS)
    return text or None


def parse(target: str, tag: str = TAG) -> Target:
    """Read a target that is no file.

    :param tag: what the program is called unless the target says it.
    :raises ValueError: as :func:`parse_target`.
    """
    head, _, query = target.partition("?")
    kind, colon, place = head.partition(":")
    kind = kind.lower()
    if not colon:
        raise ValueError(f"is written {head}: for the daemon and ./{head} for a file")
    if kind == "journal":
        found = Target("journal", _unix_path(place or f"unix:{JOURNAL}"), tag=tag)
    elif kind != "syslog":
        raise ValueError(_FORMS)
    elif place.startswith("udp://"):
        host, port = _endpoint(place.removeprefix("udp://"))
        found = Target("syslog", "", host, port, tag=tag)
    else:
        found = Target("syslog", _unix_path(place or f"unix:{DEV_LOG}"), tag=tag)
    return _with_query(found, query)


def _unix_path(place: str) -> str:
    path = place.removeprefix("unix:")
    if path == place:
        raise ValueError(_FORMS)
    if not path.startswith("/"):
        raise ValueError("must name its socket by a path from the root")
    if len(os.fsencode(path)) > _UNIX_PATH_BYTES:
        raise ValueError(f"has a socket's path of more than {_UNIX_PATH_BYTES} bytes")
    return path


def _endpoint(text: str) -> tuple[str, int]:
    text = text.removesuffix("/")
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?", text)
    if found is None:
        raise ValueError("must be syslog:udp://HOST:PORT; an IPv6 address is written [::1]")
    address, name, port = found.groups()
    if name is not None and not _HOST.fullmatch(name):
        raise ValueError(f"has {name!r} for a host name")
    if port is not None and not 1 <= int(port) <= 65535:
        raise ValueError("has a port outside 1..65535")
    return address or name, int(port or PORT)


def _with_query(target: Target, query: str) -> Target:
    known = {"facility": target.facility, "tag": target.tag}
    if target.kind == "journal":
        del known["facility"]
    given = parse_qsl(query, keep_blank_values=True)
    for key, value in given:
        if key not in known or [name for name, _ in given].count(key) > 1:
            raise ValueError(f"may be followed by ?{'=...&'.join(known)}=..., each once")
        known[key] = value
    facility = known.get("facility", target.facility)
    if facility not in FACILITIES:
        raise ValueError(f"has a facility that is none of {', '.join(FACILITIES)}")
    if not _TAG.fullmatch(known["tag"]):
        raise ValueError("has a tag that is not 1 to 32 letters, digits, dots or dashes")
    return Target(target.kind, target.path, target.host, target.port, facility, known["tag"])


# -- the datagrams


def syslog_frame(
    target: Target, *, host: str, pid: int, clock: Callable[[], float] = time.time
) -> Callable[[bytes], bytes]:
    """Makes a message of RFC 3164 of each line.

    :param host: this machine's name; left out of what goes to a unix socket.
    :param clock: seconds since the epoch.
    """
    priority = FACILITIES[target.facility] * 8 + _INFO
    name = "" if target.path else f"{host.partition('.')[0] or 'localhost'} "
    shared = [(-1, b"")]

    def frame(line: bytes) -> bytes:
        second, head = shared[0]
        now = int(clock())
        if second != now:
            moment = time.localtime(now)
            stamp = f"{_MONTHS[moment.tm_mon - 1]} {moment.tm_mday:2d} {moment.tm_hour:02d}:"
            stamp += f"{moment.tm_min:02d}:{moment.tm_sec:02d}"
            head = f"<{priority}>{stamp} {name}{target.tag}[{pid}]: ".encode("ascii", "replace")
            shared[0] = (now, head)
        return head + line.removesuffix(b"\n")

    return frame


def journal_frame(target: Target) -> Callable[[bytes], bytes]:
    """Makes an entry of the journal of each line; the journal adds time, process and unit.

    A line of the writer's always fits a datagram: longer ones would go by a memory file.
    """
    head = f"PRIORITY={_INFO}\nSYSLOG_IDENTIFIER={target.tag}\n".encode()

    def frame(line: bytes) -> bytes:
        text = line.removesuffix(b"\n")
        if b"\n" in text:
            return head + b"MESSAGE\n" + len(text).to_bytes(8, "little") + text + b"\n"
        return head + b"MESSAGE=" + text + b"\n"

    return frame


# -- the socket


class DatagramSink:
    """A sink of :class:`gpulse.logs.LineWriter` that sends each line to a daemon.

    Made in a worker, after its fork: messages carry its process id.  ``write`` and ``close`` are
    for one thread.  Making one may look up a host name, and blocks meanwhile: not on a hub that
    serves.

    :param patient: begin without the daemon if it is not there.
    :param clock: monotonic seconds.
    :raises FileError: the daemon is not there.
    """

    def __init__(
        self,
        target: Target,
        *,
        patient: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._socket: _socket.socket | None = None
        self._retry_at = 0.0
        self._stale = False
        self._target = target
        self._clock = clock
        self._frame = (
            journal_frame(target)
            if target.kind == "journal"
            else syslog_frame(target, host=os.uname().nodename, pid=os.getpid())
        )
        try:
            self._connect()
        except OSError as error:
            if not patient:
                reason = error.strerror or str(error)
                raise FileError(f"cannot log to {target.display}: {reason}") from None

    def write(self, lines: list[bytes]) -> int:
        """Send lines; returns how many are lost."""
        if self._stale:
            self._stale = False
            self._retry_at = 0.0
            self._disconnect()
        return sum(not self._send(self._frame(line)) for line in lines)

    def reopen(self) -> None:
        """Connect anew before the next line; a host name is looked up again then."""
        self._stale = True

    def close(self) -> None:
        self._disconnect()

    def _send(self, data: bytes) -> bool:
        """Whether it went out."""
        # Twice: the error may be that of an earlier datagram, or tell that the daemon was started
        # anew.  What is behind a slow one is lost for a while, too, lest each line wait.
        for attempt in range(2):
            if self._socket is None and not self._reconnect():
                return False
            assert self._socket is not None
            try:
                self._socket.send(data)
                return True
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    return False  # too long for this socket; the next line need not be
                self._disconnect()
                if attempt or isinstance(error, TimeoutError):
                    self._retry_at = self._clock() + RECONNECT
        return False

    def _reconnect(self) -> bool:
        if self._clock() < self._retry_at:
            return False
        with contextlib.suppress(OSError):
            self._connect()
        return self._socket is not None

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> None:
        try:
            self._socket = self._open()
        finally:
            # After a success, too: a daemon may take the socket and then no line.
            self._retry_at = self._clock() + RECONNECT

    def _open(self) -> _socket.socket:
        failure = OSError(errno.ENOENT, "the host name has no address")
        for family, address in self._addresses():
            sock = _socket.socket(family, _socket.SOCK_DGRAM)
            try:
                sock.settimeout(SEND_TIMEOUT)
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        raise failure

    def _addresses(self) -> list[tuple[int, Any]]:
        target = self._target
        if target.path:
            return [(_socket.AF_UNIX, target.path)]
        # As bytes: the name is ASCII, and no codec need be loaded on this thread.
        found = _socket.getaddrinfo(
            target.host.encode(), target.port, _socket.AF_UNSPEC, _socket.SOCK_DGRAM
        )
        return [(family, address) for family, _, _, _, address in found]
