"""A site for the master's live tests: the real master over a worker that is nearly nothing.

Run as ``python master_stub.py FOLDER OPTIONS-AS-JSON``.  The worker answers each connection with
one JSON line about itself and obeys TERM, INT, the liveness pipe and what it finds in FOLDER:

``broken``   exists: the boot fails with its text, as an application that cannot be imported
``hang``     exists: the boot hangs
``retire``   exists: asks for a replacement
``code``     its text is the "code" of this worker, read at boot
"""

import json
import os
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # systemd-socket-activate drops PYTHONPATH

from gpulse.config import Config
from gpulse.errors import ApplicationError, GpulseError
from gpulse.master.master import Master
from gpulse.scoreboard import Cell, WorkerState

FOLDER = Path(sys.argv[1])


def text_of(name):
    path = FOLDER / name
    return path.read_text() if path.exists() else ""


def work(handover):
    if text_of("broken"):
        raise ApplicationError(text_of("broken"))
    while text_of("hang"):
        time.sleep(0.01)
    code = text_of("code")
    told = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: told.append(number))
    board = handover.scoreboard.slot(handover.slot)
    board.set(Cell.STATE, WorkerState.READY)
    reopened = 0
    while True:
        board.set(Cell.TICK, time.monotonic())
        if text_of("retire") and handover.generation == 1 and handover.slot == 0:
            board.set(Cell.STATE, WorkerState.RETIRING)
        waiting = [handover.liveness_fd, *handover.listeners]
        readable, _, _ = select.select(waiting, [], [], 0.02)
        reopened += told.count(signal.SIGUSR1)
        if [number for number in told if number != signal.SIGUSR1]:
            return 0
        told.clear()
        if handover.liveness_fd in readable:
            # What a real worker does, too: whoever sees the master die removes its directory.
            shutil.rmtree(handover.runtime_dir or "/nonexistent", ignore_errors=True)
            return 0
        facts = {
            "pid": os.getpid(),
            "slot": handover.slot,
            "generation": handover.generation,
            "code": code,
            "reopened": reopened,
            "store_url": handover.store_url,
            "store_pid": handover.store_pid,
            "runtime_dir": handover.runtime_dir,
            "uid": os.getuid(),
            "home": os.environ.get("HOME"),
            "environ": [name for name in os.environ if name.startswith(("LISTEN", "NOTIFY"))],
            "fds": sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in open_fds()),
        }
        for listening in readable:
            with suppress(BlockingIOError):
                connection = listening.accept()[0]
                connection.sendall(json.dumps(facts).encode() + b"\n")
                connection.close()


def open_fds():
    return [
        int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")
    ]


def main():
    try:
        options = json.loads(sys.argv[2])
        return Master(Config.defaults(**options), work).run()
    except GpulseError as error:
        sys.stderr.write(f"gpulse: {error}\n")
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
