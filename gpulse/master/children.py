"""The master's workers as processes: fork, signal, reap, and read why one could not start.

Runs in the master.  One report pipe per worker, read when the worker is reaped: by then all that
it said is in the pipe, so reading never waits.
"""

import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from signal import Signals

from gpulse.handover import REPORT_BYTES
from gpulse.master import child
from gpulse.master.facts import Exited, Spawned, SpawnFailed


@dataclass(frozen=True, slots=True)
class _Child:
    pid: int
    report_fd: int


class Children:
    """The workers that have been forked and not been reaped, by slot."""

    def __init__(self) -> None:
        self._children: dict[int, _Child] = {}

    @property
    def slots(self) -> tuple[int, ...]:
        return tuple(self._children)

    @property
    def fds(self) -> tuple[int, ...]:
        """Read ends of the report pipes, which a child must close."""
        return tuple(member.report_fd for member in self._children.values())

    def spawn(self, slot: int, run: Callable[[int, tuple[int, ...]], int]) -> Spawned | SpawnFailed:
        """Fork a worker into ``slot``.

        :param run: called in the child with the write end of its report pipe and with the
            descriptors of this object that it must close; returns the exit status.
        """
        try:
            read_fd, write_fd = os.pipe()
        except OSError as error:
            return SpawnFailed(slot, error.strerror or str(error))
        # The collector would touch, and so copy, the pages that parent and child share.
        gc.freeze()
        try:
            pid = child.fork(lambda: run(write_fd, (*self.fds, read_fd)))
        except OSError as error:
            os.close(read_fd)
            return SpawnFailed(slot, error.strerror or str(error))
        finally:
            os.close(write_fd)
        os.set_blocking(read_fd, False)
        self._children[slot] = _Child(pid, read_fd)
        return Spawned(slot, pid)

    def send(self, slot: int, signal: Signals) -> None:
        """Signal the worker of ``slot``; safe, as its pid cannot be reused before it is reaped."""
        member = self._children.get(slot)
        if member is not None:
            os.kill(member.pid, signal)

    def reaped(self, pid: int, code: int) -> Exited | None:
        """Forget the worker ``pid`` that waitpid(2) returned; None if it is no worker."""
        for slot, member in self._children.items():
            if member.pid == pid:
                del self._children[slot]
                return Exited(slot, code, _read_report(member.report_fd))
        return None

    def kill_all(self) -> None:
        """Kill and reap whoever is left; after an orderly stop there is nobody."""
        for slot in self.slots:
            self.send(slot, Signals.SIGKILL)
        for slot in self.slots:
            member = self._children.pop(slot)
            os.waitpid(member.pid, 0)
            os.close(member.report_fd)


def reap() -> Iterator[tuple[int, int]]:
    """(pid, exit code) of each child that ended, the code negative for a signal; never waits.

    Any child, not only those that are known: as process 1 of a container the master inherits
    the orphans of its workers.
    """
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def _read_report(fd: int) -> str:
    try:
        return os.read(fd, REPORT_BYTES).decode("utf-8", "replace").strip()
    except BlockingIOError:  # a grandchild holds the write end open and nothing was said
        return ""
    finally:
        os.close(fd)
