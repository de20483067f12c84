"""Notices that the master is gone, even when the hub is blocked.

A native thread waits in ``read`` on the liveness pipe: the master holds its only write end, so end
of file means that the master died, by whatever signal.  The thread costs nothing while it waits.
It ends the embedded store, asks the hub to drain, and ends the process itself if that takes too
long.
"""

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable
from typing import Any

from gpulse.handover import Handover

EXIT_STATUS = 1


def native(module: str, name: str) -> Any:
    """A function as it was before gevent's patching, if there was any."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(__import__(module), name)


def watch_master(handover: Handover, orphaned: Callable[[], None], patience: float) -> None:
    """Start the thread.

    :param orphaned: called on that thread when the master is gone; must be thread-safe.
    :param patience: seconds from then until the process is ended.
    """
    sleep = native("time", "sleep")

    def watch() -> None:
        while os.read(handover.liveness_fd, 1):
            pass
        # The kernel ends the store too where it can (PR_SET_PDEATHSIG); elsewhere this does.
        if handover.store_pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(handover.store_pid, signal.SIGKILL)
        # Before the worker hears of it, which may end at once.
        if handover.runtime_dir:
            shutil.rmtree(handover.runtime_dir, ignore_errors=True)
        orphaned()
        sleep(patience)
        os._exit(EXIT_STATUS)

    native("_thread", "start_new_thread")(watch, ())
