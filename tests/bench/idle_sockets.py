"""Memory of one worker per idle connection, and whether a page still answers.

    python tests/bench/idle_sockets.py [--sockets 5000] [--warm-up 100]

A fresh server per kind.  The worker's private memory (USS) is read with the warm-up's connections
open and again with all of them; the difference is what the others cost, garbage that waits for the
collector included.  Then 50 pages are asked for, one after the other.  The client answers pings.
"""

import argparse
import socket
import statistics
import time
from collections.abc import Callable

from crowd import SPARE_FILES, Crowd, allow_files, bytes_each
from servers import DEADLINE, HOST, Server, get, gpulse, pin_client, print_table
from sockets import open_keep_alive, open_websocket, text_frame

READY = text_frame(b"ready", masked=False)
PAGES = 50

KINDS: dict[str, Callable[[int, int], socket.socket]] = {
    "WebSocket, one shared channel": lambda port, _: open_websocket(port, "/room/lobby", READY),
    "WebSocket, a channel each": lambda port, n: open_websocket(port, f"/room/r{n}", READY),
    "WebSocket, no channel": lambda port, _: open_websocket(port, "/idle", READY),
    "HTTP keep-alive": lambda port, _: open_keep_alive(port, "/"),
}
"""How to open the n-th connection to a port."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sockets", type=int, default=5000, help="measured (5000)")
    parser.add_argument("--warm-up", type=int, default=100, help="open before (100)")
    options = parser.parse_args()
    total = options.sockets + options.warm_up
    allow_files(total + SPARE_FILES)
    pin_client()
    rows = [_measure(kind, open_one, options.warm_up, total) for kind, open_one in KINDS.items()]
    header = (
        "idle",
        "server",
        "sockets",
        "before MB",
        "after MB",
        "bytes each",
        "page ms",
        "worst",
    )
    print_table(header, rows)


def _measure(
    kind: str, open_one: Callable[[int, int], socket.socket], warm_up: int, total: int
) -> list[str]:
    options = ("--keep-alive", "600", "--max-websockets", str(total))
    with gpulse("benchsite.wsgi:application", *options) as server:
        worker = int(server.get("/pid")[1])
        with Crowd(server.port, open_one) as crowd:
            before, after, each = bytes_each(crowd, worker, warm_up, total)
            pages = _page_times(server)
            crowd.idle(0.0)  # all of them are still open
    return [
        kind,
        server.name,
        f"{total - warm_up:,}",
        f"{before / 1e6:.1f}",
        f"{after / 1e6:.1f}",
        f"{each:,.0f}",
        f"{statistics.median(pages):.2f}",
        f"{max(pages):.2f}",
    ]


def _page_times(server: Server) -> list[float]:
    """Milliseconds of each of PAGES requests on one connection."""
    times = []
    with socket.create_connection((HOST, server.port), DEADLINE) as client:
        for _ in range(PAGES):
            begun = time.monotonic()
            status, _ = get(client, "/")
            times.append(1000 * (time.monotonic() - begun))
            if status != 200:
                raise SystemExit(f"a page answers {status}")
    return times


if __name__ == "__main__":
    main()
