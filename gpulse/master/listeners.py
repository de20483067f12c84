"""Listeners: bind addresses opened as listening sockets, and closed without a trace.

Runs in the master, before the first fork; the workers inherit the sockets.  Sockets that the
service manager opened take the place of all ``--bind`` addresses.  A name that resolves to several
addresses gives one listener for each.

Refused, each in one line: an address in use, not allowed or not of this machine; a name that
does not resolve; a path that holds something other than a dead socket; a descriptor that is not a
listening stream socket.  A socket file of which nobody answers is a leftover and replaced.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterable, MutableMapping
from contextlib import ExitStack
from pathlib import Path

from gpulse.address import Address, parse
from gpulse.errors import ListenError
from gpulse.master.privileges import Identity
from gpulse.master.systemd import take_listen_fds

_ADVICE = {
    errno.EADDRINUSE: "another program listens there; stop it or choose another --bind",
    errno.EADDRNOTAVAIL: "this machine has no such address; see: ip addr",
    errno.EACCES: "not allowed; ports below 1024 need root, CAP_NET_BIND_SERVICE or a socket unit",
    errno.EPERM: "not allowed; ports below 1024 need root, CAP_NET_BIND_SERVICE or a socket unit",
    errno.EAFNOSUPPORT: "this machine does not speak IPv6; bind an IPv4 address",
}
_FILE_ADVICE = {
    errno.EACCES: "not allowed; make the directory writable",
    errno.ENOENT: "its directory does not exist; create it",
    errno.EROFS: "the file system is read-only; choose another path",
}
_PROBE_SECONDS = 1.0


class Listener:
    """One listening, non-blocking, close-on-exec stream socket and the file that it made."""

    def __init__(self, listening: socket.socket, url: str, path: str = "") -> None:
        self.socket = listening
        self.url = url
        """Where it answers, with the port that the kernel chose."""
        self._path = path
        self._file = _identity(path) if path else None
        self._pid = os.getpid()
        listening.setblocking(False)
        listening.set_inheritable(False)

    def close(self) -> None:
        """Close it, and remove the socket file if this process made it and it is still the same.

        Closing again does nothing.
        """
        if self._path and self._pid == os.getpid() and _identity(self._path) == self._file:
            Path(self._path).unlink()
        self._path = ""
        self.socket.close()


def open_all(
    binds: Iterable[str], backlog: int, owner: Identity, environ: MutableMapping[str, str]
) -> list[Listener]:
    """Open all or none.

    :param binds: texts as ``gpulse.address.parse`` takes them.
    :param backlog: connections that the kernel holds until a worker accepts them.
    :param owner: who gets the socket files.
    :raises ListenError: for the first that cannot be opened.
    """
    opened: list[Listener] = []
    with ExitStack() as undo:
        inherited = take_listen_fds(environ)
        addresses = [Address("fd", fd=fd) for fd in inherited] or [parse(text) for text in binds]
        for address in addresses:
            for listener in _open(address, backlog, owner):
                undo.callback(listener.close)
                opened.append(listener)
        undo.pop_all()
    return opened


def _open(address: Address, backlog: int, owner: Identity) -> list[Listener]:
    if address.kind == "fd":
        return [_adopt(address)]
    if address.kind == "unix":
        return [_open_unix(address, backlog, owner)]
    return _open_tcp(address, backlog)


def _open_tcp(address: Address, backlog: int) -> list[Listener]:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ListenError(
            f"cannot listen on {address.display}: {address.host!r} does not resolve "
            f"({error.strerror}); write an address of this machine"
        ) from None
    opened: list[Listener] = []
    failure: OSError | None = None
    with ExitStack() as undo:
        for family, target in dict.fromkeys((row[0], row[4]) for row in found):
            try:
                listener = _listen_tcp(family, target, backlog)
            except OSError as error:
                # localhost is also ::1 on machines that have no IPv6: one address is enough.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise _refusal(address, error, _ADVICE) from None
                failure = error
                continue
            undo.callback(listener.close)
            opened.append(listener)
        undo.pop_all()
    if failure is not None and not opened:
        raise _refusal(address, failure, _ADVICE)
    return opened


def _listen_tcp(family: int, target: tuple[object, ...], backlog: int) -> Listener:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Without it a restart fails while connections of the former master are in TIME_WAIT.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(target)
        listening.listen(backlog)
    except OSError:
        listening.close()
        raise
    return Listener(listening, _url(listening))


def _open_unix(address: Address, backlog: int, owner: Identity) -> Listener:
    path = address.path
    _remove_leftover(address, path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(path)
        listening.listen(backlog)
        owner.own(path)
    except OSError as error:
        listening.close()
        raise _refusal(address, error, _ADVICE | _FILE_ADVICE) from None
    return Listener(listening, address.url, str(Path(path).absolute()))


def _remove_leftover(address: Address, path: str) -> None:
    try:
        found = os.lstat(path)
    except OSError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(
            f"cannot listen on {address.display}: the path holds something that is no socket; "
            "choose another or remove it"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
        except OSError as error:
            raise _refusal(address, error, _ADVICE | _FILE_ADVICE) from None
        else:
            raise _refusal(address, OSError(errno.EADDRINUSE, ""), _ADVICE)


def _adopt(address: Address) -> Listener:
    try:
        listening = socket.socket(fileno=os.dup(address.fd))
    except OSError as error:
        raise ListenError(
            f"cannot listen on {address.display}: the descriptor is no open socket "
            f"({error.strerror}); the parent process must pass a listening socket"
        ) from None
    is_stream = listening.type == socket.SOCK_STREAM
    if not is_stream or not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listening.close()
        raise ListenError(
            f"cannot listen on {address.display}: it is not a listening stream socket; "
            "in a socket unit use ListenStream= with Accept=no"
        )
    os.close(address.fd)
    return Listener(listening, _url(listening))


def _url(listening: socket.socket) -> str:
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(name)}".replace("\0", "@")  # Linux's abstract names
    return Address("tcp", name[0], name[1]).url


def _refusal(address: Address, error: OSError, advice: dict[int, str]) -> ListenError:
    meaning = advice.get(error.errno or 0) or error.strerror or str(error)
    return ListenError(f"cannot listen on {address.display}: {meaning}")


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode of the file, None if there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
