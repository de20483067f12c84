"""A worker's life, top to bottom: patch, import, serve, drain.

Runs in a process that the master has just forked; :func:`run` is its entry and returns its exit
status. This is where all parts are put together: nothing else knows more than its neighbours.

The main greenlet only boots and waits for the end.  All sockets live in callbacks of the hub, all
application code on the pool.
"""

import gc
import itertools
import logging
import random
import signal
import time
from collections.abc import Callable
from typing import Any

from gpulse import logs, runtimedir, store
from gpulse.config import Config
from gpulse.errors import FileError, StoreError
from gpulse.handover import Handover
from gpulse.scoreboard import Cell, SlotBoard, WorkerState

log = logging.getLogger("gpulse.worker")

TICK = 0.5
"""Seconds between two signs of life in the scoreboard."""
IDLE_GRACE = 1.0
"""Seconds in which an idle connection may still send a request to a worker that drains."""
TAG = 32
"""Characters of the site's name that name it in the system's log (RFC 3164, 4.1.3)."""
LOG_FLUSH = 2.0
"""Seconds at the end for log lines that still wait."""


def run(handover: Handover) -> int:
    """Be a worker until the master or a signal ends it.

    :raises GpulseError: the worker cannot become ready; the caller reports it.
    """
    config = handover.config
    if config.greenlet is not None:
        _patch()
    # From here on gevent's hub, and all modules that bind sockets at import, may be imported.
    from gpulse.worker.application import load

    error_writer = logs.LineWriter(2)
    logs.configure(config.log_level, f"worker {handover.slot}", error_writer)
    try:
        application = load(config.app, config.settings)
        logs.enable()
        worker = Worker(handover, application, error_writer)
        return worker.serve()
    finally:
        error_writer.close(LOG_FLUSH)


def _patch() -> None:
    """Make blocking calls of the standard library and of the database drivers yield to the hub."""
    from gevent import monkey

    monkey.patch_all()
    from gpulse.worker import psycopg

    psycopg.install()


