"""The supervision policy: ``decide(state, event, now) -> (state, actions)``.

Pure: no clock, no process, no log; the master feeds it events and carries out its actions in
order.  Each event first changes the facts; then ``_converge`` compares the facts with what is
wanted.  So there is one rule for a crash, a reload, a retirement and a changed worker count:

- A worker is *fresh* if it is of the current generation and does not ask for a replacement.
  Below ``target`` fresh ones, more are spawned, into the lowest free slots, after the backoff.
- Whoever serves beyond ``target`` is told to go: stale and retiring ones first, then the youngest.
  So a replacement is ready before the one that it replaces is told.

**First boot.** All workers are spawned at once.  Until one is ready nothing is respawned; if all
are gone by then the master exits, with their status where that names a lasting fault.

**Reload.** A new generation, and one worker of it, the canary.  Until it is ready the old
generation is the fallback: if the canary fails, the reload is abandoned and the old workers never
noticed.  A respawn always imports the code that is on disk now, so while the canary is undecided
(at most ``boot_timeout``) a crashed old worker is not respawned: it would be a second canary.
Where no old worker serves there is nothing to protect, and all are spawned at once.

**Deadlines.** Booting, serving and draining each have their own.  A hung worker is sent SIGABRT,
so that faulthandler prints its stack, and SIGKILL two seconds later.
"""

import logging
from collections.abc import Callable, Iterable
from signal import Signals
from typing import Any

from gpulse.errors import (
    ApplicationError,
    FileError,
    PrivilegeError,
    StoreError,
    UsageError,
)
from gpulse.master import deaths, orders
from gpulse.master.backoff import STEADY, Backoff
from gpulse.master.facts import (
    Action,
    Asked,
    Event,
    Exit,
    Exited,
    Limits,
    Notify,
    Spawn,
    Spawned,
    SpawnFailed,
    Stage,
    State,
    Watch,
    Worker,
)
from gpulse.master.turn import Turn
from gpulse.scoreboard import Row, WorkerState

ABORT_GRACE = 2.0
"""Seconds between SIGABRT and SIGKILL: time to print a stack, not to recover."""
DRAIN_GRACE = 2.0
"""Seconds beyond ``graceful_timeout``, which the worker itself obeys, before SIGKILL."""
QUICK_GRACE = 3.0
"""Seconds that a worker has to end after INT."""
QUICK_LOOK = 0.1
"""Seconds between two looks while something is under way."""
LOOK = 1.0
"""The longest time in seconds from one look at the scoreboard to the next."""
SLEEP_GAP = 5.0
"""A master that was not run for this long, or for half of a short ``--timeout``, was stopped
itself (SIGSTOP, a suspended machine); the ticks it sees are no evidence."""
SPARE = 4
"""Replacements at once beyond ``target`` (a quarter of it in a large site)."""
LASTING = frozenset(
    error.exit_status
    for error in (UsageError, ApplicationError, StoreError, FileError, PrivilegeError)
)
"""Statuses of a failed boot that trying again would not change; the master exits with them."""


def initial(limits: Limits, workers: int) -> State:
    """The state before the first event."""
    return State(limits=limits, target=workers)


def decide(state: State, event: Event, now: float) -> tuple[State, tuple[Action, ...]]:
    """What to do about ``event`` at ``now``; the caller keeps the new state for the next call."""
    if state.exiting:
        return state, ()
    turn = Turn(state, now)
    _ON[type(event)](turn, event)
    _converge(turn)
    return turn.state, tuple(turn.actions)


def attention(state: State) -> float:
    """Seconds after which the scoreboard deserves another look if nothing happens before."""
    settled = (
        state.announced
        and not state.reloading
        and state.stop is None
        and len(state.workers) == state.target
        and all(worker.is_serving for worker in state.workers)
    )
    return _look(state.limits) if settled else QUICK_LOOK


def _look(limits: Limits) -> float:
    """Often enough that half of ``--timeout`` without a look means something."""
    return min(LOOK, max(QUICK_LOOK, limits.timeout / 4)) if limits.timeout else LOOK


def _sleep_gap(limits: Limits) -> float:
    """With a tick's age on top it must stay below ``--timeout``, or the gap itself would kill."""
    return min(SLEEP_GAP, max(2 * _look(limits), limits.timeout / 2))


# Events


def _on_watch(turn: Turn, event: Watch) -> None:
    watched_at = turn.state.watched_at
    if watched_at is not None and turn.now - watched_at > _sleep_gap(turn.state.limits):
        turn.change(awake_since=turn.now)
    turn.change(watched_at=turn.now)
    for slot, row in event.rows:
        worker = turn.worker(slot)
        if worker is not None and row.pid == worker.pid:
            _see(turn, worker, row)
    for worker in turn.state.workers:
        _watch(turn, worker)
    if turn.state.backoff.failures and _is_steady(turn):
        turn.change(backoff=Backoff(), logged=())


