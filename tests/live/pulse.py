"""A real gpulse as a process, for the live tests: started on port 0, talked to, and gone at the
end."""

import http.client
import os
import re
import shutil
import signal
import socket as sockets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).parents[2]
SITE = Path(__file__).with_name("site")
CHAT = ROOT / "chat"
DEADLINE = 20.0


def until(look: Callable[[], Any], what: str = "", seconds: float = DEADLINE) -> Any:
    """Poll until ``look()`` is true; returns what it returned.  Errors of the network count as
    no."""
    deadline = time.monotonic() + seconds
    error: Exception | None = None
    while True:
        try:
            found = look()
        except (OSError, http.client.HTTPException) as caught:
            found, error = None, caught
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or look} ({error})")
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie, which waits for its parent, does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


class Pulse:
    """One master with its workers and store.

    :param folder: a private directory: log, temporary files.
    :param options: the command line behind the program's name.
    :param site: the directory with ``manage.py``; copied into ``folder`` when ``copied``, so that
        a test may change its code.
    :param program: "manage.py" or "gpulse".
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        site: Path = SITE,
        copied: bool = False,
        program: str = "manage.py",
        environ: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
        bind: str | None = "127.0.0.1:0",
        python: str = sys.executable,
    ) -> None:
        self.folder = folder
        self.site = site
        if copied:
            self.site = folder / "site"
            shutil.copytree(
                site, self.site, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite3")
            )
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.log_path = folder / "log"
        command = (
            [python, "manage.py", "pulse"] if program == "manage.py" else [python, "-m", "gpulse"]
        )
        if bind is not None:
            options = (*options, "-b", bind)
        self.environ = {
            **os.environ,
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            **(environ or {}),
        }
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, *command, *options],
                stdout=log,
                stderr=log,
                env=self.environ,
                cwd=self.site,
                start_new_session=True,
            )
        self.pid = self.process.pid
        self.seen: set[int] = set()
        self._port = 0

    # -- looking

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def logged(self, text: str, count: int = 1) -> "Pulse":
        until(lambda: self.log.count(text) >= count or self.process.poll() is not None, text)
        assert self.log.count(text) >= count, self.log
        return self

    def ready(self) -> "Pulse":
        """All workers serve."""
        until(
            lambda: (
                re.search(r"\d+ of \d+ workers? serves?", self.log)
                or self.process.poll() is not None
            ),
            "all workers serve",
        )
        assert self.process.poll() is None, self.log
        self.children()
        return self

    @property
    def port(self) -> int:
        if not self._port:
            self.logged("listening on http://127.0.0.1:")
            self._port = int(re.findall(r"listening on http://127\.0\.0\.1:(\d+)", self.log)[0])
        return self._port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def children(self) -> list[int]:
        """The pids of the master's children, which :meth:`assert_gone` will look for."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        found = [int(pid) for pid in path.read_text().split()]
        self.seen.update(found)
        return found

    def workers(self) -> list[int]:
        return [
            pid
            for pid in self.children()
            if "valkey" not in _name(pid) and "redis" not in _name(pid)
        ]

    def store(self) -> int:
        (pid,) = [pid for pid in self.children() if "valkey" in _name(pid) or "redis" in _name(pid)]
        return pid

    # -- talking

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def text(self, path: str) -> str:
        status, body = self.get(path)
        assert status == 200, (status, body, self.log)
        return body

    def connect_unix(self, path: Path) -> http.client.HTTPConnection:
        """A connection to the listener on a unix socket."""
        connection = http.client.HTTPConnection("localhost", timeout=DEADLINE)
        connection.sock = sockets.socket(sockets.AF_UNIX)
        connection.sock.settimeout(DEADLINE)
        connection.sock.connect(str(path))
        return connection

    def socket(self, path: str, **options: Any) -> ClientConnection:
        """An open client, for ``with`` or ``close()``.

        It goes on reading however much nobody fetches: else it sees neither pongs nor closes while
        a test looks at another one.
        """
        options.setdefault("max_queue", None)
        client = connect(
            f"ws://127.0.0.1:{self.port}{path}", open_timeout=DEADLINE, proxy=None, **options
        )
        return client.__enter__()  # websockets 17 wants it entered; its exit is close()

    def owner(self, client: sockets.socket) -> int:
        """The worker that holds the other end of a client's socket."""
        port = client.getsockname()[1]
        inode = ""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[2].endswith(f":{port:04X}") and fields[1].endswith(f":{self.port:04X}"):
                inode = fields[9]
        for pid in self.workers():
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    if os.readlink(fd) == f"socket:[{inode}]":
                        return pid
                except FileNotFoundError:
                    continue
        raise AssertionError(f"no worker holds the socket of port {port}")

    # -- ending

    def send_signal(self, name: str) -> None:
        os.kill(self.pid, getattr(signal, f"SIG{name}"))

    def stop(self, name: str = "TERM") -> int:
        """Stop in the ordinary way and look that nothing is left."""
        self.children()
        self.send_signal(name)
        status = self.process.wait(DEADLINE)
        self.assert_gone()
        return status

    def assert_gone(self) -> None:
        """No process, no socket file, no directory."""
        until(lambda: not [pid for pid in self.seen if is_alive(pid)], "processes are left")
        until(lambda: not list(self.temporary.rglob("*")), f"left: {self.temporary}")

    def close(self) -> None:
        """For teardown, also after a failure."""
        if self.process.poll() is None:
            self.children()
            self.process.kill()
            self.process.wait(DEADLINE)
        for pid in self.seen:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def start_chat(folder: Path, *options: str, **environ: str) -> Pulse:
    """The chat example over its own database in ``folder``, migrated and ready.

    :param options: of ``manage.py pulse``.
    """
    environ = {"DEBUG": "1", "DATABASE_URL": f"sqlite:///{folder}/chat.sqlite3", **environ}
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--no-input", "-v", "0"],
        cwd=CHAT,
        check=True,
        env={**os.environ, **environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    return Pulse(folder, *options, site=CHAT, environ=environ).ready()


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""
