"""Forking: what happens in a child between the fork and its own code.

A child never returns into the master's stack: :func:`fork` ends it with ``os._exit``.  A worker's
child leaves behind what is the master's (signal handlers, pipes, privileges), signs the scoreboard
and calls the worker's entry.  Nothing is logged here but the traceback of an unforeseen error.
"""

import atexit
import contextlib
import ctypes
import dataclasses
import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable

from gpulse.errors import GpulseError
from gpulse.handover import Handover
from gpulse.master import signals
from gpulse.master.privileges import Identity
from gpulse.scoreboard import Cell, WorkerState
from gpulse.tlsfiles import read_files

try:
    from setproctitle import setproctitle as _setproctitle
except ImportError:  # an extra: without it ps(1) shows the command line

    def _setproctitle(title: str) -> None:
        """Leave the process title as it is."""


WorkerEntry = Callable[[Handover], int]
"""What a worker runs; returns its exit status."""

_STDERR = 2
_PR_SET_PDEATHSIG = 1
# Loaded before any fork: between fork and exec as little as possible happens.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def fork(run: Callable[[], int]) -> int:
    """Fork; the child runs ``run`` and exits with its status.

    :returns: the child's process id, in the parent.
    :raises OSError: if the system refuses.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with signals.held():
        pid = os.fork()
        if pid == 0:
            _run_and_exit(run)
    return pid


def _run_and_exit(run: Callable[[], int]) -> None:
    status = 1
    try:
        signals.reset_in_child()
        status = run()
    except SystemExit as error:
        status = _status_of(error)
    except BaseException:  # a child has nobody above it to raise to
        traceback.print_exc()
    finally:
        # Whatever the end was, the stack below belongs to the master and must not be unwound.
        os._exit(status)


def run_worker(
    entry: WorkerEntry, handover: Handover, identity: Identity, fds: Iterable[int]
) -> int:
    """Be a worker; called in the child.

    :param fds: the master's own descriptors, closed here: above all the liveness pipe's write
        end, which must be open in the master only.
    """
    board = handover.scoreboard.slot(handover.slot)
    board.set(Cell.TICK, time.monotonic())
    board.set(Cell.STATE, WorkerState.BOOTING)
    board.set(Cell.PID, os.getpid())
    for fd in fds:
        os.close(fd)
    # The C handler writes every stack even if the hub is blocked in C; Python's could not run.
    faulthandler.enable(file=_STDERR)
    set_title(handover.config.pulse_app_name, f"worker {handover.slot}")
    try:
        # A private key is for root's eyes; after this only the worker's memory has it.
        handover = dataclasses.replace(handover, tls=read_files(handover.config))
        identity.assume()
        return entry(handover)
    except GpulseError as error:
        _report(handover, str(error))
        return error.exit_status
    except Exception as error:  # reported, and turned into the exit status
        traceback.print_exc()
        _report(handover, f"{type(error).__name__}: {error} (its traceback is on stderr)")
        return 1
    finally:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads it any more
                stream.flush()


def die_with_parent(parent_pid: int) -> bool:
    """Have this process killed when its parent ends, however that ends; Linux only.

    Called in the child, after a change of user, which clears it (PR_SET_PDEATHSIG, prctl(2)).

    :param parent_pid: as the parent knows itself.
    :returns: False if the parent was gone before the kernel was asked.
    """
    if _libc is None:
        return True
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent_pid


def set_title(app_name: str, role: str) -> None:
    """Name the process for ps(1), where the ``standard`` extra is installed."""
    _setproctitle(f"{app_name}: {role}")


def _report(handover: Handover, line: str) -> None:
    with contextlib.suppress(OSError):  # no master is left to read it
        handover.report(line)


def _status_of(error: SystemExit) -> int:
    if isinstance(error.code, int):
        return error.code & 0xFF
    if error.code is None:
        return 0
    sys.stderr.write(f"{error.code}\n")
    sys.stderr.flush()
    return 1
