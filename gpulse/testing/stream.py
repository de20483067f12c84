"""A client of an event stream for tests, as a browser's ``EventSource``; see
:class:`~gpulse.testing.client.WebSocketClient`, with which it shares the site and the store."""

import json
from collections import deque
from typing import Any, NamedTuple

from gpulse.testing.parked import ParkedClient, shown


class StreamEvent(NamedTuple):
    """One event."""

    data: str
    event: str
    """Its type; "message" where the server names none."""
    id: str
    """The newest id so far: what a browser would send as Last-Event-ID."""


class EventStreamClient(ParkedClient):
    """A client of one event stream, open inside its ``with``.

    ::

        with EventStreamClient("/news/events") as stream:
            gpulse.publish("news", "rain")
            assert stream.receive().data == "rain"

    A client that comes back is another with ``headers={"Last-Event-ID": stream.last_id}``, inside
    one :class:`~gpulse.testing.inline.InlineWorker`.

    :param options: of :class:`~gpulse.testing.parked.ParkedClient`.
    """

    status = 200

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(path, **options)
        self.last_id = ""
        """The newest id."""
        self.comments = 0
        """Comments that came: signs of life."""
        self._inbox: deque[StreamEvent] = deque()
        self._got = 0

    @property
    def is_open(self) -> bool:
        """Events can come."""
        return self._connection is not None and not self._connection.lost

    @property
    def received(self) -> list[StreamEvent]:
        """All events that wait; they do not wait any more."""
        self._run()
        found = list(self._inbox)
        self._got += len(found)
        self._inbox.clear()
        return found

    def receive(self) -> StreamEvent:
        """The next event.

        :raises AssertionError: none waits.
        """
        self._run()
        assert self._inbox, f"{self}: no event waits"
        self._got += 1
        return self._inbox.popleft()

    def receive_json(self) -> Any:
        """The value of the next event's data, which are JSON.

        :raises AssertionError: none waits, or it is not JSON.
        """
        data = self.receive().data
        try:
            return json.loads(data)
        except ValueError as error:
            raise AssertionError(f"{self}: {shown(data)} is not JSON: {error}") from None

    def _request_headers(self) -> dict[str, str | None]:
        return {"accept": "text/event-stream"}

    def read(self) -> bool:
        self._take_in()
        while (end := self._buffer.find(b"\n\n")) >= 0:
            lines = self._buffer[:end].decode().split("\n")
            del self._buffer[: end + 2]
            self._took(lines)
        return False

    def _took(self, lines: list[str]) -> None:
        """One block of lines (HTML, 9.2.6)."""
        data: list[str] = []
        kind = "message"
        for line in lines:
            field, _, text = line.partition(":")
            text = text.removeprefix(" ")
            if not field:
                self.comments += 1
            elif field == "data":
                data.append(text)
            elif field == "event":
                kind = text
            elif field == "id":
                self.last_id = text
        if data:
            self._inbox.append(StreamEvent("\n".join(data), kind, self.last_id))

    def __str__(self) -> str:
        """What a failure has to tell."""
        if self.response is None:
            state = "not opened yet"
        elif self._connection is None:
            state = self._refusal()
        else:
            state = "open" if self.is_open else "ended"
        return f"{self._title()}, {state}, {self._got} received"
