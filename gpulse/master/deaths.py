"""Who died of what: the log line for a reaped worker.  Pure."""

import logging
import signal

from gpulse.master.facts import Exited, Worker


def describe(worker: Worker, event: Exited, now: float) -> tuple[int, str]:
    """The level and text of the one line about this death.

    A worker that the master sent away or killed was named when that was decided, so its end is
    only worth a debug line.
    """
    if worker.aborted_at is not None or worker.killed:
        return logging.DEBUG, f"{worker.name} is reaped"
    if worker.asked:
        return logging.DEBUG, f"{worker.name} {_cause(event.code)}, as it was asked to stop"
    if worker.ready_at is None and event.report:
        return logging.ERROR, f"{worker.name} could not start: {event.report}"
    if worker.leaving_at is not None and event.code == 0:
        return logging.INFO, f"{worker.name} drained and exited"
    age = now - worker.spawned_at
    when = "before it was ready" if worker.ready_at is None else f"after {age:.1f} s"
    text = f"{worker.name} {_cause(event.code)} {when}"
    if event.code == -signal.SIGKILL:
        # Nobody but root and the kernel's OOM killer sends this; the latter is the usual surprise.
        text += "; not by the master: perhaps the kernel's OOM killer (see: journalctl -k)"
    elif event.report:
        text += f": {event.report}"
    elif event.code == 0:
        text += " without being asked; does the application call os._exit or sys.exit?"
    return logging.ERROR, text


def _cause(code: int) -> str:
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"was killed by signal {-code}"
