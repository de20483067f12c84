"""WebSocket echoes per second: gpulse against gevent-websocket, side by side.

    python tests/bench/echo.py [--rounds 5] [--seconds 4] [--sockets 50]

One worker on one core each; the client on another.  Each socket has one message of 32 bytes under
way: it sends the next when the echo is there.  The rounds alternate: compare the ratio.  A client
that is nearly 100 % busy has measured itself.

gpulse runs a consumer of a Django site, each message as a handler on the pool; gevent-websocket
runs a bare loop without Django, which is the most it can do.
"""

import argparse
import selectors
import statistics
import time
from collections import defaultdict

from servers import Server, gevent_websocket, gpulse, median_ratio, pin_client, print_table
from sockets import open_websocket, text_frame

PAYLOAD = b"0123456789abcdef0123456789abcdef"
SENT, ECHOED = text_frame(PAYLOAD, masked=True), text_frame(PAYLOAD, masked=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="per server (5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round (4)")
    parser.add_argument("--sockets", type=int, default=50, help="open at once (50)")
    options = parser.parse_args()
    pin_client()
    rates: dict[str, list[float]] = defaultdict(list)
    shares: dict[str, list[float]] = defaultdict(list)
    with gpulse("benchsite.wsgi:application") as one, gevent_websocket("gevent_echo.py") as other:
        for server in (one, other):
            echo(server, options.sockets, 0.5)  # warm up
        for _ in range(options.rounds):
            for server in (one, other):
                rate, share = echo(server, options.sockets, options.seconds)
                rates[server.name].append(rate)
                shares[server.name].append(share)
    *_, peer = rates.values()
    rows = []
    for name, found in rates.items():
        spread = [statistics.median(found), min(found), max(found)]
        share, ratio = statistics.median(shares[name]), median_ratio(found, peer)
        rows.append(["echo", name, *(f"{r:,.0f}" for r in spread), f"{share:.0%}", f"{ratio:.2f}"])
    print_table(("", "server", "msg/s", "min", "max", "client busy", "ratio"), rows)


def echo(server: Server, sockets: int, seconds: float) -> tuple[float, float]:
    """Messages per second, and the client's share of its core.

    :raises SystemExit: an echo is not what was sent, or a connection ended.
    """
    clients = [open_websocket(server.port, "/echo") for _ in range(sockets)]
    echoes = 0
    with selectors.EpollSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ, client)
            client.send(SENT)
        begun, busy = time.monotonic(), time.process_time()
        while (now := time.monotonic()) < begun + seconds:
            for key, _ in selector.select(1.0):
                received = key.data.recv(4096)
                if received != ECHOED:
                    raise SystemExit(f"{server.name} answers {received[:80]!r}")
                echoes += 1
                key.data.send(SENT)
        spent = now - begun
        share = (time.process_time() - busy) / spent
    for client in clients:
        client.close()
    return echoes / spent, share


if __name__ == "__main__":
    main()
