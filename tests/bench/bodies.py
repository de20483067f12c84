"""Large bodies, up and down: gpulse against gunicorn's gevent worker and granian, side by side.

    python tests/bench/bodies.py [--rounds 5] [--seconds 4] [--peers-python PATH] [--without PEER]

``down`` is a GET that is answered with 64 KiB or 1 MiB in one piece, ``up`` a POST of as much that
the application reads in pieces and answers with the length.  One worker on one core; wrk with 50
connections on another.  In each round every server has its turn: compare the ratios.
"""

import argparse
import contextlib
import itertools
import socket
import statistics
from collections import defaultdict
from collections.abc import Callable

from meter import note_others
from peers import PEERS, add_peer_options, chosen_peers
from servers import (
    DEADLINE,
    HOST,
    Server,
    gpulse,
    median_ratio,
    need_cores,
    post,
    print_table,
)
from targets import Target, at_least, finish
from wrk import Round, need_wrk, wrk

APPLICATION = "large:application"
NAMES = ("gunicorn", "granian")
MIB = 1_048_576
SIZES = {"64 KiB": 65_536, "1 MiB": MIB}
LEAST = 1.0
"""Of gpulse's rate to each peer's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="per server and kind of body (5)")
    parser.add_argument("--seconds", type=int, default=4, help="of each round (4)")
    add_peer_options(parser, NAMES)
    options = parser.parse_args()
    need_cores()
    need_wrk()
    peers = chosen_peers(options, PEERS, NAMES)
    rows: list[list[str]] = []
    targets: list[Target] = []
    every: list[Round] = []
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(gpulse(APPLICATION, access_log=options.access_log))]
        for peer in peers:
            server = peer.start(APPLICATION, options.peers_python, options.access_log)
            servers.append(stack.enter_context(server))
        for size_name, size in SIZES.items():
            for way, measure in (("down", _download), ("up", _upload)):
                title = f"{size_name} {way}"
                rounds = _measure(servers, measure, size, options.rounds, options.seconds)
                rows.extend(_rows(title, size, rounds))
                targets.extend(_targets(title, rounds))
                every.extend(itertools.chain(*rounds.values()))
    header = ("body", "server", "req/s", "min", "max", "MiB/s", "p99 ms", "CPU us", "wrk busy")
    print_table((*header, "gpulse is"), rows)
    note_others(every)
    finish(targets)


def _download(server: Server, size: int, seconds: int) -> Round:
    return wrk(server, seconds, path=f"/{size}")


def _upload(server: Server, size: int, seconds: int) -> Round:
    return wrk(server, seconds, upload=size)


def _measure(
    servers: list[Server],
    measure: Callable[[Server, int, int], Round],
    size: int,
    rounds: int,
    seconds: int,
) -> dict[str, list[Round]]:
    """By server, gpulse first: its rounds."""
    found: dict[str, list[Round]] = defaultdict(list)
    for server in servers:
        _check(server, size)
        measure(server, size, 1)  # warm up
    for _ in range(rounds):
        for server in servers:
            found[server.name].append(measure(server, size, seconds))
    for server in servers:
        _check(server, size)
    return found


def _check(server: Server, size: int) -> None:
    """:raises SystemExit: a body of this size does not come through whole, down or up."""
    down = server.get(f"/{size}")
    with socket.create_connection((HOST, server.port), DEADLINE) as client:
        up = post(client, "/", b"x" * size)
    if down != (200, b"x" * size) or up != (200, b"%d" % size):
        raise SystemExit(
            f"{server.name}: {size:,} bytes down: status {down[0]}, {len(down[1]):,} bytes; "
            f"up: status {up[0]}, {up[1][:80]!r}"
        )


def _rows(title: str, size: int, rounds: dict[str, list[Round]]) -> list[list[str]]:
    """Medians and extremes; the ratio is gpulse's to the row's."""
    rows = []
    for name, found in rounds.items():
        rates = [r.rate for r in found]
        median = statistics.median(rates)
        row = [title, name, *(f"{rate:,.0f}" for rate in (median, min(rates), max(rates)))]
        row.append(f"{median * size / MIB:,.0f}")
        row.append(f"{statistics.median(r.p99 for r in found):.2f}")
        row.append(f"{statistics.median(r.cost for r in found):,.0f}")
        row.append(f"{statistics.median(r.client for r in found):.0%}")
        row.append(f"{_ratio(rounds, name):.2f} x")
        rows.append(row)
    return rows


def _targets(title: str, rounds: dict[str, list[Round]]) -> list[Target]:
    names = [PEERS[name].name for name in NAMES]
    return [
        at_least(title, LEAST, name, _ratio(rounds, name) if name in rounds else None)
        for name in names
    ]


def _ratio(rounds: dict[str, list[Round]], peer: str) -> float:
    return median_ratio([r.rate for r in rounds["gpulse"]], [r.rate for r in rounds[peer]])


if __name__ == "__main__":
    main()