class Worker:
    """The parts of a worker and their timers.

    :param application: the WSGI callable.
    :param error_writer: where the log goes, watched for dropped lines.
    """

    def __init__(
        self,
        handover: Handover,
        application: Callable[..., Any],
        error_writer: logs.LineWriter,
    ) -> None:
        from gevent import get_hub
        from gevent.event import Event

        from gpulse.connection.timers import DeadlineWheel, Turner
        from gpulse.connection.tlscontext import build_context
        from gpulse.historyrules import HistoryRules
        from gpulse.http.accesslog import AccessLog
        from gpulse.http.limits import Limits
        from gpulse.http.server import HttpServer
        from gpulse.store.fanout import Fanout
        from gpulse.store.historian import Historian
        from gpulse.store.presence import Presence
        from gpulse.websocket.compat import LegacyWebSockets
        from gpulse.websocket.limits import SocketLimits
        from gpulse.websocket.sockets import Sockets
        from gpulse.websocket.watch import AccountWatch
        from gpulse.worker.application import close_database_connections
        from gpulse.worker.collector import Collector
        from gpulse.worker.greenlets import GreenletPool
        from gpulse.worker.pools import Pool
        from gpulse.worker.services import ENVIRON_KEY, Services
        from gpulse.worker.threads import ThreadPool

        config = handover.config
        self.handover = handover
        self.config: Config = config
        self.board: SlotBoard = handover.scoreboard.slot(handover.slot)
        self._loop = get_hub().loop
        self._stopped = Event()
        self._quick = False
        self._watchers: list[Any] = []
        self._writers = [error_writer]
        self._retire_after = _retire_after(config)
        self._state = WorkerState.BOOTING

        pool_class: type[GreenletPool | ThreadPool] = (
            GreenletPool if config.greenlet is not None else ThreadPool
        )
        self.pool: Pool = pool_class(config.pool_size, close_database_connections)
        self.wheel = DeadlineWheel(time.monotonic())
        self._turner = Turner(self._loop, self.wheel)
        self.store = store.open_store(
            handover.store_url,
            config.pulse_app_name,
            config.workers,
            self.pool.call_hub,
            HistoryRules(config.history),
        )
        self.presence = Presence(self.store, self.pool.spawn)
        historian = Historian(self.store, self.pool.spawn, self.pool.call_hub)
        self.fanout = Fanout(self.store, historian, on_reconnect=self.presence.nudge)
        self.sockets = Sockets(
            self.pool,
            self.wheel,
            config.max_websockets,
            SocketLimits.of(config),
            self.fanout.remove_all,
            self._loop.run_callback,
        )
        self._collector = Collector(self.sockets)
        self.accounts = AccountWatch(self.sockets.identities, self.fanout, self.pool)
        self._access_log: AccessLog | None = None
        if config.access_log is not None:
            # Patient: a syslog that is away for a moment is no reason for a worker not to start.
            tag = config.pulse_app_name[:TAG]
            writer = logs.LineWriter(logs.open_sink(config.access_log, tag, patient=True))
            self._writers.append(writer)
            self._access_log = AccessLog(
                writer.write, config.access_log_format, worker=handover.slot
            )
        self.server = HttpServer(
            self._loop,
            self.pool,
            application,
            config,
            limits=Limits.of(config),
            wheel=self.wheel,
            access_log=self._access_log,
            legacy_websocket=LegacyWebSockets(
                self.sockets, application, threads=config.greenlet is None
            ),
            served=self._served if self._retire_after else None,
            tls=build_context(handover.tls) if handover.tls is not None else None,
            environ={
                ENVIRON_KEY: Services(
                    self.pool,
                    self.sockets,
                    self.store,
                    self.fanout,
                    self.presence,
                    self.accounts,
                )
            },
        )

    # -- serving

    def serve(self) -> int:
        """Accept until asked to stop, then drain; returns the exit status."""
        from gpulse.worker.descriptors import make_room
        from gpulse.worker.watchdog import watch_master

        store.install(self.store)
        self._announce()
        self._on_signal(signal.SIGTERM, self._stop)
        self._on_signal(signal.SIGINT, self._stop_quickly)
        self._on_signal(signal.SIGQUIT, self._stop_quickly)
        self._on_signal(signal.SIGUSR1, self._reopen_logs)
        self._turner.start()
        self._every(TICK, self._tick)
        orphaned = self._loop.async_()
        orphaned.start(self._orphaned)
        self._watchers.append(orphaned)
        watch_master(
            self.handover,
            lambda: orphaned.send_ignoring_arg(None),
            self.config.graceful_timeout + 5.0,
        )
        if self.handover.slot == 0 and self.handover.generation == 1:
            self.pool.spawn(self._try_store)
        # The application's modules stay: the collector need not look at them again and again.
        gc.collect()
        gc.freeze()
        self._collector.start()
        make_room(self.server.limits.connections)
        self.server.listen(self.handover.listeners)
        self._tick()
        self._set_state(WorkerState.READY)
        log.info("ready: pid %d, %s", self.board.get(Cell.PID), self._describe_pool())
        self._stopped.wait()
        self._drain()
        return 0

    def _announce(self) -> None:
        """Let the site's other processes find its embedded store."""
        directory, config = self.handover.runtime_dir, self.config
        if not directory:
            return
        site = runtimedir.Site(
            self.handover.store_url, config.pulse_app_name, store.settings_file(), config.history
        )
        try:
            runtimedir.announce(directory, site)
        except OSError as error:
            log.warning("other processes will not find the embedded store: %s", error)

    def _describe_pool(self) -> str:
        kind = "greenlets" if self.config.greenlet is not None else "threads"
        return f"{self.pool.size} {kind}"

    def _set_state(self, state: WorkerState) -> None:
        self._state = state
        self.board.set(Cell.STATE, state)

    def _on_signal(self, number: int, call: Callable[[], None]) -> None:
        watcher = self._loop.signal(number)
        watcher.start(call)
        self._watchers.append(watcher)

    def _every(self, seconds: float, call: Callable[[], None]) -> None:
        timer = self._loop.timer(seconds, seconds)
        timer.start(call)
        self._watchers.append(timer)

    def _tick(self) -> None:
        now = time.monotonic()
        board, pool, sockets = self.board, self.pool, self.sockets
        board.set(Cell.TICK, now)
        board.set(Cell.CONNECTIONS, len(self.server.connections))
        board.set(Cell.WEBSOCKETS, len(sockets.sessions))
        board.set(Cell.BUSY, pool.busy)
        board.set(Cell.QUEUED, pool.queued)
        board.set(Cell.GREENLETS, pool.alive)
        board.set(Cell.REQUESTS_TOTAL, self.server.requests)
        board.set(Cell.REFUSED_TOTAL, self.server.refusals)
        board.set(Cell.MESSAGES_IN_TOTAL, sockets.messages_in)
        board.set(Cell.DELIVERIES_TOTAL, sockets.deliveries)
        board.set(Cell.SLOW_CLOSED_TOTAL, sockets.slow_closed)
        board.set(Cell.LOG_DROPPED_TOTAL, sum(writer.dropped for writer in self._writers))
        pool.retire_idle(now)
        self.accounts.tick(now)
        self._collector.tick()
        if self._access_log is not None:
            self._access_log.tell_left_out()

    def _served(self) -> None:
        if self._retire_after and self.server.requests >= self._retire_after:
            self._retire_after = 0
            if self._state == WorkerState.READY:
                log.info("served %d requests; asks to be replaced", self.server.requests)
                self._set_state(WorkerState.RETIRING)

    def _try_store(self) -> None:
        """At first boot, once: one line if the store does not answer; pages are served anyway."""
        if not self.handover.store_url:
            return
        try:
            self.store.ping()
        except StoreError as error:
            log.warning(
                "%s: pages are served, WebSocket messages go nowhere until it answers", error
            )

    # -- the end

    def _stop(self) -> None:
        self._stopped.set()

    def _stop_quickly(self) -> None:
        self._quick = True
        self._stopped.set()

    def _orphaned(self) -> None:
        log.error("the master is gone; this worker stops")
        self._stopped.set()

    def _reopen_logs(self) -> None:
        for writer in self._writers:
            try:
                writer.reopen()
            except FileError as error:
                log.error("%s", error)

    def _drain(self) -> None:
        """Finish what has begun, within the graceful timeout; a quick stop finishes nothing."""
        import gevent

        if self._state != WorkerState.DRAINING:
            self._set_state(WorkerState.DRAINING)
        self._collector.stop()
        deadline = time.monotonic() + self.config.graceful_timeout
        self.server.stop_accepting()
        self.server.hurry_idle(time.monotonic() + IDLE_GRACE)
        self.sockets.drain()
        for turn in itertools.count():
            if not self.server.connections and not self.pool.busy and not self.pool.has_waiting:
                break
            if self._quick or time.monotonic() >= deadline:
                self._log_unfinished()
                break
            gevent.sleep(0.01 if turn < 50 else 0.05)
        self.server.flush()
        if self._access_log is not None:
            self._access_log.close()
        self.fanout.close()
        self.presence.release()
        self.store.close()
        for writer in self._writers[1:]:
            writer.close(LOG_FLUSH)

    def _log_unfinished(self) -> None:
        if self.pool.busy:
            log.warning(
                "stops with %d requests or handlers unfinished%s",
                self.pool.busy,
                "" if self._quick else "; see --graceful-timeout",
            )


def _retire_after(config: Config) -> int:
    """Requests after which this worker asks to be replaced; 0: never.

    The jitter keeps workers that started together from leaving together.
    """
    if not config.max_requests:
        return 0
    return config.max_requests + random.randint(0, config.max_requests_jitter)
