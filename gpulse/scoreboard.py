"""The scoreboard: one anonymous shared mapping, one row of numbers per slot.

The master makes it before the first fork and reads it; each worker writes only the row of its own
slot.  There is no lock: every cell is one aligned 8-byte double, written whole, and no decision
needs two cells to agree.  A counter only grows while a worker lives; a gauge goes up and down.

Every process inherits the mapping over fork; nothing is ever unlinked or reopened.
"""

import enum
import mmap
from dataclasses import dataclass

SLOTS = 1024
"""Rows in the board.  A reload needs twice the number of workers for a while, so ``--workers`` is
at most half of this."""


class WorkerState(enum.IntEnum):
    """What a worker last said of itself."""

    EMPTY = 0
    """No worker uses the slot."""
    BOOTING = 1
    """Forked; importing the application."""
    READY = 2
    """Accepting connections."""
    RETIRING = 3
    """Still accepting, but asks for a replacement (``--max-requests`` reached)."""
    DRAINING = 4
    """No longer accepting; finishing what it has."""


class Cell(enum.IntEnum):
    """The cells of a row, in order.  Names ending in ``_total`` are counters, the rest gauges."""

    PID = 0
    STATE = 1
    TICK = 2
    """``time.monotonic()`` of the hub's last tick: a blocked hub stops writing it."""
    CONNECTIONS = 3
    WEBSOCKETS = 4
    BUSY = 5
    """Pool members running a request or a handler."""
    QUEUED = 6
    """Requests that wait for a pool member."""
    REQUESTS_TOTAL = 7
    REFUSED_TOTAL = 8
    """Requests answered 503 because the queue was full or its deadline passed."""
    MESSAGES_IN_TOTAL = 9
    DELIVERIES_TOTAL = 10
    SLOW_CLOSED_TOTAL = 11
    """WebSockets closed because the client read too slowly."""
    LOG_DROPPED_TOTAL = 12
    GREENLETS = 13
    """Greenlets (or native threads) alive in the pool."""


ROW = 16
_DOUBLE = 8


@dataclass(frozen=True, slots=True)
class Row:
    """A copy of what one slot showed at one moment."""

    pid: int
    state: WorkerState
    tick: float


class SlotBoard:
    """The writing side of one slot: what a worker holds."""

    __slots__ = ("_base", "_cells", "slot")

    def __init__(self, cells: "memoryview[float]", slot: int) -> None:
        self._cells = cells
        self._base = slot * ROW
        self.slot = slot

    def set(self, cell: Cell, value: float) -> None:
        self._cells[self._base + cell] = value

    def add(self, cell: Cell, amount: float = 1.0) -> None:
        self._cells[self._base + cell] += amount

    def get(self, cell: Cell) -> float:
        value: float = self._cells[self._base + cell]
        return value


class Scoreboard:
    """All slots; the master's side.

    :param slots: the number of rows; each takes 128 bytes.
    """

    def __init__(self, slots: int = SLOTS) -> None:
        self.slots = slots
        self._memory = mmap.mmap(-1, slots * ROW * _DOUBLE)
        self._cells: memoryview[float] = memoryview(self._memory).cast("d")

    def slot(self, slot: int) -> SlotBoard:
        """The writing side of ``slot`` (0 <= slot < slots)."""
        if not 0 <= slot < self.slots:
            raise IndexError(f"slot {slot} is not in 0..{self.slots - 1}")
        return SlotBoard(self._cells, slot)

    def clear(self, slot: int) -> None:
        """Empty the row before its slot is given to a new worker."""
        base = slot * ROW
        for cell in range(base, base + ROW):
            self._cells[cell] = 0.0

    def read(self, slot: int) -> Row:
        """What the slot shows now."""
        base = slot * ROW
        return Row(
            pid=int(self._cells[base + Cell.PID]),
            state=WorkerState(int(self._cells[base + Cell.STATE])),
            tick=self._cells[base + Cell.TICK],
        )

    def cells(self, slot: int) -> dict[str, float]:
        """Every cell of the slot by its lower-case name."""
        base = slot * ROW
        return {cell.name.lower(): self._cells[base + cell] for cell in Cell}