def _see(turn: Turn, worker: Worker, row: Row) -> None:
    """Take over what the worker says of itself."""
    if row.state is WorkerState.EMPTY:
        return
    was_booting = worker.is_booting
    worker = turn.change_worker(worker, seen=row.state, tick=row.tick)
    if row.state is WorkerState.DRAINING and worker.leaving_at is None:
        turn.change_worker(worker, leaving_at=turn.now)
    elif was_booting and row.state in (WorkerState.READY, WorkerState.RETIRING):
        _became_ready(turn, worker)


def _became_ready(turn: Turn, worker: Worker) -> None:
    if turn.is_canary(worker):
        turn.change(fallback=None)
        turn.log(logging.INFO, f"{worker.name} is ready with the new code; replacing the others")
    worker = turn.change_worker(worker, ready_at=turn.now)
    turn.change(served=True)
    turn.log(logging.INFO, f"{worker.name} is ready")
    if worker.owes_reopen:
        turn.change_worker(worker, owes_reopen=False)
        turn.send(worker, Signals.SIGUSR1)


def _watch(turn: Turn, worker: Worker) -> None:
    """Hold the worker to the deadline of its phase."""
    limits = turn.state.limits
    if worker.killed or worker.pid == 0:
        return
    if worker.aborted_at is not None:
        if turn.now - worker.aborted_at >= ABORT_GRACE:
            _kill(turn, worker)
    elif worker.leaving_at is not None:
        stop = turn.state.stop
        quick = stop is not None and stop.quick
        allowed = QUICK_GRACE if quick else limits.graceful_timeout + DRAIN_GRACE
        if turn.now - worker.leaving_at >= allowed:
            turn.log(
                logging.WARNING,
                f"{worker.name} was told to stop {allowed:g} s ago and is still there: killing it; "
                "what it was serving is cut off",
            )
            _kill(turn, worker)
    elif worker.ready_at is None:
        age = turn.now - max(worker.spawned_at, turn.state.awake_since)
        if limits.boot_timeout and age > limits.boot_timeout:
            _abort(turn, worker, f"was not ready within {limits.boot_timeout:g} s (--boot-timeout)")
    else:
        age = turn.now - max(worker.tick, worker.ready_at, turn.state.awake_since)
        if limits.timeout and age > limits.timeout:
            _abort(turn, worker, f"has been blocked for {age:.1f} s (--timeout)")


def _abort(turn: Turn, worker: Worker, why: str) -> None:
    turn.log(logging.ERROR, f"{worker.name} {why}: killing it; its stack follows")
    if turn.is_canary(worker):
        orders.abandon_reload(turn, f"{worker.name} {why}")
    turn.send(worker, Signals.SIGABRT)
    turn.change_worker(worker, aborted_at=turn.now)


def _kill(turn: Turn, worker: Worker) -> None:
    turn.send(worker, Signals.SIGKILL)
    turn.change_worker(worker, killed=True)


def _is_steady(turn: Turn) -> bool:
    return len(turn.serving()) >= turn.state.target and all(
        worker.ready_at is not None and turn.now - worker.ready_at >= STEADY
        for worker in turn.state.workers
        if worker.is_staying
    )


def _on_spawned(turn: Turn, event: Spawned) -> None:
    worker = turn.worker(event.slot)
    if worker is not None:
        turn.change_worker(worker, pid=event.pid)


def _on_spawn_failed(turn: Turn, event: SpawnFailed) -> None:
    worker = turn.worker(event.slot)
    if worker is None:
        return
    text = (
        f"cannot fork worker {event.slot}: {event.reason}; "
        "the machine or cgroup is short of memory or processes"
    )
    turn.drop(worker)
    turn.log_once(logging.ERROR, text, text)
    if turn.is_canary(worker):
        orders.abandon_reload(turn, text)
    turn.change(backoff=turn.state.backoff.failed(worker.spawned_at, turn.now))


def _on_exited(turn: Turn, event: Exited) -> None:
    worker = turn.worker(event.slot)
    if worker is None:
        return
    turn.drop(worker)
    level, text = deaths.describe(worker, event, turn.now)
    if turn.is_canary(worker) and not worker.asked and worker.aborted_at is None:
        orders.abandon_reload(turn, text)
    elif event.report and worker.ready_at is None:
        turn.log_once(level, text, event.report)
    else:
        turn.log(level, text)
    if not turn.state.served and event.code in LASTING:
        turn.change(boot_status=event.code)
    if not worker.asked and _died_early(worker, turn.now):
        turn.change(backoff=turn.state.backoff.failed(worker.spawned_at, turn.now))


