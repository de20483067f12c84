"""Runs wrk on the clients' core and reads what it says."""

import re
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from meter import core_seconds
from servers import CLIENT_CORE, HERE, HOST, SERVER_CORE, Server

CONNECTIONS = 50

_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True)
class Round:
    """What wrk saw in one round."""

    rate: float
    """Requests per second."""
    p99: float
    """Milliseconds."""
    client: float
    """wrk's share of its core, 0 to 1; near 1 it has measured itself."""
    cost: float
    """Microseconds of the server's CPU time per request."""
    others: float
    """What processes besides the two had of the busier of their cores, 0 to 1."""


def need_wrk() -> None:
    """:raises SystemExit: it is not installed."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt install wrk")


def wrk(
    server: Server,
    seconds: int,
    *,
    path: str = "/",
    connections: int = CONNECTIONS,
    upload: int | None = None,
) -> Round:
    """One round of so many seconds.

    :param upload: POST a body of so many bytes, instead of GET.
    :raises SystemExit: a response was no 200, or a connection failed.
    """
    command = ["taskset", "-c", str(CLIENT_CORE), "wrk", "-t1", f"-c{connections}"]
    # A gevent worker may leave a connection waiting for seconds while others keep it busy: that
    # belongs into the p99, so wrk's timeout lies behind the round.
    command += [f"-d{seconds}s", f"--timeout={seconds + 10}s", "--latency"]
    if upload is not None:
        command += ["-s", "post.lua"]
    command.append(f"http://{HOST}:{server.port}{path}")
    if upload is not None:
        command += ["--", str(upload)]
    before = _clocks(server)
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=seconds + 60, cwd=HERE
    )
    own, client, server_core, client_core = (
        now - then for now, then in zip(_clocks(server), before, strict=True)
    )
    output = run.stdout + run.stderr
    if run.returncode or "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"{server.name} failed under load:\n{output}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)\b", output)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", output)
    assert rate, output
    assert total, output
    assert p99, output
    lasted = float(total[2]) * _MILLISECONDS[total[3]] / 1e3
    return Round(
        rate=float(rate[1]),
        p99=float(p99[1]) * _MILLISECONDS[p99[2]],
        client=client / lasted,
        cost=1e6 * own / max(1, int(total[1])),
        others=max(0.0, server_core - own, client_core - client) / lasted,
    )


def _clocks(server: Server) -> tuple[float, float, float, float]:
    """CPU time so far, in seconds: the server's, that of ended children such as wrk, and of
    everybody on the server's core and on the clients'."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cores = Path("/proc/stat").read_text().splitlines()
    return (
        server.cpu_seconds(),
        usage.ru_utime + usage.ru_stime,
        core_seconds(cores, SERVER_CORE),
        core_seconds(cores, CLIENT_CORE),
    )
