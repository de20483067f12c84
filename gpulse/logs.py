"""Loggers, their format, and the writer that never makes its caller wait.

Everything is logged under ``gpulse.*`` to standard error, a line like ::

    2026-11-22 23:10:01.123Z gpulse[worker 3 pid 1234] INFO reload: 2 of 4 workers are new

The time is UTC: Django gives a worker the time zone of the site, which the master does not know,
and nobody can read one log in two zones.

Under systemd, which stamps lines itself, ``<6>gpulse[worker 3] reload: ...`` (sd-daemon(3)).

The master logs synchronously.  A worker may not: one slow disk or full pipe under the hub would
stop every connection.  It gives its lines to a :class:`LineWriter`, whose native thread does the
blocking write(2).  The queue is bounded in lines; lines over the bound are dropped and counted.
Where they go is a :class:`Sink`: a descriptor, a file, or a socket of ``gpulse.syslog``.

Locking: :class:`LineWriter` takes none.  ``deque.append`` and ``popleft`` are atomic, and a lock
could deadlock in a signal handler or finalizer that logs.  Its wake-up is a pipe, and its thread is
made with the original ``_thread`` functions, so that gevent's monkey patching does not turn it into
a greenlet of the hub that it is meant to relieve.  Make one after the fork and after the patching;
it does not survive another fork.

The master imports this module, so it does not import gevent: it only looks whether it is there.
"""

import contextlib
import importlib
import io
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from gpulse import syslog
from gpulse.errors import FileError

MAX_QUEUED = 10_000
"""Lines that wait for the disk; at about 200 bytes each, some 2 MB."""
MAX_LINE = 16_384
"""Bytes of a line; a longer one loses its middle, as a traceback tells most at its ends."""
GATHER = 0.05
"""Seconds for which lines are gathered before they are written.  Each run of the writing thread
takes the GIL from the hub, which then waits for it at its next system call: without this a line per
request costs more than the request."""
_CHUNK_LINES = 256
_RETRY = 0.01
"""Seconds until a non-blocking descriptor that was full is tried again."""
_FILE_MODE = 0o640
"""Access logs hold addresses and paths: not for everybody."""

_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


def logger(name: str) -> logging.Logger:
    """The logger ``gpulse.<name>``."""
    return logging.getLogger(f"gpulse.{name}")


def under_systemd(environ: Mapping[str, str], fd: int = 2) -> bool:
    """Whether descriptor ``fd`` is connected to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class Formatter(logging.Formatter):
    """The line of a record.

    :param role: "master" or "worker 3".
    :param journal: write ``<priority>`` for the journal instead of time, pid and level.
    """

    def __init__(self, role: str, *, journal: bool = False) -> None:
        super().__init__()
        self.role = role
        self.journal = journal

    def format(self, record: logging.LogRecord) -> str:
        body = super().format(record)  # message, then traceback
        if self.journal:
            prefix = f"<{_PRIORITIES.get(record.levelname, 6)}>"
            return "\n".join(
                f"{prefix}gpulse[{self.role}] {line}" for line in body.splitlines() or [""]
            )
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record.created))
        head = f"{stamp}.{int(record.msecs):03d}Z gpulse[{self.role} pid {os.getpid()}]"
        return f"{head} {record.levelname} {body}"


def configure(
    level: str,
    role: str,
    writer: "LineWriter | None" = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send ``gpulse.*`` of this process to standard error, replacing an earlier call's handler.

    :param level: "debug", "info", "warning" or "error".
    :param role: who speaks: "master" or "worker 3".
    :param writer: where given (in a worker), it writes; else the calling thread does.
    """
    handler = logging.StreamHandler() if writer is None else AsyncHandler(writer)
    handler.setFormatter(Formatter(role, journal=under_systemd(environ)))
    top = logging.getLogger("gpulse")
    for earlier in list(top.handlers):
        top.removeHandler(earlier)
        earlier.close()
    top.addHandler(handler)
    top.setLevel(level.upper())
    top.propagate = False
    enable()


def enable() -> None:
    """Undo what Django's LOGGING does to our loggers where it lacks ``disable_existing_loggers``.

    ``dictConfig`` then disables every logger made before it, and the errors of a worker would go
    nowhere.  A worker calls this after it has loaded the application.  Handlers and levels that
    LOGGING sets for "gpulse" stay as they are.
    """
    for name, existing in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(existing, logging.Logger) and (name + ".").startswith("gpulse."):
            existing.disabled = False


class AsyncHandler(logging.Handler):
    """Hands formatted records to a :class:`LineWriter`; ``emit`` never blocks."""

    def __init__(self, writer: "LineWriter") -> None:
        super().__init__()
        self.writer = writer

    def createLock(self) -> None:  # noqa: N802 - the name is logging's
        """No lock: nothing in ``emit`` needs one, and a greenlet could be parked on it."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.writer.write(self.format(record))
        except Exception:
            self.handleError(record)


class Sink(Protocol):
    """Where the lines of a :class:`LineWriter` go.

    Its thread calls ``write`` and at last ``close``, and both may block; ``reopen`` is for any
    thread, may not block for long, and takes effect at the next ``write``.
    """

    def write(self, lines: list[bytes]) -> int:
        """Write lines, each with its newline; returns how many are lost.

        May be given none, for a reopen's sake.
        """

    def reopen(self) -> None:
        """Look anew for what may have been replaced.

        :raises FileError: it is not there; what was open goes on being used.
        """

    def close(self) -> None:
        """Let go of what was opened."""


class DescriptorSink:
    """An open descriptor, borrowed and never closed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._sleep = _original("time", "sleep")

    def write(self, lines: list[bytes]) -> int:
        rest = self._write_all(b"".join(lines))
        return min(rest.count(b"\n"), len(lines))

    def reopen(self) -> None:
        """A descriptor is left alone."""

    def close(self) -> None:
        """The descriptor is its owner's."""

    def _write_all(self, whole: bytes) -> bytes:
        """Returns what could not be written."""
        data = memoryview(whole)
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                self._sleep(_RETRY)
            except OSError:
                # No space, no reader, no device: nobody is left to tell but the counter.
                break
        return bytes(data)


