"""Keeps garbage collections from walking open sockets.

A full collection looks at every object that may be part of a cycle, some 30 for each open socket:
100 ms at 15,000 sockets, in which nothing else happens, and a storm of connects causes several.
Objects that are *frozen* are not looked at.  So each time that many sockets were opened, the young
objects are collected and all that is left is frozen; and each time that as many were closed, all is
thawed, so that a later full collection finds the garbage of theirs that forms cycles.

In a storm even a collection of the middle generation takes 2 ms, and finds little but new sockets.
There what a collection of the youngest leaves is frozen at once, and never looked at again.
"""

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpulse.websocket.sockets import Sockets

STEP = 1000
"""Sockets opened, or closed, between two looks."""

STORM = 100
"""Sockets opened between two collections of the middle generation that make a storm.  A socket is
some 30 of the 7,000 objects that cause such a collection."""


class Collector:
    """See the module's text; one per worker.

    :param sockets: their numbers are looked at.
    """

    def __init__(self, sockets: "Sockets") -> None:
        self._frozen_at = 0
        self._thawed_at = 0
        self._collected_at = 0

        self._sockets = sockets

    def start(self) -> None:
        """Have a look after each collection from now on."""
        gc.callbacks.append(self._collected)

    def stop(self) -> None:
        gc.callbacks.remove(self._collected)

    def tick(self) -> None:
        """Freeze or thaw if it is time."""
        opened = self._sockets.opened
        closed = opened - len(self._sockets.sessions)
        if closed - self._thawed_at >= STEP:
            self._thawed_at = closed
            gc.unfreeze()
        elif opened - self._frozen_at >= STEP:
            self._frozen_at = opened
            gc.collect(1)
            gc.freeze()

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        """From the interpreter, before and after each collection, on whatever thread it runs."""
        if phase != "stop":
            return
        opened = self._sockets.opened
        if info["generation"] == 0:
            if opened - self._collected_at < STORM:
                return
            gc.freeze()
        self._collected_at = opened
