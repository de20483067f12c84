"""A parked connection: one non-blocking stream socket, a read watcher, a bounded write buffer, a
deadline.

It knows no protocol: what arrives goes to ``protocol``, an object with the methods of
:class:`Protocol`; an upgrade replaces that object.  It runs on the hub.  One method,
:meth:`Connection.try_send`, may also be called by the pool member that *holds* the connection.

Who may touch the socket.  While a request is in flight its pool member holds the connection
(``held``), and writes to the socket itself as long as nothing is buffered: that saves two
thread switches per response.  The hub then neither writes nor closes the descriptor, for a closed
descriptor's number is reused at once and the member would write into a stranger's socket.  The hub
only marks the connection ``lost``; the descriptor is closed at :meth:`release`.

The write buffer.  Output that the kernel does not take is kept in ``_out``; the writer learns its
size from ``buffered`` and is bound to stop: the HTTP exchange waits at HIGH_WATER, the WebSocket
session closes a slow reader at its own limit.

A gathered response (:meth:`Connection.gather`) waits for the end of the hub's turn, see
:mod:`gpulse.connection.outbox`.  It is as good as sent: whatever else is done with the socket sends
it first.

A file in the buffer (:meth:`Connection.send_file`) is sent by the kernel, sendfile(2), on a file
thread, for a page of it may have to be read from a disk first.  Meanwhile nobody holds a pool
member, and the descriptor is not closed either.
"""

import _socket
import array
import contextlib
import fcntl
import logging
import os
import socket
import termios
from collections import deque
from collections.abc import Callable
from typing import Any
from typing import Protocol as TypingProtocol

from gpulse.connection.outbox import Outbox
from gpulse.connection.timers import NEVER, DeadlineWheel

READ_SIZE = 98_304
"""Bytes taken from a socket at once: a body of 64 KiB with its head, and less than the 128 KiB from
which malloc asks the kernel for fresh pages each time."""
READS = 4
"""How often a socket that fills READ_SIZE is read in one turn of the hub, before the others have
theirs: an upload takes a quarter of the turns so."""

HIGH_WATER = 262_144
"""Buffered bytes at which a writer on the pool has to wait until the buffer is empty again."""

FILE_STEP = 1_048_576
"""Bytes of a file that one visit of a file thread sends at most."""

log = logging.getLogger("gpulse.worker")

_READ, _WRITE = 1, 2  # libev's EV_READ and EV_WRITE


class Protocol(TypingProtocol):
    """What a connection speaks.  All methods are called on the hub.

    A protocol may also have ``write_progressed()``: the kernel took something of what is buffered;
    ``output_stalled()``: it did not take all of a gathered response; ``peer_left()``: the
    connection is lost and still held.
    """

    def data_received(self, data: bytes) -> None:
        """1 to READ_SIZE bytes arrived."""

    def eof_received(self) -> None:
        """The peer will send no more; reading has stopped."""

    def deadline_passed(self, now: float) -> None:
        """The connection's deadline passed."""

    def connection_lost(self) -> None:
        """The connection is lost or closed; called once."""


class _Gone:
    """What a closed connection speaks; shared by all."""

    def data_received(self, data: bytes) -> None:
        """Nobody reads any more."""

    def eof_received(self) -> None:
        """It has ended."""

    def deadline_passed(self, now: float) -> None:
        """It has none."""

    def connection_lost(self) -> None:
        """That was told."""


_GONE = _Gone()


class FileInBuffer:
    """The rest of a file that is being sent; as long as its bytes."""

    __slots__ = ("fd", "left", "offset", "run")

    def __init__(self, fd: int, offset: int, left: int, run: Callable[..., None]) -> None:
        self.fd = fd
        self.offset = offset
        self.left = left
        self.run = run

    def __len__(self) -> int:
        return self.left

    def close(self) -> None:
        os.close(self.fd)


