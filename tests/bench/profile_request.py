"""CPU time of one request inside one process, without a network: where does it go?

    python tests/bench/profile_request.py [--requests 50000] [--application null django]
        [--browser] [--profile [LINES]]

Server, connections, protocol, exchange, greenlet pool and access log are the real ones, put
together as ``gpulse.worker.worker`` does it.  Sockets and read watchers are fakes: ``recv`` gives
a request, ``send`` counts bytes, and a turn of the hub calls back every connection once.  So the
kernel has no part in it, and neither has wrk: two runs of one tree differ by a few per cent.

The log goes to /dev/null through its real writing thread, whose time is counted.  ``application``
is what the application takes of it when it is called with a ready environ, ``fakes`` what the fake
sockets take.
"""

import os
import sys
from pathlib import Path

# Not this script's directory: its http.py would hide the standard library's.
sys.path[0] = str(Path(__file__).parent / "apps")
sys.path.insert(1, str(Path(__file__).parents[2]))
sys.dont_write_bytecode = True
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hellosite.settings")

from gevent import monkey

monkey.patch_all()

# A worker patches before it imports anything else.
# ruff: noqa: E402
import argparse
import cProfile
import gc
import io
import pstats
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

from gpulse.config import Config
from gpulse.connection.timers import DeadlineWheel
from gpulse.http.accesslog import AccessLog
from gpulse.http.limits import Limits
from gpulse.http.server import HttpServer
from gpulse.logs import LineWriter
from gpulse.websocket.compat import LegacyWebSockets
from gpulse.websocket.limits import SocketLimits
from gpulse.websocket.sockets import Sockets
from gpulse.worker.application import load
from gpulse.worker.greenlets import GreenletPool

APPLICATIONS = {"null": "null:application", "django": "hellosite.wsgi:application"}
CONNECTIONS = 50
RUNS = 5
"""The requests are divided into so many runs; the fastest is the one with the fewest neighbours."""
READ = 1

PLAIN = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
"""What wrk sends."""
BROWSER = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24"\r\nsec-ch-ua-mobile: ?0\r\n'
    b'sec-ch-ua-platform: "Linux"\r\nUpgrade-Insecure-Requests: 1\r\n'
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/140.0.0.0 Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\n"
    b"Sec-Fetch-Dest: document\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Accept-Language: en-GB,en;q=0.9\r\n"
    b"Cookie: csrftoken=0123456789abcdef0123456789abcdef; "
    b"sessionid=0123456789abcdef0123456789abcdef\r\n\r\n"
)


