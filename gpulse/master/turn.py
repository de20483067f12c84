"""One call of the policy under way: the state so far and the actions so far.  Pure.

Only ``policy.decide`` makes one; the helpers here name the questions that its rules ask.
"""

import logging
from dataclasses import replace
from signal import Signals
from typing import Any

from gpulse.master.facts import Action, Log, Send, State, Worker
from gpulse.scoreboard import WorkerState

REPORTS_KEPT = 16
"""Boot reports remembered so as not to log them again."""


class Turn:
    """The facts and the decisions of one call of decide, while it runs."""

    __slots__ = ("actions", "now", "state")

    def __init__(self, state: State, now: float) -> None:
        self.state = state
        self.now = now
        self.actions: list[Action] = []

    def change(self, **fields: Any) -> None:
        self.state = replace(self.state, **fields)

    def worker(self, slot: int) -> Worker | None:
        return next((worker for worker in self.state.workers if worker.slot == slot), None)

    def change_worker(self, worker: Worker, **fields: Any) -> Worker:
        # From the worker as it is now: an earlier step of this turn may have changed it.
        changed = replace(self.worker(worker.slot) or worker, **fields)
        self.change(
            workers=tuple(changed if old.slot == worker.slot else old for old in self.state.workers)
        )
        return changed

    def drop(self, worker: Worker) -> None:
        self.change(workers=tuple(old for old in self.state.workers if old.slot != worker.slot))

    def log(self, level: int, text: str) -> None:
        self.actions.append(Log(level, text))

    def send(self, worker: Worker, signal: Signals) -> None:
        self.actions.append(Send(worker.slot, signal))

    def tell_to_go(self, worker: Worker, signal: Signals = Signals.SIGTERM) -> None:
        self.send(worker, signal)
        self.change_worker(worker, asked=True, leaving_at=self.now)

    def is_fresh(self, worker: Worker) -> bool:
        return (
            worker.is_staying
            and worker.generation == self.state.generation
            and worker.seen is not WorkerState.RETIRING
        )

    def is_canary(self, worker: Worker) -> bool:
        return (
            self.state.fallback is not None
            and worker.generation == self.state.generation
            and worker.ready_at is None
        )

    def serving(self) -> list[Worker]:
        return [worker for worker in self.state.workers if worker.is_serving]

    def log_once(self, level: int, text: str, cause: str) -> None:
        """Log the first death of each cause at ``level``, the same cause again for debugging."""
        if cause in self.state.logged:
            self.log(logging.DEBUG, text)
            return
        self.change(logged=(*self.state.logged, cause)[-REPORTS_KEPT:])
        self.log(level, text)

    def status_line(self) -> str:
        """What a service manager shows of the site."""
        serving = len(self.serving())
        verb = "serves" if serving == 1 else "serve"
        return f"{serving} of {self.state.target} {plural('worker', self.state.target)} {verb}"


def plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"
