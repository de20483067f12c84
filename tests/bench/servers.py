"""Servers as processes, for the benchmarks: started on a free port, pinned to a core, ended by pid.

Loopback only.  Linux only: ``taskset`` and ``/proc``.  Each server has the site in ``apps/`` as its
working directory, and writes its log and its access log into a temporary directory.

This directory holds an ``http.py``, which hides the standard library's ``http`` from the scripts
here: they speak HTTP by hand, and use no module that needs it.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HOST = "127.0.0.1"
DEADLINE = 30.0
"""Seconds for a server to start, to answer, to stop."""

SERVER_CORE, CLIENT_CORE = 0, 1


class Server:
    """A running server; a context manager that ends it.

    :param name: for the table.
    :param command: what follows the interpreter; ``{port}`` and ``{folder}`` are replaced.
    :param python: the interpreter.
    :param environ: environment variables of its own.
    :raises SystemExit: it does not answer ``GET /`` in time; its log is told.
    """

    def __init__(
        self,
        name: str,
        *command: str,
        python: str = sys.executable,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = free_port()
        self._temporary = tempfile.TemporaryDirectory(prefix="gpulse-bench-")
        folder = Path(self._temporary.name)
        self._log = folder / "log"
        arguments = [part.format(port=self.port, folder=folder) for part in command]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(SERVER_CORE), python, *arguments],
                stdout=log,
                stderr=log,
                env=site_environ(folder, environ or {}),
                cwd=HERE / "apps",
            )
        try:
            self._await_ready()
        except BaseException:
            self.stop()
            raise

    def _await_ready(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self.get("/")
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise SystemExit(f"{self.name} does not answer:\n{self._log.read_text(errors='replace')}")

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of one request on a connection of its own."""
        with socket.create_connection((HOST, self.port), DEADLINE) as client:
            return get(client, path)

    def stop(self) -> None:
        """TERM to the master; what is left of it and of its children after DEADLINE is killed."""
        pids = self.pids()
        self._process.terminate()
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            for pid in pids:
                _kill(pid)
            self._process.wait()
        self._temporary.cleanup()

    def pids(self) -> list[int]:
        """The master, then its children."""
        pid = self._process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            children = []
        return [pid, *map(int, children)]

    def cpu_seconds(self) -> float:
        """CPU time that the master and its children have taken so far."""
        return sum(map(cpu_seconds, self.pids()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def gpulse(
    application: str,
    *options: str,
    access_log: bool = True,
    environ: Mapping[str, str] | None = None,
) -> Server:
    """One worker with 200 greenlets; the embedded store, unless options say otherwise."""
    log = ("--access-log", "{folder}/access") if access_log else ()
    return Server(
        *("gpulse", "-m", "gpulse", application, "-w", "1", "--greenlet", "200"),
        *("-b", f"{HOST}:{{port}}", *log, *options),
        environ=environ,
    )


def gevent_websocket(script: str, python: str = sys.executable) -> Server:
    """gevent's own WSGI server with gevent-websocket's handler."""
    return Server("gevent-websocket", script, "{port}", python=python)


def site_environ(folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    """What a program of ``apps/`` finds in its environment.

    :param folder: a temporary one, for what Python compiles: it leaves nothing in the tree.
    """
    environ = dict(os.environ)
    environ |= {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(folder / "pycache")}
    environ.pop("DJANGO_SETTINGS_MODULE", None)  # each site names its own
    return environ | dict(more)


def cpu_seconds(pid: int) -> float:
    """CPU time of one process, its ended children left out."""
    # proc(5): utime and stime are the 14th and 15th; a name may have spaces in it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def get(client: socket.socket, path: str) -> tuple[int, bytes]:
    """Status and body of one request on an open connection.

    :raises OSError: the connection ended, or the response has no Content-Length.
    """
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    return _answer(client)


def post(client: socket.socket, path: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of one upload on an open connection; fails like :func:`get`."""
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    return _answer(client)


def private_bytes(pid: int) -> int:
    """The memory that only this process has, in bytes.

    Clean pages of libraries are left out: they count as private whenever no other process uses the
    library, which moves a run of 10,000 sockets by 1 KB each.
    """
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    lines = (line.split() for line in rollup.splitlines())
    return 1024 * sum(int(line[1]) for line in lines if line[0] == "Private_Dirty:")


def pin_client() -> None:
    """Move the calling process to the clients' core."""
    need_cores()
    os.sched_setaffinity(0, {CLIENT_CORE})


def need_cores() -> None:
    """:raises SystemExit: server and client cannot have a core each."""
    if not {SERVER_CORE, CLIENT_CORE} <= os.sched_getaffinity(0):
        raise SystemExit(
            "the benchmarks need cores 0 and 1: one for the server, one for the client"
        )


def median_ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    """Of two servers whose rounds alternate: neighbours had the same share of the machine."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be; all but the first two flush right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip(), flush=True)  # noqa: T201 - it is what a benchmark is for


def _answer(client: socket.socket) -> tuple[int, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        received += _receive(client)
    head, _, body = received.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    lengths = [value for field in fields if (value := _value(field, "content-length"))]
    if not lengths:
        raise OSError(f"a response without Content-Length: {status}")
    while len(body) < int(lengths[0]):
        body += _receive(client)
    return int(status.split()[1]), body


def _receive(client: socket.socket) -> bytes:
    data = client.recv(65536)
    if not data:
        raise OSError("the server closed the connection within a response")
    return data


def _value(field: str, name: str) -> str:
    key, _, value = field.partition(":")
    return value.strip() if key.lower() == name else ""


def free_port() -> int:
    """A port of HOST that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return
