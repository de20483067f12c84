"""Publishes per second, and CPU of each, of 1, 16 and 100 callers in one process.

    python tests/bench/publishers.py [--seconds 2]

gpulse's one pipelined connection against what it replaced, a pool of 16 connections of redis-py; in
greenlets (a patched process) and in native threads.  One Valkey on a loopback port.  Each cell is a
process of its own.
"""

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from programs import Store
from servers import print_table

CALLERS = (1, 16, 100)
PAYLOAD = b"t" + b"x" * 100
CONNECTIONS = 16
CHANNEL = "room"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each cell (2)")
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        world, kind, callers, url = options.cell
        sys.stdout.write(_measure(world, kind, int(callers), url, options.seconds))
        return
    rows = []
    with Store() as store:
        for world in ("greenlets", "threads"):
            for callers in CALLERS:
                row = [f"{callers} {world}"]
                for kind in ("pool", "pipeline"):
                    cell = ["--cell", world, kind, str(callers), store.url]
                    command = [sys.executable, __file__, "--seconds", str(options.seconds), *cell]
                    run = subprocess.run(command, check=True, capture_output=True, text=True)
                    row += run.stdout.split()
                rows.append(row)
    titles = ("callers", "pool, a second", "CPU us", "worst ms", "pipeline", "CPU us", "worst ms")
    print_table(titles, rows)


def _measure(world: str, kind: str, callers: int, url: str, seconds: float) -> str:
    if world == "greenlets":
        from gevent import monkey

        monkey.patch_all()
    publish = _pool(url) if kind == "pool" else _pipeline(url)
    publish()
    counts, worst, ends = [0] * callers, [0.0] * callers, time.monotonic() + seconds

    def work(number: int) -> None:
        while (begun := time.monotonic()) < ends:
            publish()
            counts[number] += 1
            worst[number] = max(worst[number], time.monotonic() - begun)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(callers)]
    used = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = time.process_time() - used
    total = sum(counts)
    return f"{total / seconds:,.0f} {used / total * 1e6:.1f} {max(worst) * 1000:.1f}"


def _pool(url: str) -> Callable[[], object]:
    import redis

    client = redis.Redis(connection_pool=redis.ConnectionPool.from_url(url, protocol=2))
    slots = threading.BoundedSemaphore(CONNECTIONS)

    def publish() -> object:
        with slots:
            return client.publish(CHANNEL, PAYLOAD)

    return publish


def _pipeline(url: str) -> Callable[[], object]:
    from gpulse.store import open_store

    store = open_store(url)
    return lambda: store.publish(CHANNEL, PAYLOAD)


if __name__ == "__main__":
    main()
