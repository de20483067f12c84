"""What the supervision policy knows, is told and asks for: states, events, actions.

Plain frozen values, no behaviour beyond predicates; ``policy.decide`` is the only producer of new
states.  Times are ``time.monotonic()`` seconds, states of workers are those of the scoreboard.
"""

import enum
from dataclasses import dataclass, field
from signal import Signals

from gpulse.errors import BootError
from gpulse.master.backoff import Backoff
from gpulse.scoreboard import SLOTS, Row, WorkerState


class Order(enum.Enum):
    """What somebody may ask of the master; ``signals.TABLE`` maps signals to these."""

    STOP = "stop"
    QUICK_STOP = "quick stop"
    RELOAD = "reload"
    MORE = "one worker more"
    FEWER = "one worker fewer"
    REOPEN = "reopen logs"


@dataclass(frozen=True, slots=True)
class Limits:
    """The options that the policy obeys.  Seconds; 0 turns ``timeout`` and ``boot_timeout`` off."""

    timeout: float = 30.0
    graceful_timeout: float = 30.0
    boot_timeout: float = 60.0
    slots: int = SLOTS


@dataclass(frozen=True, slots=True)
class Worker:
    """One living (or not yet reaped) worker."""

    slot: int
    generation: int
    spawned_at: float
    pid: int = 0
    """0 between the decision to spawn and the fork."""
    seen: WorkerState = WorkerState.BOOTING
    """The state last read from the scoreboard."""
    tick: float = 0.0
    ready_at: float | None = None
    asked: bool = False
    """Whether the master told it to go (TERM or INT)."""
    leaving_at: float | None = None
    """Since when it is on its way out, asked or by itself."""
    aborted_at: float | None = None
    """When it was sent SIGABRT for a missed deadline."""
    killed: bool = False
    """Whether the master sent SIGKILL."""
    owes_reopen: bool = False
    """Whether USR1 came while it was booting and must be passed on when it is ready."""

    @property
    def is_staying(self) -> bool:
        """Whether nothing has been done yet to be rid of it."""
        return self.leaving_at is None and self.aborted_at is None and not self.killed

    @property
    def is_booting(self) -> bool:
        """Whether it stays and has yet to become ready."""
        return self.is_staying and self.ready_at is None

    @property
    def is_serving(self) -> bool:
        """Whether it stays and accepts connections, perhaps asking for a replacement."""
        return self.is_staying and self.ready_at is not None

    @property
    def name(self) -> str:
        """How log lines call it."""
        return f"worker {self.slot} (pid {self.pid})"


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop under way."""

    quick: bool
    since: float


@dataclass(frozen=True, slots=True)
class State:
    """All that the policy remembers between two events."""

    limits: Limits
    target: int
    """Workers wanted, 1..slots/2."""
    workers: tuple[Worker, ...] = ()
    """In the order of their slots."""
    started: bool = False
    """Whether the first workers have been spawned."""
    served: bool = False
    """Whether any worker was ever ready; before that nothing is respawned."""
    announced: bool = False
    """Whether the service manager was told READY."""
    boot_status: int = BootError.exit_status
    """Exit status if no worker ever becomes ready."""
    generation: int = 1
    """What is spawned; workers of an older one are stale and get replaced."""
    newest: int = 1
    """The highest generation ever given; an abandoned number is not given again."""
    fallback: int | None = None
    """During a reload, until its first worker is ready: the generation that goes on serving."""
    reloading: bool = False
    reload_wanted: bool = False
    """HUP came before any worker was ready: reload as soon as one is."""
    backoff: Backoff = field(default_factory=Backoff)
    logged: tuple[str, ...] = ()
    """Boot reports already logged, so that N workers with one fault make one line; at most 16."""
    watched_at: float | None = None
    awake_since: float = float("-inf")
    """When the master last found that it had been asleep itself (SIGSTOP); ages count from here."""
    stop: Stop | None = None
    status: str = ""
    """The line last given to the service manager."""
    exiting: bool = False
    """Whether Exit was decided: nothing is decided any more."""


# Events: what happened.


@dataclass(frozen=True, slots=True)
class Watch:
    """Time passed; this is what the scoreboard shows.  The first one spawns the first workers."""

    rows: tuple[tuple[int, Row], ...] = ()
    """(slot, row), at least for the slots of living workers."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A signal asked for something."""

    order: Order


@dataclass(frozen=True, slots=True)
class Spawned:
    """The fork for ``slot`` worked."""

    slot: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The fork for ``slot`` failed; ``reason`` is the system's."""

    slot: int
    reason: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The worker of ``slot`` was reaped."""

    slot: int
    code: int
    """Exit status, or the negative number of the signal that ended it."""
    report: str = ""
    """What it said of its failed boot, one line or empty."""


Event = Watch | Asked | Spawned | SpawnFailed | Exited


# Actions: what to do about it, in order.


@dataclass(frozen=True, slots=True)
class Spawn:
    """Clear the slot's row, fork a worker into it, and answer Spawned or SpawnFailed."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send a signal to the worker of ``slot``."""

    slot: int
    signal: Signals


@dataclass(frozen=True, slots=True)
class Log:
    """Log one line; ``level`` is logging's number."""

    level: int
    text: str


class Stage(enum.Enum):
    """What a service manager wants to know."""

    READY = "ready"
    RELOADING = "reloading"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell the service manager; ``stage`` is None where only the status line changed."""

    stage: Stage | None
    status: str


@dataclass(frozen=True, slots=True)
class CloseListeners:
    """Close the master's listeners, so that no connection queues up where nobody will accept."""


@dataclass(frozen=True, slots=True)
class Exit:
    """Leave with this status; no worker is left."""

    status: int


Action = Spawn | Send | Log | Notify | CloseListeners | Exit
