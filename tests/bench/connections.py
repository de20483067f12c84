"""What many connections cost: 10,000 idle ones beside 50 busy ones, and 50, 500, 5,000 busy ones.

    python tests/bench/connections.py [--rounds 5] [--seconds 10] [--idle 10000]

Idle: two servers of the same kind; one of them has the idle connections open, each of which has had
one response.  Its worker's private memory (USS) tells what they cost besides what the kernel keeps
for their sockets.  Then wrk keeps 50 connections busy at one server and the other in turn.

Busy: wrk at one server with 50, 500 and 5,000 connections in turn.  What counts is the server's
throughput per core, requests by seconds of its CPU time: with thousands of connections wrk needs a
core for itself, and may leave the server waiting.  Accepting the connections is part of a round.
"""

import argparse
import itertools
import statistics
from collections import defaultdict

from crowd import SPARE_FILES, Crowd, allow_files, bytes_each
from meter import note_others
from servers import Server, gpulse, median_ratio, need_cores, pin_client, print_table
from sockets import open_keep_alive
from targets import Target, at_least, below, finish
from wrk import CONNECTIONS, Round, need_wrk, wrk

APPLICATION = "null:application"
OPTIONS = ("--data-store", "memory://", "--keep-alive", "600")
"""Without a store's process the worker is the master's only child."""
WARM_UP = 100
BYTES_EACH = 2048
"""Of private memory, less than this for an idle connection."""
BESIDE_IDLE = 0.95
"""Least rate of busy connections beside the idle ones, to that without: no effect but noise."""
BUSY = (CONNECTIONS, 500, 5000)
PER_CORE = 0.85
"""Least throughput per core with more connections, to that with the fewest."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of each kind (5)")
    parser.add_argument("--seconds", type=int, default=10, help="of each round (10)")
    parser.add_argument("--idle", type=int, default=10_000, help="idle connections (10000)")
    options = parser.parse_args()
    need_cores()
    need_wrk()
    allow_files(max(options.idle + WARM_UP, *BUSY) + SPARE_FILES)
    pin_client()
    targets = [
        *_idle(options.idle, options.rounds, options.seconds),
        *_busy(options.rounds, options.seconds),
    ]
    finish(targets)


def _idle(idle: int, rounds: int, seconds: int) -> list[Target]:
    alone: list[Round] = []
    beside: list[Round] = []
    total = idle + WARM_UP
    with (
        gpulse(APPLICATION, *OPTIONS) as empty,
        gpulse(APPLICATION, *OPTIONS) as full,
        Crowd(full.port, lambda port, _: open_keep_alive(port, "/")) as crowd,
    ):
        before, after, each = bytes_each(crowd, _worker(full), WARM_UP, total)
        for server in (empty, full):
            wrk(server, 1)  # warm up
        for _ in range(rounds):
            alone.append(wrk(empty, seconds))
            beside.append(wrk(full, seconds))
        crowd.idle(0.0)  # all of them are still open
    cells = [f"{before / 1e6:.1f}", f"{after / 1e6:.1f}", f"{each:,.0f}"]
    print_table(
        ("idle", "server", "connections", "before MB", "after MB", "bytes each"),
        [["HTTP keep-alive", full.name, f"{idle:,}", *cells]],
    )
    ratio = median_ratio([r.rate for r in beside], [r.rate for r in alone])
    _print_rounds({"no idle ones": alone, f"beside {idle:,} idle": beside}, "no idle ones")
    return [
        below("memory of an idle connection", BYTES_EACH, "bytes", each),
        at_least(f"{CONNECTIONS} busy beside {idle:,} idle", BESIDE_IDLE, "without", ratio),
    ]


def _busy(rounds: int, seconds: int) -> list[Target]:
    found: dict[str, list[Round]] = defaultdict(list)
    with gpulse(APPLICATION, *OPTIONS) as server:
        wrk(server, 1)  # warm up
        for _ in range(rounds):
            for count in BUSY:
                found[f"{count:,} busy"].append(wrk(server, seconds, connections=count))
    fewest, *more = found
    _print_rounds(found, fewest)
    return [
        at_least(f"{name}: throughput per core", PER_CORE, fewest, _per_core(found, name, fewest))
        for name in more
    ]


def _print_rounds(rounds: dict[str, list[Round]], base: str) -> None:
    """Medians and extremes; the ratios are to the row ``base``."""
    rows = []
    for name, found in rounds.items():
        rates = [r.rate for r in found]
        row = [name, "gpulse"]
        row += [f"{rate:,.0f}" for rate in (statistics.median(rates), min(rates), max(rates))]
        row.append(f"{statistics.median(r.p99 for r in found):.2f}")
        row.append(f"{statistics.median(r.client for r in found):.0%}")
        row.append(f"{statistics.median(r.cost for r in found):.1f}")
        row.append(f"{median_ratio(rates, [r.rate for r in rounds[base]]):.2f}")
        row.append(f"{_per_core(rounds, name, base):.2f}")
        rows.append(row)
    header = ("connections", "server", "req/s", "min", "max", "p99 ms", "wrk busy", "CPU us")
    print_table((*header, "ratio", "per core"), rows)
    note_others(itertools.chain(*rounds.values()))


def _per_core(rounds: dict[str, list[Round]], name: str, base: str) -> float:
    """Ratio of requests by CPU time: the inverse of the cost's."""
    return median_ratio([r.cost for r in rounds[base]], [r.cost for r in rounds[name]])


def _worker(server: Server) -> int:
    """The only worker's process id.

    :raises SystemExit: the master has other children.
    """
    _, *children = server.pids()
    if len(children) != 1:
        raise SystemExit(f"the master has {len(children)} children instead of one worker")
    return children[0]


if __name__ == "__main__":
    main()
