"""Keeps full garbage collections from walking open sockets.

A full collection looks at every object that may be part of a cycle, some 30 for each open socket:
100 ms at 15,000 sockets, in which nothing else happens, and a storm of connects causes several.
Objects that are *frozen* are not looked at.  So each time that many sockets were opened, the young
objects are collected and all that is left is frozen; and each time that as many were closed, all is
thawed, so that a later full collection finds the garbage of theirs that forms cycles.
"""

import gc

STEP = 1000
"""Sockets opened, or closed, between two looks."""


class Collector:
    """See the module's text; one per worker."""

    def __init__(self) -> None:
        self._opened = 0
        self._closed = 0

    def tick(self, opened: int, closed: int) -> None:
        """Freeze or thaw if it is time.

        :param opened: sockets opened since the worker began.
        :param closed: those of them that are closed.
        """
        if closed - self._closed >= STEP:
            self._closed = closed
            gc.unfreeze()
        elif opened - self._opened >= STEP:
            self._opened = opened
            gc.collect(1)
            gc.freeze()
