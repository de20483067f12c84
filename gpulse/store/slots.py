"""The slots of a cluster: which key is whose.  Pure: replies in, answers out.

A cluster cuts its keys into 16,384 slots by a checksum of their hash tag, and each slot belongs to
one primary.  :class:`SlotMap` is what one node said of that at one time; a node that is asked for a
slot it does not own answers with a :class:`Redirect`.

Source: https://valkey.io/topics/cluster-spec/, https://valkey.io/commands/cluster-slots/
"""

import bisect
from binascii import crc_hqx
from collections.abc import Sequence
from typing import Any, NamedTuple

from gpulse.store.endpoint import Endpoint

SLOTS = 16384


def key_slot(key: bytes) -> int:
    """The slot of a key or sharded channel: CRC16 of what is between its first braces, if any."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


class Redirect(NamedTuple):
    """A node's answer to a command that another one must take."""

    ask: bool
    """True: only this command, after ASKING, for the slot is on its way there."""
    slot: int
    endpoint: Endpoint

    @classmethod
    def of(cls, error: str, told_by: Endpoint) -> "Redirect | None":
        """The redirection that an error reply holds, None if it is another error.

        :param told_by: the node that said it; it stands in for a host that it does not know.
        """
        words = error.split()
        if len(words) != 3 or words[0] not in ("MOVED", "ASK"):
            return None
        host, _, port = words[2].rpartition(":")
        if not (words[1].isdigit() and port.isdigit()):
            return None
        return cls(words[0] == "ASK", int(words[1]), Endpoint(host or told_by.host, int(port)))


class SlotMap:
    """Whose each slot is.

    :param ranges: first slot, last slot, primary; sorted, not overlapping.
    """

    __slots__ = ("_ranges", "_starts", "nodes", "primaries")

    def __init__(
        self, ranges: Sequence[tuple[int, int, Endpoint]] = (), nodes: Sequence[Endpoint] = ()
    ) -> None:
        self._ranges = sorted(ranges)
        self._starts = [first for first, _, _ in self._ranges]
        self.primaries = tuple(dict.fromkeys(primary for _, _, primary in self._ranges))
        """Each once."""
        self.nodes = tuple(dict.fromkeys((*self.primaries, *nodes)))
        """Replicas too: whoever may be asked for the next map."""

    def __eq__(self, other: object) -> bool:
        """Whether every slot has the same owner; replicas do not count."""
        return isinstance(other, SlotMap) and self._ranges == other._ranges

    __hash__ = None  # type: ignore[assignment]

    def owner(self, slot: int) -> Endpoint | None:
        """The primary of ``slot``; None if nobody serves it."""
        index = bisect.bisect_right(self._starts, slot) - 1
        if index < 0:
            return None
        _, last, primary = self._ranges[index]
        return primary if slot <= last else None

    def with_slot(self, slot: int, primary: Endpoint) -> "SlotMap":
        """This map after one slot moved."""
        ranges: list[tuple[int, int, Endpoint]] = []
        for first, last, owner in self._ranges:
            if not first <= slot <= last:
                ranges.append((first, last, owner))
                continue
            if first < slot:
                ranges.append((first, slot - 1, owner))
            if slot < last:
                ranges.append((slot + 1, last, owner))
        return SlotMap([*ranges, (slot, slot, primary)], self.nodes)

    @classmethod
    def of(cls, reply: Any, told_by: Endpoint) -> "SlotMap":
        """The map that a reply to ``CLUSTER SLOTS`` holds.

        :raises ValueError: it holds none.
        """
        ranges: list[tuple[int, int, Endpoint]] = []
        nodes: list[Endpoint] = []
        try:
            for first, last, *members in reply:
                endpoints = [_endpoint(member, told_by) for member in members]
                ranges.append((int(first), int(last), endpoints[0]))
                nodes.extend(endpoints)
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise ValueError(f"its answer to CLUSTER SLOTS cannot be read ({error})") from None
        if not ranges:
            raise ValueError("its cluster serves no slot")
        return cls(ranges, nodes)


def _endpoint(member: Any, told_by: Endpoint) -> Endpoint:
    # A node that does not know its own address says so with nothing, "" or "?".
    host = (member[0] or b"").decode()
    return Endpoint(told_by.host if host in ("", "?") else host, int(member[1]))
