"""WebSocket echoes per second: gpulse against gevent-websocket, uvicorn + Channels and picows.

    python tests/bench/echo.py [--rounds 5] [--seconds 3] [--sockets 50] [--peers-python PATH]

One worker on one core each; the client on another.  Each socket has one message of 32 bytes under
way: it sends the next when the echo is there.  The rounds alternate: compare the ratios.  A client
that is nearly 100 % busy has measured itself; ``CPU us`` holds even then.

gpulse runs a consumer of a Django site, each message as a handler on the pool, and so does
Channels; gevent-websocket and picows run a bare loop without Django, which is the most they can do.
"""

import argparse
import contextlib
import itertools
import select
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass

from meter import Meter, note_others
from peers import (
    CHANNELS,
    ECHOES,
    GEVENT_WEBSOCKET,
    PICOWS,
    SocketPeer,
    add_peer_options,
    chosen_peers,
)
from servers import Server, gpulse, median_ratio, pin_client, print_table
from sockets import open_websocket, text_frame
from targets import at_least, finish

PAYLOAD = b"0123456789abcdef0123456789abcdef"
SENT, ECHOED = text_frame(PAYLOAD, masked=True), text_frame(PAYLOAD, masked=False)
RATIOS = {CHANNELS: 5.0, GEVENT_WEBSOCKET: 2.0, PICOWS: 0.8}
"""Least of gpulse's rate to each peer's."""


@dataclass(frozen=True)
class Round:
    """What one round showed."""

    rate: float
    """Messages per second."""
    cost: float
    """Microseconds of the server's CPU time for each."""
    client: float
    """The client's share of its core, 0 to 1."""
    others: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="per server (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round (3)")
    parser.add_argument("--sockets", type=int, default=50, help="open at once (50)")
    add_peer_options(parser, list(ECHOES), access_log=False)
    options = parser.parse_args()
    peers = chosen_peers(options, ECHOES, list(ECHOES), "django")
    pin_client()
    rounds = _measure(peers, options)
    rows = []
    for name, found in rounds.items():
        rates = [r.rate for r in found]
        row = ["echo", name]
        row += [f"{rate:,.0f}" for rate in (statistics.median(rates), min(rates), max(rates))]
        row.append(f"{statistics.median(r.cost for r in found):.1f}")
        row.append(f"{statistics.median(r.client for r in found):.0%}")
        row.append(f"{_ratio(rounds, name):.2f} x")
        rows.append(row)
    header = ("", "server", "msg/s", "min", "max", "CPU us", "client busy", "gpulse is")
    print_table(header, rows)
    note_others(itertools.chain(*rounds.values()))
    finish(
        [
            at_least("echo", least, peer, _ratio(rounds, peer) if peer in rounds else None)
            for peer, least in RATIOS.items()
        ]
    )


def _measure(peers: list[SocketPeer], options: argparse.Namespace) -> dict[str, list[Round]]:
    """By server, gpulse first: its rounds."""
    found: dict[str, list[Round]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(gpulse("benchsite.wsgi:application"))]
        for peer in peers:
            servers.append(stack.enter_context(peer.start(options.peers_python, {})))
        for server in servers:
            echo(server, options.sockets, 0.5)  # warm up
        for _ in range(options.rounds):
            for server in servers:
                found[server.name].append(echo(server, options.sockets, options.seconds))
    return found


def _ratio(rounds: dict[str, list[Round]], peer: str) -> float:
    return median_ratio([r.rate for r in rounds["gpulse"]], [r.rate for r in rounds[peer]])


def echo(server: Server, sockets: int, seconds: float) -> Round:
    """One round.

    :raises SystemExit: an echo is not what was sent, or a connection ended.
    """
    clients = [open_websocket(server.port, "/echo") for _ in range(sockets)]
    calls = {client.fileno(): (client.recv, client.send) for client in clients}
    echoes = 0
    with select.epoll() as epoll:
        for client in clients:
            epoll.register(client.fileno(), select.EPOLLIN)
            client.send(SENT)
        end = time.monotonic() + seconds
        with Meter(server) as meter:
            while time.monotonic() < end:
                for descriptor, _ in epoll.poll(1.0):
                    receive, send = calls[descriptor]
                    received = receive(4096)
                    if received != ECHOED:
                        raise SystemExit(f"{server.name} answers {received[:80]!r}")
                    echoes += 1
                    send(SENT)
    for client in clients:
        client.close()
    cost = 1e6 * meter.server / max(1, echoes)
    return Round(echoes / meter.seconds, cost, meter.client, meter.others)


if __name__ == "__main__":
    main()
