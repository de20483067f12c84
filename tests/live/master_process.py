"""The master over its stub worker as a real process, for the live tests."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from pulse import is_alive, until

STUB = Path(__file__).with_name("master_stub.py")
DEADLINE = 15.0


class MasterProcess:
    """One master; ``folder`` is what its workers look into."""

    def __init__(self, folder, prefix=(), environ=None, **options):
        self.folder = Path(folder)
        self.log_path = self.folder / "log"
        options = {"bind": ["127.0.0.1:0"], "data_store": "memory://", **options}
        self.seen = set()
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, str(STUB), str(self.folder), json.dumps(options)],
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": str(self.folder), **(environ or {})},
                cwd=Path(__file__).parents[2],
                start_new_session=True,
            )
        self.pid = self.process.pid

    @property
    def log(self):
        return self.log_path.read_text()

    def logged(self, text, count=1):
        until(lambda: self.log.count(text) >= count or self.process.poll() is not None)
        assert self.log.count(text) >= count, self.log
        return self

    def send(self, name):
        os.kill(self.pid, getattr(signal, f"SIG{name}"))

    def children(self):
        """The pids of the master's children, which ``assert_gone`` will look for."""
        found = [
            int(pid)
            for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        ]
        self.seen.update(found)
        return found

    def address(self):
        (port,) = re.findall(r"listening on http://127.0.0.1:(\d+)", self.log)
        return "127.0.0.1", int(port)

    def ask(self):
        """What one worker says of itself."""
        with socket.create_connection(self.address(), timeout=DEADLINE) as connection:
            return answer(connection)

    def survey(self, count):
        """Facts by slot of ``count`` workers, asked until all have answered."""
        found = {}

        def look():
            facts = self.ask()
            found[facts["slot"]] = facts
            return len(found) == count

        until(look)
        return found

    def wait(self):
        return self.process.wait(DEADLINE)

    def assert_gone(self):
        """Nothing is left: no process, no socket file, no directory."""
        until(lambda: not [pid for pid in self.seen if is_alive(pid)])
        left = [
            path for path in self.folder.rglob("*") if path.is_socket() or "gpulse-" in path.name
        ]
        assert left == []

    def close(self):
        """Stop it if it still runs; a master that does not stop fails the test."""
        if self.process.poll() is None:
            self.children()
            self.send("TERM")
            try:
                self.wait()
            finally:
                self.process.kill()


def answer(connection):
    with connection.makefile("rb") as file:
        return json.loads(file.readline())
