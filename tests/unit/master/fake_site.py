"""A fake site for the policy: a clock, a scoreboard and processes that only exist as numbers."""

import logging
from collections.abc import Callable

from gpulse.master import policy
from gpulse.master.facts import (
    Action,
    Asked,
    Event,
    Exit,
    Exited,
    Limits,
    Log,
    Notify,
    Order,
    Send,
    Spawn,
    Spawned,
    SpawnFailed,
    State,
    Watch,
    Worker,
)
from gpulse.scoreboard import Row, WorkerState

BOOTING, READY = WorkerState.BOOTING, WorkerState.READY
RETIRING, DRAINING = WorkerState.RETIRING, WorkerState.DRAINING


class Site:
    """Carries out the policy's actions on paper and remembers them all."""

    def __init__(self, workers: int = 2, **limits: float) -> None:
        self.state: State = policy.initial(Limits(**limits), workers)  # type: ignore[arg-type]
        self.now = 100.0
        self.rows: dict[int, Row] = {}
        self.ticking: set[int] = set()
        self.actions: list[Action] = []
        self.can_fork = True
        self._next_pid = 1000

    def feed(self, event: Event) -> list[Action]:
        """The actions that came of one event and of carrying them out."""
        before = len(self.actions)
        events = [event]
        while events:
            self.state, actions = policy.decide(self.state, events.pop(0), self.now)
            for action in actions:
                self.actions.append(action)
                if isinstance(action, Spawn):
                    events.append(self._fork(action))
        return self.actions[before:]

    def _fork(self, action: Spawn) -> Event:
        if not self.can_fork:
            return SpawnFailed(action.slot, "Cannot allocate memory")
        self._next_pid += 1
        self.rows[action.slot] = Row(self._next_pid, BOOTING, self.now)
        self.ticking.add(action.slot)
        return Spawned(action.slot, self._next_pid)

    def watch(self) -> list[Action]:
        for slot in self.ticking & self.rows.keys():
            row = self.rows[slot]
            self.rows[slot] = Row(row.pid, row.state, self.now)
        return self.feed(Watch(tuple(self.rows.items())))

    def after(self, seconds: float) -> list[Action]:
        """Let time pass as the master does, a look each second at most; returns all actions."""
        before = len(self.actions)
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            self.watch()
        return self.actions[before:]

    def says(self, slot: int, state: WorkerState) -> list[Action]:
        """The worker of ``slot`` writes its state; the master looks."""
        row = self.rows[slot]
        self.rows[slot] = Row(row.pid, state, self.now)
        return self.watch()

    def exits(self, slot: int, code: int = 0, report: str = "") -> list[Action]:
        self.rows.pop(slot, None)
        self.ticking.discard(slot)
        return self.feed(Exited(slot, code, report))

    def asks(self, order: Order) -> list[Action]:
        return self.feed(Asked(order))

    def boot(self) -> "Site":
        """Spawn all workers and make them ready."""
        self.watch()
        for slot in list(self.rows):
            self.says(slot, READY)
        return self

    def worker(self, slot: int) -> Worker:
        return next(worker for worker in self.state.workers if worker.slot == slot)

    def where(self, wanted: Callable[[Worker], bool]) -> list[int]:
        return [worker.slot for worker in self.state.workers if wanted(worker)]

    @property
    def slots(self) -> list[int]:
        return [worker.slot for worker in self.state.workers]


def spawns(actions: list[Action]) -> list[int]:
    return [action.slot for action in actions if isinstance(action, Spawn)]


def sent(actions: list[Action]) -> list[tuple[int, str]]:
    return [(a.slot, a.signal.name.removeprefix("SIG")) for a in actions if isinstance(a, Send)]


def exit_status(actions: list[Action]) -> int | None:
    return next((action.status for action in actions if isinstance(action, Exit)), None)


def stages(actions: list[Action]) -> list[str]:
    return [a.stage.value for a in actions if isinstance(a, Notify) and a.stage is not None]


def lines(actions: list[Action], level: int = logging.INFO) -> list[str]:
    return [a.text for a in actions if isinstance(a, Log) and a.level >= level]