def _died_early(worker: Worker, now: float) -> bool:
    return worker.ready_at is None or now - worker.ready_at < STEADY


def _on_asked(turn: Turn, event: Asked) -> None:
    orders.obey(turn, event.order)


# Convergence: from the facts to what is wanted


def _converge(turn: Turn) -> None:
    if turn.state.stop is not None:
        if not turn.state.workers:
            _exit(turn, 0)
        return
    if turn.state.started and not turn.state.served and not turn.state.workers:
        status = turn.state.boot_status
        turn.log(logging.ERROR, f"no worker became ready: giving up with exit status {status}")
        _exit(turn, status)
        return
    if turn.state.reload_wanted and turn.state.served:
        orders.reload(turn)
    _dismiss(turn)
    _fill(turn)
    _announce(turn)


def _exit(turn: Turn, status: int) -> None:
    turn.actions.append(Exit(status))
    turn.change(exiting=True)


def _dismiss(turn: Turn) -> None:
    """Tell to go who is superseded or one too many."""
    target = turn.state.target
    for worker in turn.state.workers:
        if worker.is_booting and worker.generation != turn.state.generation:
            turn.tell_to_go(worker)
    fresh = [worker for worker in turn.state.workers if turn.is_fresh(worker)]
    for worker in _youngest_first(fresh)[: max(0, len(fresh) - target)]:
        turn.tell_to_go(worker)
    serving = turn.serving()
    replaceable = [worker for worker in serving if not turn.is_fresh(worker)]
    for worker in replaceable[: max(0, len(serving) - target)]:
        turn.tell_to_go(worker)


def _youngest_first(workers: Iterable[Worker]) -> list[Worker]:
    return sorted(workers, key=lambda worker: (worker.spawned_at, worker.slot), reverse=True)


def _fill(turn: Turn) -> None:
    """Spawn the fresh workers that are missing, as many as may boot at once."""
    state = turn.state
    if (state.started and not state.served) or not state.backoff.is_due(turn.now):
        return
    staying = sum(worker.is_staying for worker in state.workers)
    fresh = sum(turn.is_fresh(worker) for worker in state.workers)
    spare = max(SPARE, state.target // 4)
    count = min(state.target - fresh, state.target + spare - staying)
    if state.fallback is not None:
        count = min(count, 1 - fresh)
    if len(turn.serving()) >= state.target:
        # Nothing is urgent: workers that drain slowly must not pile up over repeated reloads.
        count = min(count, 2 * state.target + spare - len(state.workers))
    taken = {worker.slot for worker in state.workers}
    free = [slot for slot in range(state.limits.slots) if slot not in taken]
    new = tuple(Worker(slot, state.generation, turn.now) for slot in free[: max(0, count)])
    turn.actions.extend(Spawn(worker.slot, worker.generation) for worker in new)
    workers = sorted((*state.workers, *new), key=lambda worker: worker.slot)
    turn.change(workers=tuple(workers), started=True)


def _announce(turn: Turn) -> None:
    """Tell the service manager what changed: ready, reloaded, another number serves."""
    stage = None
    if not turn.state.announced:
        if len(turn.serving()) >= turn.state.target:
            turn.change(announced=True)
            stage = Stage.READY
            turn.log(logging.INFO, turn.status_line())
    elif turn.state.reloading and turn.state.fallback is None:
        staying = [worker for worker in turn.state.workers if worker.is_staying]
        renewed = len(staying) >= turn.state.target and all(
            worker.is_serving and worker.generation == turn.state.generation for worker in staying
        )
        if renewed and not any(
            _accepts_with_old_code(turn, worker) for worker in turn.state.workers
        ):
            turn.change(reloading=False)
            stage = Stage.READY
            turn.log(logging.INFO, f"reloaded: generation {turn.state.generation} serves")
    status = "reloading" if turn.state.reloading else turn.status_line()
    if stage is not None or status != turn.state.status:
        turn.actions.append(Notify(stage, status))
        turn.change(status=status)


def _accepts_with_old_code(turn: Turn, worker: Worker) -> bool:
    """Told to go or not: until it says that it drains, the old code may answer a new request."""
    return worker.generation != turn.state.generation and worker.seen in (
        WorkerState.READY,
        WorkerState.RETIRING,
    )


_ON: dict[type[Event], Callable[[Turn, Any], None]] = {
    Watch: _on_watch,
    Asked: _on_asked,
    Spawned: _on_spawned,
    SpawnFailed: _on_spawn_failed,
    Exited: _on_exited,
}
