"""The PROXY protocol: the line or block with which a proxy that only passes bytes on tells whose
they are.

:func:`read_header` is pure.  :class:`ProxyHeaderProtocol` is what a new connection speaks until its
header is whole; it runs on the hub.  Source: HAProxy's ``doc/proxy-protocol.txt``, version 1
(2.1) and version 2 (2.2).

The header is required, never guessed: a sender that may leave it out may forge it.  Who may send
one is decided by the caller, before a byte is read (``gpulse.trust``).

Refused: the first byte that begins neither form, so that a plain request is not waited on until
the deadline; a version 1 line that is not exactly its grammar; a length beyond MAX_V2; the
versions, commands, families and transports that the specification does not name.  A second header
behind the first is not looked for: the HTTP parser refuses it, which knows no method ``PROXY`` and
no NUL in a request line.

Not read: what follows the addresses of version 2 (TLVs), among it the CRC32C of the header, which
the specification asks only those to verify that support it.  TCP has a checksum of its own.
"""

import ipaddress
import logging
import re
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from gpulse.connection.connection import Connection

MAX_V1 = 107
"""Bytes of a version 1 line with its CRLF, the longest that the specification allows for."""
MAX_V2 = 216
"""Bytes behind the first 16 of version 2: what the largest addresses, two unix paths, take."""
HEADER_TIMEOUT = 5.0
"""Seconds from accept to a whole header; the specification wants 3 or more, for TCP to send a lost
segment again."""

SIGNATURE_V1 = b"PROXY "
SIGNATURE_V2 = b"\r\n\r\n\0\r\nQUIT\n"

_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?"
    rb"|TCP(4) ([0-9.]{7,15}) ([0-9.]{7,15}) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"
    rb"|TCP(6) ([0-9A-Fa-f:.]{2,45}) ([0-9A-Fa-f:.]{2,45}) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))"
    rb"\r\n"
)
_STREAM = 0x1
_ADDRESSES = {0x1: struct.Struct("!4s4sHH"), 0x2: struct.Struct("!16s16sHH")}
"""Address family of version 2 -> source, destination, source's port, destination's port."""
_UNSPECIFIED, _UNIX = 0x0, 0x3
_UNIX_SIZE = 216

log = logging.getLogger("gpulse.worker")


class ProxyHeaderError(Exception):
    """The connection does not begin with a PROXY header; the reason is one line for the log."""


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header; made by :func:`read_header`."""

    source: tuple[str, int] | None
    """The client's address and port; IPv4 in IPv6 as IPv4.  None where the header names none: the
    proxy speaks for itself (LOCAL: a health check) or for a client without a TCP address (UNKNOWN,
    unix, datagrams).  The connection's own peer is then all that is known; as the bytes behind
    the header may yet be a stranger's, no forwarding header among them is the proxy's word."""
    destination: tuple[str, int] | None
    """Where the client connected to; None if and only if ``source`` is."""
    size: int
    """Bytes of the header; what follows is the client's."""


def read_header(data: bytes) -> Header | None:
    """Read the header that the bytes of a connection begin with.

    :param data: everything that came; at most MAX_V1 or 16 + MAX_V2 bytes of it are looked at.
    :returns: None while it is not whole.
    :raises ProxyHeaderError: it cannot become one.
    """
    if data.startswith(SIGNATURE_V1):
        return _read_v1(data)
    if data.startswith(SIGNATURE_V2):
        return _read_v2(data)
    if SIGNATURE_V1.startswith(data) or SIGNATURE_V2.startswith(data):
        return None
    raise ProxyHeaderError("it begins with no PROXY header")


def _read_v1(data: bytes) -> Header | None:
    end = data.find(b"\n", 0, MAX_V1) + 1
    if not end:
        if len(data) >= MAX_V1:
            raise ProxyHeaderError(f"a PROXY line of more than {MAX_V1} bytes")
        if b"\r" in data[:-1]:
            raise ProxyHeaderError("a carriage return within a PROXY line")
        return None
    found = _LINE.fullmatch(data, 0, end)
    if found is None:
        raise ProxyHeaderError("a PROXY line that breaks the grammar")
    first = 1 if found[1] else 6
    if found[first] is None:
        return Header(None, None, end)
    version = int(found[first])
    source, destination = (
        (_address_of_text(found[at], version), _port(found[at + 2]))
        for at in (first + 1, first + 2)
    )
    return Header(source, destination, end)


