"""TLS over a parked connection: the standard library's ``ssl.SSLObject`` between two memory BIOs.

A :class:`TlsConnection` is a :class:`~gpulse.connection.connection.Connection` whose socket carries
records while its ``protocol`` sees plain bytes.  It holds no greenlet and no thread either.

Who may touch the SSL object: the hub alone.  Two threads inside one ``SSL*`` are undefined
behaviour (before Python 3.13 nothing locks it), so a pool member that holds the connection sends
nothing itself: :meth:`TlsConnection.try_send` takes nothing, and all output goes through ``write``
and ``enqueue`` on the hub.  ``buffered`` counts records, that is ciphertext, and the bytes that
have yet to become records.

Files.  The kernel cannot send one, for it does not encrypt: a file thread reads a block when all in
front of it is out, the hub encrypts it, and no pool member waits.  At most FILE_BLOCK bytes of a
file are in memory, however slow the reader.  Records carry numbers, so what is written behind a
file stays plain, in ``_behind``, until the file's last block is encrypted; close_notify waits too.

Reading.  What one ``recv`` gave is decrypted in slices of SLICE bytes, each to the end, before the
protocol sees its bytes.  So no plain byte ever waits inside the SSL object for an event that does
not come; if the protocol pauses, the undecrypted rest, less than READ_SIZE bytes, waits in
``_unread`` for :meth:`TlsConnection.resume_reading`.  Slices also keep the BIOs small: they never
shrink, and a parked connection would keep them at their largest.

The end.  ``close_notify`` goes out before the socket is closed or shut down.  A peer that ends the
socket without one (many do) has sent data that may be cut off by somebody in between: the protocol
gets ``eof_received`` as after a ``close_notify``, which is harmless because nothing that is read
here ends with the connection.  Requests, chunks and frames say their length, so a body cut short
is a body that never came.  A protocol whose data does end so must not run on this class.

Refused: renegotiation, compression, versions below TLS 1.2, plain HTTP (told so by a 400).

Source: RFC 8446, RFC 5246, RFC 6066 (server_name), RFC 7301 (ALPN); mod_ssl for the environ.
"""

import contextlib
import email.utils
import logging
import os
import re
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from gpulse.connection.connection import Connection, FileInBuffer
from gpulse.connection.outbox import Outbox
from gpulse.connection.timers import NEVER
from gpulse.connection.tlscontext import reason

SLICE = 16_384
"""Bytes given to OpenSSL at once, in both directions; also the most that one record holds."""

MAX_ANSWERS = 4096
"""Bytes of TLS's own answers (key updates, refusals) that may wait for a client that asks for them
and does not read them; more ends the connection."""

FILE_BLOCK = 262_144
"""Bytes of a file that are read and encrypted at once, and the most of it that waits for a slow
reader."""

LINGER = 2.0
"""Seconds for a client to read why its handshake was refused."""
LINGER_BYTES = 65_536
"""Bytes of such a client that are thrown away before it is cut off."""

PLAIN_HTTP = "plain HTTP came to a port that speaks TLS"

log = logging.getLogger("gpulse.worker")


