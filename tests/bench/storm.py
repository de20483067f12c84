"""Everybody connects at once: 15,000 sockets on one worker, 60,000 on four, while pages are served.

    python tests/bench/storm.py [--seconds 10] [--rate 300] [--at-once 100] [--pace 0] [--floor]

A process asks for ``--rate`` pages per second, on 20 connections, whatever the answers take; first
for a while without anything else, which is usual, then while other processes open sockets as fast
as the server takes them, ``--at-once`` handshakes under way, or ``--pace`` per second, and go on
until all are open.  Each socket subscribes to a room and is told so.  All of the server runs on one
core, which four workers share; what the kernel makes of that without any storm is told by
``--floor``: pages of one idle worker beside three processes that do nothing but work.

The 60,000 sockets reach the machine on several loopback addresses, for one of them has only some
28,000 ports for its clients.
"""

import argparse
import contextlib
import errno
import multiprocessing
import os
import select
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from crowd import SPARE_FILES, allow_files
from servers import (
    CLIENT_CORE,
    DEADLINE,
    HOST,
    SERVER_CORE,
    Server,
    get,
    gpulse,
    need_cores,
    print_table,
    private_bytes,
)
from sockets import PING, PONG, handshake, text_frame
from targets import Target, finish

READY = text_frame(b"ready", masked=False)
PATH = "/room/lobby"
PAGE_CONNECTIONS = 20
TWICE = 2.0
"""Most of the pages' p99 during the storm, to the usual one."""
BUSY = 3
"""Processes that work on the core of an idle worker, as the other three do in the second storm."""
SPARE_SOCKETS = 4500
"""How many more than its share a worker may get: workers take what comes as they can."""
PATIENCE = 180.0
"""Seconds for a whole storm."""

_fork = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Storm:
    """How many connect to whom.

    :param addresses: of the server; each has a client process of its own.
    """

    workers: int
    addresses: tuple[str, ...]
    sockets: int


