"""The access log: one line per request, in a format of :mod:`gpulse.logformat`.

A pool member writes the line of a request when its response is complete, the hub that of a request
it refused.  Lines go to a bounded writer whose native thread does the I/O, so neither waits for a
disk.  Whatever a client or the application sent, a line stays one line, and its fields stay apart.

A flood of refused requests costs its sender nothing; so that it does not cost a disk either, only
so many refusals are written in one second, and a line says how many were left out.
"""

import logging
import time
from collections.abc import Callable

from gpulse.logformat import Record, compile_format, compile_refusal

log = logging.getLogger("gpulse.http")

MAX_REFUSALS = 100
"""Refusals written per second and worker; those beyond are counted and told in one line."""


class AccessLog:
    """Makes lines and hands them on.

    :param write: takes one line without its newline; must not block.
    :param text: the format: combined, common, json, or directives.
    :param worker: the slot number.
    :param clock: seconds since the epoch.
    :param monotonic: seconds on the clock of the exchanges.
    :param refusals: refusals written per second.
    :raises ValueError: the text is no format.
    """

    __slots__ = (
        "_clock",
        "_line",
        "_missing",
        "_refusal",
        "_room",
        "_second",
        "_write",
        "failed",
        "left_out",
        "refusals",
    )

    def __init__(
        self,
        write: Callable[[str], None],
        text: str = "combined",
        *,
        worker: int = 0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        refusals: int = MAX_REFUSALS,
    ) -> None:
        self._second = 0  # that of the refusals counted in the two below
        self._room = refusals
        self._missing = 0
        self._line = compile_format(text, worker=worker, clock=clock, monotonic=monotonic)
        self._refusal = compile_refusal(text, worker=worker, clock=clock)

        self._write = write
        self._clock = clock
        self.refusals = refusals

        self.left_out = 0
        """Refusals that have no line of their own."""
        self.failed = 0
        """Requests whose line could not be made."""

    def write_exchange(self, exchange: Record) -> None:
        """One line for a request that an application answered.  For any thread or greenlet."""
        try:
            self._write(self._line(exchange))
        except Exception:
            # The application may have put anything into the environ; its response is out.
            if not self.failed:
                log.exception("a line of the access log cannot be made; others are only counted")
            self.failed += 1

    def write_refusal(self, status: int, peer: str, reason: str) -> None:
        """One line for a request that no application saw.  For the hub."""
        self.tell_left_out()
        if self._room:
            self._room -= 1
            self._write(self._refusal(status, peer, reason))
        else:
            self._missing += 1
            self.left_out += 1

    def tell_left_out(self) -> None:
        """Write how many were left out, once their second is over.  For the hub, now and then."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._room = self.refusals
            self._tell()

    def close(self) -> None:
        """Write how many were left out; the writer ends next."""
        self._tell()

    def _tell(self) -> None:
        if self._missing:
            missing, self._missing = self._missing, 0
            self._write(self._refusal(0, "", f"refusals left out in one second: {missing}"))
