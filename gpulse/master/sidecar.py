"""A sidecar: another program that the master runs beside the workers (the store, the reloader).

Runs in the master.  The sidecar gets a session of its own, so that a terminal's Ctrl-C does not
end it before the workers have drained; on Linux it dies with the master, however that dies.
Its output goes line by line into the log; the pipe is read by the
master's loop.  It is respawned with the workers' backoff.
"""

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence

from gpulse import logs
from gpulse.master import child
from gpulse.master.backoff import STEADY, Backoff
from gpulse.master.privileges import Identity

LINES_KEPT = 5
"""Last lines of output remembered, to say why it ended."""
LINE_BYTES = 4096
STOP_SECONDS = 2.0
"""From TERM to KILL; a sidecar has nothing to save."""
_STOP_POLL_SECONDS = 0.01

_log = logs.logger("master")


class Sidecar:
    """One program, kept running until :meth:`stop`.

    :param name: how log lines call it.
    :param command: program path and arguments.
    :param level: at which its output is logged.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        identity: Identity,
        environ: Mapping[str, str],
        level: int = logging.DEBUG,
    ) -> None:
        self.pid = 0
        """0 while it is down."""
        self._output_fd = -1
        self._name = name
        self._command = tuple(command)
        self._identity = identity
        self._environ = {**environ, **identity.environment()}
        self._level = level
        self._spawned_at = 0.0
        self._backoff = Backoff()
        self._partial = b""
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)

    @property
    def fds(self) -> tuple[int, ...]:
        """Its output pipe while it runs: to be polled, and closed in children."""
        return () if self._output_fd < 0 else (self._output_fd,)

    @property
    def last_line(self) -> str:
        """The last thing that it said, empty if nothing."""
        return self._lines[-1] if self._lines else ""

    def tend(self, now: float) -> None:
        """Read what it says; spawn it if it is down and the backoff allows."""
        self.read_output()
        if self.pid == 0 and self._backoff.is_due(now):
            self._spawn(now)

    def reaped(self, pid: int, code: int, now: float) -> bool:
        """Take note of a child's end; False if it was another's."""
        if self.pid == 0 or pid != self.pid:
            return False
        self.read_output()
        self._close_output()
        self.pid = 0
        # Like a worker's: an accident after long service is mended at once.
        if now - self._spawned_at >= STEADY:
            self._backoff = Backoff()
        else:
            self._backoff = self._backoff.failed(self._spawned_at, now)
        what = f"exited with status {code}" if code >= 0 else f"was killed by signal {-code}"
        said = f": {self.last_line}" if self.last_line else ""
        _log.error("%s (pid %d) %s%s; starting it again", self._name, pid, what, said)
        return True

    def read_output(self) -> None:
        """Log the lines that it wrote since the last call; never waits."""
        if self._output_fd < 0:
            return
        try:
            data = os.read(self._output_fd, 65536)
        except BlockingIOError:
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > LINE_BYTES:
            lines, self._partial = [*lines, self._partial], b""
        for line in lines:
            text = line[:LINE_BYTES].decode("utf-8", "replace").strip()
            if text:
                self._lines.append(text)
                _log.log(self._level, "%s: %s", self._name, text)
        if not data:
            self._close_output()

    def stop(self) -> None:
        """TERM, KILL after two seconds, reap.  The last use of this object."""
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            while not self.poll() and time.monotonic() < deadline:
                self.read_output()
                time.sleep(_STOP_POLL_SECONDS)
        if self.pid:
            _log.warning("%s (pid %d) did not stop: killing it", self._name, self.pid)
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
        self._close_output()

    def poll(self) -> bool:
        """Whether it has ended; reaps it.  Only while the master's loop does not run."""
        if self.pid and os.waitpid(self.pid, os.WNOHANG)[0] == self.pid:
            self.pid = 0
        return self.pid == 0

    def _spawn(self, now: float) -> None:
        self._spawned_at = now
        read_fd, write_fd = -1, -1
        try:
            read_fd, write_fd = os.pipe()
            self.pid = child.fork(lambda: self._exec(write_fd, os.getppid()))
        except OSError as error:
            self._backoff = self._backoff.failed(now, now)
            _log.error("cannot start %s: %s; trying again", self._name, error.strerror)
            if read_fd >= 0:
                os.close(read_fd)
            return
        finally:
            if write_fd >= 0:
                os.close(write_fd)
        os.set_blocking(read_fd, False)
        self._output_fd, self._partial = read_fd, b""
        self._lines.clear()
        _log.debug("%s has pid %d", self._name, self.pid)

    def _exec(self, output_fd: int, master_pid: int) -> int:
        """Become the program; called in the child.  Returns only if that fails."""
        os.setsid()
        with open(os.devnull, "rb") as null:
            os.dup2(null.fileno(), 0)
        os.dup2(output_fd, 1)
        os.dup2(output_fd, 2)
        # CPython ignores it, and what is ignored stays so over exec.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        self._identity.assume()
        if not child.die_with_parent(master_pid):
            return 1
        try:
            os.execve(self._command[0], self._command, self._environ)
        except OSError as error:
            os.write(2, f"cannot run {self._command[0]}: {error.strerror}\n".encode())
        return 127

    def _close_output(self) -> None:
        if self._output_fd >= 0:
            os.close(self._output_fd)
            self._output_fd = -1
