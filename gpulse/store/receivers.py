"""What listens to channels: how it is called, and the set of those that get each event.  Pure."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gpulse.errors import SubscribeError

if TYPE_CHECKING:
    from gpulse.store.message import Event


class Subscribed(NamedTuple):
    """What a receiver learns when it was added to a channel."""

    position: str | None
    """Of the channel's newest message; None: it has no history."""
    recovered: bool | None
    """Whether it gets all that it missed; None: it has not said what it knows, or nothing is
    kept."""
    missed: int
    """Events of the past that it gets now."""


Done = Callable[[Subscribed | SubscribeError], None]


class Receiver(Protocol):
    """What listens to channels: a WebSocket session, an event stream.  Hashable by identity."""

    def deliver(self, event: "Event") -> None:
        """Take one event; on the hub's thread, without blocking."""

    def gap(self, channel: str, position: str | None) -> None:
        """Messages of the channel were lost; it goes on behind ``position``."""


class Counts:
    """What all tracks of a worker count."""

    __slots__ = ("duplicates", "gaps", "missed", "recovered")

    def __init__(self) -> None:
        self.duplicates = 0
        """Events that had come before."""
        self.gaps = 0
        """Receivers told of a gap."""
        self.missed = 0
        """Events of the past handed to receivers."""
        self.recovered = 0
        """Holes of this worker that the history filled."""


class Receivers:
    """Those that get each event of a channel."""

    __slots__ = ("_all", "_fixed")

    def __init__(self) -> None:
        self._all: dict[Receiver, None] = {}
        self._fixed: tuple[Receiver, ...] | None = None  # as long as nobody comes or goes

    def __contains__(self, receiver: object) -> bool:
        return receiver in self._all

    def __bool__(self) -> bool:
        return bool(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Receiver]:
        return iter(tuple(self._all))

    def add(self, receiver: Receiver) -> None:
        self._all[receiver] = None
        self._fixed = None

    def discard(self, receiver: Receiver) -> bool:
        """True if it was there."""
        if receiver not in self._all:
            return False
        del self._all[receiver]
        self._fixed = None
        return True

    def hand_out(self, event: "Event", failed: Callable[[Receiver], None]) -> int:
        """Deliver to all; how many took it.

        A receiver that raises is told to ``failed``; one that another one's delivery takes away
        gets nothing more.
        """
        fixed = self._fixed
        if fixed is None:
            fixed = self._fixed = tuple(self._all)
        count = len(fixed)
        for receiver in fixed:
            if self._fixed is not fixed and receiver not in self._all:
                count -= 1
                continue
            try:
                receiver.deliver(event)
            except Exception:
                count -= 1
                failed(receiver)
        return count
