"""The real server for a test: master, workers and embedded store as processes on a free port.

For what no test in one process can show: a browser, two workers, a deploy, a store that dies.
Everything else is faster with :class:`~gpulse.testing.client.WebSocketClient`.

It is a server beside the test, as Django's LiveServerTestCase has one, but in processes of its own.
So it sees of the test what other processes see: rows that are committed, in a database that is no
private memory.  Use ``TransactionTestCase``, and give an SQLite test database a file.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gpulse import runtimedir, store

DEADLINE = 20.0
"""Seconds to become ready, and seconds to stop."""
TAIL = 4000
"""Characters of the log's end that a failure shows."""

_SHIM = "gpulse_live_settings"
_SHIM_TEXT = """\
# The site's settings, with the databases of the test and this machine as a host.
from copy import deepcopy

from {module} import *

ALLOWED_HOSTS = [*globals().get("ALLOWED_HOSTS", ()), "127.0.0.1", "localhost"]
DATABASES = deepcopy(globals().get("DATABASES", {{}}))
for alias, name in {names!r}.items():
    DATABASES.setdefault(alias, {{}})["NAME"] = name
"""
_NOT_OURS = ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")


class LivePulse:
    """A site served by gpulse, ready when the constructor's ``with`` or :meth:`start` returns.

    ::

        with LivePulse("--greenlet", "20", workers=2) as live:
            urlopen(live.url + "/rooms/lobby")

    :param options: of the ``gpulse`` command.  ``--bind`` and ``--log-level`` are set already.
    :param app: the WSGI application, ``module:attribute``; by default that of the settings.
    :param settings: the settings module; by default ``DJANGO_SETTINGS_MODULE``.
    :param workers: how many.
    :param directory: where it is started; by default the working directory.
    :param environ: variables set for it, besides those of this process.
    :param databases: serve from the databases that this process uses now, those of the test.
    :param deadline: seconds to become ready, and seconds to stop.
    """

    def __init__(
        self,
        *options: str,
        app: str | None = None,
        settings: str | None = None,
        workers: int = 1,
        directory: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        databases: bool = True,
        deadline: float = DEADLINE,
    ) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path()
        self._seen: set[int] = set()
        self._log = ""
        self._own_store: store.Store | None = None
        self._former_store: store.Store | None = None
        self._options = options
        self._app = app
        self._settings = settings or os.environ.get("DJANGO_SETTINGS_MODULE")
        self._workers = workers
        self._directory = directory
        self._environ = environ or {}
        self._databases = databases
        self._deadline = deadline
        self.pid = 0
        """Of the master; 0 before it runs."""
        self.url = ""
        """``http://127.0.0.1:PORT``, without a slash at the end."""

    # -- looking

    @property
    def ws_url(self) -> str:
        """The same for WebSockets: ``ws://127.0.0.1:PORT``."""
        return self.url.replace("http", "ws", 1)

    @property
    def log(self) -> str:
        """All that it has written, also after its end."""
        path = self._folder / "log"
        return path.read_text(errors="replace") if path.is_file() else self._log

    def children(self) -> list[int]:
        """The processes that the master runs now: workers and store."""
        found = _children(self.pid) if self.pid else []
        self._seen.update(found)
        return found

    # -- starting and stopping

    def start(self) -> Self:
        """Start, and return when all workers serve.

        While it runs, :func:`gpulse.publish` in this process reaches its clients.

        :raises AssertionError: it does not become ready; the message ends with its log.
        """
        assert self._process is None, "this LivePulse runs already"
        names = self._database_names()
        # Short, for sockets lie in it; pytest's own directories are too long for that.
        self._folder = Path(tempfile.mkdtemp(prefix="live-", dir="/tmp"))
        (self._folder / "tmp").mkdir()
        try:
            with (self._folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    self._command(names),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._directory,
                    env=self._environment(),
                    start_new_session=True,
                )
            self.pid = self._process.pid
            self._await(self._is_ready, "did not become ready")
            self._install_store()
        except BaseException:
            self._kill()
            self._clean()
            raise
        self.children()
        return self

    def stop(self) -> None:
        """Stop as a deploy does (TERM), and see that nothing is left.

        :raises AssertionError: it does not end in time, with another status than 0, or leaves a
            process or a socket behind; the message ends with its log.
        """
        if self._process is None:
            return
        self._uninstall_store()
        try:
            self.children()
            self.send_signal(signal.SIGTERM)
            self._await(lambda: self._process is None or self._process.poll() is not None, "hangs")
            status = self._process.returncode
            assert status == 0, self._tale(f"ended with status {status}")
            self._await(lambda: not any(map(_is_alive, self._seen)), "left processes behind")
            left = [str(path) for path in (self._folder / "tmp").rglob("*") if path.is_socket()]
            assert not left, self._tale(f"left {', '.join(left)} behind")
        finally:
            self._kill()
            self._clean()

    def send_signal(self, number: int) -> None:
        """Send the master a signal: ``signal.SIGHUP`` reloads."""
        os.kill(self.pid, number)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except AssertionError as trouble:
            if error is None:
                raise
            error.add_note(str(trouble))  # the test's own failure comes first

    # -- the parts

    def _command(self, names: dict[str, str]) -> list[str]:
        command = [sys.executable, "-m", "gpulse"]
        if self._settings:
            text = _SHIM_TEXT.format(module=self._settings, names=names)
            (self._folder / f"{_SHIM}.py").write_text(text)
            command += ["--settings", _SHIM]
        if not any(option.split("=")[0] == "--data-store" for option in self._options):
            command += ["--data-store", "embedded"]  # and not what the site shares with others
        command += ["--workers", str(self._workers), "--bind", "127.0.0.1:0"]
        command += ["--log-level", "info", *self._options]
        return [*command, self._app] if self._app else command

    def _environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if name not in _NOT_OURS}
        path = [str(self._folder), *(entry or os.getcwd() for entry in sys.path)]
        return {
            **kept,
            "TMPDIR": str(self._folder / "tmp"),
            "PYTHONPATH": os.pathsep.join(path),
            **self._environ,
        }

    def _database_names(self) -> dict[str, str]:
        """The databases of this process by alias.

        :raises AssertionError: another process could not see what is in them.
        """
        module = sys.modules.get("django.db")
        if not (self._databases and self._settings and module is not None):
            return {}
        names = {}
        for connection in module.connections.all():
            alias, name = connection.alias, connection.settings_dict["NAME"]
            is_in_memory = getattr(connection, "is_in_memory_db", None)
            assert is_in_memory is None or not is_in_memory(), (
                f"the database {alias!r} is in this process's memory, where no server finds it: "
                f"give it a file, DATABASES[{alias!r}]['TEST'] = {{'NAME': BASE_DIR / "
                "'test.sqlite3'}, or pass databases=False"
            )
            assert not connection.in_atomic_block, (
                f"the test holds a transaction open on the database {alias!r}, of which no other "
                "process sees anything: use TransactionTestCase (pytest-django: transactional_db)"
            )
            if name:
                names[alias] = str(name)
        return names

    def _is_ready(self) -> bool:
        process = self._process
        assert process is not None
        if process.poll() is not None:
            raise AssertionError(self._tale(f"ended with status {process.returncode}"))
        self.children()
        log = self.log
        found = re.search(r"listening on (https?://127\.0\.0\.1:\d+)", log)
        if found:
            self.url = found[1]
        return bool(found and re.search(r"\d+ of \d+ workers? serves?", log))

    def _await(self, look: Callable[[], bool], failure: str) -> None:
        deadline = time.monotonic() + self._deadline
        while not look():
            if time.monotonic() > deadline:
                raise AssertionError(self._tale(f"{failure} within {self._deadline:g} s"))
            time.sleep(0.02)

    def _install_store(self) -> None:
        for directory in (self._folder / "tmp").glob(f"{runtimedir.PREFIX}*"):
            site = runtimedir.read(str(directory))
            if site is not None:
                self._former_store = store.installed()
                self._own_store = store.open_site(site)
                store.install(self._own_store)

    def _uninstall_store(self) -> None:
        own, self._own_store = self._own_store, None
        if own is not None:
            if store.installed() is own:
                store.install(self._former_store)
            own.close()

    def _kill(self) -> None:
        """Whatever happened: nothing of it runs on."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            self.children()
            process.kill()
            process.wait()
        for pid in filter(_is_alive, self._seen):
            os.kill(pid, signal.SIGKILL)
        self.pid = 0

    def _clean(self) -> None:
        self._uninstall_store()
        self._log = self.log
        shutil.rmtree(self._folder, ignore_errors=True)

    def _tale(self, what: str) -> str:
        return f"the server {what}; its log ends with\n{self.log[-TAIL:]}"


def live_pulse(*options: str, scope: Any = "function", **keywords: Any) -> Any:
    """A pytest fixture that is a :class:`LivePulse`; in ``conftest.py``::

        from gpulse.testing import live_pulse

        live = live_pulse("--greenlet", "20", workers=2)

    and a test takes ``live``.

    :param scope: of the fixture: "function", "module", "session".
    :param keywords: of :class:`LivePulse`, as ``options``.
    """
    import pytest  # only those who use it have it

    def fixture() -> Iterator[LivePulse]:
        with LivePulse(*options, **keywords) as live:
            yield live

    return pytest.fixture(scope=scope)(fixture)


def _children(pid: int) -> list[int]:
    """The pids of the children of a process."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(text) for text in path.read_text().split()]
    except OSError:
        pass  # it is gone, or this is not Linux
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False
    )
    pairs = (line.split() for line in listed.stdout.splitlines())
    return [int(child) for child, parent in pairs if int(parent) == pid]


def _is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie, which waits for its parent, does not."""
    listed = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").exists():
        shown = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return shown.stdout.strip()[:1] not in ("", "Z")
    try:
        return listed.read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