class TlsConnection(Connection):
    """See the module's text.  Until :meth:`start_handshake` it is an ordinary connection, so that
    something may come before TLS (a PROXY header)."""

    __slots__ = (
        "_answers",
        "_behind",
        "_ended",
        "_goodbye",
        "_incoming",
        "_outgoing",
        "_resuming",
        "_tls",
        "_unread",
        "environ",
        "is_secure",
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._tls: Any = None
        self._incoming: Any = None
        self._outgoing: Any = None
        self._unread: bytes | memoryview = b""
        # Made when it is needed, as the base's buffer.
        self._behind: list[bytes | memoryview | FileInBuffer] | None = None
        self._answers = 0
        self._ended = False  # the peer's close_notify came
        self._goodbye = False  # ours is out, or will be behind a file
        self._resuming = False
        self.environ: dict[str, str] = {}
        """See :func:`tls_environ`."""
        self.is_secure = False
        """The handshake is done."""

    def start_handshake(
        self,
        context: ssl.SSLContext,
        timeout: float,
        established: Callable[["TlsConnection"], object],
        refused: Callable[[str], None],
        data: bytes = b"",
    ) -> None:
        """Speak TLS from here on; the caller then resumes reading.

        :param context: from :func:`~gpulse.connection.tlscontext.build_context`.
        :param timeout: seconds for the handshake.
        :param established: called once the handshake is done; sets ``protocol``, which sees nothing
            before.
        :param refused: called in its place, once, with the reason in a few words.
        :param data: what arrived behind a header that preceded TLS.
        """
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        handshake = Handshake(self, timeout, established, refused)
        self.protocol = handshake
        if data:
            handshake.data_received(data)

    # -- reading

    def resume_reading(self) -> None:
        if self._reading or self.lost:
            return
        if not self._unread and not self._ended:
            super().resume_reading()
            return
        self._reading = True
        if not self._resuming:
            self._resuming = True
            # Not at once: whoever resumes has something of its own to deal with first.
            self.loop.run_callback(self._resume)

    def _resume(self) -> None:
        self._resuming = False
        if self.lost or not self._reading:
            return
        try:
            self._advance()
        except Exception:
            self._protocol_raised()
        if self._reading and not self.lost:
            super().pause_reading()  # the watcher may run already
            super().resume_reading()

    def _received(self, data: bytes) -> None:
        if self.is_secure:
            self._unread = data
            self._advance()
        else:
            self.protocol.data_received(data)  # a handshake, or what comes before it

    def _advance(self) -> None:
        """Decrypt and deliver what came, as long as the protocol reads."""
        while True:
            if not self._ended:
                plain = self._decrypt()
                if self.lost:
                    return
                if plain:
                    self.protocol.data_received(plain)
            if self.lost or not self._reading:
                return
            if self._ended:
                self._unread = b""  # RFC 8446, 6.1: data behind a close_notify is ignored
                self.pause_reading()
                self.protocol.eof_received()
                return
            if not self._unread:
                return

    def _decrypt(self) -> bytes:
        """The plain bytes of the next slice; decrypts until OpenSSL wants more."""
        data = self._unread
        self._incoming.write(data[:SLICE])
        # No empty view is kept: it would hold all that was received.
        self._unread = memoryview(data)[SLICE:] if len(data) > SLICE else b""
        pieces = []
        try:
            while piece := self._tls.read(SLICE):
                pieces.append(piece)
            self._ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError as error:
            log.debug("%s: TLS broke: %s", self.peer, reason(error))
            self._send(self._outgoing.read())  # the alert
            self.abort()
            return b""
        if self._outgoing.pending:
            self._answer()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _answer(self) -> None:
        """Send what TLS itself has to say to what it read."""
        answer = self._outgoing.read()
        self._send(answer)
        self._answers = self._answers + len(answer) if self.buffered else 0
        if self._answers > MAX_ANSWERS:
            log.debug("%s: asks TLS for answers and does not read them", self.peer)
            self.abort()

    # -- writing

    def try_send(self, data: bytes) -> int:
        """Takes nothing: the caller may be on another thread than the SSL object's."""
        return 0

    def gather(self, data: bytes, outbox: Outbox) -> bool:
        """Nothing is gathered: the records wait in the order in which they are numbered."""
        return False

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt; send what the kernel takes and buffer the rest."""
        if not self._goodbye:
            self._write(data)

    def enqueue(self, data: bytes | memoryview) -> None:
        """As :meth:`write`: a holder could not send the beginning itself."""
        self.write(data)

    def drop_unsent(self) -> int:
        """Drops nothing: records are numbered, and without one those behind it are worthless."""
        return 0

    def drop_oldest(self, size: int) -> tuple[int, int]:
        """Drops nothing, likewise."""
        return 0, 0

    def _write(self, data: bytes | memoryview) -> None:
        if self.lost:
            return
        if self._file_waits:
            self._put_behind(data)
        else:
            self._send(self._encrypt(data))

    def _encrypt(self, data: bytes | memoryview) -> bytes:
        """The records; none, and the connection is lost, if OpenSSL refuses."""
        pieces = []
        try:
            if len(data) <= SLICE:
                self._tls.write(data)
                records: bytes = self._outgoing.read()
                return records
            view = memoryview(data)
            while view:
                view = view[self._tls.write(view[:SLICE]) :]
                pieces.append(self._outgoing.read())
        except ssl.SSLError as error:
            log.debug("%s: TLS broke: %s", self.peer, reason(error))
            self.abort()
            return b""
        return b"".join(pieces)

    def _send(self, records: bytes) -> None:
        """Hand the kernel what it takes and buffer the rest."""
        if self.lost or not records:
            return
        sent = 0
        if not self.buffered:
            sent = super().try_send(records)
            if self.lost:
                self.abort()
                return
            if sent == len(records):
                return
        self._buffer(memoryview(records)[sent:] if sent else records)

    def _buffer(self, records: bytes | memoryview) -> None:
        """Buffer records, in front of a file: its next ones will have higher numbers."""
        file = self._out.pop() if self._out and self._file_waits else None
        super().enqueue(records)
        if file is not None and self._out is not None:
            self._out.append(file)

    # -- files

    def send_file(self, fd: int, offset: int, size: int, run: Callable[..., None]) -> None:
        """As the base's; see the module's text."""
        piece = FileInBuffer(fd, offset, size, run)
        if self._goodbye:
            piece.close()
        else:
            self._put_file(piece)

    def _put_file(self, piece: FileInBuffer) -> None:
        if self.lost:
            piece.close()
        elif self._file_waits:
            self._put_behind(piece)
        else:
            self._append(piece)

    @property
    def _file_waits(self) -> bool:
        """The last thing in the buffer is a file that is not yet encrypted to its end."""
        return bool(self._out) and type(self._out[-1]) is FileInBuffer  # type: ignore[index]

    def _put_behind(self, piece: "bytes | memoryview | FileInBuffer") -> None:
        if self._behind is None:
            self._behind = []
        self._behind.append(piece)
        self.buffered += len(piece)

    def _send_from_file(self, piece: FileInBuffer) -> Any:
        """On a file thread: the next block; empty at the end of the file.

        Only the file is used there, not the SSL object and not the socket.
        """
        return os.pread(piece.fd, min(piece.left, FILE_BLOCK), piece.offset)

    def _sent_from_file(self, piece: FileInBuffer, sent: Any, error: BaseException | None) -> None:
        """``sent`` is the block."""
        self._file_away = False
        if self.lost:
            piece.close()
            self._end()
            return
        if not sent:
            log.debug("%s: a file ended early or broke: %s", self.peer, error)
            self.abort()
            return
        records = self._encrypt(sent)
        if self.lost or self._out is None:
            return
        piece.offset += len(sent)
        piece.left -= len(sent)
        self.buffered -= len(sent)
        self._buffer(records)
        if not piece.left:
            self._out.pop()
            piece.close()
            self._go_on_behind()

    def _go_on_behind(self) -> None:
        """A file is encrypted to its end: now what came behind it, as far as the next one."""
        behind, self._behind = self._behind or [], None
        self.buffered -= sum(map(len, behind))
        for piece in behind:
            if type(piece) is FileInBuffer:
                self._put_file(piece)
            else:
                self._write(piece)  # type: ignore[arg-type]
        if self._goodbye:
            self._send_goodbye()

    # -- the end

    def shutdown_write(self) -> None:
        self._say_goodbye()
        self.when_drained(self._shut)

    def _shut(self) -> None:
        if not self.lost:
            super().shutdown_write()

    def close(self) -> None:
        self._say_goodbye()
        super().close()

    def _say_goodbye(self) -> None:
        """Send close_notify, once."""
        if self.lost or self._goodbye or not self.is_secure:
            return
        self._goodbye = True
        self._send_goodbye()

    def _send_goodbye(self) -> None:
        if self.lost or self._file_waits:
            return  # its turn comes behind the file
        # It also looks for the peer's, and finds nothing: all that came is decrypted.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._send(self._outgoing.read())

    def _end(self) -> None:
        # The wheel keeps this object until it next looks at it; OpenSSL's part has some KiB.
        self._tls = self._incoming = self._outgoing = None
        self._unread = b""
        behind, self._behind = self._behind, None
        for piece in behind or ():
            if type(piece) is FileInBuffer:
                piece.close()
        super()._end()


class Handshake:
    """What a TLS connection speaks until it is established: its ``data_received`` takes records.

    Its deadline lies in the worker's wheel like any other.  However it fails, the client gets the
    alert or the 400 if there is one, ``refused`` is called once, and the log has one line (debug).
    """

    __slots__ = ("_begun", "_connection", "_established", "_linger", "_refused", "_timeout")

    def __init__(
        self,
        connection: TlsConnection,
        timeout: float,
        established: Callable[[TlsConnection], object],
        refused: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._begun = False
        self._linger = 0  # bytes that may still be thrown away; 0 while nothing is refused

        self._timeout = timeout
        self._established = established
        self._refused: Callable[[str], None] | None = refused
        connection.set_deadline(time.monotonic() + timeout)

    def data_received(self, data: bytes) -> None:
        connection = self._connection
        if self._refused is None:
            self._linger -= len(data)
            if self._linger <= 0:
                connection.abort()
            return
        if not self._begun:
            self._begun = True
            # A record begins with its type, 22; a request with the name of its method.
            if data[:1].isalpha():
                self._refuse(PLAIN_HTTP, _plain_http_answer())
                return
        rest: bytes | memoryview = data
        while rest:
            connection._incoming.write(rest[:SLICE])
            rest = memoryview(rest)[SLICE:]
            try:
                with _undecodable_names_ignored():
                    connection._tls.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                self._refuse(reason(error), connection._outgoing.read())
                return
            connection._send(connection._outgoing.read())
            if not connection.lost:
                self._succeed(rest)
            return
        connection._send(connection._outgoing.read())

    def _succeed(self, rest: bytes | memoryview) -> None:
        connection = self._connection
        self._refused = None
        connection.set_deadline(NEVER)
        connection.is_secure = True
        connection.environ = _environ_of(connection._tls)
        connection._unread = rest if rest else b""
        self._established(connection)
        # A request may have come with the end of the handshake.
        if not connection.is_closing:
            connection._advance()

    def eof_received(self) -> None:
        self._connection.abort()

    def deadline_passed(self, now: float) -> None:
        self._report(f"the handshake took longer than {self._timeout:g} s")
        self._connection.abort()

    def connection_lost(self) -> None:
        self._report("the client left before its end")

    def _report(self, reason: str) -> None:
        refused, self._refused = self._refused, None
        if refused is not None:
            log.debug("%s: no TLS handshake: %s", self._connection.peer, reason)
            refused(reason)

    def _refuse(self, reason: str, last_words: bytes) -> None:
        """Close so that the client can read why, even if it is still sending."""
        connection = self._connection
        self._report(reason)
        self._linger = LINGER_BYTES
        connection._send(last_words)
        if connection.lost:
            return
        connection.set_deadline(time.monotonic() + LINGER)
        connection.when_drained(connection._shut)


def _plain_http_answer() -> bytes:
    body = b"This port speaks TLS. Use an address that begins with https:// here.\n"
    head = (
        "HTTP/1.1 400 Bad Request\r\n"
        f"Date: {email.utils.formatdate(usegmt=True)}\r\n"
        "Content-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body


@contextlib.contextmanager
def _undecodable_names_ignored() -> Iterator[None]:
    """Keep a traceback from standard error that any client could write there.

    A server name that is not ASCII fails in C before our callback sees it.  The client gets an
    alert either way; Python also reports it to ``sys.unraisablehook``, with the name as object.
    """
    hook = sys.unraisablehook

    def report(unraisable: Any) -> None:
        if unraisable.exc_type is not UnicodeDecodeError or type(unraisable.object) is not bytes:
            hook(unraisable)

    sys.unraisablehook = report
    try:
        yield
    finally:
        sys.unraisablehook = hook


# -- the environ

_shared: dict[tuple[str, str], dict[str, str]] = {}
"""Version and cipher -> the environ of all connections without a certificate."""

_SHORT_NAMES = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "givenName": "GN",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "street",
    "surname": "SN",
    "userId": "UID",
}


def tls_environ(connection: TlsConnection) -> dict[str, str]:
    """What TLS adds to the environ of a connection's requests, in mod_ssl's names.

    ``HTTPS`` ("on"), ``SSL_PROTOCOL`` ("TLSv1.3"), ``SSL_CIPHER``; where client certificates are
    asked for also ``SSL_CLIENT_VERIFY`` (SUCCESS or NONE), and with a certificate
    ``SSL_CLIENT_S_DN`` and ``SSL_CLIENT_I_DN`` (RFC 2253, ASCII), ``SSL_CLIENT_SERIAL`` (hex) and
    ``SSL_CLIENT_CERT`` (PEM).

    Made once, at the end of the handshake, and shared between connections: not to be changed.
    Empty before.
    """
    return connection.environ


def _environ_of(tls: ssl.SSLObject) -> dict[str, str]:
    version, cipher = tls.version() or "", (tls.cipher() or ("",))[0]
    plain = _shared.get((version, cipher))
    if plain is None:
        plain = {"HTTPS": "on", "SSL_PROTOCOL": version, "SSL_CIPHER": cipher}
        _shared[version, cipher] = plain
    if tls.context.verify_mode is ssl.CERT_NONE:
        return plain
    certificate: Any = tls.getpeercert()
    binary = tls.getpeercert(binary_form=True)
    if not certificate or not binary:
        return plain | {"SSL_CLIENT_VERIFY": "NONE"}
    return plain | {
        "SSL_CLIENT_VERIFY": "SUCCESS",
        "SSL_CLIENT_S_DN": _name(certificate["subject"]),
        "SSL_CLIENT_I_DN": _name(certificate["issuer"]),
        "SSL_CLIENT_SERIAL": certificate["serialNumber"],
        "SSL_CLIENT_CERT": ssl.DER_cert_to_PEM_cert(binary),
    }


def _name(name: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """A distinguished name as RFC 2253 writes it: the most specific part first."""
    return ",".join(
        "+".join(f"{_SHORT_NAMES.get(key, key)}={_escape(value)}" for key, value in part)
        for part in reversed(name)
    )


def _escape(value: str) -> str:
    text = re.sub(r'([,+"\\<>;]|^[# ]|(?!^) $)', r"\\\1", value)
    # An environ holds Latin-1 (PEP 3333): all else becomes pairs of hex digits of its UTF-8.
    return "".join(
        char if " " <= char <= "~" else "".join(f"\\{byte:02X}" for byte in char.encode())
        for char in text
    )
