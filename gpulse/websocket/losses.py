"""What a slow reader has lost, where its oldest messages are dropped.  Pure; made only while
something waits.

The client is told of it by one gap for each channel, when it reads again: see
:class:`~gpulse.websocket.outlet.Outlet`.  What a handler has sent belongs to no channel and is only
counted.
"""

from collections import deque

from gpulse.websocket.backlog import Backlog


class EventFrame(bytes):
    """A frame that tells of an event; one for all outlets of a form."""

    channel: str

    @classmethod
    def of(cls, frame: bytes, channel: str) -> "EventFrame":
        found = cls(frame)
        found.channel = channel
        return found


class DropBacklog(Backlog):
    """A backlog that knows which channels the pieces are of that wait.

    :param sent: the position behind which they begin.
    """

    __slots__ = ("_end", "_pieces", "_sent", "lost")

    def __init__(self, sent: int) -> None:
        super().__init__()
        self._pieces: deque[tuple[int, str]] = deque()  # bytes and channel of each
        self._sent = sent  # all pieces that are left begin behind it
        self._end = sent
        self.lost: dict[str, None] = {}
        """Channels that lost something, in the order in which they did."""

    def holds(self, end: int, piece: bytes, sent: int) -> None:
        """``piece`` waits, or what is left of it, up to position ``end``."""
        self._advance(sent)
        size = end - self._end
        if size > len(piece):  # behind what waited before the backlog was made
            self._pieces.append((size - len(piece), ""))
            size = len(piece)
        self._pieces.append((size, piece.channel if isinstance(piece, EventFrame) else ""))
        self._end = end

    def dropped(self, sent: int, count: int, size: int) -> None:
        """``count`` pieces behind the one under way, of ``size`` bytes, will not be sent."""
        self.shrank(size)
        self._end -= size
        self._advance(sent)
        pieces = self._pieces
        begun = pieces.popleft()
        for _ in range(count):
            _, channel = pieces.popleft()
            if channel:
                self.lost[channel] = None
        pieces.appendleft(begun)

    def take_lost(self) -> list[str]:
        """The channels that lost something since the last time."""
        lost, self.lost = self.lost, {}
        return list(lost)

    def _advance(self, sent: int) -> None:
        """Forget the pieces that are sent."""
        pieces = self._pieces
        while pieces and self._sent + pieces[0][0] <= sent:
            self._sent += pieces.popleft()[0]
