"""Memory of one worker per idle WebSocket of a user who is logged in, with one subscription.

    python tests/bench/socket_memory.py [--sockets 10000] [--warm-up 200]

Each socket has an account and a session of its own in an SQLite database, and is opened with the
session's cookie and a browser's header fields (500 kinds of browser) through Django's middleware
for sessions, CSRF and authentication.  The worker's private memory (USS) is read with the warm-up's
sockets open and again with all of them; the difference is what the others cost, besides what the
kernel keeps, garbage that waits for the collector included.  A fresh server for each kind of room.
"""

import argparse
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from crowd import SPARE_FILES, Crowd, allow_files, bytes_each
from servers import HERE, HOST, gpulse, pin_client, print_table, site_environ
from sockets import open_websocket, text_frame
from targets import below, finish

READY = text_frame(b"ready", masked=False)
BYTES_EACH = 4096
"""Of private memory, less than this for an idle socket."""
IN_A_ROOM = 20
ROOMS: dict[str, Callable[[int], str]] = {
    f"{IN_A_ROOM} in each room": lambda n: f"/member/r{n // IN_A_ROOM}",
    "all in one room": lambda _: "/member/lobby",
    "a room each": lambda n: f"/member/r{n}",
}
"""Which room the n-th socket is in; the target is for the first."""
BROWSERS, LANGUAGES = 50, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sockets", type=int, default=10_000, help="measured (10000)")
    parser.add_argument("--warm-up", type=int, default=200, help="open before (200)")
    options = parser.parse_args()
    total = options.sockets + options.warm_up
    allow_files(total + SPARE_FILES)
    pin_client()
    rows, found = [], []
    with tempfile.TemporaryDirectory(prefix="gpulse-bench-") as folder:
        environ = {"BENCH_DATABASE": f"{folder}/db.sqlite3"}
        keys = _make_accounts(Path(folder), environ, total)
        for kind, path_of in ROOMS.items():
            before, after, each = _measure(path_of, keys, environ, options.warm_up)
            cells = [f"{before / 1e6:.1f}", f"{after / 1e6:.1f}", f"{each:,.0f}"]
            rows.append([kind, "gpulse", f"{options.sockets:,}", *cells])
            found.append(each)
    print_table(("logged in", "server", "sockets", "before MB", "after MB", "bytes each"), rows)
    finish([below("memory of an idle socket of a session", BYTES_EACH, "bytes", found[0])])


def _make_accounts(folder: Path, environ: dict[str, str], count: int) -> list[str]:
    """So many session keys."""
    run = subprocess.run(
        [sys.executable, "accounts.py", str(count)],
        cwd=HERE / "apps",
        env=site_environ(folder, environ),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return run.stdout.split()


def _browser(port: int, number: int, key: str) -> str:
    """What a browser sends besides the handshake proper."""
    version, language = 100 + number % BROWSERS, number // BROWSERS % LANGUAGES
    fields = {
        "Origin": f"http://{HOST}:{port}",
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        f"Chrome/{version}.0.0.0 Safari/537.36",
        "Accept-Language": f"en-GB,en;q=0.{language}",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "Cache-Control": "no-cache",
        "Pragma": "no-cache",
        "Cookie": f"sessionid={key}",
    }
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items())


def _measure(
    path_of: Callable[[int], str], keys: list[str], environ: dict[str, str], warm_up: int
) -> tuple[int, int, float]:
    def open_one(port: int, number: int) -> socket.socket:
        return open_websocket(port, path_of(number), READY, _browser(port, number, keys[number]))

    options = ("--max-websockets", str(len(keys)))
    with gpulse("accountsite.wsgi:application", *options, environ=environ) as server:
        worker = int(server.get("/pid")[1])
        with Crowd(server.port, open_one) as crowd:
            found = bytes_each(crowd, worker, warm_up, len(keys))
            crowd.idle(0.0)  # all of them are still open
    return found


if __name__ == "__main__":
    main()
