"""Positions of messages in a channel's history.  Pure.

A *position* is an epoch and an offset.  The offsets of a channel's messages are 1, 2, 3 ...; a new
epoch says that somebody else counts.  Either the count had to start anew, so that nothing is known
of what lies between it and the one before; or another server took over a copy and counts on from
where that ends, and then the :class:`Head` says up to which offset the epoch before holds.  What
that one counted beyond it nobody has any more, and its positions are refused.
"""

import re
from typing import NamedTuple, Self

_POSITION = re.compile(r"([a-z0-9]{1,16})-(0|[1-9][0-9]{0,18})")


class Position(NamedTuple):
    """A place in a channel's history."""

    epoch: str
    """1 to 16 of a-z and 0-9."""
    offset: int
    """0 before the first message."""

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``EPOCH-OFFSET``.

        :raises ValueError: it is not that.
        """
        found = _POSITION.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r:.60} is not a position (EPOCH-OFFSET)")
        return cls(found[1], int(found[2]))


class Head(NamedTuple):
    """How far a channel's history goes, and what it came from."""

    newest: Position
    """Of the newest message."""
    earlier: tuple[Position, ...] = ()
    """The last position of each epoch that this one continues, the latest first."""

    def distance_from(self, since: Position | None) -> int | None:
        """How many messages came after ``since``; None if that cannot be known."""
        if since is None:
            return None
        for last in (self.newest, *self.earlier):
            if last.epoch == since.epoch:
                return None if since.offset > last.offset else self.newest.offset - since.offset
        return None

    def at(self, offset: int) -> Position:
        """The position of the message with this offset, if its epoch is not forgotten."""
        epoch = self.newest.epoch
        for last in self.earlier:
            if offset > last.offset:
                break
            epoch = last.epoch
        return Position(epoch, offset)