def _address_of_text(text: bytes, version: int) -> str:
    try:
        if version == 4:
            return str(ipaddress.IPv4Address(text.decode("ascii")))
        return _plain(ipaddress.IPv6Address(text.decode("ascii")))
    except ValueError:
        raise ProxyHeaderError(f"a PROXY line without an IPv{version} address") from None


def _plain(address: ipaddress.IPv6Address) -> str:
    return str(address.ipv4_mapped or address)


def _port(text: bytes) -> int:
    port = int(text)
    if port > 65535:
        raise ProxyHeaderError("a PROXY line with a port above 65535")
    return port


def _read_v2(data: bytes) -> Header | None:
    # Each byte is judged when it comes, as those of the signature are.
    at = len(SIGNATURE_V2)
    version, command = divmod(data[at], 16) if len(data) > at else (2, 0)
    if version != 2:
        raise ProxyHeaderError(f"version {version} of the PROXY protocol")
    if command > 1:
        raise ProxyHeaderError(f"command {command} in a PROXY header")
    is_local = command == 0
    family, transport = divmod(data[at + 1], 16) if len(data) > at + 1 else (0, 0)
    if not is_local and (family > _UNIX or transport > 2):
        raise ProxyHeaderError(f"family {family} with transport {transport} in a PROXY header")
    if len(data) < at + 4:
        return None
    begin = at + 4
    size = int.from_bytes(data[at + 2 : begin])
    if size > MAX_V2:
        raise ProxyHeaderError(f"a PROXY header with {size} bytes of addresses, {MAX_V2} at most")
    layout = _ADDRESSES.get(family)
    needed = layout.size if layout else _UNIX_SIZE if family == _UNIX else 0
    if not is_local and size < needed:
        raise ProxyHeaderError(f"a PROXY header with {size} of {needed} bytes of addresses")
    end = begin + size
    if len(data) < end:
        return None
    if is_local or layout is None or transport != _STREAM:
        return Header(None, None, end)
    source, destination, source_port, destination_port = layout.unpack_from(data, begin)
    return Header(
        (_address_of_bytes(source), source_port),
        (_address_of_bytes(destination), destination_port),
        end,
    )


def _address_of_bytes(packed: bytes) -> str:
    if len(packed) == 4:
        return str(ipaddress.IPv4Address(packed))
    return _plain(ipaddress.IPv6Address(packed))


class ProxyHeaderProtocol:
    """What a connection speaks before its client does.  Runs on the hub.

    What is kept is never more than a header: more bytes are a header or an error.

    :param connection: just accepted, from a trusted proxy; its deadline is set here.
    :param done: called with the connection, the header and what came behind it, once; it gives the
        connection its next protocol and hands that the rest.
    :param refused: called with a reason for each connection that is aborted here.
    """

    __slots__ = ("_connection", "_data", "_done", "_refused")

    def __init__(
        self,
        connection: Connection,
        done: Callable[[Connection, Header, bytes], None],
        refused: Callable[[str], None],
    ) -> None:
        self._data = b""
        self._connection = connection
        self._done = done
        self._refused = refused
        connection.set_deadline(time.monotonic() + HEADER_TIMEOUT)

    def data_received(self, data: bytes) -> None:
        self._data += data
        try:
            header = read_header(self._data)
        except ProxyHeaderError as error:
            self._refuse(str(error))
            return
        if header is not None:
            data, self._data = self._data, b""
            self._done(self._connection, header, data[header.size :])

    def eof_received(self) -> None:
        if self._data:
            self._refuse("it ended within its PROXY header")
        else:
            self._connection.abort()  # a proxy that only asks whether the port is open

    def deadline_passed(self, now: float) -> None:
        self._refuse(f"no PROXY header came within {HEADER_TIMEOUT:g} s")

    def connection_lost(self) -> None:
        self._data = b""  # the wheel keeps this object until it next looks at it

    def _refuse(self, reason: str) -> None:
        log.debug("%s: the connection is refused: %s", self._connection.peer, reason)
        self._refused(reason)
        self._connection.abort()