STORMS = (
    Storm(1, (HOST,), 15_000),
    Storm(4, ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"), 60_000),
)


@dataclass(frozen=True)
class Pages:
    """Milliseconds, sorted."""

    times: Sequence[float]

    @property
    def p50(self) -> float:
        return self.times[len(self.times) // 2]

    @property
    def p99(self) -> float:
        return self.times[int(len(self.times) * 0.99)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of the usual load (10)")
    parser.add_argument("--rate", type=float, default=300.0, help="pages per second (300)")
    parser.add_argument("--at-once", type=int, default=100, help="handshakes under way (100)")
    parser.add_argument(
        "--pace", type=float, default=0.0, help="sockets per second at most; 0: no bound (0)"
    )
    parser.add_argument(
        "--floor", action="store_true", help="also an idle worker beside three busy processes"
    )
    options = parser.parse_args()
    need_cores()
    share = max(storm.sockets // storm.workers for storm in STORMS)
    allow_files(share + SPARE_SOCKETS + SPARE_FILES)
    rows: list[list[str]] = []
    targets: list[Target] = []
    for storm in STORMS:
        row, target = _measure(storm, options)
        rows.append(row)
        targets.append(target)
    if options.floor:
        rows.append(_measure_floor(options))
    header = ("", "server", "seconds", "sockets/s", "CPU us", "bytes each", "usual p50", "p99 ms")
    print_table((*header, "storm p50", "p99 ms", "worst"), rows)
    finish(targets)


def _measure(storm: Storm, options: argparse.Namespace) -> tuple[list[str], Target]:
    most = str(storm.sockets // storm.workers + SPARE_SOCKETS)
    binds = [part for address in storm.addresses if address != HOST for part in _bind(address)]
    with (
        gpulse(
            "benchsite.wsgi:application",
            *("-w", str(storm.workers), *binds, "--max-websockets", most),
            *("--max-connections", most, "--keep-alive", "600"),
        ) as server,
        _process(_ask_pages, server.port, options.rate) as pages,
    ):
        before = _memory(server)
        time.sleep(options.seconds)
        usual = _take(pages)
        begun, cpu = time.monotonic(), server.cpu_seconds()
        with contextlib.ExitStack() as stack:
            share = storm.sockets // len(storm.addresses)
            pace = options.pace / len(storm.addresses)
            at_once = max(1, options.at_once // len(storm.addresses))
            clients = [
                stack.enter_context(
                    _process(_open_sockets, address, server.port, share, at_once, pace)
                )
                for address in storm.addresses
            ]
            opened = [_answer(client, PATIENCE) for client in clients]
            lasted, cpu = time.monotonic() - begun, server.cpu_seconds() - cpu
            meanwhile = _take(pages)
            if opened != [share] * len(clients):
                raise SystemExit(f"{sum(opened):,} of {storm.sockets:,} sockets opened")
            each = (_memory(server) - before) / storm.sockets
            for client in clients:
                client.send("still open?")
                if _answer(client, DEADLINE) != share:
                    raise SystemExit("the server closed sockets after the storm")
    name = f"{storm.sockets:,} sockets, {storm.workers} workers"
    cells = [f"{lasted:.1f}", f"{storm.sockets / lasted:,.0f}"]
    cells += [f"{1e6 * cpu / storm.sockets:.0f}", f"{each:,.0f}"]
    ratio = meanwhile.p99 / usual.p99
    bound = f"<= {TWICE:.2f} x the usual"
    target = Target(f"{name}: pages' p99", bound, f"{ratio:.2f}", met=ratio <= TWICE)
    return [name, "gpulse", *cells, *_page_cells(usual, meanwhile)], target


def _measure_floor(options: argparse.Namespace) -> list[str]:
    with (
        gpulse("benchsite.wsgi:application", "--keep-alive", "600") as server,
        _process(_ask_pages, server.port, options.rate) as pages,
        contextlib.ExitStack() as stack,
    ):
        time.sleep(options.seconds)
        usual = _take(pages)
        for _ in range(BUSY):
            stack.enter_context(_process(_work))
        time.sleep(options.seconds)
        cells = _page_cells(usual, _take(pages))
    return [f"no storm, {BUSY} busy processes", "gpulse", *("",) * 4, *cells]


def _page_cells(usual: Pages, meanwhile: Pages) -> list[str]:
    times = (usual.p50, usual.p99, meanwhile.p50, meanwhile.p99, meanwhile.times[-1])
    return [f"{each:.2f}" for each in times]


def _bind(address: str) -> tuple[str, str]:
    return "-b", f"{address}:{{port}}"


def _memory(server: Server) -> int:
    """Private bytes of all its processes."""
    return sum(map(private_bytes, server.pids()))


@contextlib.contextmanager
def _process(run: Any, *args: Any) -> Iterator[Connection]:
    """A child on the clients' core, with a pipe to it; it ends when the pipe does."""
    ours, its = _fork.Pipe()

    def start() -> None:
        ours.close()
        os.sched_setaffinity(0, {CLIENT_CORE})
        run(its, *args)

    child = _fork.Process(target=start, daemon=True)
    child.start()
    its.close()
    try:
        yield ours
    finally:
        ours.close()
        child.join(DEADLINE)
        if child.is_alive():
            child.kill()


def _answer(child: Connection, patience: float) -> Any:
    if not child.poll(patience):
        raise SystemExit("a client does not answer")
    try:
        return child.recv()
    except EOFError:
        raise SystemExit("a client failed; its traceback is above") from None


def _take(pages: Connection) -> Pages:
    """What the pages took since the last time."""
    pages.send("times")
    times = _answer(pages, DEADLINE)
    if not times:
        raise SystemExit("no page was answered")
    return Pages(sorted(times))


def _ask_pages(parent: Connection, port: int, rate: float) -> None:
    """A child: ask at a rate, answer each message of the parent with the times so far.

    A connection that waits for its answer is passed over: its page is counted from the moment at
    which it was due.
    """
    with contextlib.suppress(OSError):
        # The sockets' clients on the same core are not what is measured.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    clients = [socket.create_connection((HOST, port), DEADLINE) for _ in range(PAGE_CONNECTIONS)]
    request = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    get(clients[0], "/")
    free = list(clients)
    by_descriptor = {client.fileno(): client for client in clients}
    asked: dict[int, float] = {}
    times: list[float] = []
    epoll = select.epoll()
    epoll.register(parent.fileno(), select.EPOLLIN)
    for client in clients:
        epoll.register(client.fileno(), select.EPOLLIN)
    due = time.monotonic()
    while True:
        now = time.monotonic()
        while due <= now and free:
            client = free.pop(0)
            asked[client.fileno()] = due
            client.send(request)
            due += 1 / rate
        for descriptor, _ in epoll.poll(max(0.0, due - now) if free else 1.0):
            if descriptor == parent.fileno():
                try:
                    parent.recv()
                except (EOFError, OSError):
                    return
                parent.send(times)
                times = []
                continue
            client = by_descriptor[descriptor]
            data = client.recv(4096)
            if not data.startswith(b"HTTP/1.1 200 "):
                raise SystemExit(f"a page answers {data[:80]!r}")
            times.append(1000 * (time.monotonic() - asked.pop(descriptor)))
            free.append(client)


def _work(parent: Connection) -> None:
    """A child: keep the server's core busy until the parent's end of the pipe is closed."""
    os.sched_setaffinity(0, {SERVER_CORE})
    while not parent.poll():
        for _ in range(100_000):
            pass


def _open_sockets(
    parent: Connection, address: str, port: int, count: int, at_once: int, pace: float
) -> None:
    """A child: open sockets, say how many are, keep them open; to each message say how many are.

    :param pace: sockets per second at most; 0.0: as many as the server takes.
    """
    request = handshake(port, PATH)
    epoll = select.epoll()
    clients: dict[int, socket.socket] = {}
    received: dict[int, bytes] = {}
    opened = begun = 0
    epoll.register(parent.fileno(), select.EPOLLIN)
    started = time.monotonic()
    while True:
        due = count if not pace else min(count, int(pace * (time.monotonic() - started)))
        while begun < due and len(received) < at_once:
            client = socket.socket()
            client.setblocking(False)
            if client.connect_ex((address, port)) not in (0, errno.EINPROGRESS):
                raise SystemExit(f"cannot connect to {address}")
            clients[client.fileno()] = client
            received[client.fileno()] = b""
            begun += 1
            epoll.register(client.fileno(), select.EPOLLOUT)
        for descriptor, event in epoll.poll(0.005 if pace and begun < count else 1.0):
            if descriptor == parent.fileno():
                try:
                    parent.recv()
                except (EOFError, OSError):
                    return
                parent.send(opened)
                continue
            client = clients[descriptor]
            if event & select.EPOLLOUT:
                client.send(request)
                epoll.modify(descriptor, select.EPOLLIN)
                continue
            try:
                data = client.recv(4096)
            except OSError:
                data = b""
            if not data:
                del clients[descriptor]
                received.pop(descriptor, None)
                opened -= 1
                client.close()
            elif descriptor in received:
                received[descriptor] += data
                if received[descriptor].endswith(b"\r\n\r\n" + READY):
                    del received[descriptor]
                    opened += 1
                    if opened == count:
                        parent.send(opened)
                elif not b"HTTP/1.1 101 ".startswith(received[descriptor][:13]):
                    raise SystemExit(f"no WebSocket: {received[descriptor][:80]!r}")
            elif data == PING:
                client.send(PONG)


if __name__ == "__main__":
    main()
