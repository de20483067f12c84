"""Requests per second: gpulse against gunicorn's gevent worker, granian and bjoern, side by side.

    python tests/bench/http.py [--rounds 5] [--seconds 4] [--peers-python PATH] [--without PEER]

All serve the same application with one worker on one core and keep-alive; wrk asks over 50
connections from another core.  In each round every server has its turn, so that whatever else the
machine does befalls all of them: compare the ratios, not the numbers.
"""

import argparse
import contextlib
import itertools
import statistics
from collections import defaultdict
from dataclasses import dataclass

from meter import note_others
from peers import BJOERN, GRANIAN, GUNICORN, PEERS, Peer, add_peer_options, chosen_peers
from servers import Server, gpulse, median_ratio, need_cores, print_table
from targets import Target, at_least, below, finish
from wrk import Round, need_wrk, wrk

NAMES = ("gunicorn", "granian", "bjoern")


@dataclass(frozen=True)
class Application:
    """What is served, and what gpulse has to show with it.

    :param name: for the table.
    :param needs: modules that its peers' interpreter must have.
    :param ratios: least ratio of gpulse's rate to each peer's.
    :param lower_p99: gpulse's p99 must be below each peer's.
    """

    name: str
    target: str
    needs: tuple[str, ...]
    ratios: dict[str, float]
    lower_p99: bool


APPLICATIONS = (
    Application(
        "null WSGI",
        "null:application",
        (),
        {GUNICORN: 8.0, GRANIAN: 1.2, BJOERN: 0.8},
        lower_p99=False,
    ),
    Application(
        "Django hello",
        "hellosite.wsgi:application",
        ("django",),
        {GUNICORN: 1.7, GRANIAN: 1.0, BJOERN: 0.85},
        lower_p99=True,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="per server and application (5)")
    parser.add_argument("--seconds", type=int, default=4, help="of each round (4)")
    add_peer_options(parser, NAMES)
    options = parser.parse_args()
    need_cores()
    need_wrk()
    peers = chosen_peers(
        options, PEERS, NAMES, *{module for app in APPLICATIONS for module in app.needs}
    )
    rows: list[list[str]] = []
    targets: list[Target] = []
    every: list[Round] = []
    for application in APPLICATIONS:
        rounds = _measure(application, peers, options)
        rows.extend(_rows(application.name, rounds))
        targets.extend(_targets(application, rounds))
        every.extend(itertools.chain(*rounds.values()))
    header = ("application", "server", "req/s", "min", "max", "p99 ms", "CPU us", "wrk busy")
    print_table((*header, "gpulse is"), rows)
    note_others(every)
    finish(targets)


def _measure(
    application: Application, peers: list[Peer], options: argparse.Namespace
) -> dict[str, list[Round]]:
    """By server, gpulse first: its rounds."""
    found: dict[str, list[Round]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(gpulse(application.target, access_log=options.access_log))]
        for peer in peers:
            server = peer.start(application.target, options.peers_python, options.access_log)
            servers.append(stack.enter_context(server))
        _compare(servers)
        for server in servers:
            wrk(server, 1)  # warm up
        for _ in range(options.rounds):
            for server in servers:
                found[server.name].append(wrk(server, options.seconds))
        _compare(servers)
    return found


def _compare(servers: list[Server]) -> None:
    """:raises SystemExit: they do not all give the same page."""
    answers = {server.name: server.get("/") for server in servers}
    expected = answers[servers[0].name]
    if expected[0] != 200 or any(answer != expected for answer in answers.values()):
        raise SystemExit(f"the servers answer differently: {answers}")


def _rows(title: str, rounds: dict[str, list[Round]]) -> list[list[str]]:
    """Medians and extremes; the ratio is gpulse's to the row's."""
    rows = []
    for name, found in rounds.items():
        rates = [r.rate for r in found]
        row = [title, name]
        row += [f"{rate:,.0f}" for rate in (statistics.median(rates), min(rates), max(rates))]
        row.append(f"{_p99(found):.2f}")
        row.append(f"{statistics.median(r.cost for r in found):.1f}")
        row.append(f"{statistics.median(r.client for r in found):.0%}")
        row.append(f"{_ratio(rounds, name):.2f} x")
        rows.append(row)
    return rows


def _targets(application: Application, rounds: dict[str, list[Round]]) -> list[Target]:
    targets = []
    for peer, least in application.ratios.items():
        ratio = _ratio(rounds, peer) if peer in rounds else None
        targets.append(at_least(application.name, least, peer, ratio))
    if application.lower_p99:
        own = _p99(rounds["gpulse"])
        for peer in application.ratios:
            limit = _p99(rounds[peer]) if peer in rounds else None
            targets.append(below(f"{application.name} p99", limit, "ms", own, f"{peer}'s"))
    return targets


def _ratio(rounds: dict[str, list[Round]], peer: str) -> float:
    return median_ratio([r.rate for r in rounds["gpulse"]], [r.rate for r in rounds[peer]])


def _p99(found: list[Round]) -> float:
    return statistics.median(r.p99 for r in found)


if __name__ == "__main__":
    main()
