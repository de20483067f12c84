"""THE signal table, and the pipe through which signals reach the master's loop.

Handlers do nothing: CPython writes the signal's number into the wakeup pipe
(``signal.set_wakeup_fd``), the loop reads the numbers in order and looks the order up here.
Nothing is logged or decided in a handler, and no signal is lost while the loop is busy.

The table also says what the docs say, what the policy is asked, and what a freshly forked child
does with each signal until the worker has installed its own handlers.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Literal

from gpulse.master.facts import Order


@dataclass(frozen=True, slots=True)
class SignalRow:
    """One signal."""

    signal: signal.Signals
    order: Order | None
    """What the policy is asked; None where the master only wakes up and looks."""
    child: Literal["default", "ignore"]
    """What a new child does until the worker's own handlers stand."""
    master_does: str
    worker_does: str

    @property
    def name(self) -> str:
        """The short name, as ``kill -NAME`` takes it."""
        return self.signal.name.removeprefix("SIG")


TABLE = (
    SignalRow(
        signal.SIGTERM,
        Order.STOP,
        "default",
        "Stop: workers finish what they have (--graceful-timeout), then the store ends. "
        "A second TERM is a quick stop.",
        "Drains: accepts nothing new, finishes what it has, exits.",
    ),
    SignalRow(
        signal.SIGINT,
        Order.QUICK_STOP,
        "default",
        "Quick stop: workers end at once, killed after 3 s.",
        "Ends at once.",
    ),
    SignalRow(
        signal.SIGQUIT,
        Order.QUICK_STOP,
        "default",
        "Quick stop, as INT.",
        "Ends at once.",
    ),
    SignalRow(
        signal.SIGHUP,
        Order.RELOAD,
        "ignore",
        "Reload the code: new workers first, one at the start; if it cannot start, the old ones "
        "go on serving.",
        "Ignores it.",
    ),
    SignalRow(
        signal.SIGTTIN,
        Order.MORE,
        "ignore",
        "One worker more.",
        "Ignores it.",
    ),
    SignalRow(
        signal.SIGTTOU,
        Order.FEWER,
        "ignore",
        "One worker fewer, the youngest; never fewer than one.",
        "Ignores it.",
    ),
    SignalRow(
        signal.SIGUSR1,
        Order.REOPEN,
        "ignore",
        "Pass it on to the workers (after log rotation).",
        "Reopens its log files.",
    ),
    SignalRow(
        signal.SIGCHLD,
        None,
        "default",
        "Reap the child that ended.",
        "Has children only if the application starts some.",
    ),
)
"""Every signal that the master handles."""

_ORDERS = {int(row.signal): row.order for row in TABLE}
_HANDLED = tuple(row.signal for row in TABLE)


class SignalPipe:
    """The signals of :data:`TABLE` as orders that can be waited for.

    Runs in the master's main thread.  ``close`` puts the former handlers back.
    """

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe()
        """``fd`` is readable when a signal came."""
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        self._former = {number: signal.signal(number, _only_wake) for number in _HANDLED}
        self._former_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)

    @property
    def fds(self) -> tuple[int, int]:
        """Both ends, which a child must close."""
        return self.fd, self._write_fd

    def read(self) -> list[Order]:
        """The orders that came since the last call, oldest first; never waits."""
        try:
            numbers = os.read(self.fd, 4096)
        except BlockingIOError:
            return []
        orders = [_ORDERS.get(number) for number in numbers]
        return [order for order in orders if order is not None]

    def close(self) -> None:
        """Back to the handlers from before."""
        signal.set_wakeup_fd(self._former_fd)
        for number, handler in self._former.items():
            signal.signal(number, handler)
        for fd in self.fds:
            os.close(fd)


@contextmanager
def held() -> Iterator[None]:
    """Hold all handled signals back around a fork, in parent and child.

    Otherwise a signal to the child, before :func:`reset_in_child`, would be written into the
    wakeup pipe that it shares with the master, and the master would take it as its own.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)


def reset_in_child() -> None:
    """Called in the child, first thing after a fork inside :func:`held`; lets signals through."""
    signal.set_wakeup_fd(-1)
    for row in TABLE:
        handler = signal.SIG_IGN if row.child == "ignore" else signal.SIG_DFL
        signal.signal(row.signal, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)


def _only_wake(number: int, frame: FrameType | None) -> None:
    """Exists so that the default action does not happen; the wakeup pipe carries the number."""