class Connection:
    """See the module's text.

    :param loop: the hub's loop.
    :param sock: a connected non-blocking socket; owned from now on.
    :param peer: the peer's address as ``accept`` gave it.
    :param wheel: the worker's deadlines.
    :param closed: called once when the descriptor is closed.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_drained",
        "_file_away",
        "_finish",
        "_gathered",
        "_is_over",
        "_out",
        "_reader",
        "_reading",
        "_sock",
        "_writer",
        "buffered",
        "deadline",
        "flushed",
        "held",
        "listener",
        "loop",
        "lost",
        "peer",
        "protocol",
        "speaker",
        "wheel",
        "wheel_bucket",
    )

    protocol: Protocol

    def __init__(
        self,
        loop: Any,
        sock: _socket.socket,
        peer: Any,
        listener: Any,
        wheel: DeadlineWheel,
        closed: Callable[["Connection"], None],
    ) -> None:
        self._sock = sock
        self._reader = loop.io(sock.fileno(), _READ)
        self._reading = False
        self._writer: Any = None
        # Made when it is needed: an empty deque is 760 bytes, and most connections are idle.
        self._out: deque[bytes | memoryview | FileInBuffer] | None = None
        self._file_away = False  # a file thread uses the socket
        self._drained: Callable[[], None] | None = None
        self._finish = False
        self._gathered = b""
        self._is_over = False  # the end has begun
        self.held = False
        """A pool member uses the socket: the descriptor stays open until :meth:`release`."""
        self.buffered = 0
        self.flushed = 0
        """Bytes that ever went from the buffer to the kernel."""
        self.lost = False
        self.deadline = NEVER
        self.wheel_bucket = 0
        self.loop = loop
        self.peer = peer
        self.speaker = peer
        """Whose word is what arrives: the peer, whom a proxy says it relays, or None for nobody."""
        self.listener = listener
        self.wheel = wheel
        self._closed = closed

    # -- reading

    def resume_reading(self) -> None:
        if not self._reading and not self.lost:
            self._reading = True
            self._reader.start(self._readable)

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._reader.stop()

    def _readable(self) -> None:
        reads = READS
        while reads:
            try:
                data = self._sock.recv(READ_SIZE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.abort()
                return
            try:
                if data:
                    self._received(data)
                else:
                    self.pause_reading()
                    self.protocol.eof_received()
            except Exception:
                self._protocol_raised()
            if len(data) < READ_SIZE or not self._reading:
                return
            reads -= 1

    def _received(self, data: bytes) -> None:
        """Bytes from the socket: on TLS, records."""
        self.protocol.data_received(data)

    # -- writing

    def try_send(self, data: bytes) -> int:
        """Hand the kernel what it takes now; returns the number of bytes (0 when it takes none).

        Only for whoever holds the connection, and only while nothing is buffered.  A broken
        connection counts as taking everything: ``lost`` tells.
        """
        if self._gathered:
            self.flush_gathered()
            if self.buffered:
                return 0
        return self._send_now(data)

    def _send_now(self, data: bytes) -> int:
        try:
            return self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.lost = True
            return len(data)

    def gather(self, data: bytes, outbox: Outbox) -> bool:
        """Send a whole response at the end of the turn; False if it has to be sent now.

        For whoever holds the connection, on the hub's thread.
        """
        if self.lost or self.buffered or self._gathered or not outbox.add(self):
            return False
        self._gathered = data
        return True

    def flush_gathered(self) -> None:
        """Send what was gathered; the protocol is told of what the kernel did not take."""
        data, self._gathered = self._gathered, b""
        if not data or self.lost:
            return
        sent = self._send_now(data)
        if self.lost:
            self.abort()
        elif sent < len(data):
            self._append(memoryview(data)[sent:])
            stalled = getattr(self.protocol, "output_stalled", None)
            if stalled is not None:
                stalled()

    def write(self, data: bytes) -> None:
        """Send what the kernel takes and buffer the rest."""
        if self._gathered:
            self.flush_gathered()
        if self.lost or self._finish:
            return
        if not self.buffered:
            sent = self.try_send(data)
            if self.lost:
                self.abort()
                return
            if sent == len(data):
                return
            self.enqueue(memoryview(data)[sent:])
        else:
            self.enqueue(data)

    def enqueue(self, data: bytes | memoryview) -> None:
        """Buffer output behind what is buffered already."""
        if self._gathered:
            self.flush_gathered()
        if not self.lost:
            self._append(data)

    def send_file(self, fd: int, offset: int, size: int, run: Callable[..., None]) -> None:
        """Send a part of a file behind what is buffered.

        :param fd: owned from now on.
        :param size: bytes, 1 or more; if the file turns out shorter, the connection is cut.
        :param run: ``in_file_thread`` of the pool.
        """
        if self._gathered:
            self.flush_gathered()
        piece = FileInBuffer(fd, offset, size, run)
        if self.lost:
            piece.close()
        else:
            self._append(piece)

    def _append(self, piece: "bytes | memoryview | FileInBuffer") -> None:
        if self._out is None:
            self._out = deque()
        self._out.append(piece)
        self.buffered += len(piece)
        if self._writer is None and not self._file_away:
            self._writer = self.loop.io(self._sock.fileno(), _WRITE)
            self._writer.start(self._writable)

    def _writable(self) -> None:
        progress = 0
        out = self._out
        while out:
            data = out[0]
            if type(data) is FileInBuffer:
                self._stop_writing()
                self._file_away = True
                data.run(self._send_from_file, (data,), self._sent_from_file, data)
                break
            try:
                sent = self._sock.send(data)  # type: ignore[arg-type]
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self.abort()
                return
            progress += sent
            self.buffered -= sent
            if sent < len(data):
                out[0] = memoryview(data)[sent:]  # type: ignore[arg-type]
                break
            out.popleft()
        self._progressed(progress)

    def _progressed(self, sent: int) -> None:
        """So many bytes left the buffer."""
        self.flushed += sent
        try:
            if self._out:
                if sent:
                    on_progress = getattr(self.protocol, "write_progressed", None)
                    if on_progress is not None:
                        on_progress()
                return
            self._out = None
            self._stop_writing()
            if self._drained is not None:
                drained, self._drained = self._drained, None
                drained()
        except Exception:
            self._protocol_raised()
        if self._finish and not self.buffered:
            self._end()

    def _send_from_file(self, piece: FileInBuffer) -> int:
        """On a file thread: the bytes sent; 0 at the end of the file."""
        return os.sendfile(self._sock.fileno(), piece.fd, piece.offset, min(piece.left, FILE_STEP))

    def _sent_from_file(
        self, piece: FileInBuffer, sent: int | None, error: BaseException | None
    ) -> None:
        self._file_away = False
        if self.lost:
            piece.close()
            self._end()
            return
        if isinstance(error, BlockingIOError):
            sent = 0
        elif not sent:
            log.debug("%s: a file ended early or broke: %s", self.peer, error)
            self.abort()
            return
        piece.offset += sent
        piece.left -= sent
        self.buffered -= sent
        if not piece.left and self._out:
            self._out.popleft()
            piece.close()
        if self._out:
            self._writer = self.loop.io(self._sock.fileno(), _WRITE)
            self._writer.start(self._writable)
        self._progressed(sent)

    def unsent(self) -> int:
        """Bytes that the kernel holds and the peer has not acknowledged (SIOCOUTQ, tcp(7))."""
        size = array.array("i", [0])
        try:
            fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, size)
        except (OSError, ValueError):
            return 0
        return size[0]

    def _stop_writing(self) -> None:
        if self._writer is not None:
            self._writer.stop()
            self._writer.close()
            self._writer = None

    def when_drained(self, call: Callable[[], None]) -> None:
        """Call once when nothing is buffered any more, or at once if so, or when the connection is
        lost."""
        if self._gathered:
            self.flush_gathered()
        if self.lost or not self.buffered:
            call()
        else:
            self._drained = call

    def drop_unsent(self) -> int:
        """Forget whole buffered pieces that were not begun; returns the bytes dropped.

        The first piece may be half on the wire and stays.
        """
        dropped = 0
        while self._out is not None and len(self._out) > 1:
            piece = self._out.pop()
            dropped += len(piece)
            if type(piece) is FileInBuffer:
                piece.close()
        self.buffered -= dropped
        return dropped

    def drop_oldest(self, size: int) -> tuple[int, int]:
        """Forget the oldest whole pieces that were not begun until ``size`` bytes are free.

        :returns: the number of pieces and of bytes dropped; perhaps too few, never that under way.
        """
        out = self._out
        if out is None or len(out) < 2:
            return 0, 0
        begun = out.popleft()
        count = freed = 0
        while out and freed < size:
            piece = out.popleft()
            count += 1
            freed += len(piece)
            if type(piece) is FileInBuffer:
                piece.close()
        out.appendleft(begun)
        self.buffered -= freed
        return count, freed

    def shutdown_write(self) -> None:
        """Tell the peer that nothing more will come, while its bytes are still read."""
        if self._gathered:
            self.flush_gathered()
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()

    # -- the deadline

    def set_deadline(self, deadline: float) -> None:
        self.wheel.set(self, deadline)

    def deadline_passed(self, now: float) -> None:
        """From the wheel."""
        if self.lost and not self.held:
            return
        try:
            self.protocol.deadline_passed(now)
        except Exception:
            self._protocol_raised()  # here, or the wheel would forget the others of its turn

    # -- the end

    def release(self) -> None:
        """The pool member is done with the socket."""
        self.held = False
        if self.lost:
            self._end()

    def close(self) -> None:
        """Flush what is buffered, then close.  The caller sets a deadline that ends a flush
        without end."""
        if self._gathered:
            self.flush_gathered()
        self._finish = True
        self.pause_reading()
        if not self.buffered:
            self._end()

    def abort(self) -> None:
        """Close now, whatever is buffered."""
        if self._gathered and not self.lost:
            self._send_now(self._gathered)
        self._gathered = b""
        self._end()

    def _protocol_raised(self) -> None:
        """A fault of ours: without an end the connection would stay, with its watcher stopped."""
        log.exception("%s: the connection is cut", self.peer)
        self.abort()

    @property
    def is_closing(self) -> bool:
        return self._finish or self.lost

    def _end(self) -> None:
        is_first, self._is_over = not self._is_over, True
        self.lost = True
        self.pause_reading()
        self._stop_writing()
        out, self._out = self._out or (), None
        for place, piece in enumerate(out):
            # That of the file thread is closed when the thread is done with it.
            if type(piece) is FileInBuffer and not (self._file_away and place == 0):
                piece.close()
        self.buffered = 0
        if self._drained is not None:
            drained, self._drained = self._drained, None
            drained()
        if self._sock.fileno() < 0:
            return
        if self.held or self._file_away:
            # Whoever uses the descriptor keeps it open; the peer learns of the end now.
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            if self.held and is_first:
                # Its deadline stays: what the member does may have one, too.
                peer_left = getattr(self.protocol, "peer_left", None)
                if peer_left is not None:
                    peer_left()
            return
        self.deadline = NEVER
        self._reader.close()
        self._sock.close()
        self._closed(self)
        self.protocol.connection_lost()
        # The protocol refers back to us: without this, both would wait for the garbage collector.
        self.protocol = _GONE
