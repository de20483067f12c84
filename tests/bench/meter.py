"""CPU time of a round: the server's, the client's, and what others took of their cores."""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, Self

from servers import CLIENT_CORE, SERVER_CORE, Server, cpu_seconds

QUIET = 0.05
"""Share of a core that other processes may have in a round."""


class Meter:
    """Measures while it is entered.

    :param server: on the server's core; its master, workers and store.
    :param helpers: process ids on the client's core that belong to the benchmark.
    :param clock: CPU seconds of the client; by default those of this process.
    """

    def __init__(
        self,
        server: Server,
        helpers: Sequence[int] = (),
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._server = server
        self._helpers = helpers
        self._clock = clock
        self.seconds = 0.0
        """How long it was entered."""
        self.server = 0.0
        """CPU seconds of the server."""
        self.client = 0.0
        """The client's share of its core, 0 to 1."""
        self.helpers = 0.0
        """The helpers' share of the client's core."""
        self.others = 0.0
        """What all other processes had of the busier of the two cores, 0 to 1."""

    def __enter__(self) -> Self:
        self._before = self._clocks()
        return self

    def __exit__(self, *_: object) -> None:
        spent = [now - then for now, then in zip(self._clocks(), self._before, strict=True)]
        self.seconds, self.server, client, helpers, server_core, client_core = spent
        self.client = client / self.seconds
        self.helpers = helpers / self.seconds
        others = max(0.0, server_core - self.server, client_core - client - helpers)
        self.others = others / self.seconds

    def _clocks(self) -> tuple[float, ...]:
        cores = Path("/proc/stat").read_text().splitlines()
        return (
            time.monotonic(),
            self._server.cpu_seconds(),
            self._clock(),
            sum(map(cpu_seconds, self._helpers)),
            core_seconds(cores, SERVER_CORE),
            core_seconds(cores, CLIENT_CORE),
        )


class Measured(Protocol):
    """A round of any benchmark."""

    @property
    def others(self) -> float:
        """What processes besides server and client had of the busier of their cores, 0 to 1."""


def note_others(rounds: Iterable[Measured]) -> None:
    """Say so when the machine was not quiet: a server with several threads gets more of a shared
    core than one with a single thread, and then even the ratios are worth nothing."""
    share = statistics.median(r.others for r in rounds)
    if share > QUIET:
        print(  # noqa: T201
            f"note: other processes had {share:.0%} of a core; repeat this on a quiet machine",
            flush=True,
        )


def core_seconds(lines: list[str], core: int) -> float:
    """proc(5): user, nice, system and steal; not idle, iowait and interrupts."""
    fields = next(line.split() for line in lines if line.startswith(f"cpu{core} "))
    return sum(int(fields[n]) for n in (1, 2, 3, 8)) / os.sysconf("SC_CLK_TCK")
