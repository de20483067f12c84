"""What a worker is given at its fork.

The master fills one of these for each worker and calls the worker's entry with it, in the child.
It stands apart so that the master need not import the worker, nor the worker the master.
"""

import os
import socket
from dataclasses import dataclass

from gpulse.config import Config
from gpulse.scoreboard import Scoreboard
from gpulse.tlsfiles import TlsFiles

REPORT_BYTES = 1000
"""The longest report in bytes: shorter than PIPE_BUF, so that it is written whole or not at all."""


@dataclass(frozen=True, slots=True)
class Handover:
    """Everything that crosses the fork from master to worker."""

    config: Config
    slot: int
    """The worker's row in the scoreboard, from 0."""
    generation: int
    """1 at first boot, one more after each reload."""
    listeners: tuple[socket.socket, ...]
    """Listening, non-blocking stream sockets, shared with all other workers."""
    scoreboard: Scoreboard
    liveness_fd: int
    """Read end of a pipe whose only write end is the master's: end of file means the master is
    gone."""
    report_fd: int
    """Write end of a pipe to the master: why the boot failed, one line."""
    store_url: str
    """Where the data store answers; empty where the embedded store found no server program."""
    store_pid: int
    """Process id of the embedded store, 0 where the master runs none."""
    runtime_dir: str
    """The master's private directory (0700), empty where it has none; who sees the master die
    removes it."""
    tls: TlsFiles | None = None
    """The certificates and keys, read before the privileges were dropped; None for plain HTTP."""

    def report(self, line: str) -> None:
        """Tell the master, in one line, why this worker cannot become ready."""
        text = " ".join(line.split())
        os.write(self.report_fd, text.encode("utf-8", "replace")[:REPORT_BYTES])
