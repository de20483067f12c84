"""What presence is tested on: a store in memory that can lose its data, stall or be away."""

from typing import Any

from gpulse.errors import StoreError
from gpulse.store import MemoryStore
from gpulse.store.base import Held
from gpulse.store.presence import Presence


class FrailStore(MemoryStore):
    """A store in memory with a clock of the test that can be away, before or after it has acted."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.away = False
        self.loses_answers = False
        self.calls: list[str] = []
        super().__init__(clock=lambda: self.now)

    def restart(self) -> None:
        """Lose all data; subscribers stay, as after a reconnect."""
        subscribers, calls = self._subscribers, self.calls
        super().__init__(clock=lambda: self.now)
        self._subscribers, self.calls = subscribers, calls

    def _do(self, name: str, *arguments: Any) -> Any:
        self.calls.append(name)
        if self.away:
            raise StoreError("away")
        result = getattr(MemoryStore, name)(self, *arguments)
        if self.loses_answers:
            raise StoreError("timed out")
        return result

    def join(self, *arguments: Any) -> int:  # type: ignore[override]
        joined: int = self._do("join", *arguments)
        return joined

    def leave(self, *arguments: Any) -> int:  # type: ignore[override]
        left: int = self._do("leave", *arguments)
        return left

    def renew(self, *arguments: Any) -> Held:  # type: ignore[override]
        held: Held = self._do("renew", *arguments)
        return held

    def restore(self, *arguments: Any) -> None:  # type: ignore[override]
        self._do("restore", *arguments)

    def holdings(self, *arguments: Any) -> dict[tuple[str, str], int]:  # type: ignore[override]
        found: dict[tuple[str, str], int] = self._do("holdings", *arguments)
        return found

    def listen(self, channel: str) -> list[object]:
        """What is said on ``channel`` from now on."""
        said: list[object] = []
        subscriber = self.open_subscriber(lambda event: said.append(event.message))
        subscriber.subscribe(channel, lambda error: None)
        return said


def worker(store: FrailStore) -> Presence:
    return Presence(store, lambda fn: None)


def enter(presence: Presence, member: str) -> bool:
    return presence.join("room", member, hello=f"{member} joined", will=f"{member} gone")
