"""A hub's loop and a socket that a test drives by hand, for connections without a hub."""

from collections.abc import Callable
from typing import Any

READ, WRITE = 1, 2


class FakeWatcher:
    """Calls back when the test says that the descriptor is ready."""

    def __init__(self, loop: "FakeLoop", events: int) -> None:
        self.loop = loop
        self.events = events
        self.callback: Callable[[], None] | None = None
        self.closed = False
        loop.watchers.append(self)

    def start(self, callback: Callable[[], None]) -> None:
        assert not self.closed, "a closed watcher was started"
        self.callback = callback

    def stop(self) -> None:
        self.callback = None

    def close(self) -> None:
        self.stop()
        self.closed = True
        self.loop.watchers.remove(self)


class FakeLoop:
    """As much of gevent's loop as a connection uses."""

    def __init__(self) -> None:
        self.watchers: list[FakeWatcher] = []
        self.callbacks: list[Callable[[], None]] = []

    def run_callback(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def end_turn(self) -> None:
        """Call what is to be called before the loop looks for events again."""
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()

    def io(self, fd: int, events: int) -> FakeWatcher:
        assert fd >= 0
        return FakeWatcher(self, events)

    def fire(self, events: int) -> bool:
        """Call the watcher for these events; False if none is started."""
        for watcher in self.watchers:
            if watcher.events == events and watcher.callback is not None:
                watcher.callback()
                return True
        return False

    def readable(self) -> bool:
        return self.fire(READ)

    def writable(self) -> bool:
        return self.fire(WRITE)


class FakeSocket:
    """A non-blocking socket: ``room`` bytes are taken, ``incoming`` is what recv returns or
    raises."""

    def __init__(self, room: float = float("inf")) -> None:
        self.room = room
        self.sent = b""
        self.sends = 0
        self.incoming: list[bytes | OSError] = []
        self.error: OSError | None = None
        self.shut = False
        self.closed = 0

    def fileno(self) -> int:
        return -1 if self.closed else 7

    def recv(self, size: int) -> bytes:
        assert not self.closed, "a closed socket was read"
        if not self.incoming:
            raise BlockingIOError
        item = self.incoming.pop(0)
        if isinstance(item, OSError):
            raise item
        assert len(item) <= size
        return item

    def send(self, data: Any) -> int:
        assert not self.closed, "a closed socket was written to"
        self.sends += 1
        if self.error is not None:
            raise self.error
        if self.room <= 0:
            raise BlockingIOError
        taken = int(min(self.room, len(data)))
        self.sent += bytes(data[:taken])
        self.room -= taken
        return taken

    def shutdown(self, how: int) -> None:
        if self.error is not None:
            raise self.error
        self.shut = True

    def close(self) -> None:
        self.closed += 1
