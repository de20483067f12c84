"""Requests per second: gpulse against gunicorn's gevent worker, side by side.

    python tests/bench/http.py [--rounds 5] [--seconds 4]

Both serve the same application with one worker on one core, keep-alive and an access log; wrk
asks from another core.  The rounds alternate, so that whatever else the machine does befalls both:
compare the ratio, not the numbers.
"""

import argparse
import re
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from servers import (
    CLIENT_CORE,
    HOST,
    Server,
    gpulse,
    gunicorn,
    median_ratio,
    need_cores,
    print_table,
)

APPLICATIONS = {"null WSGI": "null:application", "Django hello": "benchsite.wsgi:application"}
PEERS: tuple[Callable[[str], Server], ...] = (gpulse, gunicorn)
CONNECTIONS = 50


@dataclass(frozen=True)
class Round:
    """What wrk saw."""

    rate: float
    """Requests per second."""
    p99: float
    """Milliseconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="per server and application (5)")
    parser.add_argument("--seconds", type=int, default=4, help="of each round (4)")
    options = parser.parse_args()
    need_cores()
    rows: list[list[str]] = []
    for title, application in APPLICATIONS.items():
        rounds = _measure(application, options.rounds, options.seconds)
        rows.extend(_rows(title, rounds))
    print_table(("application", "server", "req/s", "min", "max", "p99 ms", "ratio"), rows)


def _measure(application: str, rounds: int, seconds: int) -> dict[str, list[Round]]:
    found: dict[str, list[Round]] = defaultdict(list)
    with PEERS[0](application) as one, PEERS[1](application) as other:
        _compare(one, other)
        for server in (one, other):
            _wrk(server, 1)  # warm up
        for _ in range(rounds):
            for server in (one, other):
                found[server.name].append(_wrk(server, seconds))
        _compare(one, other)
    return found


def _compare(one: Server, other: Server) -> None:
    """:raises SystemExit: the two do not give the same page."""
    answers = [server.get("/") for server in (one, other)]
    if answers[0] != answers[1] or answers[0][0] != 200:
        raise SystemExit(f"{one.name} and {other.name} answer differently: {answers}")


def _wrk(server: Server, seconds: int) -> Round:
    """:raises SystemExit: a response was no 200, or a connection failed."""
    command = ["taskset", "-c", str(CLIENT_CORE), "wrk", "-t1", f"-c{CONNECTIONS}"]
    # A gevent worker may leave a connection waiting for seconds while others keep it busy: that
    # belongs into the p99, so wrk's timeout lies behind the round.
    command += [f"-d{seconds}s", f"--timeout={seconds + 10}s", "--latency"]
    command.append(f"http://{HOST}:{server.port}/")
    output = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=seconds + 30
    ).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"{server.name} failed under load:\n{output}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", output)
    assert rate, output
    assert p99, output
    return Round(float(rate[1]), float(p99[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[p99[2]])


def _rows(title: str, rounds: dict[str, list[Round]]) -> list[list[str]]:
    """Medians and extremes; the ratio is to the peer, which comes last."""
    *_, peer = rounds.values()
    peer_rates = [r.rate for r in peer]
    rows = []
    for name, found in rounds.items():
        rates = [r.rate for r in found]
        p99 = statistics.median(r.p99 for r in found)
        ratio = median_ratio(rates, peer_rates)
        spread = [statistics.median(rates), min(rates), max(rates)]
        rows.append(
            [title, name, *(f"{rate:,.0f}" for rate in spread), f"{p99:.1f}", f"{ratio:.2f}"]
        )
    return rows


if __name__ == "__main__":
    main()
