"""Commands to a cluster: each to the primary that owns its key's slot.

The map of the slots is what some node said (:mod:`gpulse.store.slots`), and it may be old.  A node
that is asked in vain says where to go, and it is believed:

- ``MOVED``: the slot is another one's for good.  The map learns that and is fetched anew soon.
- ``ASK``: the slot is on its way and this key is there already.  This command goes there, once.
- ``TRYAGAIN``, ``CLUSTERDOWN``: keys are between two nodes, or nobody has the slot.  The command
  waits for a moment and goes again.

None of these was executed, so sending again is no repetition; all of it ends at ``ANSWER`` seconds,
and then the last answer is the caller's.  Only a script that a node does not know goes there again
in full, once, even later.  A node that does not answer fails the call at once, as a single server
would: nobody knows what it did.  The map is fetched anew then, from any node that answers, so that
the calls after a failover find the new primary.

Each node has its pipelines and its own circuit: calls for the other slots do not notice that one
node is dead.

Source: https://valkey.io/topics/cluster-spec/
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from gpulse.store.base import ANSWER
from gpulse.store.commands import (
    Command,
    Word,
    is_unknown_script,
    lane_of,
    pack_words,
    tail_of,
)
from gpulse.store.endpoint import Endpoint
from gpulse.store.ledger import pack
from gpulse.store.link import NATIVE, AwayError, Dialer
from gpulse.store.pipeline import Lines, Pipeline
from gpulse.store.route import FixedRoute
from gpulse.store.slots import Redirect, SlotMap, key_slot
from gpulse.storeurl import StoreURL

REFRESH = 0.1
"""Seconds at least between two fetches of the map."""
MOST_TURNS = 10
"""How often one command is sent on."""
MOMENT = 0.02
"""Seconds before a command that came too early goes again."""
LATER = ("TRYAGAIN", "CLUSTERDOWN")
"""Errors of a command that was not executed and may be soon."""
ASKING = pack(b"ASKING")
CLUSTER_SLOTS = pack(b"CLUSTER", b"SLOTS")


class ClusterCommands:
    """Commands to the cluster of ``url``."""

    sharded = True

    def __init__(self, url: StoreURL, clock: Callable[[], float] = time.monotonic) -> None:
        self._seeds = [Endpoint(host, port) for host, port in url.nodes]
        self._map = SlotMap()
        self._old = True
        self._next_fetch = 0.0
        self._lines: dict[tuple[Endpoint, str], Lines] = {}
        self._url = url
        self._dialer = Dialer(url, NATIVE)
        self._clock = clock

    def run(self, commands: Sequence[Command], *, bulk: bool = False) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        # Position of each open command -> where it was sent on to (None: by the map), with ASKING.
        todo: dict[int, tuple[Endpoint | None, bool]] = dict.fromkeys(
            range(len(commands)), (None, False)
        )
        in_full: set[int] = set()
        lane = lane_of(commands, bulk)
        deadline = self._clock() + ANSWER
        for _ in range(MOST_TURNS):
            for index, reply in self._turn(commands, todo, in_full, lane).items():
                replies[index] = reply
            known = len(in_full)
            todo, wait = self._to_repeat(replies, todo, in_full)
            # A script that a node does not know goes again at once, as to a single server, however
            # long the connections took: it is the first call there, and the node has answered.
            if not todo or (len(in_full) == known and self._clock() > deadline):
                break
            if wait:
                time.sleep(MOMENT)
        return replies

    def everywhere(self, words: tuple[Word, ...]) -> list[Any]:
        self._refresh()
        packed = pack_words(words)
        return [self._line(node, "bulk").call(packed)[0] for node in self._map.primaries]

    def reset(self) -> None:
        self._old = True

    def close(self) -> None:
        for lines in list(self._lines.values()):
            lines.close()

    def _turn(
        self,
        commands: Sequence[Command],
        todo: dict[int, tuple[Endpoint | None, bool]],
        in_full: set[int],
        lane: str,
    ) -> dict[int, Any]:
        """Send each open command to its node, one batch per node; the replies by position."""
        self._refresh()
        batches: dict[Endpoint, list[int]] = {}
        replies: dict[int, Any] = {}
        for index, (endpoint, _) in todo.items():
            owner = endpoint or self._map.owner(key_slot(commands[index].key))
            if owner is None:
                self._old = True
                replies[index] = hiredis.ReplyError("CLUSTERDOWN no node has the slot")
            else:
                batches.setdefault(owner, []).append(index)
        for node, indices in batches.items():
            data, count = [], 0
            for index in indices:
                if todo[index][1]:
                    data.append(ASKING)
                    count += 1
                data.append(commands[index].pack(in_full=index in in_full))
                count += 1
            try:
                found = iter(self._line(node, lane).call(b"".join(data), count))
            except AwayError as failure:
                self._old = True
                raise AwayError(f"{node}: {failure}") from None
            for index in indices:
                if todo[index][1]:
                    next(found)
                replies[index] = self._told(commands[index].reply(found), node)
        return replies

    @staticmethod
    def _told(reply: Any, node: Endpoint) -> Any:
        """A redirection instead of the error that says so."""
        if not isinstance(reply, hiredis.ReplyError):
            return reply
        return Redirect.of(str(reply), node) or reply

    def _to_repeat(
        self,
        replies: list[Any],
        sent: dict[int, tuple[Endpoint | None, bool]],
        in_full: set[int],
    ) -> tuple[dict[int, tuple[Endpoint | None, bool]], bool]:
        """What has to be sent again and where to, and whether that had better wait for a moment."""
        todo: dict[int, tuple[Endpoint | None, bool]] = {}
        wait = False
        for index, where in sent.items():
            reply = replies[index]
            if isinstance(reply, Redirect):
                if not reply.ask:
                    self._map = self._map.with_slot(reply.slot, reply.endpoint)
                    self._old = True
                todo[index] = (reply.endpoint, reply.ask)
                word = "ASK" if reply.ask else "MOVED"
                replies[index] = hiredis.ReplyError(f"{word} {reply.slot} {reply.endpoint}")
            elif is_unknown_script(reply):
                in_full.add(index)
                todo[index] = where
            elif isinstance(reply, hiredis.ReplyError) and str(reply).startswith(LATER):
                wait = self._old = True
                todo[index] = (None, False)
        return todo, wait

    def _line(self, node: Endpoint, lane: str) -> Pipeline:
        lines = self._lines.get((node, lane))
        if lines is None:
            route = FixedRoute(self._url, self._dialer, node)
            tail = tail_of(lane, self._url)
            lines = self._lines.setdefault((node, lane), Lines(lambda: Pipeline(route, tail=tail)))
        return lines.get()

    def _refresh(self) -> None:
        """Fetch the map if it is old; go on with the old one if that fails.

        :raises AwayError: there is none at all.
        """
        now = self._clock()
        if not self._old or (self._map.nodes and now < self._next_fetch):
            return
        self._next_fetch = now + REFRESH
        reasons = []
        nodes = dict.fromkeys((*self._map.nodes, *self._seeds))
        # Those that were not found away a moment ago come first.
        for node in sorted(
            nodes, key=lambda node: self._line(node, "short").circuit.cause is not None
        ):
            try:
                reply = self._line(node, "short").call(CLUSTER_SLOTS)[0]
                if isinstance(reply, hiredis.ReplyError):
                    raise AwayError(str(reply))
                self._map = SlotMap.of(reply, node)
                self._old = False
                self._forget(self._map.nodes)
                return
            except (AwayError, ValueError) as failure:
                reasons.append(f"{node}: {failure}")
            if self._clock() - now > ANSWER:
                break
        if not self._map.nodes:
            raise AwayError("; ".join(reasons))

    def _forget(self, nodes: Sequence[Endpoint]) -> None:
        """Close the connections to nodes that left."""
        for node, lane in list(self._lines):
            if node not in nodes and node not in self._seeds:
                self._lines.pop((node, lane)).close()
