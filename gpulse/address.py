"""Bind addresses: the text of ``--bind`` parsed into an :class:`Address`.

Pure: nothing is resolved, opened or looked up on disk, so the options and the master read an
address alike.  Opening is ``gpulse.master.listeners``.  The forms, and what each one means::

    HOST:PORT     127.0.0.1:8060, example.org:80; a name is every address that it resolves to
    [IPV6]:PORT   [::1]:8060; IPv6 only, so that [::]:80 and 0.0.0.0:80 stand side by side
    :PORT         every IPv4 interface of the machine
    PORT          127.0.0.1, this machine only
    unix:PATH     a socket file, relative to the working directory unless it starts with /
    fd:N          a listening socket that the parent process left open as descriptor N

Refused: a port outside 0..65535 (0 lets the kernel choose), an IPv6 address without brackets, a
URL, and a path that the kernel's ``sun_path`` cannot hold (unix(7)).
"""

import ipaddress
import os
import re
import sys
from dataclasses import dataclass
from typing import Literal

from gpulse.errors import UsageError

UNIX_PATH_BYTES = 107 if sys.platform == "linux" else 103
"""Longest path in bytes that fits ``sun_path`` with its final zero."""

_FORMS = "write HOST:PORT, [IPV6]:PORT, :PORT, PORT, unix:PATH or fd:N"
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")


@dataclass(frozen=True, slots=True)
class Address:
    """One place to listen on; made by :func:`parse`."""

    kind: Literal["tcp", "unix", "fd"]
    host: str = ""
    """``tcp``: a host name, IPv4 or IPv6 address, without brackets."""
    port: int = 0
    """``tcp``: 0..65535; 0 lets the kernel choose."""
    path: str = ""
    """``unix``: the socket file."""
    fd: int = -1
    """``fd``: the inherited descriptor, 3 or more."""

    @property
    def display(self) -> str:
        """The address as ``--bind`` would take it."""
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "fd":
            return f"fd:{self.fd}"
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def url(self) -> str:
        """What a person on this machine can open; a socket file or descriptor stays as it is."""
        if self.kind != "tcp":
            return self.display
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{_bracketed(reachable)}:{self.port}"


def parse(text: str) -> Address:
    """Read one bind string.

    :raises UsageError: in one line, naming the text and the accepted forms.
    """
    text = text.strip()
    if text.startswith("unix:"):
        return _parse_unix(text)
    if text.startswith("fd:"):
        return _parse_fd(text)
    if "/" in text:
        raise UsageError(f"bind {text!r} looks like a path or a URL; {_FORMS}")
    host, colon, port = text.rpartition(":")
    if not colon:
        if not _is_number(text):
            raise UsageError(f"bind {text!r} has no port; {_FORMS}")
        return Address("tcp", "127.0.0.1", _parse_port(text, text))
    return Address("tcp", _parse_host(text, host), _parse_port(text, port))


def _parse_unix(text: str) -> Address:
    path = text.removeprefix("unix:")
    if not path or path.endswith("/") or "\0" in path:
        raise UsageError(f"bind {text!r} names no socket file; write unix:/run/site/http.sock")
    size = len(os.fsencode(path))
    if size > UNIX_PATH_BYTES:
        raise UsageError(
            f"bind {text!r} is {size} bytes long, the system allows {UNIX_PATH_BYTES}; "
            "choose a shorter path"
        )
    return Address("unix", path=path)


def _parse_fd(text: str) -> Address:
    number = text.removeprefix("fd:")
    if not _is_number(number) or not 3 <= int(number) <= 1_000_000:
        raise UsageError(f"bind {text!r} needs a descriptor number of 3 or more, as in fd:3")
    return Address("fd", fd=int(number))


def _parse_host(text: str, host: str) -> str:
    if not host:
        return "0.0.0.0"
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise UsageError(f"bind {text!r} holds no IPv6 address in its brackets") from None
    if ":" in host:
        raise UsageError(f"bind {text!r}: put an IPv6 address in brackets, as in [::1]:8060")
    if re.fullmatch(r"[0-9.]+", host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise UsageError(f"bind {text!r} holds no IPv4 address; {_FORMS}") from None
    if host == "*":
        raise UsageError(f"bind {text!r}: leave the host out to listen everywhere, as in :8060")
    if not _HOST_NAME.fullmatch(host):
        raise UsageError(f"bind {text!r} holds no host name; {_FORMS}")
    return host


def _parse_port(text: str, port: str) -> int:
    if not _is_number(port) or int(port) > 65535:
        raise UsageError(f"bind {text!r} needs a port from 0 to 65535; {_FORMS}")
    return int(port)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", text) is not None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