class FileSink(DescriptorSink):
    """A file, opened for appending and made if it is missing.

    :raises FileError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        super().__init__(_open(path))
        self._path = path
        self._reopened: deque[int] = deque()
        self._torn = False
        """The file ends within a line: there the disk became full."""

    def write(self, lines: list[bytes]) -> int:
        self._swap()
        data = b"".join(lines)
        if self._torn and data:
            data = b"\n" + data  # one line is spoilt already; the next is not to be
        rest = self._write_all(data)
        written = len(data) - len(rest)
        if written:
            self._torn = data[written - 1] != ord("\n")
        return min(rest.count(b"\n"), len(lines))

    def reopen(self) -> None:
        self._reopened.append(_open(self._path))

    def close(self) -> None:
        self._swap()
        os.close(self._fd)

    def _swap(self) -> None:
        while self._reopened:
            os.close(self._fd)
            self._fd = self._reopened.popleft()
            self._torn = False


def open_sink(target: str, tag: str = syslog.TAG, *, patient: bool = False) -> Sink:
    """What a value of ``--access-log`` names: a path, "-", "syslog:..." or "journal:...".

    :param tag: the program's name in the system's log, unless the target has one.
    :param patient: a system's log that is not there is waited for instead of refused.
    :raises FileError: it cannot be opened or reached.
    """
    if target == "-":
        return DescriptorSink(1)
    if syslog.is_file(target):
        return FileSink(target)
    return syslog.DatagramSink(syslog.parse(target, tag), patient=patient)


class LineWriter:
    """Lines to a sink, written by a native thread of its own.

    :param target: a path, an open descriptor, which is borrowed, or any sink, which is closed at
        the end.
    :param limit: lines that may wait; one more is dropped and counted in ``dropped``.
    :raises FileError: the path cannot be opened.
    """

    def __init__(self, target: str | int | Sink, limit: int = MAX_QUEUED) -> None:
        if isinstance(target, str):
            target = FileSink(target)
        elif isinstance(target, int):
            target = DescriptorSink(target)
        self._sink: Sink = target
        self._lines: deque[str] = deque()
        self._wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        self._wake_write = io.FileIO(wake_write, "wb")
        self._done = _original("_thread", "allocate_lock")()
        self._done.acquire()
        self._sleep = _original("time", "sleep")
        self._limit = limit
        self._awake = False
        self._closing = False
        self.dropped = 0
        """Lines that were never written: the queue was full, or the write failed."""
        _original("_thread", "start_new_thread")(self._run, ())

    def write(self, line: str) -> None:
        """Queue one line (without its newline); returns at once.  For any thread or greenlet."""
        if self._closing or len(self._lines) >= self._limit:
            self.dropped += 1
            return
        self._lines.append(line)
        if not self._awake:
            self._wake()

    def reopen(self) -> None:
        """Open the path again, after a log rotation moved it away; a descriptor is left alone.

        :raises FileError: it cannot be opened; the old file goes on being written.
        """
        if not self._closing:
            self._sink.reopen()
            self._wake()

    def close(self, deadline: float) -> bool:
        """Write what is queued and end; waits at most ``deadline`` seconds, blocking the thread.

        :returns: whether everything was handed to the system in time.
        """
        self._closing = True
        self._wake()
        finished: bool = self._done.acquire(True, max(0.0, deadline))
        if finished:
            self._done.release()  # a second close finds it finished, too
            self._wake_write.close()
        return finished and not self._lines

    # The calling side and the thread agree through _awake.  The caller appends, then writes a byte
    # unless one is under way.  The thread takes the byte, waits, clears _awake, then empties the
    # queue: a line appended after the clearing has its own byte, one appended before is in the
    # queue.

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            # A closed pipe (ValueError, or EPIPE) belongs to a writer that has ended.
            with contextlib.suppress(OSError, ValueError):
                self._wake_write.write(b"\0")

    def _run(self) -> None:
        """The native thread: sleep in read(2), without the GIL, until there is something."""
        while True:
            os.read(self._wake_read, 4096)
            if not self._closing:
                self._sleep(GATHER)
            self._awake = False
            closing = self._closing
            self._write_some()  # even no line, so that a reopened file is not kept open
            while self._lines:
                self._write_some()
            if closing:
                break
        self._sink.close()
        os.close(self._wake_read)
        self._done.release()

    def _write_some(self) -> None:
        count = min(len(self._lines), _CHUNK_LINES)
        lines = [_encode(self._lines.popleft()) for _ in range(count)]
        self.dropped += self._sink.write(lines)


def _open(path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, _FILE_MODE)
    except OSError as error:
        raise FileError(f"cannot write the log file {path}: {error.strerror}") from None


def _encode(line: str) -> bytes:
    data = line.encode("utf-8", "backslashreplace")
    if len(data) > MAX_LINE:
        data = data[: MAX_LINE // 4] + b" [...] " + data[-(MAX_LINE * 3 // 4) :]
    return data + b"\n"


def _original(module: str, name: str) -> Any:
    """The function as it was before gevent patched it, if gevent is in this process at all."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(importlib.import_module(module), name)