class FakeSocket:
    """Gives what is ``incoming`` once and takes everything."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.incoming = b""
        self.sent = 0
        self.first = b""

    def fileno(self) -> int:
        return self._fd

    def recv(self, size: int) -> bytes:
        data = self.incoming
        if not data:
            raise BlockingIOError
        self.incoming = b""
        return data

    def recv_into(self, buffer: Any, size: int = 0) -> int:
        data = self.recv(size)
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: Any) -> int:
        size = len(data)
        if not self.sent:
            self.first = bytes(data)
        self.sent += size
        return size

    def sendmsg(self, pieces: Any) -> int:
        return self.send(b"".join(pieces))

    def setsockopt(self, *_: object) -> None:
        return

    def shutdown(self, how: int) -> None:
        return

    def close(self) -> None:
        self._fd = -1


class FakeWatcher:
    """Remembers whom to call."""

    def __init__(self) -> None:
        self.callback: Callable[..., None] | None = None
        self.args: tuple[Any, ...] = ()

    def start(self, callback: Callable[..., None], *args: Any) -> None:
        self.callback, self.args = callback, args

    def stop(self) -> None:
        self.callback = None

    def close(self) -> None:
        self.callback = None


class FakeLoop:
    """The hub's loop, but for its I/O watchers."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self.readers: dict[int, FakeWatcher] = {}

    def io(self, fd: int, events: int, *_: object, **__: object) -> FakeWatcher:
        watcher = FakeWatcher()
        if events & READ:
            self.readers[fd] = watcher
        return watcher

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class Site:
    """A worker's HTTP side with CONNECTIONS open connections."""

    def __init__(self, application: Callable[..., Any]) -> None:
        self._application = application
        self._environ: dict[str, Any] = {}
        self._hub = gevent.get_hub()
        self._loop = FakeLoop(self._hub.loop)
        self.pool = GreenletPool(200, lambda: None)
        self._wheel = DeadlineWheel(time.monotonic())
        sockets = Sockets(self.pool, self._wheel, 100, SocketLimits(), lambda session: None)
        self._writer = LineWriter(os.devnull)
        self.server = HttpServer(
            self._loop,
            self.pool,
            self._first_application,
            Config.defaults(),
            limits=Limits(),
            wheel=self._wheel,
            access_log=AccessLog(self._writer.write),
            legacy_websocket=LegacyWebSockets(sockets, application, threads=False),
            served=lambda: None,
            environ={},
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.server.listen([self._listener])
        self._sockets = [FakeSocket(100_000 + n) for n in range(CONNECTIONS)]
        for n, sock in enumerate(self._sockets):
            self.server._accepted(sock, ("127.0.0.1", 40_000 + n), self._listener)
        self._readers = [self._loop.readers[sock.fileno()] for sock in self._sockets]

    def _first_application(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Keep one environ; from then on the server calls the application itself."""
        self._environ = environ.copy()
        self.server.application = self._application
        return self._application(environ, start_response)

    def run(self, request: bytes, turns: int, profile: cProfile.Profile | None = None) -> float:
        """Seconds of CPU for ``turns`` requests on each connection.

        :raises SystemExit: a response is missing, differs, or is no 200.
        """
        done = Event()
        failures: list[BaseException] = []
        for sock in self._sockets:
            sock.sent = 0
        if profile is not None:
            profile.enable()
        begun = time.process_time()
        self._hub.loop.run_callback(self._turn, request, turns, done, failures)
        done.wait()
        taken = time.process_time() - begun
        if profile is not None:
            profile.disable()
        if failures:
            raise failures[0]
        first = self._sockets[0].first
        sent = {sock.sent for sock in self._sockets}
        if not first.startswith(b"HTTP/1.1 200 ") or sent != {turns * len(first)}:
            raise SystemExit(f"{turns} x {len(first)} bytes expected, {sent} sent:\n{first!r}")
        return taken

    def _turn(self, request: bytes, turns: int, done: Event, failures: list[BaseException]) -> None:
        """On the hub: every connection is readable once; then again, until ``turns`` is 0."""
        try:
            if not self.pool.busy and not self.pool.queued:  # else: the last turn's are not out
                if not turns:
                    self._wheel.turn(time.monotonic())
                    done.set()
                    return
                turns -= 1
                for sock, reader in zip(self._sockets, self._readers, strict=True):
                    sock.incoming = request
                    assert reader.callback is not None, "a connection does not read"
                    reader.callback(*reader.args)
            self._hub.loop.run_callback(self._turn, request, turns, done, failures)
        except BaseException as error:
            failures.append(error)
            done.set()

    def application_alone(self, turns: int) -> float:
        """Seconds of CPU that as many calls of the application alone take."""
        begun = time.process_time()
        for _ in range(turns * CONNECTIONS):
            environ = self._environ.copy()
            environ["wsgi.input"] = io.BytesIO()
            result = self._application(environ, _start_response)
            b"".join(result)
            if hasattr(result, "close"):
                result.close()
        return time.process_time() - begun

    def fakes(self, request: bytes, turns: int) -> float:
        """Seconds of CPU that the fake sockets alone take for as many requests."""
        response = self._sockets[0].first
        begun = time.process_time()
        for _ in range(turns):
            for sock, reader in zip(self._sockets, self._readers, strict=True):
                sock.incoming = request
                assert reader.callback is not None
                sock.recv(65536)
                sock.send(response)
        return time.process_time() - begun


def _start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
    """Throws them away."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=50_000, help="in all (50000)")
    parser.add_argument("--application", nargs="+", choices=APPLICATIONS, default=["null"])
    parser.add_argument("--browser", action="store_true", help="send a browser's fields")
    parser.add_argument(
        "--profile",
        type=int,
        nargs="?",
        const=40,
        metavar="LINES",
        help="print the functions with the most time of their own",
    )
    options = parser.parse_args()
    request = BROWSER if options.browser else PLAIN
    turns = max(1, options.requests // (CONNECTIONS * RUNS))
    for name in options.application:
        site = Site(load(APPLICATIONS[name], None))
        site.run(request, 20)  # warm up
        gc.collect()
        gc.freeze()  # as a worker does
        if options.profile:
            _profile(site, request, turns, options.profile)
        else:
            _measure(name, site, request, turns)


def _measure(name: str, site: Site, request: bytes, turns: int) -> None:
    per_request = 1e6 / (turns * CONNECTIONS)
    found = [site.run(request, turns) * per_request for _ in range(RUNS)]
    application = min(site.application_alone(turns) for _ in range(RUNS)) * per_request
    fakes = min(site.fakes(request, turns) for _ in range(RUNS)) * per_request
    print(  # noqa: T201
        f"{name}: {statistics.median(found):.2f} us per request"
        f" (fastest run {min(found):.2f}, slowest {max(found):.2f};"
        f" application {application:.2f}, fakes {fakes:.2f})"
    )


def _profile(site: Site, request: bytes, turns: int, lines: int) -> None:
    """Greenlets switch beneath the profiler: the two calls of ``switch`` exchange their times."""
    profile = cProfile.Profile()
    site.run(request, turns, profile)
    pstats.Stats(profile).sort_stats("tottime").print_stats(lines)


if __name__ == "__main__":
    main()
